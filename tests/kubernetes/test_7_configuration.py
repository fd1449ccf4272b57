"""A commit changes kubeadm's documents and no version: the cluster follows without a restart of any machine."""

import pytest
from cryptography import x509

from kubenode.lab.kubernetes.cluster import OLD
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, ClusterStory
from tests.kubernetes.conftest import Resume, changed, serving_certificate

pytestmark = pytest.mark.kubernetes

NAME = "api.lab.example.net"


def certified_names(node: ClusterNode) -> list[str]:
    """The DNS names that the API server of a control plane shows."""
    shown = serving_certificate(node).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return shown.get_values_for_type(x509.DNSName)


def test_a_new_name_and_a_new_flag_reach_the_cluster(story: ClusterStory, resume: Resume) -> None:
    plane, worker = nodes = resume()
    for node in nodes:
        story.wait_ready(node, OLD, by=plane)
    story.settle(nodes, FIRST, 1800)
    boots = [node.probe.boot_id() for node in nodes]
    assert NAME not in certified_names(plane)

    more = f"extraArgs: {{event-ttl: 30m}}\n  certSANs: [{NAME}, "
    with changed(story, "kubeadm/cluster.yaml", "certSANs: [", more, "Another name, and events for half an hour"):
        story.settle(nodes, FIRST, 3600)
        assert NAME in certified_names(plane)
        (pod,) = [it for it in story.objects(plane, "pods") if it["metadata"]["name"] == f"kube-apiserver-{plane.name}"]
        assert "--event-ttl=30m" in pod["spec"]["containers"][0]["command"]
        for node in nodes:
            story.wait_ready(node, OLD, by=plane)
    assert [node.probe.boot_id() for node in nodes] == boots
    assert worker.release() == FIRST
