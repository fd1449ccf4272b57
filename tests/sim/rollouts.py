"""Many machines and one cluster, driven by `plan.decide` itself: fast enough for a thousand nodes.

Slots and boot loader are as simple as they can be (`tests.sim.machine` has the real ones); the cluster is
`tests.sim.cluster`. A schedule is reproducible by its seed. Steps can be killed, and machines can lose their power.
"""

import random
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kubenode.agent.execute_cluster import execute_in_cluster
from kubenode.agent.memory import Memory
from kubenode.agent.postcondition import holds
from kubenode.errors import HostError, KubenodeError
from kubenode.model.decision import (
    Act,
    Action,
    ActivateSlot,
    Converged,
    Cordon,
    Decision,
    Drain,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    Stuck,
    Wait,
    WriteSlot,
)
from kubenode.model.desired import DesiredCluster, DesiredState, Peer
from kubenode.model.documents import Release, Role, Rollout, Window
from kubenode.model.journal import Journal
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.state import NodeStatus, Seed, TrustState
from kubenode.model.version import Version
from kubenode.plan.decide import decide
from tests.sim.cluster import Cluster, ClusterPort, Host, KubeadmPort, _version
from tests.sim.ports import loader_order

PLANES, WORKERS = "planes", "workers"
NEVER = datetime(2100, 1, 1, tzinfo=Cluster().now.tzinfo)


class Killed(BaseException):
    """The agent's process ends here."""


class PowerCut(BaseException):
    """The machine loses its power here."""


def release(version: str, kubernetes: str | None, floor: str | None = None) -> Release:
    return Release(
        Version(version), f"manifest-{version}", f"root-{version}", kubernetes, Version(floor) if floor else None
    )


@dataclass
class Store:
    """The state folder of one machine."""

    trust: TrustState | None = field(default_factory=lambda: TrustState("fleet", "c0ffee"))
    journal: Journal = field(default_factory=Journal)

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def seed(self) -> Seed:
        raise AssertionError

    def load_trust(self) -> TrustState | None:
        return self.trust

    def save_trust(self, state: TrustState) -> None:
        self.trust = state

    def load_journal(self) -> Journal:
        return self.journal

    def save_journal(self, journal: Journal) -> None:
        self.journal = replace(journal, poisoned=())

    def save_status(self, status: NodeStatus) -> None: ...


