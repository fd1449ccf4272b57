"""One tick: lock, follow the fleet, then observe, decide and do one thing until there is nothing to do now."""

from collections.abc import Callable
from contextlib import suppress
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
from kubenode.model.documents import FleetDocuments
from kubenode.model.journal import Journal
from kubenode.model.observed import Observed
from kubenode.model.state import Condition, NodeStatus, Seed
from kubenode.plan.decide import decide
from kubenode.ports import (
    Clock,
    Cluster,
    FleetSource,
    Kubeadm,
    Machine,
    Progress,
    ReleaseStore,
    Slots,
    Staging,
    StateStore,
)
from kubenode.trust.chain import TrustedTree

MAX_ACTIONS = 40
"""Actions of one tick; a whole update needs about twenty. More means that actions undo one another."""


def _silent(_what: str, _done: int, _size: int) -> None:
    """Show no progress."""


def _unheard(_decision: Act) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Ports:
    """What a tick works with. Fleet repo, stores and cluster are opened when their addresses are known."""

    clock: Clock
    state: StateStore
    machine: Machine
    slots: Slots
    staging: Staging
    open_fleet: Callable[[Seed], FleetSource]
    open_stores: Callable[[tuple[str, ...]], ReleaseStore]
    open_kubernetes: Callable[[DesiredState, FleetDocuments, TrustedTree], tuple[Cluster, Kubeadm]]
    """Called for nodes of a cluster only; changes nothing."""
    progress: Progress = _silent
    announce: Callable[[Act], None] = _unheard
    """Told of every action before it begins."""


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
    cluster: Cluster | None = None
    kubeadm: Kubeadm | None = None
    done: list[Action] = field(default_factory=list)
    refused: bool = False
    """Whether evidence of a release was refused."""

    def run(self, *, offline: bool, dry_run: bool) -> TickResult:
        seed = self.ports.state.seed()
        try:
            self.memory = memory = Memory(self.ports.state, read_only=dry_run)
            source = self.ports.open_fleet(seed)
            now = self.ports.clock.now()
            self.followed = followed = (
                stored(source, seed, memory.trust, now)
                if dry_run
                else follow(source, seed, memory.trust, now, fetch=not offline)
            )
            # Before the documents are read: trust moves on even when they turn out to be broken.
            memory.trust_commit(seed.fleet_id, followed.tree.oid, followed.freshness.kept)
            documents = load_fleet(followed.tree.files, node=seed.node)
            self.desired = desired = desired_state(documents, followed.tree.oid, seed.node)
            if desired.cluster is not None:
                self.cluster, self.kubeadm = self.ports.open_kubernetes(desired, documents, followed.tree)
            if dry_run:
                return self._result(seed, self._decide(memory, desired))
            result = self._result(seed, self._reconcile(seed, memory, self._hands(followed, desired), desired))
            tell_the_others(self.cluster, self.observed, result.status)
            return result
        except KubenodeError as error:
            return self._result(seed, _decision_for(error), error)

    def _hands(self, followed: Followed, desired: DesiredState) -> Hands:
        ports = self.ports
        return Hands(
            machine=ports.machine,
            slots=ports.slots,
            staging=ports.staging,
            stores=ports.open_stores(desired.stores),
            tree=followed.tree,
            channel=desired.channel,
            progress=ports.progress,
            cluster=self.cluster,
            kubeadm=self.kubeadm,
        )

    def _reconcile(self, seed: Seed, memory: Memory, hands: Hands, desired: DesiredState) -> Decision:
        for _ in range(MAX_ACTIONS):
            decision = self._decide(memory, desired)
            if not isinstance(decision, Act):
                return decision
            # Long work is ahead: whoever looks now shall see what is being done, not how the last tick ended.
            self.ports.announce(decision)
            self.ports.state.save_status(self._result(seed, decision).status)
            done = self._perform(decision, memory, hands)
            if done and isinstance(decision.action, Reboot):
                return Wait("Restarting", f"The machine restarts. {decision.why}")
        return Wait("Unfinished", f"{MAX_ACTIONS} actions were tried and more are due; the next tick goes on.")

    def _decide(self, memory: Memory, desired: DesiredState) -> Decision:
        observed = self._observe()
        running = next((r.manifest for r in desired.releases if r.root_hash == observed.booted.root_hash), None)
        memory.settle(observed, running)
        stale = self.followed.freshness.stale if self.followed is not None else ""
        return decide(desired, observed, memory.journal, self.ports.clock.now(), stale=stale)

    def _observe(self) -> Observed:
        self.observed = None  # An old look must not be reported as the present.
        observed = self.ports.machine.observe()
        if self.cluster is not None:
            observed = replace(observed, cluster=self.cluster.view())
            if observed.kubernetes is None or observed.kubernetes.joined is None:
                answers = self.cluster.answers()
                observed = replace(observed, answers=answers, invited=self.cluster.invited() if answers else None)
        self.observed = observed
        return observed

    def _perform(self, decision: Act, memory: Memory, hands: Hands) -> bool:
        """Do the action and say whether it worked. What fails is counted, so the planner knows of it."""
        action = decision.action
        memory.begin(action, self.ports.clock.now())
        try:
            if isinstance(action, PoisonRelease):
                memory.poison(action, decision.why)
            execute(action, hands)
            # A restart has worked only when the release that it was for is blessed, see `Memory.settle`.
            if not isinstance(action, Reboot):
                self._check(action, memory)
                memory.succeed(action)
        except KubenodeError as error:
            self.refused |= isinstance(error, Untrusted)
            memory.fail(action, self.ports.clock.now(), error)
            return False
        self.done.append(action)
        return True

    def _check(self, action: Action, memory: Memory) -> None:
        if not holds(action, self._observe(), memory.journal):
            raise HostError(
                f"{type(action).__name__} returned without an error, but the machine does not show its result",
                hint="Something else changes this machine, or its disk does not keep what is written.",
            )

    def _result(self, seed: Seed, decision: Decision, error: KubenodeError | None = None) -> TickResult:
        followed = self.followed
        journal = self.memory.journal if self.memory is not None else Journal()
        message, hint = report.sentence(decision)
        refusal = followed.refusal if followed is not None else None
        advice = "" if followed is None else refusal.hint if refusal is not None else followed.freshness.hint
        status = NodeStatus(
            node=seed.node,
            at=self.ports.clock.now(),
            commit=followed.tree.oid if followed is not None else None,
            phase=report.phase(decision, self.desired, self.observed),
            message=message,
            hint=hint or advice,
            observed=self.observed,
            target=str(self.desired.target.version) if self.desired is not None and self.desired.releases else None,
            conditions=(
                *(followed.conditions if followed is not None else (_not_trusted(error),)),
                *report.conditions(decision, self.desired, self.observed, journal),
            ),
            poisoned=journal.poisoned,
            attempts=journal.attempts,
            superseded=journal.superseded,
        )
        refused = (
            self.refused or isinstance(error, Untrusted) or (followed is not None and followed.refused is not None)
        )
        return TickResult(decision, status, _exit_code(decision, error, refused=refused), tuple(self.done))


