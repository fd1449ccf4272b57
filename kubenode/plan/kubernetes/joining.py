"""The way in: one `kubeadm init` in the life of a cluster, and joins for everybody else.

A second init under the same CA would make healthy kubelets obey an empty cluster. So it is possible for a limited
time, on one node, and never when anybody answers with the cluster's CA.
"""

from kubenode.model.decision import Act, Decision, KubeadmInit, KubeadmJoin, RemoveEtcdMember, Stuck, Wait
from kubenode.model.documents import Role
from kubenode.model.kubernetes import Entry, EtcdMember, EtcdView
from kubenode.plan.kubernetes import gates, leases, skew
from kubenode.plan.node import Node


def enter(node: Node) -> Decision | None:
    """Return the next step of a machine that is to become part of the cluster, None while its release comes first."""
    if not node.newcomer:
        return None
    here, cluster = node.here, node.cluster
    assert cluster is not None
    if here is not None and here.entering is Entry.INIT:
        # Whatever answers now is what this machine itself has begun; half a control plane serves nobody.
        return node.act(KubeadmInit(here.kubelet), f"The cluster's first control plane was begun on {node.name}.")
    if node.hop is not None and (here is None or here.entering is None):
        return None
    if here is None:
        return Stuck(
            "NoKubernetes",
            f"{node.running} has no kubelet, and channel {node.channel} leads to no release that has one.",
            "Move the channel to a release with Kubernetes.",
        )
    if node.desired.halted:
        return Wait("Halted", f"The fleet is halted; {node.name} waits to become part of the cluster.")
    if not node.observed.answers:
        return _init(node) if node.name == cluster.bootstrap_node else _nobody(node)
    join = _join_control_plane if node.desired.role is Role.CONTROL_PLANE else _join
    return _versions(node) or _token(node) or join(node)


def _nobody(node: Node) -> Decision:
    assert node.cluster is not None
    return Wait(
        "WaitsForCluster",
        f"No control plane answers at {node.cluster.endpoint}; {node.cluster.bootstrap_node} founds the cluster.",
    )


def _init(node: Node) -> Decision:
    cluster, here = node.cluster, node.here
    assert cluster is not None and here is not None
    if node.now >= cluster.init_before:
        return Stuck(
            "InitExpired",
            f"{node.name} would found the cluster, but that was possible until {cluster.init_before:%Y-%m-%d %H:%M} "
            "UTC only, and no control plane answers.",
            "If the cluster exists, make its endpoint reachable. If it does not, move initBefore in fleet.yaml.",
        )
    return node.act(
        KubeadmInit(here.kubelet),
        f"{node.name} is the bootstrap node and no control plane answers with the cluster's CA.",
        "every other node joins",
    )


def _versions(node: Node) -> Decision | None:
    here, answers = node.here, node.observed.answers
    assert here is not None
    if skew.may_join(node.desired.role, here.kubelet, answers):
        return None
    versions = [answer.version for answer in answers if answer.version is not None]
    if len(versions) < len(answers):
        silent = gates.names({answer.name for answer in answers if answer.version is None})
        return Wait("CannotJoinYet", f"Waiting until the API server of {silent} says its version.")
    found = gates.names({str(version) for version in versions})
    message = f"A {node.desired.role} with kubelet {here.kubelet} cannot join API servers of {found}"
    newest = max(versions)
    if here.kubelet > min(versions) or len(set(versions)) > 1:
        return Wait("CannotJoinYet", f"{message}; it waits for the control plane to move.")
    return Stuck(
        "NoReleaseToJoin",
        f"{message}, and no release of channel {node.channel} could.",
        f"Add a release with Kubernetes {newest.minor[0]}.{newest.minor[1]} to the channel.",
    )


def _token(node: Node) -> Decision | None:
    # A join that has begun goes on: nobody publishes the token of a node that is Ready, and it needs none then.
    if node.observed.invited is not False or (node.here is not None and node.here.entering is Entry.JOIN):
        return None
    # kubeadm would wait five minutes and fail, and every failure doubles the time until the next try.
    return Wait(
        "WaitsForToken",
        f"The cluster does not know the bootstrap token of {node.name} yet; a control plane publishes it at its next "
        "tick, once it sees that the node is away.",
    )


def _join(node: Node) -> Decision:
    return node.act(KubeadmJoin(Role.WORKER), f"The cluster answers, and {node.name} is to be a worker of it.")


def _join_control_plane(node: Node) -> Decision:
    # A new member of etcd is as delicate as an upgrade: one control plane at a time, and nothing else meanwhile.
    what = f"join {node.name} as a control plane"
    view = node.view
    if view is None:
        return Wait("ApiUnreachable", f"Waiting to {what} until the Kubernetes API answers.")
    assert node.here is not None
    begun = node.here.entering is Entry.JOIN
    wait = gates.other_planes_away(view, node.name, what) or gates.etcd(node, what, without=_own(node, begun=begun))
    if wait is not None:
        return wait
    assert view.etcd is not None
    # A join that was cut off may have a member already, whose data is here: without it no other could start from them.
    stale = None if begun else next((member for member in view.etcd.members if member.name == node.name), None)
    if stale is not None:
        step = remove_member(node, stale, "was left behind by an earlier life of this machine", what)
    else:
        step = node.act(KubeadmJoin(Role.CONTROL_PLANE), f"The cluster answers and is healthy; {node.name} joins it.")
    return (leases.acquire(node, what) if isinstance(step, Act) else None) or step


def _own(node: Node, *, begun: bool) -> set[str]:
    """Return the names of this machine's members of etcd; "" for one that its join has added and not started."""
    assert node.view is not None and node.cluster is not None
    address = node.cluster.by_name[node.name].address
    unstarted = [it for it in node.view.etcd.members if not it.name] if node.view.etcd is not None else []
    mine = begun and all(it.never_started_at(address) for it in unstarted)
    return {node.name, ""} if mine else {node.name}


def remove_member(node: Node, member: EtcdMember, why: str, what: str) -> Decision:
    """Return the removal of a member from etcd, or the wait for a quorum that survives it."""
    assert node.view is not None and node.view.etcd is not None
    if not quorum_without(node.view.etcd, member):
        return Wait("NoQuorum", f"Waiting to {what}: without the member {member.name} etcd would have no quorum.")
    return node.act(RemoveEtcdMember(member.name, member.id), f"The etcd member {member.name} {why}.")


def quorum_without(etcd: EtcdView, member: EtcdMember) -> bool:
    """Say whether etcd can agree on the removal, and on anything after it."""
    voters = [it for it in etcd.members if not it.learner]
    healthy = sum(it.healthy for it in voters)
    rest = [it for it in voters if it.id != member.id]
    return healthy > len(voters) // 2 and bool(rest) and sum(it.healthy for it in rest) > len(rest) // 2
