"""One tick: lock, follow the fleet, then observe, decide and do one thing until there is nothing to do now."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from kubenode.agent import report
from kubenode.agent.execute import Hands, execute
from kubenode.agent.follow import Followed, follow, stored
from kubenode.agent.memory import Memory
from kubenode.agent.postcondition import holds
from kubenode.errors import ExitCode, FleetInvalid, HostError, KubenodeError, StateLost, TryLater, Untrusted
from kubenode.fleet.desired import desired_state
from kubenode.fleet.load import load_fleet
from kubenode.model.decision import Act, Action, Decision, PoisonRelease, Reboot, Stuck, Wait
from kubenode.model.desired import DesiredState
from kubenode.model.journal import Journal
from kubenode.model.observed import Observed
from kubenode.model.state import NodeStatus, Seed
from kubenode.plan.decide import decide
from kubenode.ports import Clock, FleetSource, Machine, Progress, ReleaseStore, Slots, Staging, StateStore

MAX_ACTIONS = 32
"""Actions of one tick; a whole update needs about eight. More means that actions undo one another."""


def _silent(_what: str, _done: int, _size: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Ports:
    """What a tick works with. The fleet repo and the stores are opened when their addresses are known."""

    clock: Clock
    state: StateStore
    machine: Machine
    slots: Slots
    staging: Staging
    open_fleet: Callable[[Seed], FleetSource]
    open_stores: Callable[[tuple[str, ...]], ReleaseStore]
    progress: Progress = _silent


@dataclass(frozen=True)
class TickResult:
    """How a tick ended: the last decision, the report, what was done (in order), and the exit code of the command."""

    decision: Decision
    status: NodeStatus
    exit_code: ExitCode
    done: tuple[Action, ...] = ()


def run_tick(ports: Ports, *, offline: bool = False, dry_run: bool = False) -> TickResult:
    """Run one tick.

    `offline` does not ask for a newer head of the fleet repo. `dry_run` shows the decision for the commit that is
    trusted already: without network, lock, effect or trace. Raise TryLater when another tick runs, HostError when the
    seed cannot be read; everything else that goes wrong is in the result.
    """
    if dry_run:
        return _Tick(ports).run(offline=True, dry_run=True)
    with ports.state.lock():
        result = _Tick(ports).run(offline=offline, dry_run=False)
        ports.state.save_status(result.status)
        return result


@dataclass
class _Tick:
    """What is known so far; an error anywhere still makes a report of it."""

    ports: Ports
    memory: Memory | None = None
    followed: Followed | None = None
    desired: DesiredState | None = None
    observed: Observed | None = None
    done: list[Action] = field(default_factory=list)
    failure: KubenodeError | None = None

    def run(self, *, offline: bool, dry_run: bool) -> TickResult:
        seed = self.ports.state.seed()
        try:
            self.memory = Memory(self.ports.state, read_only=dry_run)
            self._follow(seed, self.memory, offline=offline, dry_run=dry_run)
            decision = self._reconcile(self.memory, dry_run=dry_run)
        except KubenodeError as error:
            self.failure = error
            decision = _decision_for(error)
        return self._result(seed, decision)

    def _follow(self, seed: Seed, memory: Memory, *, offline: bool, dry_run: bool) -> None:
        source = self.ports.open_fleet(seed)
        if dry_run:
            self.followed = stored(source, seed, memory.trust)
        else:
            self.followed = follow(source, seed, memory.trust, fetch=not offline)
            # Before its documents are read: trust moves on even when they turn out to be broken.
            memory.trust_commit(seed.fleet_id, self.followed.tree.oid)
        tree = self.followed.tree
        self.desired = desired_state(load_fleet(tree.files, node=seed.node), tree.oid, seed.node)

    def _reconcile(self, memory: Memory, *, dry_run: bool) -> Decision:
        desired = self._known(self.desired)
        stores = None if dry_run else self.ports.open_stores(desired.stores)
        for _ in range(MAX_ACTIONS):
            observed = self._observe(memory, desired)
            decision = decide(desired, observed, memory.journal, self.ports.clock.now())
            if not isinstance(decision, Act) or stores is None:
                return decision
            self._perform(decision, memory, stores)
            if isinstance(decision.action, Reboot) and self.failure is None:
                return Wait("Restarting", f"The machine restarts. {decision.why}")
        return Wait("Unfinished", f"{MAX_ACTIONS} actions were done and more are due; the next tick goes on.")

    def _observe(self, memory: Memory, desired: DesiredState) -> Observed:
        self.observed = observed = self.ports.machine.observe()
        running = next((r.manifest for r in desired.releases if r.root_hash == observed.booted.root_hash), None)
        memory.settle(observed, running)
        return observed

    def _perform(self, decision: Act, memory: Memory, stores: ReleaseStore) -> None:
        """Do the action and see whether it worked. What fails is counted, and the planner then knows."""
        action, desired = decision.action, self._known(self.desired)
        self.failure = None
        memory.begin(action, self.ports.clock.now())
        try:
            if isinstance(action, PoisonRelease):
                memory.poison(action, decision.why)
            tree = self._known(self.followed).tree
            ports = self.ports
            execute(
                action, Hands(ports.machine, ports.slots, ports.staging, stores, tree, desired.channel, ports.progress)
            )
            if not isinstance(action, Reboot):
                self._check(action, memory)
        except KubenodeError as error:
            self.failure = error
            memory.fail(action, self.ports.clock.now(), error)
            return
        self.done.append(action)
        if not isinstance(action, Reboot):
            # A restart is a success only when the release that it is for has been blessed: `Memory.settle`.
            memory.succeed(action)

    def _check(self, action: Action, memory: Memory) -> None:
        self.observed = self.ports.machine.observe()
        if not holds(action, self.observed, memory.journal):
            raise HostError(
                f"{type(action).__name__} returned without an error, but the machine does not show its result",
                hint="Something else changes this machine, or its disk does not keep what is written.",
            )

    def _result(self, seed: Seed, decision: Decision) -> TickResult:
        memory, followed = self.memory, self.followed
        journal = memory.journal if memory is not None else Journal()
        message, hint = report.sentence(decision)
        refusal = followed.refusal if followed is not None else None
        trusted = followed.condition if followed is not None else _untrusted(self.failure)
        status = NodeStatus(
            node=seed.node,
            at=self.ports.clock.now(),
            commit=followed.tree.oid if followed is not None else None,
            phase=report.phase(decision, self.desired, self.observed),
            message=message,
            hint=hint or (refusal.hint if refusal is not None else ""),
            observed=self.observed,
            target=str(self.desired.target.version) if self.desired is not None and self.desired.releases else None,
            conditions=report.conditions(decision, self.desired, self.observed, journal, trusted),
            poisoned=journal.poisoned,
        )
        return TickResult(decision, status, self._exit_code(decision, refusal), tuple(self.done))
