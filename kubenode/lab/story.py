"""The demo: one node goes from release to release by commits alone, and survives a bad one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubenode.lab.failed import LabFailed
from kubenode.lab.node import LabNode, Status
from kubenode.lab.workshop import Show, Workshop, write_tree

NODE = "lab-1"
CHANNELS = ("nightly", "beta", "stable")
FIRST, SECOND, UNHEALTHY, BROKEN_AGENT = "2026.11.1", "2026.11.2", "2026.11.3", "2026.11.4"


@dataclass(frozen=True)
class Check:
    """One thing the story saw with its own eyes: what, whether it held, and the evidence."""

    name: str
    ok: bool
    seen: str


class Story:
    """Runs the demo step by step and keeps what it saw."""

    def __init__(self, directory: Path, show: Show) -> None:
        self.started = time.monotonic()
        self.workshop = Workshop(directory, self._stamp(show))
        self.show = self.workshop.show
        self.checks: list[Check] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self.started

    def _stamp(self, show: Show) -> Show:
        return lambda line: show(f"[{self.elapsed:4.0f} s] {line}")

    def run(self) -> None:
        """Tell the whole story. Raises KubenodeError when a step cannot be done at all; failed checks are kept."""
        self.prepare()
        with self.workshop.serving():
            node = self.node()
            try:
                self.first_boot(node)
                self.update(node)
                self.fall_back(node)
            finally:
                node.stop()

    def prepare(self) -> None:
        """Make the fleet, then build, sign and publish two good releases and one that is not healthy."""
        self.workshop.create()
        add_lab_documents(self.workshop)
        for version, image in ((FIRST, "node"), (SECOND, "node"), (UNHEALTHY, "unhealthy")):
            self.workshop.build(version, image)
            self.workshop.publish(version)
        self.workshop.promote(FIRST, *CHANNELS)

    def node(self, name: str = NODE, *, manual: bool = False) -> LabNode:
        """Return a machine, not started, with the first release on its disk and the anchor in its seed.

        Machines of any name are the same node of the fleet: the lab runs one at a time.
        """
        disk = self.workshop.out / FIRST / f"kubenode_{FIRST}.disk.raw"
        seed = self.workshop.seed(NODE, self.workshop.anchor)
        return LabNode(name, disk, self.workshop.directory / "vm" / name, seed, manual=manual)

    def first_boot(self, node: LabNode) -> None:
        """Boot the first release and see that it settles."""
        self.show(f"booting {node.name} with {FIRST}")
        node.machine.start()
        self.show(f"QEMU runs with {ACCELERATORS[node.machine.accelerator]}")
        node.probe.wait(300)
        status = node.wait_status(phase_is("Up to date"), 420, self.follow)
        self.check("first boot settles on the signed release", node.release() == FIRST, describe(status))
        self.check("the root file system refuses writes", node.root_is_read_only(), "Read-only file system")

    def update(self, node: LabNode) -> None:
        """Move the channel in a signed commit and watch the node follow."""
        before = node.probe.boot_id()
        commit = self.workshop.promote(SECOND, *CHANNELS)
        self.show(f"committed {commit[:12]}: {CHANNELS[-1]} is now {SECOND}; nobody touches the node")
        status = node.wait_status(settled_on(SECOND), 600, self.follow)
        after = node.probe.boot_id()
        self.check("the node wrote the other slot, rebooted and was blessed", before != after, describe(status))
        self.check("the running release is the second one", node.release() == SECOND, node.release())
        entries = node.entries()
        self.check("the first release stays as fallback", any(FIRST in it for it in entries), ", ".join(entries))

    def fall_back(self, node: LabNode) -> None:
        """Offer a release whose health gate fails and see the node come back by itself."""
        commit = self.workshop.promote(UNHEALTHY, *CHANNELS)
        self.show(f"committed {commit[:12]}: {CHANNELS[-1]} is now {UNHEALTHY}, which will not be healthy")
        status = node.wait_status(poisoned(UNHEALTHY), 900, self.follow)
        self.check("the unhealthy release was tried and left", node.release() == SECOND, describe(status))
        stalled = next(it for it in status["conditions"] if it["type"] == "Stalled")
        self.check("the status says why", stalled["status"] == "True", stalled["message"])

    def follow(self, status: Status) -> None:
        """Show a change of the node's report."""
        self.show(f"  {status.get('node')} | {status.get('phase')}: {status.get('message')}")

    def check(self, name: str, ok: bool, seen: str) -> None:
        """Keep what was seen and show it."""
        self.checks.append(Check(name, ok, seen))
        self.show(f"{'ok  ' if ok else 'FAIL'} {name}: {seen}")


ACCELERATORS = {"kvm": "KVM", "tcg": "software emulation (no working KVM here): everything is slower"}


def phase_is(phase: str) -> Callable[[Status], bool]:
    """Return a test for a report with this phase."""
    return lambda status: status.get("phase") == phase


def settled_on(version: str) -> Callable[[Status], bool]:
    """Return a test for a report that is up to date on this version."""
    return lambda status: (
        status.get("phase") == "Up to date" and (status.get("observed") or {})["booted"]["version"] == version
    )


def poisoned(version: str) -> Callable[[Status], bool]:
    """Return a test for a report that is stuck because this version failed its trial."""
    return lambda status: (
        status.get("phase") == "Stuck" and any(it["version"] == version for it in status.get("poisoned", ()))
    )


def describe(status: Status) -> str:
    """Return slot and release of a report in a few words."""
    booted = (status.get("observed") or {}).get("booted") or {}
    return f"slot {str(booted.get('slot', '?')).upper()}, release {booted.get('version', '?')}"


def add_lab_documents(workshop: Workshop) -> None:
    """Add the lab's node and two recipes that go wrong on purpose, in one signed commit."""
    recipe = (workshop.fleet / "images" / "node.yaml").read_text()
    files = [(f"nodes/{NODE}.yaml", NODE_DOCUMENT)]
    for name, (path, text) in BAD_RECIPES.items():
        files.append((f"images/{name}.yaml", bad_recipe(recipe, name)))
        files.append((f"overlays/{name}/{path}", text))
    write_tree(workshop.fleet, files)
    workshop.git("add", "--all")
    workshop.git("commit", "--quiet", "--message", "Add the lab's node and two recipes that go wrong on purpose")
    workshop.push()


def bad_recipe(recipe: str, name: str) -> str:
    """Return the recipe under another name and with an overlay; the image itself keeps the name kubenode."""
    if "name: node" not in recipe or "\nspec:\n" not in recipe:
        raise LabFailed("images/node.yaml is not as the lab expects it")
    renamed = recipe.replace("name: node", f"name: {name}", 1)
    return renamed.replace("\nspec:\n", f"\nspec:\n  overlay: overlays/{name}\n", 1)


NODE_DOCUMENT = f"""apiVersion: kubenode.dev/v1alpha1
kind: Node
metadata: {{name: {NODE}}}
spec:
  pool: standalone
"""
BAD_RECIPES = {
    # containerd cannot start: the local health gate must see it.
    "unhealthy": (
        "usr/lib/systemd/system/containerd.service.d/unhealthy.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/false\n",
    ),
    # The agent cannot even be imported: only systemd is left to notice.
    "broken-agent": ("usr/lib/kubenode/kubenode/errors.py", "raise RuntimeError('a release with a broken agent')\n"),
}
