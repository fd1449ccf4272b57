"""A real control plane in a virtual machine: kubeadm init on the read-only image, then a minor further."""

from typing import Any

import pytest

from kubenode.lab.kubernetes.cluster import NEW, OLD
from kubenode.lab.kubernetes.fleet import COMPONENTS
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, SECOND, ClusterStory

pytestmark = pytest.mark.kubernetes

SETS = "/var/lib/kubenode/kubelet"


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


def kubelet_version(story: ClusterStory, node: ClusterNode) -> str:
    (item,) = story.objects(node, "nodes")
    return str(item["status"]["nodeInfo"]["kubeletVersion"])


def test_one_control_plane_moves_a_minor(story: ClusterStory) -> None:
    node = story.copy(story.with_images("cp-1"), "cp-1", "upgrade")
    with story.workshop.serving():
        try:
            node.start(600)
            assert node.release() == FIRST
            assert node.root_is_read_only()

            story.init(node)
            before = images(story, node)
            assert {before[it] for it in COMPONENTS if it != "etcd"} == {OLD}

            story.stage(node)
            boot = node.probe.boot_id()
            said = story.upgrade(node)
            assert f"the staged kubeadm is {NEW}" in said
            after = images(story, node)
            assert {after[it] for it in COMPONENTS if it != "etcd"} == {NEW}
            assert after["etcd"] == before["etcd"]
            # Pass one is over: a new control plane under the old kubelet, in the same boot.
            assert node.probe.boot_id() == boot
            assert kubelet_version(story, node) == OLD
            assert node.release() == FIRST
            # The staged release has a set of its own, the running kubelet has its own back.
            sets = node.probe.python(f"import os; print(*sorted(os.listdir('{SETS}')))").split()
            assert sets == [FIRST, SECOND]
            live = node.probe.read("/var/lib/kubelet/config.yaml")
            assert live == node.probe.read(f"{SETS}/{FIRST}/config.yaml")
            assert not node.probe.python("import glob; print(*glob.glob('/etc/kubernetes/tmp/kubeadm-*'))").strip()

            story.switch(node)
            assert node.release() == SECOND
            assert kubelet_version(story, node) == NEW
            assert set(images(story, node)) == set(COMPONENTS)
            assert node.root_is_read_only()
        finally:
            node.stop()
