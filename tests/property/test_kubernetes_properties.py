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


# A node somewhere on its way, and a few things that are not as they should be.

STAGES = ("running", "staged", "pulled", "prepared", "leased", "saved", "cordoned", "drained", "activated")
FLAWS = (
    "halted", "closed window", "trial", "poisoned here", "failed elsewhere", "drain failed", "no view", "not ready",
    "old boot", "other away", "other cordoned", "plane away", "apiserver silent", "apiserver old", "apiserver far",
    "mixed manifests", "config here", "config there", "certificates", "etcd sick", "etcd learner", "etcd short",
    "alarm", "another holds", "ghost holds", "undeclared ghost", "no lease", "two leases", "pods", "pods unseen",
    "late", "old kubelet", "node missing", "report old", "no report", "cordoned by hand", "other hop", "stale report",
    "leftovers", "version behind", "leaver",
)  # fmt: skip


@st.composite
def facts(draw, joined=True):
    """A node on its way from a release to the next, in a cluster where a few things are odd."""
    flaws = draw(st.frozensets(st.sampled_from(FLAWS), max_size=draw(st.sampled_from((0, 1, 1, 2, 3)))))
    stage = STAGES.index(draw(st.sampled_from((*STAGES, "saved", "saved", "drained"))))
    me = draw(st.sampled_from(("cp-1", "cp-2", "w-1", "w-2", "w-3")))
    role = Role.CONTROL_PLANE if me in PLANES else Role.WORKER
    running, hop, target = draw(
        st.sampled_from(
            (
                ("1.0", "1.1", "1.1"), ("1.0", "2.0", "2.0"), ("1.0", "2.0", "2.0"), ("1.0", "2.0", "3.0"),
                ("1.1", "2.0", "2.0"), ("2.0", "2.1", "2.1"), ("2.0", "3.0", "3.0"), ("3.0", "5.0", "5.0"),
                ("2.0", "1.1", "1.1"), ("2.0", "2.0", "2.0"), ("1.0", "1.0", "1.0"), ("2.1", "2.0", "2.0"),
            )
        )
    )  # fmt: skip
    channel = sorted({target, hop, running}, key=Version)
    releases = tuple(release(it) for it in [target, *(it for it in reversed(channel) if it != target)])
    rollout = Rollout(
        draw(st.sampled_from(("1", "2", "50%"))),
        draw(st.sampled_from((("100%",), ("100%",), ("1", "100%")))),
        max_failures=draw(st.sampled_from((0, 1))),
    )
    want = DesiredState(
        fleet_id="fleet", commit="c" * 40, node=me, pool="planes" if role is Role.CONTROL_PLANE else "workers",
        role=role, channel="stable", releases=releases, stores=(), halted="halted" in flaws,
        windows=(window((5,), "02:00", 4),) if "closed window" in flaws else draw(
            st.sampled_from(((), (window((0,), "11:00", 2),)))),
        cluster=cluster_of(releases, rollout),
    )  # fmt: skip
    activated = stage == STAGES.index("activated")
    staged = stage >= STAGES.index("staged") and hop != running
    in_slot = running if "other hop" in flaws else hop
    here, view = draw(around(me, role, running, hop, stage, flaws)) if joined else (None, None)
    see = Observed(
        boot_id="boot",
        booted=BootedSlot(Slot.A, Version(running), f"r-{running}", "trial" in flaws),
        entries=(
            BootEntry(Version(running), f"r-{running}"),
            *((BootEntry(Version(hop), f"r-{hop}", 3),) if activated and staged else ()),
        ),
        spare=f"r-{in_slot}" if staged else None,
        staged=StagedImage(Version(in_slot), f"r-{in_slot}") if staged and not activated else None,
        fetched=frozenset({f"m-{hop}"}) if staged else frozenset(),
        kubernetes=here,
        cluster=view,
    )
    journal = Journal(
        attempts={f"drain:{me}": Attempt(5, NOW - timedelta(minutes=3))} if "drain failed" in flaws else {},
        poisoned=(Poisoned(Version(hop), f"r-{hop}", f"m-{hop}", "it failed"),)
        if "poisoned here" in flaws and hop != running
        else (),
    )
    return want, see, journal