@dataclass
class Machine:
    """One machine: its disk, its boot loader, and its agent's memory."""

    fleet: "Fleet"
    name: str
    pool: str
    host: Host
    booted: Release
    slot: Slot = Slot.A
    trial: bool = False
    spare: Release | None = None
    staged: bool = False
    entries: list[BootEntry] = field(default_factory=list)
    fetched: set[str] = field(default_factory=set)
    store: Store = field(default_factory=Store)
    boots: int = 0
    last: Decision | None = None
    reasons: list[str] = field(default_factory=list)
    acted: int = 0

    @property
    def ports(self) -> tuple[ClusterPort, KubeadmPort]:
        cluster = self.fleet.cluster
        return ClusterPort(cluster, self.name), KubeadmPort(
            cluster, self.name, lambda: self.spare.root_hash if self.spare else None
        )

    def observe(self) -> Observed:
        port = self.ports[0]
        staged = StagedImage(self.spare.version, self.spare.root_hash) if self.staged and self.spare else None
        return Observed(
            boot_id=self.host.boot_id,
            booted=BootedSlot(self.slot, self.booted.version, self.booted.root_hash, self.trial),
            entries=tuple(self.entries),
            spare=self.spare.root_hash if self.spare else None,
            staged=staged,
            fetched=frozenset(self.fetched),
            kubernetes=self.host.local() if self.booted.kubernetes else None,
            cluster=port.view(),
            answers=port.answers() if self.host.joined is None else (),
        )

    # The agent.

    def tick(self) -> None:
        """Run one tick, until there is nothing to do now."""
        if not self.host.up:
            self.boot()
            return
        memory = Memory(self.store, read_only=False)
        for _ in range(40):
            see = self.observe()
            memory.settle(see, self.booted.manifest)
            want = self.fleet.desired(self.name)
            decision = decide(want, see, memory.journal, self.fleet.now)
            self.last = decision
            if not isinstance(decision, Act):
                if not self.reasons or self.reasons[-1] != _code(decision):
                    self.reasons.append(_code(decision))
                self.fleet.check_wait(self, decision)
                return
            self.acted += 1
            if not self._perform(decision, memory) or isinstance(decision.action, Reboot):
                return
        raise AssertionError(f"{self.name} never comes to rest: {decision}")

    def _perform(self, decision: Act, memory: Memory) -> bool:
        action = decision.action
        self.fleet.acting = self.name
        memory.begin(action, self.fleet.now)
        try:
            if isinstance(action, PoisonRelease):
                memory.poison(action, decision.why)
            self._do(action)
            if not isinstance(action, Reboot):
                if not holds(action, self.observe(), memory.journal):
                    raise HostError(f"{action} shows no result")
                memory.succeed(action)
        except KubenodeError as error:
            memory.fail(action, self.fleet.now, error)
            return True
        return True

    def _do(self, action: Action) -> None:
        self.fleet.log.append((self.name, action))
        step = self.host.step
        match action:
            case FetchRelease(wanted):
                step("fetch")
                self.fetched.add(wanted.manifest)
            case WriteSlot(wanted):
                assert wanted.manifest in self.fetched, "what is written was downloaded and verified"
                step("write")
                self.spare, self.staged = None, False
                step("write torn")
                self.spare, self.staged = wanted, True
                step("written")
            case ActivateSlot(wanted, supersede):
                self._may_leave(wanted)
                step("activate")
                if supersede is not None:
                    self.entries = [
                        replace(it, tries_left=0, tries_done=0) if it.root_hash == supersede.root_hash else it
                        for it in self.entries
                    ]
                self.entries.append(BootEntry(wanted.version, wanted.root_hash, 3))
                step("activated")
            case RetireEntry(entry):
                step("retire")
                self.entries = [it for it in self.entries if it.root_hash != entry.root_hash]
                step("retired")
            case RestoreEntry(entry):
                self.entries = [
                    replace(it, tries_left=None, tries_done=0) if it.root_hash == entry.root_hash else it
                    for it in self.entries
                ]
            case PruneStaging(downloads, staged):
                self.fetched -= downloads
                if staged:
                    self.staged = False
            case Reboot(wanted):
                self._may_leave(wanted)
                step("reboot")
                self.down()
            case PoisonRelease():
                step("poison")
            case Cordon(node) if node == self.name:
                self._in_turn()
                execute_in_cluster(action, *self.ports)
            case Drain(_, force=True):
                assert self.fleet.rollouts[self.pool].drain_force, "a budget is not overruled unless git says so"
                execute_in_cluster(action, *self.ports)
            case _:
                execute_in_cluster(action, *self.ports)

    def _may_leave(self, wanted: Release) -> None:
        """Assert what must be true before a member may start another release, by our hand or by a power cut."""
        cluster, fleet = self.fleet.cluster, self.fleet
        if self.host.joined is None:
            return
        node = cluster.objects[self.name]
        assert node.cordoned and not cluster.pods_on(self.name), f"{self.name} is not drained"
        assert not fleet.halted, "halted"
        pool = [cluster.objects.get(it.name) for it in fleet.machines.values() if it.pool == self.pool]
        failed = [it for it in pool if it and it.report and wanted.root_hash in it.report.poisoned]
        assert len(failed) <= fleet.rollouts[self.pool].max_failures, (
            f"{wanted.version} is closed: {len(failed)} failed"
        )
        self._in_turn()

    def _in_turn(self) -> None:
        """Assert that this member may be away now."""
        cluster, fleet = self.fleet.cluster, self.fleet
        assert any(lease.holder == self.name for lease in cluster.leases.values()), f"{self.name} has no lease"
        group = [it for it in fleet.machines.values() if it.pool == self.pool and it.name in cluster.objects]
        away = {it.name for it in group if not cluster.objects[it.name].ready or cluster.objects[it.name].cordoned}
        limit = fleet.limit(self.pool)
        assert len(away | {self.name}) <= limit, f"{sorted(away)} are away, {limit} may be"

    # Power.

    def down(self) -> None:
        """Lose the running kernel; the next tick boots."""
        self.host.up = self.host.registered = False
        self.fleet.cluster.settle(self.name)
        self.fleet.cluster.changed()

    def boot(self) -> None:
        """Boot, decide a trial by the verdict of the release, and come up."""
        self.boots += 1
        chosen = min(self.entries, key=loader_order)
        if chosen.tries_left is not None:
            self.entries.remove(chosen)
            chosen = replace(chosen, tries_left=max(0, chosen.tries_left - 1), tries_done=chosen.tries_done + 1)
            self.entries.append(chosen)
        found = self.spare if self.spare is not None and self.spare.root_hash == chosen.root_hash else self.booted
        assert found.root_hash == chosen.root_hash, "an entry whose slot does not hold it was started"
        assert self.fleet.known[found.root_hash] == found, "a release that git never named was started"
        if found is not self.booted:
            self.slot, self.spare, self.booted = self.slot.other, self.booted, found
            self.staged = False
        host = self.host
        host.root_hash = found.root_hash
        if found.kubernetes is not None:
            host.kubelet = _version(found)
            self.fleet.cluster.starts(host)
        host.configuration = host.kubelet_sets.get(found.root_hash, host.configuration)
        host.boot_id = f"boot-{self.boots}"
        trial = chosen.tries_left is not None
        if trial and not self.fleet.good(self.name, found):
            self.entries.remove(chosen)
            self.entries.append(replace(chosen, tries_left=0))
            return self.boot()
        if trial:
            self.entries.remove(chosen)
            self.entries.append(replace(chosen, tries_left=None, tries_done=0))
        host.up = True
        self.fleet.cluster.settle(self.name)
        self.fleet.cluster.changed()
        return None


