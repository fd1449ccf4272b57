"""What must be true of every decision about a member of a cluster, for any facts at all."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.agent.postcondition import holds
from kubenode.model.decision import (
    AcquireLease,
    Act,
    ActivateSlot,
    Converged,
    Cordon,
    DeleteNode,
    Drain,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PrepareKubelet,
    Reboot,
    Reconfigure,
    ReleaseLease,
    RemoveEtcdMember,
    RenewCertificates,
    SnapshotEtcd,
    Stuck,
    Uncordon,
    Wait,
)
from kubenode.model.desired import DesiredCluster, DesiredState, Peer
from kubenode.model.documents import Release, Role, Rollout
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.kubernetes import (
    Answer,
    ClusterNode,
    ClusterView,
    EtcdMember,
    EtcdView,
    EvictablePod,
    KubernetesVersion,
    Lease,
    LocalKubernetes,
    NodeReport,
)
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.version import Version
from kubenode.plan import windows
from kubenode.plan.decide import decide
from kubenode.plan.kubernetes.leases import HOLDING
from kubenode.plan.kubernetes.upkeep import URGENT_BEFORE
from tests.sim.facts import NOW, window

KUBERNETES = {
    "1.0": "v1.31.4",
    "1.1": "v1.31.9",
    "2.0": "v1.32.3",
    "2.1": "v1.32.3",
    "3.0": "v1.33.1",
    "5.0": "v1.35.0",
}
MINORS = tuple(KubernetesVersion(f"v1.{minor}.4") for minor in range(30, 36))
PLANES, WORKERS = ("cp-1", "cp-2", "cp-3"), ("w-1", "w-2", "w-3", "w-4")
DISTURBING = (
    ActivateSlot,
    Reboot,
    KubeadmUpgrade,
    Reconfigure,
    RenewCertificates,
    Cordon,
    Drain,
    DeleteNode,
    RemoveEtcdMember,
    SnapshotEtcd,
)


def release(version: str) -> Release:
    return Release(Version(version), f"m-{version}", f"r-{version}", KUBERNETES[version])


def kubernetes(version: str) -> KubernetesVersion:
    return KubernetesVersion(KUBERNETES[version])


def cluster_of(releases, rollout: Rollout) -> DesiredCluster:
    peers = [Peer(name, Role.CONTROL_PLANE, "planes", releases[0]) for name in PLANES]
    peers += [Peer(name, Role.WORKER, "workers", releases[0]) for name in WORKERS]
    return DesiredCluster(
        "k8s:6443", "cp-1", NOW + timedelta(days=1), "conf", tuple(peers), ("planes", "workers"),
        {"planes": Rollout(), "workers": rollout},
    )  # fmt: skip


usually = st.integers(0, 9).map(lambda n: n > 0)
often = st.integers(0, 3).map(lambda n: n > 0)
rarely = st.integers(0, 9).map(lambda n: n == 0)


@st.composite
def facts(draw, joined=True):
    """A node on its way from a release to the next, in a cluster where nearly everything may be odd."""
    me = draw(st.sampled_from((*PLANES[:2], *WORKERS[:3])))
    role = Role.CONTROL_PLANE if me in PLANES else Role.WORKER
    running = draw(st.sampled_from(("1.0", "1.0", "1.1", "2.0", "3.0")))
    ways = {
        "1.0": ("1.1", "2.0", "2.0", "3.0", "5.0"),
        "1.1": ("2.0", "3.0"),
        "2.0": ("2.1", "3.0", "1.1"),
        "3.0": ("5.0", "2.1"),
    }
    target = draw(st.sampled_from(ways[running]))
    channel = sorted({target, running, *draw(st.sampled_from(((), ("2.0",), ("1.1", "2.0", "3.0"))))}, key=Version)
    releases = tuple(release(it) for it in [target, *(it for it in reversed(channel) if it != target)])
    rollout = Rollout(
        draw(st.sampled_from(("1", "2", "50%"))),
        draw(st.sampled_from((("100%",), ("1", "100%")))),
        max_failures=draw(st.sampled_from((0, 1))),
    )
    want = DesiredState(
        fleet_id="fleet", commit="c" * 40, node=me, pool="planes" if role is Role.CONTROL_PLANE else "workers",
        role=role, channel="stable", releases=releases, stores=(), halted=draw(rarely),
        windows=draw(st.sampled_from(((), (), (), (window((0,), "11:00", 2),), (window((5,), "02:00", 4),)))),
        cluster=cluster_of(releases, rollout),
    )  # fmt: skip
    hop = draw(st.sampled_from((target, target, target, *(it for it in channel if it != running)))) or target
    staged = draw(often)
    activated = staged and draw(st.booleans())
    here, view = draw(around(me, role, running, hop, releases)) if joined else (None, None)
    see = Observed(
        boot_id="boot",
        booted=BootedSlot(Slot.A, Version(running), f"r-{running}", draw(rarely)),
        entries=(
            BootEntry(Version(running), f"r-{running}"),
            *((BootEntry(Version(hop), f"r-{hop}", 3),) if activated else ()),
        ),
        spare=f"r-{hop}" if staged else None,
        staged=StagedImage(Version(hop), f"r-{hop}") if staged and not activated else None,
        fetched=frozenset({f"m-{hop}"}) if staged else frozenset(),
        kubernetes=here,
        cluster=view,
    )
    journal = Journal(
        attempts={f"drain:{me}": Attempt(draw(st.integers(1, 6)), NOW - timedelta(minutes=3))} if draw(rarely) else {},
        poisoned=(Poisoned(Version(hop), f"r-{hop}", f"m-{hop}", "it failed"),) if draw(rarely) else (),
    )
    return want, see, journal


@st.composite
def around(draw, me, role, running, hop, releases):
    """This machine's own files and the cluster around it."""
    new, old = kubernetes(hop), kubernetes(running)
    base = draw(st.sampled_from((old, old, new, new, *MINORS)))
    servers = {}
    for name in PLANES:
        odd = draw(st.integers(0, 11))
        servers[name] = None if odd == 0 else draw(st.sampled_from((old, new, *MINORS))) if odd == 1 else base
    manifests = {}
    if role is Role.CONTROL_PLANE:
        own = servers[me] or base
        names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        manifests = dict.fromkeys(names, own)
        if draw(rarely):
            manifests["kube-scheduler"] = old
    here = LocalKubernetes(
        kubelet=old,
        joined=role,
        manifests=manifests,
        configuration=draw(st.sampled_from(("conf", "conf", "conf", "older"))),
        kubelet_sets={f"r-{hop}": "conf"} if draw(often) else {},
        pulled=frozenset({new}) if draw(often) else frozenset(),
        snapshots=frozenset({f"m-{hop}"}) if draw(often) else frozenset(),
        certificates_until=NOW + timedelta(days=draw(st.sampled_from((200, 200, 200, 40, 9, -1))))
        if role is Role.CONTROL_PLANE
        else None,
    )
    if not draw(usually):
        return here, None
    nodes, others = [], []
    for name in (*PLANES, *WORKERS):
        runs = draw(st.sampled_from((running, running, hop, hop, hop)))
        arrived = name != me and runs == hop
        shown = kubernetes(runs) if arrived else old
        node = ClusterNode(
            name,
            ready=draw(usually) if name == me else not draw(rarely),
            kubelet=shown,
            boot_id="boot" if name == me else "other",
            role=Role.CONTROL_PLANE if name in PLANES else Role.WORKER,
            report=NodeReport(
                Version(runs if name != me else running),
                f"r-{runs if name != me else running}",
                NOW - timedelta(hours=1),
                poisoned=frozenset({f"r-{hop}"}) if draw(rarely) and not arrived else frozenset(),
                configuration=here.configuration if name == me else "conf",
            ),
        )
        cordoned = draw(st.booleans()) if name == me else draw(rarely)
        nodes.append(replace(node, cordoned=cordoned, cordoned_by_us=cordoned and draw(often)))
        others.append(name)
    group = "slot-control-plane-" if role is Role.CONTROL_PLANE else "slot-pool-workers-"
    leases = [Lease("slot-control-plane-0")] if role is Role.WORKER else [Lease("slot-pool-workers-0")]
    for number in range(1 if role is Role.CONTROL_PLANE else 2):
        holder = draw(st.sampled_from((None, me, me, me, draw(st.sampled_from(others)), "ghost")))
        since = NOW - timedelta(minutes=draw(st.sampled_from((1, 1, 30))))
        leases.append(Lease(f"{group}{number}", holder, since if holder else None))
    members = tuple(
        EtcdMember(name, f"id-{name}", not draw(rarely), draw(rarely) and draw(rarely), Version("3.5.26"))
        for name in PLANES[: 3 if draw(usually) else 2]
    )
    alarms = ("NOSPACE",) if draw(rarely) and draw(rarely) else ()
    pods = {me: (EvictablePod("default", "web-1", budget="web"),) if draw(st.booleans()) else ()}
    view = ClusterView(
        me=me,
        version=draw(st.sampled_from((base, base, base, old, *MINORS))),
        nodes=tuple(it for it in nodes if it.name == me or not draw(rarely)),
        apiservers=servers,
        configuration=draw(st.sampled_from(("conf", "conf", "conf", "older"))),
        etcd=EtcdView(members, alarms) if role is Role.CONTROL_PLANE else None,
        leases=tuple(leases),
        pods=pods if draw(usually) else {},
    )
    return here, view


