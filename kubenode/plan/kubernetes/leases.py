"""Who may work: the leases of a group, and giving back what is held.

A lease is never stolen on time: a holder that is slow, cut off or down may come back at any moment and go on. It is
taken over only when its holder can't come back, which is when its Node is gone and git does not know it either: a
declared control plane without a Node may just be joining.
"""

from collections.abc import Sequence
from datetime import timedelta

from kubenode.model.decision import (
    AcquireLease,
    Act,
    Action,
    Converged,
    Decision,
    FetchRelease,
    PrepareKubelet,
    PullImages,
    ReleaseLease,
    Stuck,
    Uncordon,
    Wait,
    WriteSlot,
)
from kubenode.model.documents import Role
from kubenode.model.kubernetes import Lease
from kubenode.plan.backoff import held_back
from kubenode.plan.kubernetes import gates, reports
from kubenode.plan.kubernetes.rollout import count
from kubenode.plan.node import Node

CONTROL_PLANE = "control-plane"
_NEEDS_NONE = (FetchRelease, WriteSlot, PullImages, PrepareKubelet, AcquireLease)
"""Actions that take long or may fail, and disturb nobody: nothing is held meanwhile."""
HOLDING = frozenset(("TrialBoot", "ClusterNotHealthy", "NodeNotReady", "Draining"))
"""Waits for the end of what this node itself has begun."""


def group(node: Node) -> str:
    """Return the group that shares leases: all control planes, or one pool of workers."""
    return CONTROL_PLANE if node.desired.role is Role.CONTROL_PLANE else f"pool-{node.desired.pool}"


def slot(of_group: str, number: int) -> str:
    """Return the name of a group's lease."""
    return f"slot-{of_group}-{number}"


def allowed(node: Node) -> int:
    """Return how many of the group may be away at once; of the control planes always one."""
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    if node.desired.role is Role.CONTROL_PLANE:
        return 1
    known = view.by_name
    there = sum(peer.name in known for peer in cluster.pools[node.desired.pool])
    return count(cluster.rollouts[node.desired.pool].max_unavailable, there, up=False)


def missing(node: Node) -> frozenset[str]:
    """Return the names of the leases that do not exist yet, of every group: control planes create them."""
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    wanted = {slot(CONTROL_PLANE, 0)}
    for pool, peers in cluster.pools.items():
        if any(peer.role is Role.WORKER for peer in peers):
            size = count(cluster.rollouts[pool].max_unavailable, len(peers), up=False)
            wanted |= {slot(f"pool-{pool}", number) for number in range(size)}
    return frozenset(wanted - {lease.name for lease in view.leases})


def of_group(node: Node) -> tuple[tuple[int, Lease], ...]:
    """Return the leases of this node's group with their numbers, lowest first."""
    return _numbered(node, node.view.leases if node.view is not None else ())


def _numbered(node: Node, leases: Sequence[Lease]) -> tuple[tuple[int, Lease], ...]:
    prefix = slot(group(node), 0)[:-1]
    found = [
        (int(number), lease)
        for lease in leases
        if lease.name.startswith(prefix) and (number := lease.name.removeprefix(prefix)).isdecimal()
    ]
    return tuple(sorted(found, key=lambda it: it[0]))


def held(node: Node) -> tuple[tuple[int, Lease], ...]:
    """Return the leases that this node holds, lowest number first."""
    mine = node.view.by_holder.get(node.name) if node.view is not None else None
    return _numbered(node, mine) if mine else ()


def working_for(node: Node) -> timedelta:
    """Return how long this node has held its lease."""
    since = [lease.since for _, lease in held(node) if lease.since is not None]
    return node.now - min(since) if since else timedelta(0)


def room(node: Node, what: str) -> Decision | None:
    """Return why this node may not be away now: too many others are, or are about to be.

    Two nodes may see the same room and take a lease each. Whoever has the lower one goes on.
    """
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    if node.desired.role is Role.CONTROL_PLANE:
        wait = gates.other_planes_away(view, node.name, what) or gates.etcd(node, what)
        if wait is not None:
            return wait
        peers = [peer for peer in cluster.peers if peer.role is Role.CONTROL_PLANE]
    else:
        peers = list(cluster.pools[node.desired.pool])
    mine, slots = held(node), of_group(node)
    limit = mine[0][0] if mine else None
    others = {
        lease.holder
        for number, lease in slots
        if lease.holder not in (None, node.name) and not _is_ghost(lease, node) and (limit is None or number < limit)
    }
    # Many nodes ask this at every step, about every peer.
    me, known = node.name, view.by_name
    down = {it.name for it in peers if it.name != me and it.name in known and gates.away(known[it.name])}
    busy = {name for name in others | down if name is not None}
    if len(busy) < allowed(node):
        return None
    if others:
        held_by = "; ".join(
            f"{lease.holder} holds {lease.name}" + (f" ({lease.why})" if lease.why else "")
            for _, lease in slots
            if lease.holder in others
        )
        return Wait("LeaseHeld", f"Waiting to {what}: {held_by}.")
    return Wait("TooManyUnavailable", f"Waiting to {what}: {gates.names(busy)} must be back in service first.")


