"""The power fails at the worst moments of an upgrade: the cluster gets there all the same."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from kubenode.errors import HostError
from kubenode.lab.kubernetes import workload
from kubenode.lab.kubernetes.cluster import OLD, PATCHED
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, SECOND, ClusterStory
from tests.kubernetes.conftest import Resume, cordoned, no_lease_is_held
from tests.kubernetes.moments import Moments, no_kubelet_was_newer

pytestmark = pytest.mark.kubernetes

UPGRADED = b"SUCCESS! Your cluster was upgraded"


def cut_when(node: ClusterNode, true: Callable[[], bool], what: str, timeout: float = 1800) -> None:
    """Let a node tick, again if a tick ended without it, and cut its power as soon as it is so."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise HostError(f"{what} was not seen within {timeout:.0f} s: {node.status()}")
        node.begin_tick()
        time.sleep(0.5)
    node.cut_power()


def test_power_cuts_after_the_control_plane_moved_and_during_a_drain(story: ClusterStory, resume: Resume) -> None:
    plane, worker = nodes = resume()
    for node in nodes:
        story.wait_ready(node, OLD, by=plane)
    story.wait_workload(plane)
    story.move(SECOND)

    def upgraded() -> bool:
        return UPGRADED in plane.probe.read("/var/lib/kubenode/kubeadm.log", timeout=300)

    def drains() -> bool:
        # An API server that is slow to answer says nothing about the node.
        with suppress(HostError, ValueError):
            return worker.name in cordoned(story, plane)
        return False

    with workload.Watcher(story.kubectl_of(plane)) as watcher, Moments(story, plane) as moments:
        cut_when(plane, upgraded, "the end of `kubeadm upgrade apply`")
        story.show("cp-1: the power was cut between `kubeadm upgrade apply` and the restart")
        story.start([plane])
        assert plane.release() == FIRST, "nothing was activated"
        story.settle([plane], SECOND, 7200)
        cut_when(worker, drains, "w-1 in its drain")
        story.show("w-1: the power was cut during its drain")
        story.start([worker])
        assert worker.release() == FIRST
        story.settle(nodes, SECOND, 7200)
        for node in nodes:
            story.wait_ready(node, PATCHED, by=plane)
    no_kubelet_was_newer(moments.seen)
    assert watcher.answers > 20
    assert not cordoned(story, plane)
    no_lease_is_held(story, plane)
