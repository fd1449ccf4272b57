"""Whose turn it is: pools in order, waves, soak, failures, and how many may be away at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from kubenode.model.decision import Decision, Stuck, Wait
from kubenode.model.desired import Peer
from kubenode.model.documents import Release, Role, Rollout
from kubenode.model.kubernetes import ClusterView, NodeReport
from kubenode.plan.backoff import later
from kubenode.plan.kubernetes import skew
from kubenode.plan.kubernetes.gates import away, names
from kubenode.plan.node import Node, kubernetes_of


@dataclass(frozen=True)
class Goal:
    """What goes through a pool: how a report shows that a node has arrived, or that it failed there.

    Goals with the same `key` are the same goal.
    """

    what: str
    key: tuple[object, ...]
    arrived: Callable[[NodeReport], bool]
    failed: Callable[[NodeReport], bool]


def release_goal(release: Release, *, down: bool = False) -> Goal:
    """Return the goal of running a release; a node that has gone on to a newer one has been there."""
    return Goal(
        f"release {release.version}",
        ("release", release.version, release.root_hash, down),
        lambda report: report.root_hash == release.root_hash or (not down and report.release > release.version),
        lambda report: release.root_hash in report.poisoned and report.root_hash != release.root_hash,
    )


def configuration_goal(configuration: str) -> Goal:
    """Return the goal of running a kubeadm configuration."""
    return Goal(
        f"configuration {configuration[:12]}",
        ("configuration", configuration),
        lambda report: report.configuration == configuration,
        lambda _: False,
    )


@dataclass(frozen=True)
class Progress:
    """How far some nodes are with a goal. Nodes that are not in the cluster are left out: nothing waits for them."""

    pending: tuple[str, ...]
    soaking_until: datetime | None
    failed: tuple[str, ...]


def progress(peers: Sequence[Peer], view: ClusterView, goal: Callable[[Peer], Goal], soak: timedelta) -> Progress:
    """Return how far these nodes are; without a report a node is pending."""
    pending, failed, since = [], [], []
    for peer in peers:
        found = view.by_name.get(peer.name)
        if found is None:
            continue
        aim = goal(peer)
        if found.report is not None and aim.failed(found.report):
            failed.append(peer.name)
        elif found.report is None or not aim.arrived(found.report) or away(found):
            pending.append(peer.name)
        else:
            since.append(found.report.since)
    return Progress(tuple(pending), later(max(since), soak) if since else None, tuple(failed))


def count(amount: str, total: int, *, up: bool) -> int:
    """Return a number of nodes for "2" or "25%": at least one, rounded up for waves and down for who may be away."""
    if not amount.endswith("%"):
        return max(1, int(amount))
    part = total * int(amount[:-1]) / 100
    return max(1, ceil(part) if up else int(part))


def wave_of(place: int, size: int, waves: Sequence[str]) -> tuple[int, int]:
    """Return (wave, number of waves), from 1, of the node at a place (from 0) of a pool of this size, for people.

    Waves that reach no further than the one before are none, and whom none reaches comes after the last.
    """
    reach = sorted({size, *(min(count(amount, size, up=True), size) for amount in waves)})
    return next(number for number, it in enumerate(reach, 1) if place < it), len(reach)


def closed(node: Node, goal: Goal) -> Decision | None:
    """Return the end of a rollout that failed on too many nodes of this pool: time does not open it again."""
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    rollout = cluster.rollouts[node.desired.pool]
    ours = {peer.name for peer in cluster.pools[node.desired.pool]} if view.poisoned else set()
    failed = sorted(name for name, report in view.poisoned.items() if name in ours and goal.failed(report))
    if len(failed) > rollout.max_failures:
        return Stuck(
            "RolloutClosed",
            f"{goal.what[:1].upper()}{goal.what[1:]} failed on {names(failed)}, more than pool "
            f"{node.desired.pool} allows ({rollout.max_failures}): no other node tries it.",
            f"Look at the journal of {failed[0]}, then move channel {node.channel} to a repaired release.",
        )
    return None


def turn(node: Node, goal: Goal) -> Decision | None:
    """Return why it is not this node's turn to go for the goal."""
    assert node.cluster is not None
    rollout = node.cluster.rollouts[node.desired.pool]
    return closed(node, goal) or _earlier_waves(node, goal, rollout) or _earlier_pools(node)


def _earlier_waves(node: Node, goal: Goal, rollout: Rollout) -> Decision | None:
    # One node of a wave may not begin before every node of the waves before it has been healthy for a while: the
    # first wave is there to fail in place of the others.
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    peers = cluster.pools[node.desired.pool]
    place = cluster.places[node.name]
    before = 0
    for amount in rollout.waves:
        size = min(count(amount, len(peers), up=True), len(peers))
        if place < size:
            break
        before = max(before, size)
    found = _progress_of_waves(node, before, goal, rollout.soak)
    if found.pending:
        return Wait("WaitsForWave", f"Waiting with {goal.what} for the wave before this node: {names(found.pending)}.")
    return _soaking(node.now, found, f"with {goal.what} until the wave before this node has been healthy long enough")


def _progress_of_waves(node: Node, before: int, goal: Goal, soak: timedelta) -> Progress:
    """Return how far the first nodes of a pool are. Who plans for a whole pool asks this for each of its nodes."""
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    key = (id(cluster), node.desired.pool, before, goal.key, soak)
    if key not in view.memo:
        # The cluster is kept with it, so that no other one can get its id.
        view.memo[key] = cluster, progress(cluster.pools[node.desired.pool][:before], view, lambda _: goal, soak)
    found = view.memo[key][1]
    assert isinstance(found, Progress)
    return found


def _soaking(now: datetime, found: Progress, what: str) -> Decision | None:
    if found.soaking_until is None or found.soaking_until <= now:
        return None
    return Wait("Soaking", f"Waiting {what}.", found.soaking_until)


def _earlier_pools(node: Node) -> Decision | None:
    # Control planes come before every worker, and pools in the order of git, each at its own target.
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    if _holds_up_control_planes(node):
        return None
    for pool in cluster.order[: cluster.order.index(node.desired.pool)]:
        rollout = cluster.rollouts[pool]
        found = progress(cluster.pools[pool], view, lambda peer: release_goal(peer.target), rollout.soak)
        if len(found.failed) > rollout.max_failures:
            return Wait(
                "WaitsForPool",
                f"Pool {pool} comes first, and its rollout is closed: its target failed on {names(found.failed)}.",
            )
        if found.pending:
            return Wait("WaitsForPool", f"Waiting for pool {pool}, which comes first: {names(found.pending)}.")
        wait = _soaking(node.now, found, f"until pool {pool}, which comes first, has been healthy long enough")
        if wait is not None:
            return wait
    return None


def _holds_up_control_planes(node: Node) -> bool:
    """Say whether control planes cannot go on to their next minor because of this node's kubelet.

    Else both would wait for each other for ever.
    """
    view, cluster, here = node.view, node.cluster, node.here
    assert view is not None and cluster is not None and here is not None
    oldest = view.oldest_apiserver
    if node.desired.role is not Role.WORKER or oldest is None:
        return False
    following = (oldest.minor[0], oldest.minor[1] + 1)
    targets = [kubernetes_of(peer.target) for peer in cluster.peers if peer.role is Role.CONTROL_PLANE]
    wanted = any(target is not None and target.minor >= following for target in targets)
    return wanted and not skew.within_reach(here.kubelet, following)