@settings(max_examples=200, deadline=None)
@given(facts())
def test_every_decision_of_a_member_is_safe(found):
    want, see, journal = found
    decision = decide(want, see, journal, NOW)
    assert decision == decide(want, see, journal, NOW), "deterministic"
    view, here = see.cluster, see.kubernetes
    me = view.by_name.get(want.node) if view else None
    mine = [it for it in view.leases if it.holder == want.node] if view else []
    match decision:
        case Stuck(reason, message, hint):
            assert reason.isalnum() and message.endswith(".") and hint.endswith(".")
        case Wait(reason, message, until):
            assert reason.isalnum() and message.endswith(".")
            assert until is None or until > NOW
        case Converged():
            assert see.booted.root_hash == want.target.root_hash
            assert here.configuration == "conf" or view is None
    if isinstance(decision, Wait | Stuck | Converged):
        waits_empty_handed(decision, see, me, mine)
        return
    assert isinstance(decision, Act) and decision.why.endswith(".")
    assert not see.booted.trial, "a trial is systemd's"
    assert not holds(decision.action, see, journal), "nothing is done twice"
    if isinstance(decision.action, DISTURBING):
        disturbs(decision.action, want, see, me, mine)
    one_action(decision.action, want, see, journal, me, mine)


def waits_empty_handed(decision, see, me, mine):
    """A node that waits holds nothing, unless it waits for the end of what it has begun."""
    view, here = see.cluster, see.kubernetes
    if view is None or see.booted.trial or not (mine or (me is not None and me.cordoned_by_us)):
        return
    half = here.manifests and (len(set(here.manifests.values())) > 1 or view.version < min(here.manifests.values()))
    assert half or (isinstance(decision, Wait) and decision.reason in {*HOLDING, "Backoff"}), decision


