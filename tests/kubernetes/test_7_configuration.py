"""A commit changes kubeadm's documents and no version: the cluster follows without a restart of any machine."""

import ssl

import pytest
from cryptography import x509

from kubenode.lab.kubernetes.cluster import OLD
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, ClusterStory
from tests.kubernetes.conftest import Resume

pytestmark = pytest.mark.kubernetes

NAME = "api.lab.example.net"


def certified_names(node: ClusterNode) -> list[str]:
    """The DNS names that the API server of a control plane shows."""
    assert node.api_port is not None
    pem = ssl.get_server_certificate(("127.0.0.1", node.api_port), timeout=60)
    shown = x509.load_pem_x509_certificate(pem.encode()).extensions
    return shown.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


def test_a_new_name_and_a_new_flag_reach_the_cluster(story: ClusterStory, resume: Resume) -> None:
    plane, worker = nodes = resume()
    for node in nodes:
        story.wait_ready(node, OLD, by=plane)
    story.settle(nodes, FIRST, 1800)
    boots = [node.probe.boot_id() for node in nodes]
    assert NAME not in certified_names(plane)

    document = story.workshop.fleet / "kubeadm/cluster.yaml"
    text = document.read_text()
    changed = text.replace("certSANs: [", f"extraArgs: {{event-ttl: 30m}}\n  certSANs: [{NAME}, ")
    assert changed != text
    document.write_text(changed)
    story.workshop.commit("The API server has another name and keeps events for half an hour")
    try:
        story.settle(nodes, FIRST, 3600)
        assert NAME in certified_names(plane)
        (pod,) = [it for it in story.objects(plane, "pods") if it["metadata"]["name"] == f"kube-apiserver-{plane.name}"]
        assert "--event-ttl=30m" in pod["spec"]["containers"][0]["command"]
        for node in nodes:
            story.wait_ready(node, OLD, by=plane)
    finally:
        document.write_text(text)
        story.workshop.commit("The API server as before")
    assert [node.probe.boot_id() for node in nodes] == boots
    assert worker.release() == FIRST
