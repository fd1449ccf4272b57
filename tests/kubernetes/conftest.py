"""The lab's cluster: built once, everything expensive kept.

KUBENODE_KUBERNETES_DIR names a folder to keep between runs while working on a story; without it a temporary one is
used. The binaries are in the user's cache in any case (`kubenode lab kubernetes`).
"""

import os
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509

from kubenode.host import requirements
from kubenode.image.mkosi_tool import cache_folder
from kubenode.lab.kubernetes.cluster import OLD
from kubenode.lab.kubernetes.network import members
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import FIRST, RECIPES, ClusterStory

UP = "up"
NAMES = ("cp-1", "w-1")

Resume = Callable[..., list[ClusterNode]]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> ClusterStory:
    groups = requirements.LAPTOP + requirements.BUILDER + requirements.LAB + requirements.KUBERNETES
    needed = requirements.missing(groups)
    if needed:
        pytest.skip(f"missing: {' '.join(requirements.install_command(needed))}")
    kept = os.environ.get("KUBENODE_KUBERNETES_DIR")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("kubernetes")
    made = ClusterStory(folder, cache_folder() / "kubernetes", say, members(control_planes=1, workers=1))
    made.prepare(*RECIPES)
    return made


@pytest.fixture
def story(prepared: ClusterStory) -> Iterator[ClusterStory]:
    """The cluster's fleet, served to its machines, with nothing but the first release offered."""
    prepared.reset()
    with prepared.serving():
        yield prepared


@pytest.fixture
def resume(request: pytest.FixtureRequest, story: ClusterStory) -> Iterator[Resume]:
    """Start this story's own copies of the machines of a cluster at a stage; at the end they are switched off.

    The stage `UP`, all nodes Ready and the workload running, is made when it is not kept yet.
    """
    started: list[ClusterNode] = []

    def go(*names: str, stage: str = UP, clock: datetime | None = None) -> list[ClusterNode]:
        if not story.is_kept(UP, *NAMES):
            come_up(story)
        folder = request.node.name.removeprefix("test_").replace("_", "-")[:30]
        started.extend(story.resume(stage, folder, *(names or NAMES), clock=clock))
        story.start(started)
        return started

    yield go
    for node in started:
        node.cut_power()


def no_lease_is_held(story: ClusterStory, plane: ClusterNode) -> None:
    """Check that there are leases and that nobody has one."""
    leases = [it for it in story.objects(plane, "leases") if it["metadata"]["namespace"] == "kubenode-system"]
    assert leases and not any(it["spec"].get("holderIdentity") for it in leases)


def cordoned(story: ClusterStory, by: ClusterNode) -> set[str]:
    """The nodes that take no pods, as the API server of `by` says."""
    return {it["metadata"]["name"] for it in story.objects(by, "nodes") if it["spec"].get("unschedulable")}


def serving_certificate(node: ClusterNode) -> x509.Certificate:
    """What the API server of a control plane shows."""
    assert node.api_port is not None
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", node.api_port), timeout=60).encode())


@contextmanager
def changed(story: ClusterStory, path: str, old: str, new: str, why: str) -> Iterator[None]:
    """Replace text in a file of the fleet, in a signed commit; it is taken back at the end."""
    file = story.workshop.fleet / path
    text = file.read_text()
    assert text.replace(old, new) != text
    file.write_text(text.replace(old, new))
    story.workshop.commit(why)
    try:
        yield
    finally:
        file.write_text(text)
        story.workshop.commit(f"Not any more: {why}")


def come_up(story: ClusterStory) -> None:
    """Let a cluster come to be from git alone, give it its workload, and keep its machines."""
    nodes = [story.copy(story.with_images(name), name, name) for name in NAMES]
    plane = nodes[0]
    try:
        story.start(nodes)
        story.settle(nodes, FIRST, 3600)
        for node in nodes:
            story.wait_ready(node, OLD, by=plane)
            assert node.release() == FIRST
            assert node.root_is_read_only()
        story.start_workload(plane)
        story.keep(nodes, UP)
    finally:
        for node in nodes:
            node.cut_power()
