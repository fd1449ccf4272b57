"""The plan of a whole fleet: every observed node's own decision, and what is around it. Pure; changes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from kubenode.model.decision import Converged, Decision, Stuck
from kubenode.model.desired import DesiredState
from kubenode.model.documents import Role
from kubenode.model.kubernetes import ClusterView
from kubenode.plan import ahead, drift
from kubenode.plan.ahead import Step, Wave
from kubenode.plan.decide import decide
from kubenode.plan.drift import Drift, Known
from kubenode.plan.kubernetes.upkeep import in_need_of_tokens
from kubenode.plan.node import Node, kubernetes_of
from kubenode.plan.observations import Report


@dataclass(frozen=True)
class NodePlan:
    """One node: what it decides next, the steps after it, and what moved without git.

    `releases` and `kubernetes`: versions, what runs first, then every hop. `window` as in `ahead.window`.
    """

    node: str
    pool: str
    role: Role
    decision: Decision
    releases: tuple[str, ...]
    kubernetes: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    wave: Wave | None = None
    window: str = ""
    drift: tuple[Drift, ...] = ()
    told: datetime | None = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing to do, now or later."""
        return isinstance(self.decision, Converged)

    @property
    def stuck(self) -> bool:
        """Whether only a person can help."""
        return isinstance(self.decision, Stuck)


@dataclass(frozen=True)
class FleetPlan:
    """What every node of a fleet would do at a commit.

    `nodes`: those that were seen, in the order of changes. `unseen`: the others that git declares, and why. `drift`:
    findings that belong to no seen node. `leaving`: nodes of the cluster that a commit took out of git. `notes`: what
    of the cluster could not be seen, and other things to know.
    """

    commit: str
    at: datetime
    nodes: tuple[NodePlan, ...]
    unseen: Mapping[str, str] = field(default_factory=dict)
    drift: tuple[Drift, ...] = ()
    leaving: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    halted: bool = False

    @property
    def work(self) -> tuple[NodePlan, ...]:
        """The nodes that are to change and can."""
        return tuple(it for it in self.nodes if not it.settled and not it.stuck)

    @property
    def stuck(self) -> tuple[NodePlan, ...]:
        """The nodes that only a person can help."""
        return tuple(it for it in self.nodes if it.stuck)

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Every finding, the cluster's first."""
        return (*self.drift, *(found for it in self.nodes for found in it.drift))


def plan(
    desired: Mapping[str, DesiredState],
    reports: Iterable[Report],
    now: datetime,
    known: Known = Known(),  # noqa: B008 - frozen
    told: Mapping[str, datetime] | None = None,
) -> tuple[NodePlan, ...]:
    """Return the plan of each report's node, whose desired state must be there, in the order of changes."""
    found = []
    waves: dict[str, dict[str, Wave]] = {}
    for report in reports:
        state = desired[report.node]
        node = Node(state, report.observed, report.journal, now, report.stale)
        if state.pool not in waves:
            waves[state.pool] = ahead.waves(node)
        wave = waves[state.pool].get(report.node)
        decision = decide(state, report.observed, report.journal, now, stale=report.stale)
        found.append(_node(node, decision, wave, known, (told or {}).get(report.node)))
    return tuple(sorted(found, key=lambda it: _order(it, desired[it.node])))


def as_seen_from_afar(report: Report, desired: DesiredState) -> Report:
    """Return the report of a node whose cluster a laptop has looked at, without decisions about what it cannot see.

    Bootstrap tokens: the right ones are taken to be there, or every node that is away would make a control plane
    publish tokens in every plan.
    """
    view, cluster = report.observed.cluster, desired.cluster
    if view is None or cluster is None or desired.role is not Role.CONTROL_PLANE:
        return report
    tokens = in_need_of_tokens(report.node, cluster, view)
    return replace(report, observed=replace(report.observed, cluster=replace(view, tokens=tokens)))


def strangers(view: ClusterView, declared: Iterable[str]) -> tuple[str, ...]:
    """Return the nodes of a cluster that git does not declare."""
    known = frozenset(declared)
    return tuple(it.name for it in view.nodes if it.name not in known)


def _node(node: Node, decision: Decision, wave: Wave | None, known: Known, told: datetime | None) -> NodePlan:
    me, view = node.me, node.view
    found: Sequence[Drift] = (
        *drift.of_machine(node.desired, node.observed, known),
        *(drift.of_node(me, view) if me is not None and view is not None else ()),
    )
    settled = isinstance(decision, Converged)
    kubelet = node.here.kubelet if node.here is not None else None
    versions = [it for it in (kubelet, *map(kubernetes_of, node.path)) if it is not None]
    return NodePlan(
        node=node.name,
        pool=node.desired.pool,
        role=node.desired.role,
        decision=decision,
        releases=(str(node.observed.booted.version), *(str(it.version) for it in node.path)),
        kubernetes=tuple(dict.fromkeys(map(str, versions))),
        steps=() if settled else ahead.ahead(node, decision, wave),
        wave=wave,
        window="" if settled else ahead.window(node),
        drift=tuple(found),
        told=told,
    )


def _order(it: NodePlan, desired: DesiredState) -> tuple[int, int, str]:
    order = desired.cluster.order if desired.cluster is not None else ()
    place = order.index(it.pool) if it.pool in order else len(order)
    return (0 if order else 1, place, it.node)
