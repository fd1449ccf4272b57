"""The ports of the agent, on a simulated machine: every partial effect passes `World.step`.

What the agent may never do is asserted where it would do harm.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from kubenode.errors import HostError, NoSpace, TryLater, Untrusted
from kubenode.model.journal import Journal
from kubenode.model.observed import BootEntry, Observed, Slot, StagedImage
from kubenode.model.state import NodeStatus, Seed, TrustState
from kubenode.model.version import Version
from kubenode.ports import CheckResult, Progress
from kubenode.trust.bundle import VerifiedRelease
from kubenode.trust.chain import TrustedCommit, TrustedTree
from kubenode.trust.evidence import CommitEvidence
from kubenode.trust.reasons import Reason
from tests.sim.facts import member
from tests.sim.fleet import FLEET_ID, NODE

if TYPE_CHECKING:
    from tests.sim.machine import World

TORN = b"half written"
TRIES = 3


def loader_order(entry: BootEntry) -> tuple[bool, tuple[int, ...], int, int]:
    """Sort entries as systemd-boot does."""
    left = TRIES + 1 if entry.tries_left is None else entry.tries_left
    return (entry.tries_left == 0, tuple(-number for number in entry.version.numbers), -left, entry.tries_done)


@dataclass
class Download:
    """The staging area's folder of one release."""

    evidence: tuple[bytes, bytes] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    complete: bool = False


@dataclass
class SimHealth:
    good: bool

    def checks(self) -> tuple[CheckResult, ...]:
        return (CheckResult("verdict", self.good, "as the test says"),)


@dataclass
class SimClock:
    world: "World"

    def now(self) -> datetime:
        return self.world.now


@dataclass
class SimState:
    world: "World"

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def seed(self) -> Seed:
        return Seed("https://git.example.net/fleet", FLEET_ID, self.world.anchor, NODE)

    def load_trust(self) -> TrustState | None:
        return self.world.trust

    def save_trust(self, state: TrustState) -> None:
        self.world.step("state.trust")
        assert (
            state.poisoned[: len(self.world.trust.poisoned)] == self.world.trust.poisoned if self.world.trust else True
        )
        self.world.trust = state
        self.world.step("state.trust kept")

    def load_journal(self) -> Journal:
        return self.world.journal

    def save_journal(self, journal: Journal) -> None:
        self.world.step("state.journal")
        self.world.journal = replace(journal, poisoned=())
        self.world.step("state.journal kept")

    def save_status(self, status: NodeStatus) -> None:
        self.world.statuses.append(status)


@dataclass
class SimFleet:
    world: "World"

    def fetch(self) -> str:
        world = self.world
        if not world.online:
            raise TryLater("the fleet repo does not answer")
        world.step("fleet.fetch")
        world.git_head = world.head
        world.step("fleet.fetched")
        return world.head

    def stored_head(self) -> str | None:
        return self.world.git_head

    def anchor(self, commit: str) -> CommitEvidence:
        return replace(self.world.fleet.evidence[commit], changed=())

    def chain(self, trusted: str, head: str) -> Iterator[CommitEvidence]:
        return self.world.fleet.chain(trusted, head)

    def tree(self, commit: TrustedCommit) -> TrustedTree:
        return self.world.fleet.tree(commit)


