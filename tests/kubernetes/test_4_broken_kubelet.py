"""A release whose kubelet does not start is offered to the workers: the first falls back, the others never try it."""

import pytest

from kubenode.lab.kubernetes.cluster import OLD, PATCHED
from kubenode.lab.kubernetes.network import members
from kubenode.lab.kubernetes.story import BROKEN, FIRST, SECOND, ClusterStory
from kubenode.lab.story import poisoned
from tests.kubernetes.conftest import Resume

pytestmark = pytest.mark.kubernetes


def test_a_worker_falls_back_the_wave_closes_and_a_good_release_heals(story: ClusterStory, resume: Resume) -> None:
    plane, first = resume()
    second = story.copy(story.with_images("w-1"), story.declare(members(1, 2)[2]), "broken-kubelet-w-2")
    try:
        story.start([second])
        story.settle([plane, first, second], FIRST, 3600)
        for node in (plane, first, second):
            story.wait_ready(node, OLD, by=plane)
        boots = {node.name: node.probe.boot_id() for node in (plane, second)}

        story.move(BROKEN, "beta")
        for _ in range(20):
            status = first.tick_through(3600)
            story.show(f"  {first.name} | {status.get('phase')}: {status.get('message')}")
            if poisoned(BROKEN)(status):
                break
        assert poisoned(BROKEN)(status), status
        assert first.release() == FIRST
        stalled = next(it for it in status["conditions"] if it["type"] == "Stalled")
        assert stalled["status"] == "True" and BROKEN in stalled["message"], stalled

        # The wave is closed: the next worker says why it does not begin, and the control plane has nothing to do.
        for _ in range(6):
            status = second.tick_through(3600)
            if status.get("phase") == "Stuck":
                break
        assert (status.get("phase"), status.get("reason")) == ("Stuck", "RolloutClosed"), status
        assert first.name in str(status.get("message"))
        assert plane.tick_through(3600).get("phase") == "Up to date"
        assert {node.name: node.probe.boot_id() for node in (plane, second)} == boots
        for node in (plane, first, second):
            story.wait_ready(node, OLD, by=plane)
        assert not any(it["spec"].get("unschedulable") for it in story.objects(plane, "nodes"))

        story.move(SECOND)
        story.settle([plane, first, second], SECOND, 7200)
        for node in (plane, first, second):
            story.wait_ready(node, PATCHED, by=plane)
    finally:
        second.cut_power()
