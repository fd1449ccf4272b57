"""A control plane and a worker become a cluster from git alone: every step on them is their agents' own."""

import json

import pytest

from kubenode.lab.kubernetes.cluster import OLD
from kubenode.lab.kubernetes.story import FIRST, ClusterStory
from tests.kubernetes.conftest import NAMES, Resume, no_lease_is_held

pytestmark = pytest.mark.kubernetes


def test_a_cluster_comes_up_from_git_alone_and_after_a_power_off(story: ClusterStory, resume: Resume) -> None:
    plane, worker = resume()
    story.settle([plane, worker], FIRST, 1800)
    for node in (plane, worker):
        story.wait_ready(node, OLD, by=plane)
    nodes = {it["metadata"]["name"]: it for it in story.objects(plane, "nodes")}
    assert tuple(sorted(nodes)) == NAMES
    reports = [json.loads(it["metadata"]["annotations"]["kubenode.dev/status"]) for it in nodes.values()]
    assert len({it["commit"] for it in reports}) == 1
    # Nobody's token is left in the cluster, and nobody holds a lease.
    secrets = [it["metadata"]["name"] for it in story.objects(plane, "secrets")]
    assert not [it for it in secrets if it.startswith("bootstrap-token-")]
    no_lease_is_held(story, plane)