def disturbs(action, want, see, me, mine):
    view, here = see.cluster, see.kubernetes
    until = here.certificates_until
    if isinstance(action, RenewCertificates):
        if view is None:
            assert until <= NOW, "nothing is begun without the API"
            return
        if until - NOW <= URGENT_BEFORE:
            assert mine
            return
    assert view is not None, "nothing is begun without the API"
    assert mine, "without a lease"
    half = here.manifests and (len(set(here.manifests.values())) > 1 or view.version < min(here.manifests.values()))
    if not (half and isinstance(action, KubeadmUpgrade | SnapshotEtcd)):
        assert not want.halted
        assert windows.is_open(want.windows, NOW)
    if isinstance(action, DeleteNode | RemoveEtcdMember) or (
        isinstance(action, Cordon | Drain) and action.node != me.name
    ):
        return
    # At most the allowed number is away.
    group = PLANES if want.role is Role.CONTROL_PLANE else WORKERS
    there = [it for it in view.nodes if it.name in group]
    limit = want.cluster.rollouts[want.pool].max_unavailable
    limit = max(1, len(there) * int(limit[:-1]) // 100) if limit.endswith("%") else int(limit)
    down = {it.name for it in there if it.name != want.node and (not it.ready or it.cordoned)}
    assert len(down) < (1 if want.role is Role.CONTROL_PLANE else limit), "too many are away"
    if want.role is Role.CONTROL_PLANE:
        assert all(it.healthy and not it.learner for it in view.etcd.members) and not view.etcd.alarms
        assert {it.name for it in view.etcd.members} == {it.name for it in there}
        assert all(version is not None for name, version in view.apiservers.items() if name != want.node)


def one_action(action, want, see, journal, me, mine):
    view, here = see.cluster, see.kubernetes
    match action:
        case ActivateSlot(hop) | Reboot(hop):
            new = KubernetesVersion(hop.kubernetes)
            assert me.cordoned and view.pods[me.name] == (), "not drained"
            assert all(it is None or new <= it for it in view.apiservers.values()), "newer than an API server"
            assert new <= here.kubelet or all(view.apiservers.values()), "an API server of unknown age"
            assert new.minor >= here.kubelet.minor
            assert here.kubelet_sets[hop.root_hash] == want.cluster.configuration
            assert not any(bad.root_hash == hop.root_hash for bad in journal.poisoned)
            failed = [
                it for it in view.nodes if it.report and hop.root_hash in it.report.poisoned and it.name != me.name
            ]
            pool = PLANES if want.role is Role.CONTROL_PLANE else WORKERS
            assert len([it for it in failed if it.name in pool]) <= want.cluster.rollouts[want.pool].max_failures
            if want.role is Role.CONTROL_PLANE:
                assert all(found >= new for found in here.manifests.values()), "pass one first"
        case KubeadmUpgrade(hop, new, first):
            assert see.spare == hop.root_hash and new == KubernetesVersion(hop.kubernetes)
            assert all(new.minor[1] - it.minor[1] <= 1 for it in view.apiservers.values() if it is not None)
            assert all(new.minor[1] - it.kubelet.minor[1] <= 3 for it in view.nodes)
            assert all(found <= new for found in here.manifests.values()), "never back"
            assert first == (view.version < new)
            assert hop.manifest in here.snapshots and new in here.pulled
            assert me.ready and not me.cordoned, "upgrade before draining"
        case PrepareKubelet():
            assert view.configuration == want.cluster.configuration
            assert not mine, "long work holds nothing"
        case AcquireLease(name, _, previous):
            assert not mine
            assert previous is None or (previous not in view.by_name and previous not in want.cluster.by_name)
            assert next(it for it in view.leases if it.name == name).holder == previous
        case ReleaseLease():
            assert me.ready and me.boot_id == see.boot_id and not me.cordoned_by_us
            assert me.report.poisoned == frozenset(bad.root_hash for bad in journal.poisoned)
            assert me.report.root_hash == see.booted.root_hash, "the others would act on an old report"
        case Uncordon():
            assert me.cordoned_by_us
            assert not any((it.tries_left or 0) > 0 for it in see.entries), "a power cut would start the next release"
        case KubeadmInit() | KubeadmJoin():
            raise AssertionError("a member does not join again")


@st.composite
def newcomers(draw):
    want, see, journal = draw(facts(joined=False))
    here = LocalKubernetes(kubernetes(str(see.booted.version)))
    answers = tuple(
        Answer(name, draw(st.sampled_from((here.kubelet, here.kubelet, *MINORS))))
        for name in draw(st.sampled_from(((), (), ("cp-3",), ("cp-2", "cp-3"))))
    )
    view = None
    if want.role is Role.CONTROL_PLANE and answers and draw(usually):
        _, view = draw(around(want.node, want.role, "1.0", "1.0", want.releases))
    return want, replace(see, kubernetes=here, answers=answers, cluster=view), journal


@settings(max_examples=100, deadline=None)
@given(newcomers(), st.sampled_from((NOW, NOW + timedelta(days=2))))
def test_every_decision_of_a_newcomer_is_safe(found, now):
    want, see, journal = found
    decision = decide(want, see, journal, now)
    if isinstance(decision, Wait | Stuck):
        assert decision.reason.isalnum() and decision.message.endswith(".")
        return
    action = decision.action
    kubelet = see.kubernetes.kubelet
    match action:
        case KubeadmInit():
            assert want.node == "cp-1" and not see.answers and now < want.cluster.init_before and not want.halted
        case KubeadmJoin(role):
            assert see.answers and not want.halted and role is want.role
            assert all(kubelet <= it.version for it in see.answers)
            if role is Role.CONTROL_PLANE:
                assert {it.version.minor for it in see.answers} == {kubelet.minor}
                assert any(it.holder == want.node for it in see.cluster.leases)
                assert all(it.healthy for it in see.cluster.etcd.members)
                assert want.node not in {it.name for it in see.cluster.etcd.members}
        case RemoveEtcdMember(name):
            assert name == want.node
            rest = [it for it in see.cluster.etcd.members if it.name != name]
            assert sum(it.healthy for it in rest) > len(rest) // 2
        case Reboot() | ActivateSlot():
            assert not want.halted
        case KubeadmUpgrade() | Cordon() | Drain() | Uncordon() | DeleteNode() | Reconfigure():
            raise AssertionError("nothing of a member's work")
