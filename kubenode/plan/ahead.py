"""What lies ahead of one node, for people: every step from what it runs to its target, in order.

`decide` knows the next step only, which is all that a node needs. This is the rest of the way as it will be when
nothing changes meanwhile. What is done already is left out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import dropwhile

from kubenode.model.decision import Act, Decision, Wait
from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import KubernetesVersion
from kubenode.model.observed import Slot
from kubenode.plan import slots, windows
from kubenode.plan.backoff import in_words, step_of
from kubenode.plan.kubernetes import leases
from kubenode.plan.kubernetes.rollout import wave_of
from kubenode.plan.node import Node, kubernetes_of

_ITS_TURN = frozenset(("TooManyUnavailable", "LeaseHeld", "NoLease", "PodsUnknown", "DrainFailed", "Draining"))
"""Waits of a node whose pool and wave have their turn already: only room or its own pods are missing."""


@dataclass(frozen=True)
class Step:
    """One step. `kind` is that of `kubenode.plan.backoff` (fetch, write, drain, ...), or `wait` for what others do.

    `phase`: "any time" (disturbs nobody), "pass one" (static pods), "pass two" (the restart of a member), "restart",
    "join", "configure" or "now". `barrier` says what cannot be taken back after it; `disturbs`: it needs an open window
    and its turn.
    """

    kind: str
    text: str
    release: str = ""
    phase: str = ""
    barrier: str = ""
    disturbs: bool = False


@dataclass(frozen=True)
class Wave:
    """A node's place in its pool's rollout: wave `number` of `of`; those before it go first and soak."""

    number: int
    of: int
    soak: timedelta = timedelta(0)


def ahead(node: Node, decision: Decision, wave: Wave | None = None) -> tuple[Step, ...]:
    """Return the steps that are left, the decided one first when there is one."""
    steps = list(_way(node, wave))
    if isinstance(decision, Wait) and decision.reason in _ITS_TURN:
        return tuple(dropwhile(lambda it: it.kind == "wait", steps))
    if not isinstance(decision, Act):
        return tuple(steps)
    kind = step_of(decision.action)
    place = next((index for index, it in enumerate(steps) if it.kind != "wait"), -1)
    if place >= 0 and steps[place].kind == kind:
        # What it would have had to wait for is so already.
        return tuple(steps[place:])
    words = in_words(decision.action)
    return (Step(kind, words[:1].lower() + words[1:], phase="now"), *steps)


def waves(node: Node) -> dict[str, Wave]:
    """Return the wave of each peer of a member's pool, empty for a machine outside a cluster."""
    cluster = node.cluster
    if cluster is None:
        return {}
    peers, rollout = cluster.pools[node.desired.pool], cluster.rollouts[node.desired.pool]
    return {
        peer.name: Wave(*wave_of(place, len(peers), rollout.waves), rollout.soak) for place, peer in enumerate(peers)
    }


def window(node: Node) -> str:
    """Say when something that disturbs may begin: "" without windows, "open", or when the next one opens (UTC)."""
    if not node.desired.windows or node.newcomer:
        return ""
    if windows.is_open(node.desired.windows, node.now):
        return "open"
    opening = windows.next_opening(node.desired.windows, node.now)
    return f"opens {opening:%Y-%m-%d %H:%M} UTC" if opening is not None else "never opens"


def _way(node: Node, wave: Wave | None) -> Iterator[Step]:
    slot, holds = node.observed.booted.slot, str(node.observed.booted.version)
    spare = next(
        (str(it.version) for it in slots.other_entries(node.observed) if it.root_hash == node.observed.spare), ""
    )
    kubelet = node.here.kubelet if node.here is not None else None
    member = node.member is not None and node.cluster is not None
    for number, hop in enumerate(node.path):
        first, version = number == 0, str(hop.version)
        steps = [
            *_in("any time", _staging(node, hop, slot.other, spare, first=first)),
            *(_pass_one(node, hop, kubelet, first=first) if node.member is Role.CONTROL_PLANE else ()),
            *_in(
                "pass two" if member else "restart",
                [
                    *(_turn(node, hop, kubelet, wave, first=first) if member else ()),
                    *_restart(node, hop, holds, first=first),
                    *(_back() if member else ()),
                ],
            ),
        ]
        yield from (replace(it, release=version) for it in steps)
        slot, spare, holds, kubelet = slot.other, holds, version, kubernetes_of(hop)
    if node.newcomer:
        yield _entry(node)
    elif member and not node.path:
        yield from _in("configure", _configure(node))


def _in(phase: str, steps: Iterable[Step]) -> Iterator[Step]:
    return (replace(it, phase=phase) for it in steps)


def _configure(node: Node) -> Iterator[Step]:
    here, cluster = node.here, node.cluster
    if here is not None and cluster is not None and here.configuration != cluster.configuration:
        yield Step("acquire", "take a lease", disturbs=True)
        yield Step("configure", f"apply git's kubeadm documents ({cluster.configuration[:12]})", disturbs=True)
        yield Step("release", "give the lease back")


