"""Who has to look again, and when: what keeps a simulation of a thousand nodes from asking everybody about everything.

Nodes of one pool and wave that show the same and hold nothing are told apart by their names only, and the planner
treats them alike: they wait as one group. When something changes that can end the wait, the member whose tick comes
next is asked for all of them; when it acts, the next one is asked.
"""

from bisect import bisect_right, insort
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import timedelta

from kubenode.model.decision import Converged, Decision, Wait
from kubenode.model.documents import Role
from kubenode.model.kubernetes import ClusterView, LocalKubernetes
from kubenode.plan.kubernetes.leases import held
from kubenode.plan.node import Node
from kubenode.plan.simulate.cluster import Change
from kubenode.plan.simulate.durations import LOOK_EVERY
from kubenode.plan.simulate.machine import Machine

_TURN = frozenset((Change.LEASE, Change.BACK, Change.PLANE))
_PROGRESS = frozenset((Change.REPORT, Change.BACK, Change.PLANE))
_ENDS = {
    "LeaseHeld": _TURN,
    "TooManyUnavailable": _TURN,
    "NoLease": _TURN,
    "WaitsForWave": _PROGRESS,
    "WaitsForPool": _PROGRESS,
    "Soaking": _PROGRESS,
    "WaitsForToken": frozenset((Change.TOKENS,)),
    "OutsideWindow": frozenset((Change.PLANE,)),
    "Halted": frozenset((Change.PLANE,)),
    "Stale": frozenset((Change.PLANE,)),
}
"""Which changes can end a wait of a worker, by its reason; any change for what is not listed."""


def ended_by(decision: Decision, role: Role) -> frozenset[Change]:
    """Return the changes after which a node has to look again. Control planes look after everybody else, too."""
    if role is Role.STANDALONE:
        return frozenset()
    if role is Role.CONTROL_PLANE:
        return frozenset(Change)
    if isinstance(decision, Converged):
        return frozenset((Change.PLANE,))
    return _ENDS.get(decision.reason, frozenset(Change)) if isinstance(decision, Wait) else frozenset(Change)


@dataclass
class Group:
    """Nodes that wait alike: `members` by the phase of their ticks, the decision that they share, and since when."""

    key: Hashable
    pool: str
    wave: int | None
    decision: Decision
    ends: frozenset[Change]
    since: timedelta
    members: list[tuple[timedelta, str]] = field(default_factory=list)
    planned: timedelta | None = None
    """When the next member looks, None when nothing is expected."""

    def add(self, phase: timedelta, name: str) -> None:
        """Take a node in."""
        insort(self.members, (phase, name))

    def next_look(self, after: timedelta) -> tuple[timedelta, str]:
        """Return the first tick of a member after a time, and whose it is."""
        phase = after % LOOK_EVERY
        begin = after - phase
        place = bisect_right(self.members, (phase, "\uffff"))
        if place < len(self.members):
            found = self.members[place]
            return begin + found[0], found[1]
        found = self.members[0]
        return begin + LOOK_EVERY + found[0], found[1]


def alike(machine: Machine, view: ClusterView | None, node: Node) -> Hashable:
    """Return what a decision about a waiting node depends on, besides its name, its pool, its wave and the cluster."""
    see, journal = machine.observed, machine.journal
    me = node.me
    shown = None
    if me is not None:
        report = me.report
        told = (report.root_hash, report.release, report.poisoned, report.configuration) if report else None
        shown = (me.ready, me.kubelet, me.role, me.cordoned, me.cordoned_by_us, node.back, told)
    return (
        see.booted,
        see.entries,
        see.spare,
        see.staged,
        see.fetched,
        see.partial,
        _local(see.kubernetes),
        see.answers,
        see.invited,
        shown,
        tuple(lease.name for _, lease in held(node)),
        bool(view.pods.get(node.name)) if view is not None and node.name in view.pods else None,
        tuple(sorted(journal.attempts.items())),
        journal.superseded,
        journal.poisoned,
        machine.stale,
        machine.sees_api,
    )


def _local(here: LocalKubernetes | None) -> Hashable:
    if here is None:
        return None
    return (
        here.kubelet,
        here.joined,
        here.entering,
        tuple(sorted(here.manifests.items())),
        here.configuration,
        tuple(sorted(here.kubelet_sets.items())),
        here.pulled,
        here.snapshots,
        here.certificates_until,
        here.leftovers,
        here.rejected,
    )
