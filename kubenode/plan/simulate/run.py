"""The simulation: every node looks, decides and acts as its agent does, side by side with all others."""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kubenode.model.decision import (
    Act,
    Action,
    Decision,
    DeleteNode,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    Reboot,
    Reconfigure,
    RemoveEtcdMember,
    RenewCertificates,
    Wait,
)
from kubenode.model.desired import DesiredState
from kubenode.model.observed import Observed
from kubenode.plan.decide import decide
from kubenode.plan.node import Node
from kubenode.plan.observations import Report
from kubenode.plan.simulate.cluster import Cluster
from kubenode.plan.simulate.durations import TRIAL, lasts
from kubenode.plan.simulate.machine import Machine
from kubenode.plan.simulate.notes import notes
from kubenode.plan.simulate.pauses import Pauses
from kubenode.plan.simulate.places import next_tick, places
from kubenode.plan.simulate.timeline import Ending, Event, Timeline
from kubenode.plan.simulate.waiting import Group, alike, ended_by

_LEADS_ON = (
    Reboot,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    Reconfigure,
    RenewCertificates,
    DeleteNode,
    RemoveEtcdMember,
)
"""Actions that bring the fleet further. Others may undo one another."""
_WITHOUT_PROGRESS = 30
"""Actions for each node in a row, none of which leads on, after which they are taken for a circle."""
_IN_ALL = 300
"""Actions for each node after which a simulation ends whatever they are."""
_A_WEEK_AND_A_DAY = timedelta(days=8)
"""Windows recur weekly. When nothing was done for so long (and no soak is open), nothing will be."""


def simulate(
    desired: Mapping[str, DesiredState], declared: Collection[str], reports: Sequence[Report], now: datetime
) -> Timeline:
    """Play the planner's decisions forward, from what nodes reported until nothing moves any more. Raises nothing.

    `desired`: the desired states of the nodes that reported, by name. `declared`: the names of all nodes in git. `now`
    is aware, in UTC. The first decision about each node is the one that `decide` makes about its own report; the
    cluster of all later ones is put together from all reports.
    """
    return _Run(desired, declared, reports, now).run()


