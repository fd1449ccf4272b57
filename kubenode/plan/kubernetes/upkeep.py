"""What a member of the cluster does besides updates: certificates, newcomers, leavers, configuration, leftovers."""

from collections.abc import Iterator
from datetime import timedelta

from kubenode.model.decision import (
    Act,
    ApproveRequests,
    Converged,
    Cordon,
    CreateLeases,
    Decision,
    DeleteNode,
    Drain,
    PruneKubeadm,
    RenewCertificates,
    RestartStaticPods,
    SetTokens,
    Wait,
)
from kubenode.model.desired import DesiredCluster
from kubenode.model.documents import Role, Rollout
from kubenode.model.kubernetes import ClusterNode, ClusterView
from kubenode.plan.kubernetes import configuration, control_plane, gates, joining, leases, reports, requests
from kubenode.plan.node import Node

RENEW_BEFORE = timedelta(days=60)
"""kubeadm's certificates last a year; they are renewed in a window of their last two months."""
URGENT_BEFORE = timedelta(days=14)
"""From here on neither windows nor the halt switch hold the renewal back: the cluster would stop by itself."""


def revive(node: Node) -> Decision | None:
    """Return the repair of static pods that the kubelet does not start: without them nothing else may be possible."""
    here = node.here
    if node.cluster is None or here is None or not here.rejected:
        return None
    step = node.act(
        RestartStaticPods(here.rejected),
        f"The kubelet has made nothing of the static pods {gates.names(here.rejected)}: it rejected them while it was "
        "starting, and does not try again by itself (kubernetes#138391).",
    )
    # A repair that failed keeps nothing else waiting.
    return step if isinstance(step, Act) else None


def chores(node: Node, decision: Decision) -> Decision:
    """Return the decision about the update, or what is due when that has to wait or has nothing to do."""
    if node.observed.booted.trial or node.member is None or gates.local_role(node) is not None:
        return decision
    quiet = list(_quiet(node))
    # One chore that fails (a node without a token in git) keeps no other waiting.
    due = next((it for it in quiet if isinstance(it, Act)), None) or _certificates(node)
    if due is None and not control_plane.begun(node) and not _keeps_working(decision):
        due = _leavers(node) or (configuration.apply(node) if node.hop is None else None)
    due = due or next(iter(quiet), None)
    if due is None or (isinstance(due, Wait) and not isinstance(decision, Converged)):
        return decision
    return due


def _keeps_working(decision: Decision) -> bool:
    return isinstance(decision, Wait) and decision.reason in leases.HOLDING


def _quiet(node: Node) -> Iterator[Decision]:
    """Yield what disturbs nobody, so that it needs neither lease nor window and is not halted."""
    here, view, cluster = node.here, node.view, node.cluster
    assert here is not None and cluster is not None
    if here.leftovers:
        yield node.act(PruneKubeadm(), "kubeadm's copies of etcd and manifests fill the disk (kubernetes#125357).")
    if view is None:
        return
    report = reports.due(node)
    if report is not None:
        yield report
    if node.member is not Role.CONTROL_PLANE:
        return
    lacking = leases.missing(node)
    if lacking:
        yield node.act(CreateLeases(lacking), "Nodes take turns by leases, and only control planes may create them.")
    # A token is there only while its node needs it: who finds it later can do nothing with it.
    absent = in_need_of_tokens(node.name, cluster, view)
    if view.tokens != absent:
        yield node.act(SetTokens(absent), "Nodes that are not in the cluster (any more) join with tokens of their own.")
    wanted = requests.approvable(view.requests, cluster)
    if wanted:
        yield node.act(ApproveRequests(wanted), f"Every field of the requests {gates.names(wanted)} is as git says.")


def in_need_of_tokens(me: str, cluster: DesiredCluster, view: ClusterView) -> frozenset[str]:
    """Return the nodes whose bootstrap tokens the control plane `me` publishes: the others that are not Ready."""
    known = view.by_name
    return frozenset(
        it.name for it in cluster.peers if it.name != me and not (it.name in known and known[it.name].ready)
    )


def _certificates(node: Node) -> Decision | None:
    until = node.here.certificates_until if node.here is not None else None
    if node.member is not Role.CONTROL_PLANE or until is None or until - node.now > RENEW_BEFORE:
        return None
    action = RenewCertificates(node.now + RENEW_BEFORE)
    why = f"The certificates of this control plane end at {until:%Y-%m-%d %H:%M} UTC."
    if node.view is None and until <= node.now:
        # Nobody can be asked any more, and nothing is left to disturb: this is how the API comes back.
        return node.act(action, why)
    what = "renew the certificates of this control plane"
    urgent = node.view is not None and node.me is not None and until - node.now <= URGENT_BEFORE
    wait = (None if urgent else gates.begin(node, what)) or leases.room(node, what)
    return wait or leases.acquire(node, what, action) or node.act(action, why)


def _leavers(node: Node) -> Decision | None:
    """Return the next step for a node that has left git: emptied, out of etcd, and its Node deleted."""
    view, cluster = node.view, node.cluster
    if view is None or cluster is None or node.member is not Role.CONTROL_PLANE:
        return None
    # Only what kubenode brought in: a node that never reported was added by somebody else, who will know why.
    gone = [it for it in view.nodes if it.name not in cluster.by_name and it.report is not None]
    if not gone:
        return None
    leaver = min(gone, key=lambda it: it.name)
    what = f"take {leaver.name}, which is not in git any more, out of the cluster"
    others = [it.name for it in view.nodes if it.role is Role.CONTROL_PLANE and it.name not in (leaver.name, node.name)]
    step = _take_out(node, leaver, what)
    wait = (
        gates.begin(node, what)
        or gates.etcd(node, what, without={it.name for it in gone})
        or _others_away(node, others, what)
    )
    # Without work there is no lease to take: it would be given back at once.
    return wait or (leases.acquire(node, what) if isinstance(step, Act) else None) or step


def _others_away(node: Node, others: list[str], what: str) -> Decision | None:
    assert node.view is not None
    found = [name for name in others if gates.away(node.view.by_name[name])]
    if not found:
        return None
    return Wait("ControlPlaneUnavailable", f"Waiting to {what} until the control plane {gates.names(found)} is back.")


def _take_out(node: Node, leaver: ClusterNode, what: str) -> Decision:
    view = node.view
    assert view is not None
    left = view.pods.get(leaver.name)
    if leaver.ready and left is None:
        return Wait("PodsUnknown", f"Waiting to {what}: its pods cannot be seen.")
    if leaver.ready and not leaver.cordoned:
        return node.act(Cordon(leaver.name), f"{leaver.name} is not in git any more.", "drain", "delete its Node")
    if leaver.ready and left:
        late = leases.working_for(node) >= Rollout().drain_timeout
        decision = node.act(Drain(leaver.name, late), f"{leaver.name} is not in git any more.", "delete its Node")
        return Wait("Draining", decision.message, decision.until) if isinstance(decision, Wait) else decision
    for member in view.etcd.members if view.etcd is not None else ():
        if member.name == leaver.name:
            return joining.remove_member(node, member, "belongs to a node that is not in git any more", what)
    return node.act(
        DeleteNode(leaver.name),
        f"{leaver.name} is not in git any more and runs nothing. Wipe the machine: kubenode leaves its disk alone.",
    )
