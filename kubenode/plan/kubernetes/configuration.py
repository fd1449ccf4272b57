"""kubeadm documents that changed in git without a new version: the same order, with no restart.

Control planes one at a time write the cluster's documents and render their static pods; workers follow pool by pool
and wave by wave with their kubelets. An upgrade brings the configuration with it, so this is for what is left.
"""

from kubenode.model.decision import Decision, Reconfigure, Wait
from kubenode.model.documents import Role
from kubenode.plan.kubernetes import gates, leases, rollout
from kubenode.plan.node import Node


def apply(node: Node) -> Decision | None:
    """Return the next step that brings git's configuration here, None when it is here."""
    cluster, here, view = node.cluster, node.here, node.view
    if cluster is None or here is None or view is None:
        return None
    wanted = cluster.configuration
    plane = node.member is Role.CONTROL_PLANE
    if here.configuration == wanted and (not plane or view.configuration == wanted):
        return None
    what = f"apply the configuration {wanted[:12]}"
    wait = gates.begin(node, what) or _before(node, plane=plane, what=what) or leases.room(node, what)
    if wait is not None:
        return wait
    action = Reconfigure(wanted, plane and view.configuration != wanted)
    return leases.acquire(node, what, action) or node.act(action, _why(node, action))


def _why(node: Node, action: Reconfigure) -> str:
    here = node.here
    assert here is not None
    if here.configuration == action.configuration:
        return "The cluster's own documents are not those of git: somebody changed them, or git has changed back."
    if here.configuration is None:
        # A machine that has joined a moment ago: kubeadm gave it the cluster's documents, and nothing is written down.
        return f"{node.name} has joined, and nothing says yet that its configuration is the one in git."
    return f"The kubeadm documents in git have changed: {node.name} still runs {here.configuration[:12]}."


def _before(node: Node, *, plane: bool, what: str) -> Decision | None:
    cluster, here, view = node.cluster, node.here, node.view
    assert cluster is not None and here is not None and view is not None
    if not plane:
        if view.configuration != cluster.configuration:
            return Wait("WaitsForConfiguration", f"Waiting to {what} until a control plane has written it.")
        return rollout.turn(node, rollout.configuration_goal(cluster.configuration))
    if here.is_ahead:
        # The booted slot's kubeadm would render older static pods than those that run.
        return Wait(
            "WaitsForRelease", f"Waiting to {what} until a release with this control plane's version runs here."
        )
    return None
