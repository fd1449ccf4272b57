"""A cluster with a workload moves a patch and then a minor, from git alone; what the API server said is watched."""

from typing import Any

import pytest

from kubenode.lab.kubernetes import workload
from kubenode.lab.kubernetes.cluster import NEW, OLD, PATCHED
from kubenode.lab.kubernetes.fleet import STATIC_PODS
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, SECOND, THIRD, ClusterStory
from kubenode.model.kubernetes import COMPONENTS
from tests.kubernetes.conftest import NAMES, Resume, cordoned
from tests.kubernetes.moments import Moments, order_was_kept

pytestmark = pytest.mark.kubernetes

PATCH_STAGE = "patched"
SETS = "/var/lib/kubenode/kubelet"


def images(story: ClusterStory, node: ClusterNode) -> dict[str, str]:
    """The images of the running static pods, as the kubelet reports them."""
    pods: list[dict[str, Any]] = story.objects(node, "pods")
    found = {}
    for pod in pods:
        name = pod["metadata"]["name"].removesuffix(f"-{node.name}")
        if name in STATIC_PODS:
            (status,) = pod["status"]["containerStatuses"]
            assert "running" in status["state"], status
            found[name] = status["image"].rpartition(":")[2]
    return found


def move(story: ClusterStory, nodes: list[ClusterNode], release: str, versions: tuple[str, str], kept: str) -> None:
    """Move a cluster between two versions and check everything that was seen; `kept` is the release before."""
    plane, before, after = nodes[0], *versions
    for node in nodes:
        story.wait_ready(node, before, by=plane)
    story.wait_workload(plane)
    etcd = images(story, plane)["etcd"]
    story.move(release)
    with workload.Watcher(story.kubectl_of(plane)) as watcher, Moments(story, plane) as moments:
        story.settle(nodes, release, 7200)
        for node in nodes:
            story.wait_ready(node, after, by=plane)
    order_was_kept(moments.seen, before, after)
    assert watcher.answers > 20
    assert watcher.minimum is not None and watcher.minimum >= workload.MIN_AVAILABLE, watcher.history
    found = images(story, plane)
    assert {found[it] for it in COMPONENTS} == {after}
    assert found["etcd"] == etcd
    for node in nodes:
        assert node.release() == release
        assert node.root_is_read_only()
        # Each release has a kubelet set of its own, and the copies of etcd that kubeadm makes are gone.
        sets = node.probe.python(f"import os; print(*sorted(os.listdir('{SETS}')))").split()
        assert sets == [kept, release]
        assert not node.probe.python("import glob; print(*glob.glob('/etc/kubernetes/tmp/kubeadm-*'))").strip()
    assert not cordoned(story, plane)
    story.wait_workload(plane)


def test_a_cluster_moves_a_patch(story: ClusterStory, resume: Resume) -> None:
    nodes = resume()
    move(story, nodes, SECOND, (OLD, PATCHED), FIRST)
    story.keep(nodes, PATCH_STAGE)


def test_then_it_moves_a_minor(story: ClusterStory, resume: Resume) -> None:
    if not story.is_kept(PATCH_STAGE, *NAMES):
        pytest.skip("the cluster has not moved the patch before it")
    story.move(SECOND)
    move(story, resume(stage=PATCH_STAGE), THIRD, (PATCHED, NEW), SECOND)
