"""What a status is made from: the fleet at a commit, and the live cluster or recorded observations."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kubenode.cli.clone import commit_of, committed, git, repository
from kubenode.errors import UsageError
from kubenode.plan.kubernetes.rollout import wave_of
from kubenode.plan.status import Commits, Row, Seen, Wanted, Word, rows

if TYPE_CHECKING:
    from kubenode.host.kube.live import Live
    from kubenode.model.documents import FleetDocuments
    from kubenode.model.kubernetes import ClusterNode, ClusterView
    from kubenode.model.state import NodeStatus

MOST_COMMITS = 5000
"""Commits whose place behind the newest is known."""
MOST_HINTS = 20
"""Stuck nodes for which the planner is asked what to do: of many, one cause is likely."""


@dataclass(frozen=True)
class Sight:
    """One look: the nodes, worst first; Nodes that git does not know; what cannot be seen from here; when it was.

    `leaving`: nodes that are to leave the cluster, because git does not know them (any more) or not as its members.
    """

    rows: tuple[Row, ...]
    at: datetime
    strangers: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """The fleet as one commit says, ready to be compared with what is seen."""

    commits: Commits
    subject: str
    documents: "FleetDocuments"
    wanted: Mapping[str, Wanted]

    @property
    def commit(self) -> str:
        """The commit (40 hex)."""
        return self.commits.head

    @property
    def halted(self) -> bool:
        """Whether nothing that disturbs may begin."""
        return self.documents.fleet.halted


def fleet_at(fleet: Path, commit: str) -> Fleet:
    """Read the fleet at a commit. Raises FleetInvalid when its documents cannot be read."""
    from kubenode.fleet.load import load_fleet

    documents = load_fleet(committed(fleet, commit))
    words = ("rev-list", "--first-parent", f"--max-count={MOST_COMMITS}", commit)
    behind = {oid: number for number, oid in enumerate(git(fleet, *words).text.split())}
    subject = git(fleet, "log", "-1", "--format=%s", commit).text.strip()
    return Fleet(Commits(commit, behind), subject, documents, _wanted(documents, commit))


def pushed_commit(fleet: Path, branch: str) -> str:
    """Return what the remote's branch had when it was last asked: what nodes can know. HEAD without such a branch."""
    repository(fleet)
    # In the order in which `apply` chooses.
    own = git(fleet, "config", f"branch.{branch}.remote", check=False).text.split()
    for remote in (*own, "origin", *git(fleet, "remote").text.split()):
        name = f"refs/remotes/{remote}/{branch}"
        found = git(fleet, "rev-parse", "--verify", "--quiet", name, check=False).text.strip()
        if found:
            return found
    return commit_of(fleet, "HEAD")


def _wanted(documents: "FleetDocuments", commit: str) -> dict[str, Wanted]:
    from kubenode.fleet.desired import desired_state
    from kubenode.model.documents import Role

    pools: dict[str, list[str]] = {}
    for name, node in sorted(documents.nodes.items()):
        pools.setdefault(node.pool, []).append(name)
    found = {}
    for pool, members in pools.items():
        target = desired_state(documents, commit, members[0]).target
        role, waves = documents.pools[pool].role, documents.pools[pool].rollout.waves
        configuration = documents.kubeadm if role is not Role.STANDALONE else ""
        for place, name in enumerate(members):
            found[name] = Wanted(pool, role, target, configuration, wave_of(place, len(members), waves))
    return found


def live_looker(fleet: Fleet, kubeconfig: Path, context: str | None) -> Callable[[], Sight]:
    """Return a function that looks at the cluster. It raises TryLater, HostError as `kubenode.host.kube.live.look`."""
    from kubenode.host.clock import SystemClock
    from kubenode.host.kube.live import look

    if fleet.documents.fleet.cluster is None:
        raise UsageError(
            "this fleet has no cluster, so its machines tell nobody how they are",
            hint="Collect their /var/lib/kubenode/status.json, and give them with --observed.",
        )

    def sight() -> Sight:
        return live_sight(fleet, look(kubeconfig, context), SystemClock().now())

    return sight


def live_sight(fleet: Fleet, live: "Live", now: datetime) -> Sight:
    """Compare one look at the cluster with the fleet."""
    from kubenode.model.documents import Role

    words = _words(fleet, live, now)
    seen = {}
    for name, wanted in fleet.wanted.items():
        member = live.view.by_name.get(name)
        if wanted.role is Role.STANDALONE and member is None:
            seen[name] = Seen(silent="it is no member of the cluster: its own status.json tells", outside=True)
            continue
        seen[name] = Seen(words.get(name, Word()), member, *_leases(live.view, name), silent=live.silent.get(name, ""))
    strangers = tuple(it.name for it in live.view.nodes if it.name not in fleet.wanted)
    members = {name for name, it in fleet.wanted.items() if it.role is not Role.STANDALONE}
    # As control planes decide it (`kubenode.plan.kubernetes.upkeep`): who never reported is left alone.
    leaving = tuple(it.name for it in live.view.nodes if it.name not in members and it.report is not None)
    return Sight(rows(fleet.wanted, seen, fleet.commits, now), now, strangers, live.unseen, leaving)