@st.composite
def around(draw, me, role, running, hop, stage, flaws):
    """This machine's own files and the cluster around it."""
    new, old = kubernetes(hop), kubernetes(running)
    passed = draw(st.booleans()) or role is Role.WORKER
    mine_is_new = passed or draw(st.booleans())
    servers = dict.fromkeys(PLANES, max(old, new) if passed else old)
    if role is Role.CONTROL_PLANE:
        servers[me] = max(old, new) if mine_is_new else old
    odd = draw(st.sampled_from(PLANES))
    if "apiserver silent" in flaws:
        servers[odd] = None
    if "apiserver old" in flaws:
        servers[odd] = old
    if "apiserver far" in flaws:
        servers[odd] = draw(st.sampled_from(MINORS))
    manifests = {}
    if role is Role.CONTROL_PLANE:
        manifests = dict.fromkeys(("kube-apiserver", "kube-controller-manager", "kube-scheduler"), servers[me] or old)
        if "mixed manifests" in flaws:
            manifests["kube-apiserver"] = max(old, new)
            manifests["kube-scheduler"] = min(old, new)
    at = STAGES.index
    here = LocalKubernetes(
        kubelet=old,
        joined=role,
        manifests=manifests,
        configuration="older" if "config here" in flaws else "conf",
        kubelet_sets={f"r-{hop}": "conf"} if stage >= at("prepared") else {},
        pulled=frozenset({new}) if stage >= at("pulled") else frozenset(),
        snapshots=frozenset({f"m-{hop}"}) if stage >= at("saved") else frozenset(),
        certificates_until=NOW + timedelta(days=draw(st.sampled_from((40, 9, -1))) if "certificates" in flaws else 200),
        leftovers="leftovers" in flaws,
    )
    if "no view" in flaws:
        return here, None
    others = [name for name in (*PLANES, *WORKERS) if name != me]
    away = draw(st.sampled_from([it for it in others if (it in PLANES) == ("plane away" in flaws)] or others))
    nodes = []
    for name in (*PLANES, *WORKERS):
        arrived = name in PLANES and role is Role.WORKER and passed
        runs = hop if arrived or (name != me and draw(st.sampled_from((True, True, False)))) else running
        failed = "failed elsewhere" in flaws and name == away and hop != running
        runs = running if failed or (name == away and "report old" in flaws) else runs
        shown = NodeReport(
            Version(runs),
            f"r-{runs}",
            NOW - timedelta(hours=1),
            poisoned=frozenset({f"r-{hop}"}) if failed else frozenset(),
            configuration=here.configuration if name == me else "conf",
        )
        if name == me and "stale report" in flaws:
            shown = replace(shown, root_hash="r-0.9", release=Version("0.9"))
        cordoned = (name == me and stage >= at("cordoned")) or (name == away and "other cordoned" in flaws)
        nodes.append(
            ClusterNode(
                name,
                ready=not (
                    (name == me and "not ready" in flaws)
                    or (name == away and ("other away" in flaws or "plane away" in flaws))
                ),
                kubelet=KubernetesVersion("v1.28.1") if name == away and "old kubelet" in flaws else old,
                boot_id="other" if name != me or "old boot" in flaws else "boot",
                role=Role.CONTROL_PLANE if name in PLANES else Role.WORKER,
                cordoned=cordoned or (name == me and "cordoned by hand" in flaws),
                cordoned_by_us=cordoned and name == me and "cordoned by hand" not in flaws,
                report=None if name == away and "no report" in flaws else shown,
            )
        )
    nodes = [it for it in nodes if not ("node missing" in flaws and it.name == draw(st.sampled_from((me, away))))]
    if "leaver" in flaws:
        nodes.append(replace(nodes[-1], name="w-9"))
    group = "slot-control-plane-" if role is Role.CONTROL_PLANE else "slot-pool-workers-"
    leases = [Lease("slot-control-plane-0"), Lease("slot-pool-workers-0"), Lease("slot-pool-workers-1")]
    if stage >= at("leased"):
        since = NOW - timedelta(minutes=30 if "late" in flaws else 1)
        number = 1 if "two leases" in flaws and role is Role.WORKER else 0
        leases = [replace(it, holder=me, since=since) if it.name == f"{group}{number}" else it for it in leases]
    for flaw, holder in (("another holds", away), ("ghost holds", "w-4"), ("undeclared ghost", "ghost")):
        if flaw in flaws:
            leases = [replace(it, holder=holder) if it.name == f"{group}0" and it.holder != me else it for it in leases]
    if "ghost holds" in flaws:
        nodes = [it for it in nodes if it.name != "w-4"]
    if "no lease" in flaws:
        leases = [it for it in leases if it.holder is not None]
    members = tuple(
        EtcdMember(
            name,
            f"id-{name}",
            not ("etcd sick" in flaws and name == odd),
            "etcd learner" in flaws and name == odd,
            Version("3.5.26"),
        )
        for name in PLANES[: 2 if "etcd short" in flaws else 3]
    )
    pods = {me: (EvictablePod("default", "web-1", budget="web"),) if stage < at("drained") or "pods" in flaws else ()}
    moved = all(manifests.get(name) == max(old, new) for name in manifests) if manifests else passed
    version = max(old, new) if passed or (moved and draw(st.booleans())) else old
    view = ClusterView(
        me=me,
        version=draw(st.sampled_from(MINORS)) if "version behind" in flaws else version,
        nodes=tuple(nodes),
        apiservers=servers,
        configuration="older" if "config there" in flaws else "conf",
        etcd=EtcdView(members, ("NOSPACE",) if "alarm" in flaws else ()) if role is Role.CONTROL_PLANE else None,
        leases=tuple(leases),
        pods={} if "pods unseen" in flaws else {**pods, "w-9": ()},
        tokens=frozenset(
            name for name in (*PLANES, *WORKERS) if name != me and not any(it.name == name and it.ready for it in nodes)
        ),
    )
    return here, view


@settings(max_examples=1500, deadline=None)
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
            taken = tuple(replace(it, holder=me.name, since=NOW) if it.name == name else it for it in view.leases)
            after = decide(want, replace(see, cluster=replace(view, leases=taken)), journal, NOW)
            assert isinstance(after, Act) and not isinstance(after.action, ReleaseLease), "taken and not used"
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
    if want.role is Role.CONTROL_PLANE and answers:
        flaws = draw(st.frozensets(st.sampled_from(FLAWS), max_size=2))
        _, view = draw(around(want.node, want.role, "1.0", "1.0", draw(st.integers(0, 4)), flaws))
    return want, replace(see, kubernetes=here, answers=answers, cluster=view), journal


@settings(max_examples=400, deadline=None)
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
