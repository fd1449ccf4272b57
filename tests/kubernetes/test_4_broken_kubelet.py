"""A release whose kubelet does not start is offered to the workers: the first falls back, the others never try it."""

import time
from collections.abc import Callable, Mapping

import pytest

from kubenode.lab.kubernetes.cluster import OLD
from kubenode.lab.kubernetes.network import members
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import BROKEN, FIRST, HEALED, ClusterStory
from kubenode.lab.node import Status
from kubenode.lab.story import poisoned
from tests.kubernetes.conftest import Resume, cordoned, no_lease_is_held

pytestmark = pytest.mark.kubernetes


def tick_until(story: ClusterStory, node: ClusterNode, wanted: Callable[[Status], bool], timeout: float) -> Status:
    """Tick until a report is as wanted, by a node that sees its cluster: else nothing has been told there yet."""
    deadline = time.monotonic() + timeout
    while True:
        status = node.tick_through(timeout)
        story.show(f"  {node.name} | {status.get('phase')}: {status.get('message')}")
        if wanted(status) and (status.get("observed") or {}).get("cluster") is not None:
            return status
        assert time.monotonic() < deadline, status


def stalled(status: Status) -> Mapping[str, str]:
    """Return the condition that says why a node is stuck."""
    (found,) = [it for it in status["conditions"] if it["type"] == "Stalled"]
    assert found["status"] == "True", found
    return found


def test_a_worker_falls_back_the_wave_closes_and_a_good_release_heals(story: ClusterStory, resume: Resume) -> None:
    plane, first = resume()
    second = story.copy(story.with_images("w-1"), story.declare(members(1, 2)[2]), "broken-kubelet-w-2")
    try:
        # The control plane publishes the token of the new one in its first tick that sees the API.
        for node in (plane, first):
            story.wait_ready(node, OLD, by=plane)
        story.start([second])
        story.settle([plane, first, second], FIRST, 3600)
        for node in (plane, first, second):
            story.wait_ready(node, OLD, by=plane)
        boots = {node.name: node.probe.boot_id() for node in (plane, second)}

        story.move(BROKEN, "beta")
        status = tick_until(story, first, poisoned(BROKEN), 5400)
        assert first.release() == FIRST
        assert BROKEN in stalled(status)["message"]

        # The wave is closed: the next worker says why it does not begin, and the control plane has nothing to do.
        status = tick_until(story, second, lambda it: it.get("phase") == "Stuck", 3600)
        assert stalled(status)["reason"] == "RolloutClosed"
        assert first.name in str(status.get("message"))
        assert plane.tick_through(3600).get("phase") == "Up to date"
        assert {node.name: node.probe.boot_id() for node in (plane, second)} == boots
        for node in (plane, first, second):
            story.wait_ready(node, OLD, by=plane)
        assert not cordoned(story, plane)

        story.move(HEALED, "beta")
        story.settle([first, second], HEALED, 7200)
        for node in (plane, first, second):
            story.wait_ready(node, OLD, by=plane)
        assert plane.probe.boot_id() == boots[plane.name]
        assert not cordoned(story, plane)
        no_lease_is_held(story, plane)
    finally:
        second.cut_power()