def _words(fleet: Fleet, live: "Live", now: datetime) -> dict[str, Word]:
    found = {}
    for node in live.view.nodes:
        if node.report is not None:
            found[node.name] = Word(
                release=node.report.release,
                root_hash=node.report.root_hash,
                phase=node.report.phase,
                message=live.messages.get(node.name, ""),
                commit=node.report.commit,
                configuration=node.report.configuration,
                poisoned=node.report.poisoned,
                at=node.report.at,
            )
    for report in live.reports:
        booted, here = report.observed.booted, report.observed.kubernetes
        found[report.node] = replace(
            found[report.node],
            release=booted.version,
            root_hash=booted.root_hash,
            slot=booted.slot,
            trial=booted.trial,
            kubelet=here.kubelet if here is not None else None,
        )
    stuck = [report for report in live.reports if found[report.node].phase == "Stuck" and report.node in fleet.wanted]
    for report in stuck[:MOST_HINTS]:
        found[report.node] = replace(found[report.node], hint=_hint(fleet, report, now))
    return found


def _hint(fleet: Fleet, report: "object", now: datetime) -> str:
    """Return what a person can do about a stuck node: the planner's advice, if it agrees that the node is stuck."""
    from kubenode.fleet.desired import desired_state
    from kubenode.model.decision import Stuck
    from kubenode.plan.decide import decide
    from kubenode.plan.observations import Report

    assert isinstance(report, Report)
    desired = desired_state(fleet.documents, fleet.commit, report.node)
    decision = decide(desired, report.observed, report.journal, now, stale=report.stale)
    return decision.hint if isinstance(decision, Stuck) else ""


# Recorded observations.


def recorded_sight(fleet: Fleet, observed: Path) -> Sight:
    """Compare recorded observations with the fleet. Raises UsageError when they are none."""
    from kubenode.cli.observed import refuse_twice
    from kubenode.host.clock import SystemClock

    now = SystemClock().now()
    statuses = tuple(_statuses(observed))
    refuse_twice(observed, (status.node for status in statuses))
    found = {status.node: _recorded(status) for status in statuses}
    for name in fleet.wanted:
        found.setdefault(name, Seen(silent="no observation of it was given"))
    strangers = tuple(sorted(set(found) - set(fleet.wanted)))
    return Sight(rows(fleet.wanted, found, fleet.commits, now), now, strangers)


def _recorded(status: "NodeStatus") -> Seen:
    observed = status.observed
    word = Word(
        phase=status.phase,
        message=status.message,
        hint=status.hint,
        refused=next((it.message for it in status.conditions if (it.type, it.status) == ("Trusted", "False")), ""),
        commit=status.commit or "",
        poisoned=frozenset(bad.root_hash for bad in status.poisoned),
        at=status.at,
    )
    if observed is None:
        silent = "" if status.phase == "Stuck" else f"its agent could not look at the machine: {status.message}"
        return Seen(word, silent=silent, outside=not silent)
    here, view = observed.kubernetes, observed.cluster
    word = replace(
        word,
        release=observed.booted.version,
        root_hash=observed.booted.root_hash,
        slot=observed.booted.slot,
        trial=observed.booted.trial,
        kubelet=here.kubelet if here is not None else None,
        configuration=here.configuration if here is not None else None,
    )
    member = _own(view, status.node)
    held = _leases(view, status.node) if view is not None else ((), None)
    return Seen(word, member, *held, outside=member is None)


def _leases(view: "ClusterView", node: str) -> tuple[tuple[str, ...], datetime | None]:
    """Return the names of the leases that a node holds, and since when it has held the first."""
    held = view.by_holder.get(node, ())
    return tuple(it.name for it in held), min((it.since for it in held if it.since is not None), default=None)


def _own(view: "ClusterView | None", node: str) -> "ClusterNode | None":
    return view.by_name.get(node) if view is not None else None


def _statuses(observed: Path) -> "Iterable[NodeStatus]":
    from kubenode.cli.observed import recorded_documents, title
    from kubenode.model.restore import restore
    from kubenode.model.state import NodeStatus
    from kubenode.model.texts import harmless
    from kubenode.plan.observations import HINT

    for number, item in enumerate(recorded_documents(observed), 1):
        try:
            yield restore(NodeStatus, harmless(item))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
            message = f"observation {number} of {title(observed)} cannot be used: {what}"
            raise UsageError(message, hint=HINT) from error
