"""Three control planes behind a load balancer: they join, the wiped bootstrap node joins again, all move a minor."""

import json
import os
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from kubenode.image.mkosi_tool import cache_folder
from kubenode.lab.kubernetes.balancer import port_of
from kubenode.lab.kubernetes.cluster import NEW, OLD
from kubenode.lab.kubernetes.network import members
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, THIRD, ClusterStory
from kubenode.lab.watch import Watch
from tests.kubernetes.conftest import say
from tests.kubernetes.moments import Moments, no_kubelet_was_newer

pytestmark = pytest.mark.kubernetes

NAMES = ("cp-1", "cp-2", "cp-3")
REJOINED = "rejoined"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStory]:
    kept = os.environ.get("KUBENODE_KUBERNETES_DIR")
    folder = Path(kept) / "three" if kept else tmp_path_factory.mktemp("three")
    story = ClusterStory(folder, cache_folder() / "kubernetes", say, members(control_planes=3))
    story.prepare(THIRD)
    with story.serving():
        yield story


class Quorum(Watch):
    """Asks the endpoint whether it is ready; one control plane away at a time must not be noticed for long."""

    def __init__(self, story: ClusterStory) -> None:
        super().__init__("the quorum", pause=3)
        self._url = f"https://127.0.0.1:{port_of(story.directory)}/readyz"
        self.answers = 0
        self.longest = 0.0
        """The longest time without an answer, in seconds."""
        self._last = time.monotonic()

    def once(self) -> None:
        context = ssl._create_unverified_context()
        with suppress(OSError, HTTPException), urllib.request.urlopen(self._url, context=context, timeout=20):
            self.answers += 1
            self.longest = max(self.longest, time.monotonic() - self._last)
            self._last = time.monotonic()


def etcd_members(node: ClusterNode) -> set[str]:
    """The members of etcd by name, as etcd on this node says (its HTTP gateway, by its own client certificate)."""
    script = """
import json, ssl, urllib.request
pki = "/etc/kubernetes/pki/"
context = ssl.create_default_context(cafile=pki + "etcd/ca.crt")
context.load_cert_chain(pki + "apiserver-etcd-client.crt", pki + "apiserver-etcd-client.key")
asked = urllib.request.Request("https://127.0.0.1:2379/v3/cluster/member/list", data=b"{}", method="POST")
print(*[it.get("name", "") for it in json.load(urllib.request.urlopen(asked, context=context, timeout=60))["members"]])
"""
    return set(node.probe.python(script, 120).split())


def cluster_id(story: ClusterStory, node: ClusterNode) -> str:
    """What tells one cluster from another: the uid of its namespace kube-system."""
    return str(json.loads(story.kubectl(node, "get", "namespace", "kube-system", "-o", "json"))["metadata"]["uid"])


def test_three_control_planes_come_up_and_the_lost_first_one_joins_again(three: ClusterStory) -> None:
    story = three
    image = story.with_images(NAMES[0])
    nodes = [story.copy(image, name, name) for name in NAMES]
    try:
        story.start(nodes)
        story.settle(nodes, FIRST, 7200)
        for node in nodes:
            story.wait_ready(node, OLD, by=nodes[0])
        assert etcd_members(nodes[0]) == set(NAMES)
        identity = cluster_id(story, nodes[0])

        # The bootstrap node is lost with its disk, and comes back empty.
        nodes[0].cut_power()
        nodes[0] = story.copy(image, NAMES[0], "wiped-cp-1")
        story.start([nodes[0]])
        # The others first, whose agents tick all the time while a machine is away: one of them publishes its token, for
        # which kubeadm would wait in vain as long as no other agent ticks.
        story.settle([*nodes[1:], nodes[0]], FIRST, 7200)
        for node in nodes:
            story.wait_ready(node, OLD, by=nodes[0])
            assert cluster_id(story, node) == identity, "no second cluster came to be"
        assert etcd_members(nodes[0]) == set(NAMES)
        story.keep(nodes, REJOINED)
    finally:
        for node in nodes:
            node.cut_power()


def test_three_control_planes_move_a_minor_without_losing_quorum(three: ClusterStory) -> None:
    story = three
    if not story.is_kept(REJOINED, *NAMES):
        pytest.skip("the three control planes have not come up before")
    nodes = story.resume(REJOINED, "minor", *NAMES)
    try:
        story.start(nodes)
        for node in nodes:
            story.wait_ready(node, OLD, by=nodes[2])
        identity = cluster_id(story, nodes[2])
        story.move(THIRD)
        with Moments(story, nodes[2]) as moments, Quorum(story) as quorum:
            story.settle(nodes, THIRD, 10800)
        for node in nodes:
            story.wait_ready(node, NEW, by=nodes[0])
            assert cluster_id(story, node) == identity
        no_kubelet_was_newer(moments.seen)
        assert quorum.answers > 20
        story.show(f"the longest time without a ready API server was {quorum.longest:.0f} s")
        assert quorum.longest < 240
        assert etcd_members(nodes[0]) == set(NAMES)
    finally:
        for node in nodes:
            node.cut_power()
