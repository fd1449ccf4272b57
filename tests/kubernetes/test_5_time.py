"""Eleven months go by, machines are lost and come back empty: the cluster goes on, and stays the only one."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from kubenode.lab.kubernetes.cluster import OLD
from kubenode.lab.kubernetes.story import FIRST, ClusterStory
from tests.kubernetes.conftest import NAMES, UP, Resume, changed, serving_certificate

pytestmark = pytest.mark.kubernetes

ELEVEN_MONTHS = timedelta(days=335)


def test_certificates_are_renewed_after_eleven_months(story: ClusterStory, resume: Resume) -> None:
    later = datetime.now(UTC) + ELEVEN_MONTHS
    plane, worker = nodes = resume(clock=later)
    for node in nodes:
        story.wait_ready(node, OLD, by=plane)
    before = serving_certificate(plane)
    assert before.not_valid_after_utc < later + timedelta(days=60)
    boots = [node.probe.boot_id() for node in nodes]
    story.settle(nodes, FIRST, 3600)
    after = serving_certificate(plane)
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc > later + timedelta(days=300)
    for node in nodes:
        story.wait_ready(node, OLD, by=plane)
    assert [node.probe.boot_id() for node in nodes] == boots
    assert worker.release() == FIRST


def test_a_wiped_worker_joins_again(story: ClusterStory, resume: Resume) -> None:
    (plane,) = resume(NAMES[0])
    # A machine is up before its API server is.
    story.wait_ready(plane, OLD)
    worker = story.copy(story.with_images(NAMES[1]), NAMES[1], "wiped-w-1")
    old = {it["metadata"]["name"]: it["status"]["nodeInfo"]["bootID"] for it in story.objects(plane, "nodes")}
    try:
        story.start([worker])
        story.settle([plane, worker], FIRST, 3600)
        story.wait_ready(worker, OLD, by=plane)
        new = {it["metadata"]["name"]: it["status"]["nodeInfo"]["bootID"] for it in story.objects(plane, "nodes")}
        assert new.keys() == old.keys()
        assert new[worker.name] == worker.probe.boot_id() != old[worker.name]
    finally:
        worker.cut_power()


def test_a_lost_cluster_is_not_founded_again(story: ClusterStory) -> None:
    """The only control plane is wiped after `initBefore`: it must not make an empty cluster under the same CA."""
    passed = f'initBefore: "{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"'
    with changed(story, "fleet.yaml", 'initBefore: "2040-01-01T00:00:00Z"', passed, "The cluster is there"):
        plane = story.copy(story.with_images(NAMES[0]), NAMES[0], "lost-cp-1")
        try:
            story.start([plane])
            status = plane.tick_through(1800)
            assert status.get("phase") in ("Waiting", "Stuck"), status
            assert not plane.probe.python("import glob; print(*glob.glob('/etc/kubernetes/*.conf'))").strip()
            assert not plane.probe.python("import glob; print(*glob.glob('/etc/kubernetes/manifests/*'))").strip()
        finally:
            plane.cut_power()
            shutil.rmtree(story.directory / "vm/lost-cp-1", ignore_errors=True)
    assert story.is_kept(UP, *NAMES)
