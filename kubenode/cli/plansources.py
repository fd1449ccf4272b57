"""Where a plan's facts come from: the fleet repo, the cluster or a record, and what older commits explain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubenode.cli.clone import committed, where
from kubenode.cli.observed import recorded_documents, refuse_twice
from kubenode.cli.options import kubeconfig_of
from kubenode.cli.planhistory import known_by_git, not_in_clone
from kubenode.errors import HostError, UsageError
from kubenode.fleet.desired import desired_states
from kubenode.fleet.load import load_fleet
from kubenode.fleet.problems import choices, did_you_mean
from kubenode.host.clock import SystemClock
from kubenode.model.desired import DesiredState
from kubenode.model.documents import FleetDocuments, Role
from kubenode.model.kubernetes import ClusterView
from kubenode.plan import drift, whole
from kubenode.plan.groups import names
from kubenode.plan.observations import Report, reports
from kubenode.plan.saved import SavedPlan, encode, facts
from kubenode.plan.whole import FleetPlan

if TYPE_CHECKING:
    from kubenode.host.kube.live import Live


@dataclass(frozen=True)
class Seen:
    """A plan and what it was made from."""

    plan: FleetPlan
    fleet_id: str
    reports: tuple[Report, ...]
    view: ClusterView | None

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        """Return the plan as a file for `apply`."""
        bound = facts(self.reports, self.view)
        return encode(SavedPlan(self.fleet_id, self.plan.commit, self.plan.at, bound, document))


def gather(
    fleet: Path,
    commit: str,
    kubeconfig: Path | None,
    context: str | None,
    observed: Path | None,
    only: Sequence[str],
) -> Seen:
    """Look, and plan for a commit. Nothing is changed anywhere.

    With `observed` and no `kubeconfig` only the record counts; with both, the record adds machines that the cluster
    does not show. Raises UsageError, FleetInvalid, TryLater and HostError.
    """
    recorded = read_observed(observed) if observed is not None else ()
    documents = load_fleet(committed(fleet, commit))
    chosen = selected(documents, only)
    live = _look(kubeconfig, context) if observed is None or kubeconfig is not None else None
    names_recorded = {it.node for it in recorded}
    shown = tuple(it for it in live.reports if it.node not in names_recorded) if live is not None else ()
    # A stranger in the cluster is a finding, one in a record a mistake.
    every = [*recorded, *(it for it in shown if it.node in documents.nodes)]
    every = [it for it in every if it.node in chosen or (it.node not in documents.nodes and not only)]
    desired = desired_states(documents, commit, [it.node for it in every])
    afar = {it.node for it in shown}
    every = [whole.as_seen_from_afar(it, desired[it.node]) if it.node in afar else it for it in every]
    view = live.view if live is not None else None
    known = known_by_git(fleet, commit, documents, every, view)
    now = SystemClock().now()
    plans = whole.plan(desired, every, now, known, live.told if live is not None else {})
    unseen = _unseen(documents, live, {it.node for it in every}, chosen)
    found, leaving = _around(view, documents, desired, known, commit) if not only else ((), ())
    plan = FleetPlan(
        commit=commit,
        at=now,
        nodes=plans,
        unseen=unseen,
        drift=found,
        leaving=leaving,
        notes=_notes(fleet, live, view),
        halted=documents.fleet.halted,
    )
    return Seen(plan, documents.fleet.id, tuple(every), view if not recorded else None)


def selected(documents: FleetDocuments, only: Sequence[str]) -> frozenset[str]:
    """Return the nodes that `--only` means. Raises UsageError for a name that is neither a node's nor a pool's."""
    if not only:
        return frozenset(documents.nodes)
    found: set[str] = set()
    for word in only:
        members = {it.name for it in documents.nodes.values() if word in (it.name, it.pool)}
        if not members and word not in documents.pools:
            every = [*documents.nodes, *documents.pools]
            hint = did_you_mean(word, every) or f"Pools: {choices(documents.pools)}."
            raise UsageError(f"{word!r} is no node and no pool of the fleet", hint=hint)
        found |= members
    return frozenset(found)


def read_observed(observed: Path) -> tuple[Report, ...]:
    """Read the observations. Raises UsageError when they are none, or two are of one node."""
    known = reports(recorded_documents(observed))
    refuse_twice(observed, (report.node for report in known))
    return known


def _look(kubeconfig: Path | None, context: str | None) -> "Live":
    from kubenode.host.kube.live import look

    place = kubeconfig_of(kubeconfig)
    if not place.exists():
        raise UsageError(
            f"there is nothing to plan from: {place} does not exist",
            hint="Name a kubeconfig with --kubeconfig, a record of nodes with --observed, or compare two commits with "
            "--since. On a control plane `kubenode kubeconfig` makes a kubeconfig.",
        )
    try:
        return look(place, context)
    except HostError as error:
        error.hint = error.hint or f"{place} says how the cluster is reached; --kubeconfig names another file."
        raise


def _unseen(
    documents: FleetDocuments, live: "Live | None", seen: set[str], chosen: frozenset[str]
) -> Mapping[str, str]:
    found = {}
    for name in sorted(chosen - seen):
        pool = documents.pools.get(documents.nodes[name].pool)
        if live is None:
            why = "no observation of it was given"
        elif name in live.silent:
            why = live.silent[name]
        elif pool is not None and pool.role is Role.STANDALONE:
            why = "a standalone machine shows in no cluster: give its status.json with --observed"
        else:
            why = "the cluster has no Node of this name: it has not joined, or was removed"
        found[name] = why
    return found


def _around(
    view: ClusterView | None,
    documents: FleetDocuments,
    desired: Mapping[str, DesiredState],
    known: drift.Known,
    commit: str,
) -> tuple[tuple[drift.Drift, ...], tuple[str, ...]]:
    """Return the findings that are no seen node's, and the nodes that a commit took out of git."""
    if view is None:
        return (), ()
    cluster = next((it.cluster for it in desired.values() if it.cluster is not None), None)
    if cluster is None:
        members = [it.name for it in documents.nodes.values() if it.name in view.by_name]
        states = desired_states(documents, commit, members)
        cluster = next((it.cluster for it in states.values() if it.cluster is not None), None)
    if cluster is None:
        return (), ()
    found = list(drift.of_cluster(view, cluster, known))
    # Of silent nodes at least the Node object can be seen.
    found += [it for node in view.nodes if node.name not in desired for it in drift.of_node(node, view)]
    gone = whole.strangers(view, documents.nodes)
    leaving = tuple(it for it in gone if it in known.nodes and view.by_name[it].report is not None)
    return tuple(found), leaving


def _notes(fleet: Path, live: "Live | None", view: ClusterView | None) -> tuple[str, ...]:
    if live is None or view is None:
        return ()
    found = []
    if live.unseen:
        found.append(f"Not visible from here: {'; '.join(live.unseen)}.")
    followed: dict[str, list[str]] = {}
    for node in view.nodes:
        if node.report is not None and node.report.commit:
            followed.setdefault(node.report.commit, []).append(node.name)
    for oid in not_in_clone(fleet, followed):
        follow = "follows" if len(followed[oid]) == 1 else "follow"
        found.append(
            f"{names(followed[oid])} {follow} commit {oid[:12]}, which this clone does not have: it is behind, or has "
            f"another history. Try: git{where(fleet)} fetch"
        )
    return tuple(found)