def tell_the_others(cluster: Cluster | None, observed: Observed | None, status: NodeStatus) -> None:
    """Show in the cluster what this node is about. What others decide by is published by the planner's actions.

    Raises nothing, whatever goes wrong: it is for people, the tick is done, and the next one tells it again.
    """
    with suppress(Exception):
        view = observed.cluster if observed is not None else None
        shown = view.by_name[view.me].report if view is not None and view.me in view.by_name else None
        news = report.news(shown, status) if shown is not None else None
        if cluster is not None and news is not None:
            cluster.report(*news)


def _decision_for(error: KubenodeError) -> Decision:
    """Return what an error means for the node. No guesses: it keeps what runs and starts nothing."""
    match error:
        case Untrusted():
            return Stuck(str(error.reason), error.message, error.hint or "See the Trusted condition.")
        case StateLost():
            return Stuck(
                "StateLost",
                error.message,
                error.hint or "Without it a rollback could not be noticed: install the machine again.",
            )
        case FleetInvalid():
            return Stuck("FleetInvalid", str(error), error.hint or "Run `kubenode validate` in the fleet repo.")
        case TryLater():
            return Wait("TryLater", error.message)
        case _:
            return Wait("HostFailed", error.message + (f" ({error.hint})" if error.hint else ""))


def _not_trusted(error: KubenodeError | None) -> Condition:
    if isinstance(error, Untrusted):
        return Condition("Trusted", "False", str(error.reason), error.message)
    return Condition("Trusted", "Unknown", "NotRead", error.message if error else "The fleet repo was not read.")


def _exit_code(decision: Decision, error: KubenodeError | None, *, refused: bool) -> ExitCode:
    if refused:
        return ExitCode.UNTRUSTED
    if isinstance(decision, Stuck):
        return ExitCode.STUCK
    return error.exit_code if error is not None else ExitCode.OK
