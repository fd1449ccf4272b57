"""A machine in memory: disk, boot loader, health gate, stores, network. It implements the ports of the agent.

Every method that changes something passes `World.step` before, between and after its partial effects; the step that is
chosen in `crash_at` kills the agent or cuts the power there. What the agent may never do is asserted where it would do
harm. The boot loader's rules are those of systemd-boot 257: entries without tries left come last, of the others the
newest version comes first, a counter is turned down before the entry is started.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kubenode.agent import health
from kubenode.agent.tick import Ports, TickResult, run_tick
from kubenode.errors import HostError, NoSpace, TryLater, Untrusted
from kubenode.model.decision import Reboot
from kubenode.model.documents import Role
from kubenode.model.journal import Journal
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.state import NodeStatus, Seed, TrustState
from kubenode.model.version import Version
from kubenode.ports import CheckResult, Progress
from kubenode.trust.bundle import VerifiedRelease
from kubenode.trust.chain import TrustedCommit, TrustedTree
from kubenode.trust.evidence import CommitEvidence
from kubenode.trust.reasons import Reason
from tests.sim.fleet import BEGIN, FLEET_ID, NODE, Fleet, root_hash

TORN = b"half written"
TRIES = 3


_SYSTEMD = ("gate", "blessed", "marked bad")
"""Steps of systemd, which survives errors of the agent's disk but no power cut."""


class Killed(BaseException):
    """The agent's process ends here."""


class PowerCut(BaseException):
    """The machine loses its power here."""


class TornJournal(PowerCut):
    """The machine loses its power here, and the journal comes back unreadable: it is set aside and begun anew."""


@dataclass
class Download:
    """The staging area's folder of one release."""

    evidence: tuple[bytes, bytes] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    complete: bool = False


