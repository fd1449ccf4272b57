"""A real control plane in a virtual machine: its agent founds the cluster and moves it a minor, from git alone."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from kubenode.errors import HostError
from kubenode.lab.kubernetes.cluster import NEW, OLD
from kubenode.lab.kubernetes.fleet import COMPONENTS
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, SECOND, ClusterStory
from kubenode.lab.watch import Watch
from kubenode.model.kubernetes import KubernetesVersion

pytestmark = pytest.mark.kubernetes

CP = "cp-1"
SETS = "/var/lib/kubenode/kubelet"


@dataclass(frozen=True)
class Moment:
    """What the API server said of itself and of the node's kubelet at one instant."""

    apiserver: str
    kubelet: str
    boot: str


class Moments(Watch):
    """Asks the API again and again while something happens; it may be away for a while."""

    def __init__(self, story: ClusterStory, node: ClusterNode) -> None:
        super().__init__("the upgrade", pause=5)
        self._story, self._node = story, node
        self.seen: list[Moment] = []

    def once(self) -> None:
        with suppress(HostError, ValueError, KeyError):
            apiserver = json.loads(self._story.kubectl(self._node, "get", "--raw", "/version"))["gitVersion"]
            (item,) = self._story.objects(self._node, "nodes")
            info = item["status"]["nodeInfo"]
            self.seen.append(Moment(apiserver, info["kubeletVersion"], info["bootID"]))


def order_was_kept(moments: list[Moment]) -> None:
    """Check two passes: the API server first, under the old kubelet in the old boot; no kubelet was ever newer."""
    assert all(KubernetesVersion(it.kubelet) <= KubernetesVersion(it.apiserver) for it in moments), moments
    seen = list(dict.fromkeys((it.apiserver, it.kubelet) for it in moments))
    assert seen == [(OLD, OLD), (NEW, OLD), (NEW, NEW)], seen
    boots = {(it.apiserver, it.kubelet): it.boot for it in moments}
    assert boots[NEW, OLD] == boots[OLD, OLD] != boots[NEW, NEW]


def images(story: ClusterStory, node: ClusterNode) -> dict[str, str]:
    """The images of the running static pods, as the kubelet reports them."""
    pods: list[dict[str, Any]] = story.objects(node, "pods")
    found = {}
    for pod in pods:
        name = pod["metadata"]["name"].removesuffix(f"-{node.name}")
        if name in COMPONENTS:
            (status,) = pod["status"]["containerStatuses"]
            assert "running" in status["state"], status
            found[name] = status["image"].rpartition(":")[2]
    return found


def test_one_control_plane_comes_up_and_moves_a_minor_from_git_alone(story: ClusterStory) -> None:
    node = story.copy(story.with_images(CP), CP, "upgrade")
    with story.workshop.serving():
        try:
            node.start(600)
            assert node.release() == FIRST
            assert node.root_is_read_only()

            # The agent founds the cluster: nobody touches the machine.
            story.settle([node], FIRST, 3600)
            story.wait_ready(node, OLD)
            before = images(story, node)
            assert {before[it] for it in COMPONENTS if it != "etcd"} == {OLD}

            story.move(SECOND)
            with Moments(story, node) as moments:
                story.settle([node], SECOND, 7200)
            story.wait_ready(node, NEW)
            after = images(story, node)
            assert {after[it] for it in COMPONENTS if it != "etcd"} == {NEW}
            assert after["etcd"] == before["etcd"]
            assert node.release() == SECOND
            assert node.root_is_read_only()
            order_was_kept(moments.seen)
            # Each release has a kubelet set of its own, and the copies of etcd that kubeadm makes are gone.
            sets = node.probe.python(f"import os; print(*sorted(os.listdir('{SETS}')))").split()
            assert sets == [FIRST, SECOND]
            assert not node.probe.python("import glob; print(*glob.glob('/etc/kubernetes/tmp/kubeadm-*'))").strip()
        finally:
            node.stop()
