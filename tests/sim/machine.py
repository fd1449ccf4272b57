"""A machine in memory: disk, boot loader, health gate, stores, network. `tests.sim.ports` are the agent's hands on it.

Every method that changes something passes `World.step` before, between and after its partial effects; at the steps in
`crash_at` the agent is killed, the power is cut or an error is raised. The boot loader's rules are those of
systemd-boot 257: entries without tries left come last, of the others the newest version comes first, a counter is
turned down before the entry is started.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kubenode.agent import health
from kubenode.agent.tick import Ports, TickResult, run_tick
from kubenode.errors import HostError
from kubenode.model.decision import Reboot
from kubenode.model.desired import DesiredState
from kubenode.model.documents import FleetDocuments, Role
from kubenode.model.journal import Journal
from kubenode.model.observed import BootedSlot, BootEntry, Slot, StagedImage
from kubenode.model.state import NodeStatus, TrustState
from kubenode.model.version import Version
from kubenode.ports import Cluster, Kubeadm
from kubenode.trust.chain import TrustedTree
from tests.sim.fleet import BEGIN, Fleet, root_hash
from tests.sim.ports import (
    Download,
    SimClock,
    SimFleet,
    SimHealth,
    SimMachine,
    SimSlots,
    SimStaging,
    SimState,
    SimStore,
    loader_order,
)

_SYSTEMD = ("gate", "blessed", "marked bad")
"""Steps of systemd, which survives errors of the agent's disk but no power cut."""


class Killed(BaseException):
    """The agent's process ends here."""


class PowerCut(BaseException):
    """The machine loses its power here."""


class TornJournal(PowerCut):
    """The machine loses its power here, and the journal comes back unreadable: it is set aside and begun anew."""


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
    staged_stays: bool = True
    """Whether the staged UKI is copied (as `kubenode.host` does it) or moved into the ESP: both are allowed."""
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
    accepted: set[str] = field(default_factory=set)
    git_stamp: bytes | None = None
    offered: bytes | None = None
    """The head.json that the fleet source serves."""
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
            chosen = min(self.esp, key=loader_order)
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
            open_kubernetes=_no_cluster,
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


def _no_cluster(desired: DesiredState, documents: FleetDocuments, tree: TrustedTree) -> tuple[Cluster, Kubeadm]:
    raise AssertionError("a standalone machine asks no cluster")


def content(fleet: Fleet, version: str) -> bytes:
    """What a slot holds when a release was written to it, whole."""
    return fleet.releases[version].files[f"node_{version}.root"]
