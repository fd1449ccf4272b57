"""Pass one: static pods of control planes move first, one control plane at a time, under the kubelets that run.

A kubelet may not be newer than any API server, and kubelet and kubeadm come in one image. So the staged release's
kubeadm does the upgrade before any machine starts that release.
"""

from kubenode.model.decision import Decision, KubeadmUpgrade, PullImages, SnapshotEtcd, Wait
from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import KubernetesVersion
from kubenode.plan.kubernetes import gates, leases, rollout
from kubenode.plan.node import Node, kubernetes_of


def begun(node: Node) -> bool:
    """Say whether this control plane is between two versions: only going on is safe then, whatever else is wanted.

    Static pods of several versions, or pods that are newer than the cluster's documents (`kubeadm upgrade apply`
    writes those last).
    """
    if node.member is not Role.CONTROL_PLANE or node.here is None or not node.here.manifests:
        return False
    versions = set(node.here.manifests.values())
    return len(versions) > 1 or (node.view is not None and node.view.version < min(versions))


def pass_one(node: Node, hop: Release) -> Decision | None:
    """Return the next step that brings this control plane to the staged release's version, None when it is there."""
    new, here = kubernetes_of(hop), node.here
    if node.member is not Role.CONTROL_PLANE or here is None or new is None:
        return None
    oldest = min(here.manifests.values(), default=None)
    there = oldest is not None and oldest >= new and not begun(node) and not _unwritten(node)
    if oldest is None or there or new < max(here.manifests.values()):
        return None
    what = f"move the control plane to {new}"
    return _blocked(node, hop, new, what) or _step(node, hop, new, what)


def _unwritten(node: Node) -> bool:
    """Say whether git's documents are not the cluster's, and only the staged kubeadm can render the pods that run.

    They have changed in git between the passes, or the power failed before what was written was marked. Nobody starts
    a kubelet with other documents than git's, so without this both passes would wait for each other.
    """
    return node.here is not None and node.here.is_ahead and _differ(node)


def _differ(node: Node) -> bool:
    view, cluster = node.view, node.cluster
    return view is not None and cluster is not None and view.configuration != cluster.configuration


def _blocked(node: Node, hop: Release, new: KubernetesVersion, what: str) -> Decision | None:
    if node.view is None or not begun(node):
        # What is half done is finished in a halted fleet and outside windows too: as it is, it is worse.
        wait = gates.begin(node, what)
        if wait is not None:
            return wait
    view = node.view
    assert view is not None
    return (
        _minors(node, new, what)
        or gates.kubelets_too_old(node, new)
        or rollout.closed(node, rollout.release_goal(hop))
        or leases.room(node, what)
        or gates.etcd_version(node, new)
    )


def _minors(node: Node, new: KubernetesVersion, what: str) -> Decision | None:
    # API servers stay within one minor of each other (version skew policy): nobody begins a minor before every other
    # has reached the one before.
    view = node.view
    assert view is not None
    behind = {
        name: version
        for name, version in view.apiservers.items()
        if version is not None and (version.minor[0], version.minor[1] + 1) < new.minor
    }
    if not behind:
        return None
    shown = gates.names(f"{name} ({version})" for name, version in behind.items())
    return Wait("ApiServersBehind", f"Waiting to {what} until every API server is at most one minor older: {shown}.")


def _step(node: Node, hop: Release, new: KubernetesVersion, what: str) -> Decision | None:
    here, view = node.here, node.view
    assert here is not None and view is not None
    then = (f"kubeadm upgrade to {new}", "give the lease back", "every other control plane", "restart")
    if new not in here.pulled:
        # Before the lease: a slow registry must not keep others waiting, nor an upgrade half done.
        return node.act(
            PullImages(hop, new), f"The images of {new} must be here before the control plane moves.", *then
        )
    if me_away(node):
        return Wait("NodeNotReady", f"Waiting to {what} until {node.name} itself is Ready and not cordoned.")
    # `kubeadm upgrade node` takes the documents that the cluster has, and the node would call them git's.
    first = view.version < new or _differ(node)
    save, upgrade = SnapshotEtcd(hop), KubeadmUpgrade(hop, new, first)
    lease = leases.acquire(node, what, save, upgrade)
    if lease is not None:
        return lease
    if hop.manifest not in here.snapshots:
        return node.act(save, f"etcd is saved before the control plane moves to {new}.", *then)
    why = "the cluster's documents and addons move with it" if first else "the first control plane has moved"
    oldest = min(here.manifests.values())
    what = f"move from {oldest} to {new}" if oldest < new else f"of {new} are rendered anew"
    return node.act(upgrade, f"The static pods of {node.name} {what} with the staged kubeadm; {why}.", *then[1:])


def me_away(node: Node) -> bool:
    """Say whether this node itself is NotReady or cordoned: kubeadm's own checks need it (kubeadm#3050, #3282)."""
    return node.me is None or gates.away(node.me)
