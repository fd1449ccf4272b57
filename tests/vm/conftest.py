"""One workshop and one demo for all virtual machine stories: images are built once.

KUBENODE_VM_DIR names a folder to keep between runs while working on a story; without it a temporary one is used.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubenode.host import requirements
from kubenode.lab.node import LabNode
from kubenode.lab.story import BROKEN_AGENT, CHANNELS, FIRST, Story
from kubenode.lab.workshop import Workshop


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed = requirements.missing(requirements.LAPTOP + requirements.BUILDER + requirements.LAB)
    if needed:
        if os.environ.get("CI") != "true":
            pytest.skip(f"missing: {' '.join(requirements.install_command(needed))}")
        requirements.install(needed)
    kept = os.environ.get("KUBENODE_VM_DIR")
    return Path(kept) if kept else tmp_path_factory.mktemp("vm")


@pytest.fixture(scope="session")
def story(folder: Path) -> Story:
    """The demo's workshop, after the demo has run in it (tests/vm/test_1_demo.py comes first)."""
    return Story(folder / "demo", say)


@pytest.fixture(scope="session")
def workshop(story: Story) -> Workshop:
    if not (story.workshop.out / FIRST).exists():
        pytest.fail("the demo made no releases")
    if not (story.workshop.out / BROKEN_AGENT).exists():
        story.workshop.build(BROKEN_AGENT, "broken-agent")
        story.workshop.publish(BROKEN_AGENT)
    return story.workshop


@pytest.fixture(scope="session")
def settled(story: Story, workshop: Workshop) -> Path:
    """The folder of a machine that runs the first release, blessed, switched off; stories start from copies of it."""
    node = story.node("settled", manual=True)
    if not (node.machine.config.work / "done").exists():
        workshop.set_channels((FIRST,), CHANNELS)
        with workshop.serving():
            node.start()
            node.wait_blessed()
            status = node.tick()
            assert status["phase"] == "Up to date", status
            node.stop()
        (node.machine.config.work / "done").touch()
    return node.machine.config.work


@pytest.fixture
def node(request: pytest.FixtureRequest, story: Story, settled: Path) -> Iterator[LabNode]:
    """A machine of this story's own, switched off; its agent ticks when told to."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    node = story.node(name, manual=True)
    shutil.rmtree(node.machine.config.work, ignore_errors=True)
    node.machine.config.work.mkdir(parents=True)
    for file in ("disk.qcow2", "vars.fd"):
        shutil.copy(settled / file, node.machine.config.work / file)
    yield node
    node.cut_power()
