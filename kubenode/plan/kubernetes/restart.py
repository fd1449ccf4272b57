"""Pass two: a member of the cluster restarts into its next release, emptied of pods, when it is its turn.

Everything that may forbid it is asked again at every step: what changes meanwhile (the halt switch, a window that
closes, another node that fails) takes the node back into service instead.
"""

from collections.abc import Iterator

from kubenode.model.decision import (
    Action,
    ActivateSlot,
    Cordon,
    Decision,
    Drain,
    PrepareKubelet,
    Reboot,
    Uncordon,
    Wait,
)
from kubenode.model.documents import Release, Role
from kubenode.plan import backoff, slots
from kubenode.plan.kubernetes import configuration, control_plane, gates, leases, rollout, skew
from kubenode.plan.node import Node, kubernetes_of


def what_for(hop: Release) -> str:
    """Return what a lease is taken for, for people."""
    return f"restart into release {hop.version}"


def blocked(node: Node, hop: Release) -> Decision | None:
    """Return why this node may not leave for the release now, lease or not."""
    what = what_for(hop)
    return (
        gates.begin(node, what)
        or _apiservers(node, hop)
        or _configuration(node, what)
        or rollout.turn(node, rollout.release_goal(hop, down=node.goes_down))
        or leases.room(node, what)
        or _pods(node, what)
    )


def _pods(node: Node, what: str) -> Decision | None:
    if node.view is not None and node.name in node.view.pods:
        return None
    return Wait("PodsUnknown", f"Waiting to {what}: the pods of {node.name} cannot be seen.")


def _apiservers(node: Node, hop: Release) -> Decision | None:
    # The rule that makes two passes of one update: no kubelet is newer than any API server. One that does not answer
    # may be an old one.
    view, here, new = node.view, node.here, kubernetes_of(hop)
    assert view is not None and here is not None and new is not None
    if not view.apiservers:
        return Wait("ApiServersUnknown", f"Waiting to {what_for(hop)}: no API server is known.")
    old = {
        name: version
        for name, version in view.apiservers.items()
        if (version is None and new > here.kubelet) or (version is not None and not skew.kubelet_fits(new, version))
    }
    if not old:
        return None
    shown = gates.names(f"{name} ({version or 'does not answer'})" for name, version in old.items())
    return Wait(
        "WaitsForApiServers", f"Waiting to {what_for(hop)} with kubelet {new} until API servers allow it: {shown}."
    )


def _configuration(node: Node, what: str) -> Decision | None:
    # The kubelet set of the next slot is rendered from the cluster's documents: those must be git's first.
    view, cluster = node.view, node.cluster
    assert view is not None and cluster is not None
    if view.configuration == cluster.configuration:
        return None
    if node.member is Role.CONTROL_PLANE:
        return configuration.apply(node)
    return Wait("WaitsForConfiguration", f"Waiting to {what} until a control plane has written git's configuration.")


def prepare(node: Node, hop: Release) -> Decision | None:
    """Return the next step before the release may be activated, None when the node is empty and holds its lease."""
    here, view, me, cluster = node.here, node.view, node.me, node.cluster
    wait = blocked(node, hop)
    if wait is not None:
        return wait
    assert here is not None and view is not None and me is not None and cluster is not None
    then = (f"activate release {hop.version}", "restart", *node.onwards(), "uncordon", "give the lease back")
    if here.kubelet_sets.get(hop.root_hash) != cluster.configuration:
        # A kubelet with flags it does not know exits (kubernetes#133778). Before the lease: it disturbs nobody, and
        # what fails must fail before the node is emptied.
        return node.act(
            PrepareKubelet(hop, cluster.configuration),
            f"Slot {node.observed.booted.slot.other} needs a kubelet configuration of its own before it starts.",
            "drain",
            *then,
        )
    return _lease(node, hop) or _empty(node, *then)


def _lease(node: Node, hop: Release) -> Decision | None:
    # A drain that came to nothing is not begun again at once: others may have their turn meanwhile.
    attempt = node.journal.attempts.get(backoff.step_key(Drain(node.name)))
    if attempt is not None and not leases.held(node):
        wait = backoff.backing_off(f"Draining {node.name}", attempt, backoff.delay(attempt.failures), node.now)
        if wait is not None:
            return Wait("DrainFailed", wait.message, wait.until)
    # Asked again while the lease is held: a node whose next steps must wait is not emptied for them.
    return leases.acquire(node, what_for(hop), *_ahead(node, hop))


def _ahead(node: Node, hop: Release) -> Iterator[Action]:
    """Yield what is still to be done on the way to the restart and may be held back. A drain is tried every minute."""
    assert node.me is not None
    if not node.me.cordoned:
        yield Cordon(node.name)
    if not slots.is_activated(hop, node.observed):
        yield ActivateSlot(hop)
    yield Reboot(hop)


def _empty(node: Node, *then: str) -> Decision | None:
    me, view = node.me, node.view
    assert me is not None and view is not None
    left = view.pods[node.name]
    if me.cordoned and not left:
        return None
    rollout_of_pool = node.cluster.rollouts[node.desired.pool] if node.cluster is not None else None
    assert rollout_of_pool is not None
    late = leases.working_for(node) >= rollout_of_pool.drain_timeout
    blocking = gates.names(f"{pod.namespace}/{pod.name}" + (f" ({pod.budget})" if pod.budget else "") for pod in left)
    if late and not rollout_of_pool.drain_force:
        # Back into service, and the lease to the next: one pod that cannot leave must not keep the fleet (or the
        # node) out of work.
        wait = Wait("DrainTimedOut", f"{node.name} could not be drained in time; left: {blocking}.")
        return node.act(Uncordon(node.name), wait.message) if me.cordoned_by_us else wait
    if not me.cordoned:
        return node.act(Cordon(node.name), f"{node.name} is emptied before it restarts.", "drain", *then)
    drain = Drain(node.name, late)
    decision = node.act(drain, f"{node.name} is emptied before it restarts; left: {blocking}.", *then)
    if not isinstance(decision, Wait):
        return decision
    message, attempt = decision.message, node.journal.attempts.get(backoff.step_key(drain))
    if attempt is not None and attempt.error and decision.until is not None:
        # Pods take their time, which is no failure.
        left_then = attempt.error.rstrip(".")
        message = (
            f"{node.name} is emptied before it restarts: {left_then}; asked again at {decision.until:%H:%M:%S} UTC."
        )
    return Wait("Draining", message, decision.until)


def permitted(node: Node, hop: Release) -> bool:
    """Say whether the activated release may start now, by our restart or by a power cut: nothing is left to prepare."""
    return control_plane.pass_one(node, hop) is None and prepare(node, hop) is None