@dataclass
class SimStore:
    world: "World"

    def manifest(self, version: Version) -> tuple[bytes, bytes]:
        kind = self._ask()
        release = self.world.fleet.releases["1.0" if kind == "old" else str(version)]
        return release.manifest, release.bundle

    def artifact(self, version: Version, name: str, offset: int) -> Iterator[bytes]:
        kind = self._ask()
        data = self.world.fleet.releases[str(version)].files[name][offset:]
        if kind in ("liar", "short"):
            data = bytes(byte ^ 1 for byte in data)
        if kind == "short":
            data = data[: len(data) // 2]
        return (data[at : at + 16] for at in range(0, len(data), 16))

    def refuse(self, version: Version) -> bool:
        self.world.refused.add(self.world.asked)
        if len(self.world.refused) < len(self.world.stores):
            return True
        self.world.refused = set()
        return False

    def _ask(self) -> str:
        self.world.step("store")
        for number, kind in enumerate(self.world.stores):
            if kind != "down" and number not in self.world.refused and self.world.online:
                self.world.asked = number
                return kind
        raise TryLater("no store answers")


@dataclass
class SimStaging:
    world: "World"

    def _used(self) -> int:
        return sum(len(data) for it in self.world.downloads.values() for data in it.files.values())

    def put_evidence(self, digest: str, manifest: bytes, bundle: bytes) -> None:
        self.world.step("staging.evidence")
        self.world.downloads.setdefault(digest, Download()).evidence = (manifest, bundle)
        self.world.step("staging.evidence kept")

    def evidence(self, digest: str) -> tuple[bytes, bytes]:
        found = self.world.downloads.get(digest, Download()).evidence
        if found is None:
            raise HostError("there is no such download")
        return found

    def require_space(self, digest: str, size: int) -> None:
        have = sum(map(len, self.world.downloads.get(digest, Download()).files.values()))
        if size - have > self.world.capacity - self._used():
            raise NoSpace("the disk is full")

    def partial(self, digest: str, name: str) -> Iterator[bytes]:
        data = self.world.downloads.get(digest, Download()).files.get(name, b"")
        return iter([data] if data else [])

    def append(self, digest: str, name: str, chunks: Iterator[bytes]) -> None:
        files = self.world.downloads[digest].files
        for chunk in chunks:
            if self._used() + len(chunk) > self.world.capacity:
                raise NoSpace("the disk is full")
            files[name] = files.get(name, b"") + chunk
            self.world.step(f"staging.append {name}")

    def discard(self, digest: str, name: str) -> None:
        self.world.step("staging.discard")
        self.world.downloads[digest].files.pop(name, None)

    def complete(self, digest: str) -> None:
        self.world.step("staging.complete")
        self.world.downloads[digest].complete = True
        self.world.step("staging.completed")

    def prune(self, digests: frozenset[str]) -> None:
        for digest in sorted(digests):
            self.world.step("staging.prune")
            self.world.downloads.pop(digest, None)
        self.world.step("staging.pruned")


@dataclass
class SimSlots:
    world: "World"

    def write(self, release: VerifiedRelease, slot: Slot, progress: Progress) -> None:
        world, manifest = self.world, release.manifest
        files = world.downloads[release.manifest_sha256].files
        for artifact in (manifest.root, manifest.verity, manifest.uki):
            if hashlib.sha256(files[artifact.name]).hexdigest() != artifact.sha256:
                raise Untrusted(Reason.ARTIFACT_DIGEST, f"{artifact.name} differs", subject=artifact.name)
        assert slot is not world.running.slot, "the running slot was to be written"
        assert all(entry.root_hash == world.running.root_hash for entry in world.esp), "the ESP names this slot"
        world.step("slots.write")
        world.uuids[slot], world.slots[slot] = None, TORN
        world.step("slots.write torn")
        world.slots[slot] = files[manifest.root.name]
        world.step("slots.write data")
        world.uuids[slot] = manifest.root_hash
        world.step("slots.write ids")
        world.staged = StagedImage(manifest.version, manifest.root_hash)
        world.step("slots.write staged")

    def activate(self, release: VerifiedRelease, supersede: BootEntry | None) -> None:
        world, manifest = self.world, release.manifest
        if world.staged is None or world.staged.root_hash != manifest.root_hash:
            raise HostError("no UKI of this release is staged")
        assert manifest.root_hash in world.uuids.values()
        world.step("slots.activate")
        if supersede is not None:
            world.esp = [
                replace(entry, tries_left=0, tries_done=0) if entry.root_hash == supersede.root_hash else entry
                for entry in world.esp
            ]
            world.step("slots.activate superseded")
        world.esp.append(BootEntry(manifest.version, manifest.root_hash, TRIES))
        world.step("slots.activate added")
        if not world.staged_stays:
            world.staged = None
        world.step("slots.activate done")

    def retire(self, entry: BootEntry) -> None:
        world = self.world
        assert entry.root_hash != world.running.root_hash, "the running entry was to be removed"
        world.step("slots.retire")
        world.esp = [it for it in world.esp if it.root_hash != entry.root_hash]
        world.step("slots.retired")

    def restore(self, entry: BootEntry) -> None:
        world = self.world
        assert entry.root_hash == world.running.root_hash and not world.running.trial
        world.step("slots.restore")
        world.esp = [
            replace(it, tries_left=None, tries_done=0) if it.root_hash == entry.root_hash else it for it in world.esp
        ]
        world.step("slots.restored")

    def prune_staged(self) -> None:
        self.world.step("slots.prune")
        self.world.staged = None
        self.world.step("slots.pruned")


@dataclass
class SimMachine:
    world: "World"

    def observe(self) -> Observed:
        world = self.world
        return Observed(
            boot_id=f"boot-{world.boots}",
            booted=world.running,
            entries=tuple(sorted(world.esp, key=loader_order)),
            spare=world.uuids[world.running.slot.other],
            staged=world.staged,
            fetched=frozenset(digest for digest, it in world.downloads.items() if it.complete),
            partial=frozenset(digest for digest, it in world.downloads.items() if not it.complete),
            kubernetes=member(world.kubernetes),
        )

    def reboot(self) -> None:
        self.world.step("machine.reboot")
        self.world.restart_wanted = True
        self.world.step("machine.rebooting")