@dataclass
class World:
    """One machine and what is around it."""

    fleet: Fleet
    head: str
    anchor: str
    verdicts: dict[str, str] = field(default_factory=dict)
    """What a release does in its trial: "good", "gate" (the health gate fails), "dead" (never reaches user space)."""
    stores: list[str] = field(default_factory=lambda: ["honest"])
    """Each "honest", "down", "liar" (flips bits), "short" (ends early, wrong bytes) or "old" (another manifest)."""
    online: bool = True
    capacity: int = 10**6
    kubernetes: Role | None = None
    now: datetime = BEGIN
    crash_at: frozenset[int] = frozenset()
    crash: BaseException = field(default_factory=PowerCut)
    move_at: int | None = None
    move_to: str = ""

    slots: dict[Slot, bytes] = field(default_factory=dict)
    uuids: dict[Slot, str | None] = field(default_factory=dict)
    esp: list[BootEntry] = field(default_factory=list)
    staged: StagedImage | None = None
    downloads: dict[str, Download] = field(default_factory=dict)
    git_head: str | None = None
    trust: TrustState | None = None
    journal: Journal = field(default_factory=Journal)
    statuses: list[NodeStatus] = field(default_factory=list)

    running: BootedSlot = field(init=False)
    boots: int = 0
    restarts: dict[str, int] = field(default_factory=dict)
    restart_wanted: bool = False
    refused: set[int] = field(default_factory=set)
    asked: int = 0
    trace: list[str] = field(default_factory=list)

    @classmethod
    def installed(cls, fleet: Fleet, version: str, *channel: str, **settings: object) -> "World":
        """A machine that was installed with a release and has run its first boot; its fleet wants `channel`."""
        anchor = fleet.commit(None, version)
        head = fleet.commit(anchor, *channel)
        world = cls(fleet, head, anchor, **settings)  # type: ignore[arg-type]
        world.slots = {Slot.A: content(fleet, version), Slot.B: b""}
        world.uuids = {Slot.A: root_hash(version), Slot.B: None}
        world.esp = [BootEntry(Version(version), root_hash(version))]
        world.boot()
        return world

    def step(self, name: str) -> None:
        """Pass a point at which the world may change or end."""
        assert len(self.esp) <= 2, "the ESP holds two UKIs"
        self.trace.append(name)
        if len(self.trace) == self.move_at:
            self.head = self.move_to
        if len(self.trace) in self.crash_at and (name not in _SYSTEMD or not isinstance(self.crash, HostError)):
            raise self.crash

    def trace_at(self, name: str) -> int:
        """Return the number of the first step whose name begins so, in an undisturbed run of a copy of this world."""
        double = replace(
            self, trace=[], downloads={}, esp=list(self.esp), slots=dict(self.slots), uuids=dict(self.uuids)
        )
        double.running = self.running
        double.tick()
        return next(number for number, step in enumerate(double.trace, 1) if step.startswith(name))

    # The boot loader and systemd.

    def boot(self) -> None:
        """Let the loader choose until a kernel comes up."""
        self.restart_wanted = False
        self.refused = set()
        for _ in range(20):
            self.boots += 1
            chosen = min(self.esp, key=_sort_key)
            if chosen.tries_left is not None:
                self.esp.remove(chosen)
                chosen = replace(chosen, tries_left=max(0, chosen.tries_left - 1), tries_done=chosen.tries_done + 1)
                self.esp.append(chosen)
            slot = next((slot for slot in Slot if self.uuids[slot] == chosen.root_hash), None)
            if slot is None or self.slots[slot] != content(self.fleet, str(chosen.version)):
                raise AssertionError(f"{chosen} was started with a slot that does not hold it")
            if self.verdicts.get(str(chosen.version)) == "dead" and chosen.tries_left is not None:
                continue
            trial = chosen.tries_left is not None
            self.running = BootedSlot(slot, chosen.version, chosen.root_hash, trial)
            return
        raise AssertionError(f"the machine never comes up: {self.esp}")

    def finish_boot(self) -> None:
        """Run the health gate of a trial boot, then bless the entry or mark it bad and restart."""
        while self.running.trial:
            verdict = self.verdicts.get(str(self.running.version), "good")
            results = health.gate(self.ports(), SimHealth(verdict == "good"))
            self.step("gate")
            own = next(entry for entry in self.esp if entry.root_hash == self.running.root_hash)
            self.esp.remove(own)
            if all(result.ok for result in results):
                self.esp.append(replace(own, tries_left=None, tries_done=0))
                self.running = replace(self.running, trial=False)
                self.step("blessed")
            else:
                self.esp.append(replace(own, tries_left=0))
                self.step("marked bad")
                self.boot()

    # Time.

    def ports(self) -> Ports:
        return Ports(
            clock=SimClock(self),
            state=SimState(self),
            machine=SimMachine(self),
            slots=SimSlots(self),
            staging=SimStaging(self),
            open_fleet=lambda seed: SimFleet(self),
            open_stores=lambda stores: SimStore(self),
        )

    def tick(self) -> TickResult | None:
        """Run one tick, and what follows from it: a crash, a restart, the gate. Return None after a crash."""
        result = None
        try:
            result = run_tick(self.ports())
            for action in result.done:
                if isinstance(action, Reboot):
                    digest = action.release.manifest
                    self.restarts[digest] = self.restarts.get(digest, 0) + 1
            if self.restart_wanted:
                self.boot()
            if self.running.trial:
                # The timer may be faster than the gate; then the agent keeps its hands still.
                before = (list(self.esp), dict(self.uuids), self.staged)
                during = run_tick(self.ports())
                assert (list(self.esp), dict(self.uuids), self.staged) == before and not during.done
            self.finish_boot()
        except (Killed, PowerCut) as crash:
            if isinstance(crash, TornJournal):
                self.journal = Journal()
            if isinstance(crash, PowerCut) or self.restart_wanted or self.running.trial:
                self.recover()
        self.now += timedelta(minutes=61)
        return result

    def recover(self) -> None:
        """Start again, however often the power fails meanwhile."""
        while True:
            try:
                self.boot()
                return self.finish_boot()
            except (Killed, PowerCut):
                continue


def _sort_key(entry: BootEntry) -> tuple[bool, tuple[int, ...], int, int]:
    left = TRIES + 1 if entry.tries_left is None else entry.tries_left
    return (entry.tries_left == 0, tuple(-number for number in entry.version.numbers), -left, entry.tries_done)


def content(fleet: Fleet, version: str) -> bytes:
    """What a slot holds when a release was written to it, whole."""
    return fleet.releases[version].files[f"node_{version}.root"]


@dataclass
class SimHealth:
    good: bool

    def checks(self) -> tuple[CheckResult, ...]:
        return (CheckResult("verdict", self.good, "as the test says"),)


@dataclass
class SimClock:
    world: World

    def now(self) -> datetime:
        return self.world.now


@dataclass
class SimState:
    world: World

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
    world: World

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
    world: World

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
    world: World

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
    world: World

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
        world.staged = None
        world.step("slots.activate moved")

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
    world: World

    def observe(self) -> Observed:
        world = self.world
        return Observed(
            boot_id=f"boot-{world.boots}",
            booted=world.running,
            entries=tuple(sorted(world.esp, key=_sort_key)),
            spare=world.uuids[world.running.slot.other],
            staged=world.staged,
            fetched=frozenset(digest for digest, it in world.downloads.items() if it.complete),
            partial=frozenset(digest for digest, it in world.downloads.items() if not it.complete),
            kubernetes=world.kubernetes,
        )

    def reboot(self) -> None:
        self.world.step("machine.reboot")
        self.world.restart_wanted = True
        self.world.step("machine.rebooting")