def _staging(node: Node, hop: Release, slot: Slot, spare: str, *, first: bool) -> Iterator[Step]:
    observed = node.observed
    if first and slots.is_activated(hop, observed):
        return
    if not (first and hop.manifest in observed.fetched):
        yield Step("fetch", f"download release {hop.version}")
    if first and slots.is_staged(hop, observed):
        return
    barrier = f"slot {slot} no longer holds release {spare}" if spare and spare != str(hop.version) else ""
    yield Step("write", f"write release {hop.version} to slot {slot}", barrier=barrier)


def _pass_one(node: Node, hop: Release, kubelet: KubernetesVersion | None, *, first: bool) -> Iterator[Step]:
    """The static pods move under the old kubelet, one control plane at a time."""
    new, here = kubernetes_of(hop), node.here
    if new is None or here is None or kubelet is None:
        return
    now = min(here.manifests.values(), default=kubelet) if first else kubelet
    if now >= new and not (first and len(set(here.manifests.values())) > 1):
        return
    if not (first and new in here.pulled):
        # It disturbs nobody, and the planner begins it with the pass: not before the window opens.
        yield Step("pull", f"pull the images of {new}", phase="pass one")
    yield from _in("pass one", _upgrade(node, hop, now, new, first=first))


def _upgrade(
    node: Node, hop: Release, now: KubernetesVersion, new: KubernetesVersion, *, first: bool
) -> Iterator[Step]:
    here, view = node.here, node.view
    assert here is not None
    if not (first and leases.held(node)):
        yield Step("acquire", "take the lease of the control planes", disturbs=True)
    if not (first and hop.manifest in here.snapshots):
        yield Step("snapshot", "save etcd", disturbs=True)
    # Whoever is first also moves the cluster's own documents.
    how = "apply on the first, node on the others" if view is None or view.version < new else "node"
    barrier = f"static pods and etcd stay at {new}: they are never taken back, and Kubernetes never goes back a minor"
    yield Step("upgrade", f"kubeadm upgrade {now} -> {new} ({how})", barrier=barrier, disturbs=True)
    yield Step("release", "give the lease back")


def _turn(
    node: Node, hop: Release, kubelet: KubernetesVersion | None, wave: Wave | None, *, first: bool
) -> Iterator[Step]:
    """It may restart when every API server is there, and it is its turn; the node is emptied first."""
    cluster, here, new = node.cluster, node.here, kubernetes_of(hop)
    assert cluster is not None and here is not None
    activated = first and slots.is_activated(hop, node.observed)
    serving = node.view.oldest_apiserver if node.view is not None else None
    if new is not None and kubelet is not None and new > kubelet and (serving is None or serving < new):
        yield Step("wait", f"every API server is at {new}")
    if node.desired.role is Role.WORKER:
        yield Step("wait", "the pools before it have arrived")
    if wave is not None and wave.of > 1:
        soaked = f" for {int(wave.soak.total_seconds() // 60)} min" if wave.soak else ""
        yield Step("wait", f"the waves before its own (of {wave.of}) are healthy{soaked}")
    if not (first and here.kubelet_sets.get(hop.root_hash) == cluster.configuration):
        yield Step("prepare", f"prepare kubelet {new} for the spare slot")
    rollout = cluster.rollouts[node.desired.pool]
    if not (first and leases.held(node)):
        text = "take the lease of the control planes"
        if node.desired.role is Role.WORKER:
            text = f"take a lease of the pool (maxUnavailable {rollout.max_unavailable})"
        yield Step("acquire", text, disturbs=True)
    me = node.me
    if activated:
        return
    # What a person has cordoned is drained as any other; that it is cordoned already is told as drift.
    if not (first and me is not None and me.cordoned and (me.cordoned_by_us or leases.held(node))):
        yield Step("cordon", "cordon", disturbs=True)
    emptied = me is not None and me.cordoned_by_us and node.view is not None and node.view.pods.get(node.name) == ()
    if not (first and emptied):
        late = "delete what is left" if rollout.drain_force else "back into service"
        minutes = int(rollout.drain_timeout.total_seconds() // 60)
        yield Step("drain", f"drain (up to {minutes} min, then {late})", disturbs=True)


def _restart(node: Node, hop: Release, old: str, *, first: bool) -> Iterator[Step]:
    if not (first and slots.is_activated(hop, node.observed)):
        yield Step("activate", f"activate release {hop.version}", disturbs=True)
    yield Step("reboot", f"restart on trial (three tries, else back to release {old})", disturbs=True)


def _back() -> Iterator[Step]:
    yield Step("report", "report to the others")
    yield Step("uncordon", "uncordon")
    yield Step("release", "give the lease back")


def _entry(node: Node) -> Step:
    cluster = node.cluster
    assert cluster is not None
    if node.name == cluster.bootstrap_node and not node.observed.answers:
        return Step("init", "kubeadm init: found the cluster", phase="join")
    return Step("join", f"kubeadm join as a {node.desired.role}", phase="join")
