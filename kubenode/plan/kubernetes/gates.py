"""What stops anything that disturbs the cluster, whoever wants to begin it. Each returns the reason, None when free."""

from collections.abc import Collection, Iterable

from kubenode.model.decision import Decision, Stuck, Wait
from kubenode.model.documents import Role
from kubenode.model.kubernetes import ClusterNode, ClusterView, KubernetesVersion
from kubenode.plan.kubernetes import skew
from kubenode.plan.node import Node

_SHOWN = 5


def names(found: Iterable[str]) -> str:
    """Return names for a message; of many the first few."""
    every = sorted(found)
    return ", ".join(every[:_SHOWN]) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "")


def begin(node: Node, what: str) -> Decision | None:
    """Return why nothing that disturbs may begin now: no sight of the cluster, stale, the halt switch, no window."""
    if node.view is None:
        # Without the API nobody knows who else is away: what is not seen is not guessed.
        return Wait("ApiUnreachable", f"Waiting to {what} until the Kubernetes API answers; nothing is begun without.")
    if node.stale:
        return Wait("Stale", f"Waiting to {what} while this node is stale: {node.stale}.")
    if node.desired.halted:
        return Wait("Halted", f"The fleet is halted; waiting to {what}.")
    if node.me is None:
        return Wait("NodeMissing", f"Waiting to {what}: the cluster has no Node {node.name}; kubelet registers it.")
    return node.outside_window(what)


def away(node: ClusterNode) -> bool:
    """Say whether a node takes no pods now, whatever the reason: it counts as unavailable."""
    return not node.ready or node.cordoned


def other_planes_away(view: ClusterView, me: str, what: str) -> Decision | None:
    """Return the wait for other control planes: one at a time, and kubeadm refuses to work beside one that is NotReady.

    Source: kubeadm#539.
    """
    planes = [it for it in view.nodes if it.role is Role.CONTROL_PLANE and it.name != me]
    found = {it.name for it in planes if away(it)} | {
        name for name, version in view.apiservers.items() if version is None and name != me
    }
    if not found:
        return None
    return Wait(
        "ControlPlaneUnavailable",
        f"Waiting to {what} until the control plane {names(found)} is ready, not cordoned and its API server answers.",
    )


def etcd(node: Node, what: str, without: Collection[str] = ()) -> Decision | None:
    """Return why etcd must not be touched now. `without`: names of members that are about to be removed."""
    view = node.view
    if view is None or view.etcd is None:
        return Wait("EtcdUnknown", f"Waiting to {what}: etcd does not answer this node.")
    members = [member for member in view.etcd.members if member.name not in without]
    if view.etcd.alarms:
        return Wait(
            "EtcdAlarm",
            f"Waiting to {what} until etcd's alarms are gone: {names(view.etcd.alarms)} (etcdctl alarm list).",
        )
    sick = {member.name or member.id for member in members if not member.healthy}
    if sick:
        return Wait("EtcdUnhealthy", f"Waiting to {what} until the etcd members {names(sick)} are healthy.")
    learners = {member.name or member.id for member in members if member.learner}
    if learners:
        return Wait(
            "EtcdLearner", f"Waiting to {what} until the etcd members {names(learners)} are no learners any more."
        )
    planes = {it.name for it in view.nodes if it.role is Role.CONTROL_PLANE} - set(without)
    if {member.name for member in members} != planes:
        return Wait(
            "EtcdMembersMismatch",
            f"Waiting to {what}: etcd's members are {names(it.name or it.id for it in members)}, "
            f"the control planes are {names(planes)}.",
        )
    return None


def kubelets_too_old(node: Node, new: KubernetesVersion) -> Decision | None:
    """Return the wait for nodes whose kubelet API servers of the new version would not accept any more."""
    view = node.view
    assert view is not None
    old = {it.name for it in view.nodes if not skew.within_reach(it.kubelet, new.minor)}
    if not old:
        return None
    return Wait("KubeletsTooOld", f"The kubelets of {names(old)} are too old for {new}: those nodes move first.")


def etcd_version(node: Node, new: KubernetesVersion) -> Decision | None:
    """Return why etcd cannot follow to the new version's etcd."""
    view = node.view
    assert view is not None and view.etcd is not None
    old = {it.name for it in view.etcd.members if it.version is not None and skew.etcd_too_old(it.version, new)}
    if not old:
        return None
    return Stuck(
        "EtcdTooOld",
        f"{new} brings etcd 3.6, and the members {names(old)} are older than 3.5.26: some clusters break on that way.",
        "Add a release to the channel whose kubeadm brings etcd 3.5.26 or newer, and let the fleet run it first.",
    )


def local_role(node: Node) -> Decision | None:
    """Return why this machine is not what git says: roles never change in place."""
    member, declared = node.member, node.desired.role
    if member is None or (member is declared and node.cluster is not None):
        return None
    if declared is Role.STANDALONE:
        return Stuck(
            "ClusterNotDeclared",
            f"This machine is a {member} of a cluster, and the fleet repo declares it as {declared}; nothing that "
            "disturbs is done.",
            "Put it into a pool of the cluster, or take it out of the cluster (drain, kubeadm reset).",
        )
    if node.cluster is None:
        return Stuck(
            "KubernetesUpdatesNotSupported",
            f"This machine is a {member} of a cluster, and its agent does not look after clusters: nothing that "
            "disturbs is done.",
            f"Keep the pool on {node.running}, or take the machine out of the cluster (drain, kubeadm reset) first.",
        )
    return Stuck(
        "RoleChanged",
        f"This machine is a {member} of the cluster, and the fleet repo declares it as a {declared}.",
        "A role never changes in place: take the node out of git, wipe the machine, and add it again.",
    )