@dataclass
class _Run:
    desired: Mapping[str, DesiredState]
    declared: Collection[str]
    reports: Sequence[Report]
    began: datetime
    events: list[Event] = field(default_factory=list)
    pauses: Pauses = field(default_factory=Pauses)
    queue: list[tuple[timedelta, bool, str, int, object]] = field(default_factory=list)
    groups: dict[object, Group] = field(default_factory=dict)
    idle: int = 0
    """Actions since the last that led on."""
    moved: timedelta = timedelta(0)
    """When the last action ended."""
    pushed: int = 0
    clock: timedelta = timedelta(0)
    """When anybody has last looked or ended something."""
    last: dict[str, Decision] = field(default_factory=dict)
    """What each node that waits was told when everybody was asked."""
    endless: str = ""

    def __post_init__(self) -> None:
        want = next((it.cluster for it in self.desired.values() if it.cluster is not None), None)
        self.documents = want.configuration if want is not None else ""
        self.patience = _A_WEEK_AND_A_DAY
        if want is not None:
            self.patience += max((it.soak for it in want.rollouts.values()), default=timedelta(0))
        ordered = sorted(self.reports, key=lambda report: report.node)
        views = [report.observed.cluster for report in ordered if report.observed.cluster is not None]
        self.cluster = Cluster.seen_by(frozenset(want.by_name) if want is not None else frozenset(), views)
        self.machines = {report.node: _machine(self.desired[report.node], report) for report in ordered}
        self.places = places(self.desired)

    def run(self) -> Timeline:
        """Play everything."""
        for report in self.reports:
            if report.observed.booted.trial:
                self._push(TRIAL, report.node, _Blessing(report.node))
        for report in sorted(self.reports, key=lambda report: report.node):
            self._tick(report.node, timedelta(0), report.observed)
        self._wake(timedelta(0))
        for group in self.groups.values():
            # What a node decided by its own report may be otherwise in what all have seen together.
            self._plan(group, timedelta(0))
        self._play()
        while not self.endless and self._ask_everybody():
            self._play()
        endings = [self._ending(name) for name in self.machines]
        return Timeline(
            began=self.began,
            events=tuple(sorted(self.events, key=lambda event: event.at)),
            pauses=self.pauses.all(),
            endings=tuple(endings),
            unseen=tuple(sorted(set(self.declared) - self.machines.keys())),
            notes=notes(self.machines, self.cluster, [event.action for event in self.events]),
            endless=self.endless,
        )

    # Time.

    def _push(self, at: timedelta, name: str, what: object) -> None:
        # At one moment, what ends comes before who looks: so the order does not hang on how the waiting are grouped.
        self.pushed += 1
        heapq.heappush(self.queue, (at, not isinstance(what, _Done), name, self.pushed, what))

    def _play(self) -> None:
        while self.queue and not self.endless:
            at, *_, what = heapq.heappop(self.queue)
            if at - self.moved > self.patience:
                self.queue.clear()
                return
            if isinstance(what, Group) and (what.planned != at or not what.members):
                continue  # It was planned anew, or everybody has gone.
            self.clock = at
            match what:
                case Group():
                    self._look(what, at)
                case _Done(name, action):
                    self._finish(name, action, at)
                    self._tick(name, at)
                case _Blessing(name):
                    self.machines[name].bless()
                    self._leave(name, at)
                    self._tick(name, at)
                case _Look(name) if self.places[name].group is not None:
                    self._leave(name, at)
                    self._tick(name, at)
            self._wake(at)

    def _look(self, group: Group, at: timedelta) -> None:
        group.planned = None
        _, name = group.next_look(at - timedelta.resolution)
        decision = self._decide(name, at)
        if isinstance(decision, Act):
            self._leave(name, at)
            # Whether there is room for another one is for the next to find out.
            self._plan(group, at)
            self._tick(name, at, decided=decision)
        else:
            self._adopt(group, decision, at)

    def _plan(self, group: Group, after: timedelta) -> None:
        if not group.members:
            return
        at, name = group.next_look(after)
        if group.planned is None or at < group.planned:
            group.planned = at
            self._push(at, name, group)

    def _wake(self, at: timedelta) -> None:
        changes, self.cluster.changes = self.cluster.changes, set()
        if changes:
            for group in self.groups.values():
                if group.ends & changes:
                    self._plan(group, at - timedelta.resolution)

    # One node.

    def _decide(self, name: str, at: timedelta, first: Observed | None = None) -> Decision:
        machine = self.machines[name]
        observed = first or self._observe(name)
        return decide(machine.desired, observed, machine.journal, self.began + at, stale=machine.stale)

    def _observe(self, name: str) -> Observed:
        machine = self.machines[name]
        observed, want = machine.observed, machine.desired
        if want.cluster is None:
            return observed
        joined = observed.kubernetes is not None and observed.kubernetes.joined is not None
        view = self.cluster.view(name, want.role, joined=joined) if machine.sees_api else None
        if not joined and self.cluster.version is not None:
            return replace(observed, cluster=view, answers=self.cluster.answers(), invited=name in self.cluster.tokens)
        return replace(observed, cluster=view)

    def _tick(self, name: str, at: timedelta, first: Observed | None = None, decided: Decision | None = None) -> None:
        """Do what a node does in one tick, until something takes time or there is nothing to do."""
        while not self.endless:
            decision = decided or self._decide(name, at, first)
            first = decided = None
            if not isinstance(decision, Act):
                self._wait(name, decision, at)
                return
            if not self._begin(name, decision, at):
                continue
            return

    def _begin(self, name: str, decision: Act, at: timedelta) -> bool:
        """Begin an action; say whether it takes time."""
        action, place = decision.action, self.places[name]
        span = lasts(action)
        failed = self.cluster.refusal(action)
        if failed:
            span = timedelta(0)
            self.machines[name].fail(action, self.began + at, failed)
        self.events.append(Event(at, span, name, place.pool, place.wave, action, decision.why, failed))
        self._count(action, name, failed=bool(failed))
        if failed:
            return False
        self.moved = max(self.moved, at + span)
        self.cluster.begin(action, name)
        if span:
            self._push(at + span, name, _Done(name, action))
            return True
        self._finish(name, action, at)
        return False

    def _finish(self, name: str, action: Action, at: timedelta) -> None:
        machine, cluster, now = self.machines[name], self.cluster, self.began + at
        git = isinstance(action, KubeadmInit) or (isinstance(action, KubeadmUpgrade) and action.first)
        documents = self.documents if git or cluster.configuration is None else cluster.configuration
        machine.apply(action, now, cluster.version, documents)
        cluster.apply(action, name, machine.observed, now, self.documents)

    def _count(self, action: Action, name: str, *, failed: bool) -> None:
        self.idle = 0 if isinstance(action, _LEADS_ON) and not failed else self.idle + 1
        nodes = len(self.machines) + 3
        if self.idle > _WITHOUT_PROGRESS * nodes or len(self.events) > _IN_ALL * nodes:
            self.endless = (
                f"After {len(self.events)} actions the simulation was given up: the last {self.idle} brought no node "
                f"further, {name} would do the next."
            )

    # Waiting.

    def _wait(self, name: str, decision: Decision, at: timedelta) -> None:
        machine, place = self.machines[name], self.places[name]
        observed = self._observe(name)
        node = Node(machine.desired, observed, machine.journal, self.began + at, machine.stale)
        own = name if machine.desired.cluster is None else ""
        key = (place.pool, place.wave, own, alike(machine, observed.cluster, node))
        group = self.groups.get(key)
        if group is None:
            ends = ended_by(decision, machine.desired.role)
            group = self.groups[key] = Group(key, place.pool, place.wave, decision, ends, at)
        group.add(place.phase, name)
        place.group = group
        self._adopt(group, decision, at)

    def _adopt(self, group: Group, decision: Decision, at: timedelta) -> None:
        """Let a group wait for what one of its members waits for."""
        if decision != group.decision:
            self._pause(group, at, [name for _, name in group.members])
            group.decision, group.since = decision, at
            group.ends = ended_by(decision, self.machines[group.members[0][1]].desired.role)
        if isinstance(decision, Wait) and decision.until is not None:
            self._plan(group, max(at, decision.until - self.began - timedelta.resolution))

    def _leave(self, name: str, at: timedelta) -> None:
        place = self.places[name]
        group, place.group = place.group, None
        if group is None:
            return
        self._pause(group, at, [name])
        group.members.remove((place.phase, name))
        if not group.members:
            del self.groups[group.key]

    def _pause(self, group: Group, at: timedelta, nodes: Sequence[str]) -> None:
        if isinstance(group.decision, Wait):
            self.pauses.add(group.pool, group.wave, group.decision, group.since, at, nodes)

    # The end.

    def _ask_everybody(self) -> bool:
        """Ask every node when nothing moves any more; say whether one of them will do something.

        So nothing hangs on who was asked before: a node that should have been is late then, and never forgotten.
        """
        before = len(self.queue)
        for name, place in self.places.items():
            if place.group is None:
                continue
            decision = self.last[name] = self._decide(name, self.clock)
            until = decision.until - self.began if isinstance(decision, Wait) and decision.until else None
            if isinstance(decision, Act) or (until is not None and until - self.moved <= self.patience):
                self._push(next_tick(place.phase, max(until or self.clock, self.clock)), name, _Look(name))
        return len(self.queue) > before

    def _ending(self, name: str) -> Ending:
        place = self.places[name]
        decision = self.last[name] if name in self.last else self._decide(name, self.clock)
        return Ending(name, place.pool, place.wave, self.machines[name].observed.booted.version, decision)


@dataclass(frozen=True)
class _Done:
    """An action that took time is over."""

    name: str
    action: Action


@dataclass(frozen=True)
class _Blessing:
    """A trial boot that was observed has passed its health gate."""

    name: str


@dataclass(frozen=True)
class _Look:
    """One node looks by itself, in whatever group it waits."""

    name: str


def _machine(desired: DesiredState, report: Report) -> Machine:
    see = report.observed
    member = see.kubernetes is not None and see.kubernetes.joined is not None
    return Machine(
        desired, replace(see, cluster=None), report.journal, report.stale, see.cluster is not None or not member
    )