def _code(decision: Decision) -> str:
    return decision.reason if isinstance(decision, Wait | Stuck) else type(decision).__name__


@dataclass
class Fleet:
    """Git, the machines and time."""

    releases: tuple[Release, ...]
    """The channel, newest first."""
    cluster: Cluster = field(default_factory=Cluster)
    machines: dict[str, Machine] = field(default_factory=dict)
    rollouts: dict[str, Rollout] = field(default_factory=lambda: {PLANES: Rollout(), WORKERS: Rollout()})
    windows: tuple[Window, ...] = ()
    halted: bool = False
    init_before: datetime = NEVER
    bad: set[tuple[str, str]] = field(default_factory=set)
    """(node, version) that fails its health gate; "*" is every node."""
    removed: set[str] = field(default_factory=set)
    trace: list[str] = field(default_factory=list)
    crash_at: frozenset[int] = frozenset()
    crash: type[BaseException] = Killed
    chaos: random.Random | None = None
    """Decides at every step whether something fails there; None for nothing."""
    chance: float = 0.0
    injected: Counter[str] = field(default_factory=Counter)
    known: dict[str, Release] = field(default_factory=dict)
    """By root hash: what was in the channel at any time."""
    acting: str = ""
    log: list[tuple[str, Action]] = field(default_factory=list)
    rounds: int = 0

    @property
    def now(self) -> datetime:
        return self.cluster.now

    @classmethod
    def create(
        cls, planes: int, workers: int, releases: Iterable[Release], start: Release, **settings: object
    ) -> "Fleet":
        """Machines with a release, not in a cluster yet; run it once to let them found one."""
        fleet = cls(tuple(releases), **settings)  # type: ignore[arg-type]
        for number in range(1, planes + 1):
            fleet.add(f"cp-{number}", PLANES, Role.CONTROL_PLANE, start)
        for number in range(1, workers + 1):
            fleet.add(f"worker-{number:04}", WORKERS, Role.WORKER, start)
        fleet.cluster.allowed_away = fleet.limit
        return fleet

    def add(self, name: str, pool: str, role: Role, start: Release) -> Machine:
        host = Host(name, role, _version(start), start.root_hash, step=self.step)
        machine = Machine(self, name, pool, host, start, entries=[BootEntry(start.version, start.root_hash)])
        self.cluster.hosts[name] = host
        self.machines[name] = machine
        self.cluster.declared |= {name}
        return machine

    def good(self, name: str, found: Release) -> bool:
        return not {(name, str(found.version)), ("*", str(found.version))} & self.bad

    def limit(self, pool: str) -> int:
        if pool == PLANES:
            return 1
        there = sum(it.pool == pool and it.name in self.cluster.objects for it in self.machines.values())
        amount = self.rollouts[pool].max_unavailable
        return max(1, there * int(amount[:-1]) // 100) if amount.endswith("%") else int(amount)

    def step(self, name: str) -> None:
        self.trace.append(f"{self.acting} {name}")
        if len(self.trace) in self.crash_at:
            raise self._failure(self.crash)
        if self.chaos is not None and self.chaos.random() < self.chance:
            raise self._failure(self.chaos.choice((Killed, PowerCut, HostError)))

    def _failure(self, kind: type[BaseException]) -> BaseException:
        self.injected[kind.__name__] += 1
        return kind() if kind is not HostError else HostError("input/output error")

    _desired: tuple[object, DesiredCluster] | None = None

    def desired(self, name: str) -> DesiredState:
        key = (
            self.releases,
            len(self.machines),
            frozenset(self.removed),
            self.cluster.wanted_configuration,
            tuple(self.rollouts.items()),
            self.init_before,
        )
        if self._desired is None or self._desired[0] != key:
            self._desired = (key, self._cluster())
            self.known.update((it.root_hash, it) for it in self.releases)
        machine = self.machines[name]
        return DesiredState(
            fleet_id="fleet",
            commit="c0ffee" * 6 + "abcd",
            node=name,
            pool=machine.pool,
            role=machine.host.role,
            channel="stable",
            releases=self.releases,
            stores=(),
            windows=self.windows,
            halted=self.halted,
            cluster=self._desired[1],
        )

    def _cluster(self) -> DesiredCluster:
        self.cluster.declared = frozenset(set(self.machines) - self.removed)
        self.cluster.changed()
        return DesiredCluster(
            endpoint="k8s.example.net:6443",
            bootstrap_node="cp-1",
            init_before=self.init_before,
            configuration=self.cluster.wanted_configuration,
            peers=tuple(
                Peer(it.name, it.host.role, it.pool, self.releases[0])
                for it in sorted(self.machines.values(), key=lambda it: it.name)
                if it.name not in self.removed
            ),
            order=(PLANES, WORKERS),
            rollouts=self.rollouts,
        )

    # Time.

    def round(self, dice: random.Random | None = None, asked: float = 1.0) -> bool:
        """Let every machine run a tick; say whether anything was done.

        `asked`: the share of the machines that wait which have their next tick already.
        """
        self.rounds += 1
        before = sum(it.acted + it.boots for it in self.machines.values())
        names = [name for name in self.machines if name not in self.removed]
        if dice is not None:
            dice.shuffle(names)
        for name in names:
            machine = self.machines[name]
            if dice is not None and isinstance(machine.last, Wait | Converged) and dice.random() >= asked:
                continue
            try:
                machine.tick()
            except Killed:
                pass
            except PowerCut:
                if not all(self.cluster.healthy(member) for member in self.cluster.members):
                    # Another control plane restarts just now: two are away, and nobody is to blame until one is back.
                    self.cluster.excused = True
                machine.down()
            self.cluster.settle(name)
        self.cluster.settle()
        self.cluster.starting.clear()
        acted = sum(it.acted + it.boots for it in self.machines.values()) != before
        self.cluster.now += timedelta(minutes=2)
        if not acted:
            later = [it.last.until for it in self.machines.values() if isinstance(it.last, Wait) and it.last.until]
            self.cluster.now = max(self.now, min(later, default=self.now))
        return acted

    def run(self, rounds: int = 400, dice: random.Random | None = None, asked: float = 1.0) -> None:
        """Run until nothing moves any more, and time would not change that."""
        idle = 0
        for _ in range(rounds):
            idle = 0 if self.round(dice, 1.0 if idle else asked) else idle + 1
            waits = [it.last for it in self.machines.values() if it.name not in self.removed]
            if idle >= 3 and not any(isinstance(it, Wait) and it.until is not None for it in waits):
                return
        raise AssertionError(f"no end after {rounds} rounds: {self.summary()}")

    def check_wait(self, machine: Machine, decision: Decision) -> None:
        """Assert that a node that waits for others holds nothing."""
        if isinstance(decision, Wait) and decision.reason in _MAY_HOLD:
            return
        if self.cluster.view(machine.name) is None or machine.host.cut_off:
            return
        if isinstance(decision, Stuck) and len(set(machine.host.manifests.values())) > 1:
            return
        mine = [lease.name for lease in self.cluster.leases.values() if lease.holder == machine.name]
        node = self.cluster.objects.get(machine.name)
        assert not mine, f"{machine.name} holds {mine} and waits: {decision}"
        assert node is None or not node.cordoned_by_us, f"{machine.name} is cordoned and waits: {decision}"

    def summary(self) -> dict[str, str]:
        return {
            it.name: f"{it.booted.version} {_code(it.last) if it.last else '-'}: {getattr(it.last, 'message', '')}"
            for it in self.machines.values()
        }


_MAY_HOLD = frozenset(
    ("TrialBoot", "ClusterNotHealthy", "NodeNotReady", "Draining", "ApiUnreachable", "Backoff", "EtcdUnhealthy")
)


def converged(fleet: Fleet) -> bool:
    return all(isinstance(it.last, Converged) for it in fleet.machines.values() if it.name not in fleet.removed)