def _is_ghost(lease: Lease, node: Node) -> bool:
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    return lease.holder is not None and lease.holder not in view.by_name and lease.holder not in cluster.by_name


def acquire(node: Node, what: str, *work: Action) -> Decision | None:
    """Return the action that takes a lease, None when one is held. The caller has asked `room`.

    `work`: what the lease is for. While that is held back after a failure, nothing is taken and what is held is given
    back: others may have their turn.
    """
    for action in work:
        wait = held_back(action, node.journal, node.now)
        if wait is not None:
            return wait
    if held(node):
        return None
    slots, limit = of_group(node), allowed(node)
    for number, lease in slots:
        if number < limit and (lease.holder is None or _is_ghost(lease, node)):
            ghost = f"; its holder {lease.holder} is gone from cluster and git" if lease.holder else ""
            return node.act(AcquireLease(lease.name, what, lease.holder), f"To {what}, {lease.name} is needed{ghost}.")
    holders = {lease.holder for _, lease in slots if lease.holder is not None}
    if holders:
        return Wait("LeaseHeld", f"Waiting to {what}: {gates.names(holders)} holds the lease.")
    return Wait("NoLease", f"Waiting to {what}: the leases of {group(node)} do not exist; control planes create them.")


def let_go(node: Node, decision: Decision, *, begun: bool) -> Decision:
    """Return the decision, or first the step that gives back what it does not need.

    `begun`: this control plane is between two versions, which it must leave before anybody else may work.
    """
    mine, me = held(node), node.me
    if node.view is None or _keeps(decision) or not (mine or (me is not None and me.cordoned_by_us)):
        return decision
    if begun:
        return decision if not isinstance(decision, Converged) else _unfinished(node)
    if node.member is None:
        # Of an earlier life of this machine nothing is left that others would have to wait for.
        return _release(node, mine, "This machine is not part of the cluster (any more).") if mine else decision
    unhealthy = own_health(node)
    if unhealthy is not None:
        return unhealthy
    report = reports.due(node)
    if report is not None:
        # Before others may go on, they must be able to see what became of this node.
        return report
    if me is not None and me.cordoned_by_us:
        return node.act(Uncordon(node.name), f"{node.name} is back, or did not have to leave: pods may come again.")
    return _release(node, mine, "Its work is done, or cannot go on now.")


def _keeps(decision: Decision) -> bool:
    match decision:
        case Act(action):
            return not isinstance(action, _NEEDS_NONE)
        case Wait(reason):
            return reason in HOLDING
        case _:
            return False


def _release(node: Node, mine: Sequence[tuple[int, Lease]], why: str) -> Decision:
    action: Action = ReleaseLease(mine[-1][1].name)
    return node.act(action, f"{mine[-1][1].name} is given back. {why}")


def _unfinished(node: Node) -> Decision:
    assert node.here is not None
    newest = max(node.here.manifests.values())
    return Stuck(
        "UpgradeUnfinished",
        f"The control plane of {node.name} is half way to {newest}, and no release of channel {node.channel} leads on.",
        f"Move the channel to a release with {newest} or newer: Kubernetes never goes back.",
    )


def own_health(node: Node) -> Decision | None:
    """Return why this node is not back yet: kubelet of this boot, and on control planes API server and etcd."""
    me, here, view = node.me, node.here, node.view
    if me is None or here is None or view is None:
        return Wait("NodeNotReady", f"Waiting for kubelet to register {node.name} before its lease is given back.")
    if not node.back:
        return Wait("NodeNotReady", f"Waiting for {node.name} to be Ready with kubelet {here.kubelet} of this boot.")
    if node.member is not Role.CONTROL_PLANE:
        return None
    serving, wanted = view.apiservers.get(node.name), here.manifests.get("kube-apiserver")
    if serving is None or serving != wanted:
        return Wait("ClusterNotHealthy", f"Waiting for the API server of {node.name} to answer as {wanted}.")
    if view.etcd is None or not all(member.healthy for member in view.etcd.members):
        return Wait("ClusterNotHealthy", f"Waiting for etcd to be healthy before {node.name} gives back its lease.")
    return None
