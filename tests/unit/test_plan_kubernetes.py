"""The rules for members of a cluster, one by one: what is done at each stage, and what each obstacle is called."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kubenode.agent.postcondition import holds
from kubenode.model.decision import (
    AcquireLease,
    Act,
    ActivateSlot,
    ApproveRequests,
    Converged,
    Cordon,
    CreateLeases,
    DeleteNode,
    Drain,
    FetchRelease,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PrepareKubelet,
    PruneKubeadm,
    PublishReport,
    PullImages,
    Reboot,
    Reconfigure,
    ReleaseLease,
    RemoveEtcdMember,
    RenewCertificates,
    RestartStaticPods,
    RetireEntry,
    SetTokens,
    SnapshotEtcd,
    Stuck,
    Uncordon,
    Wait,
)
from kubenode.model.documents import Role
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.kubernetes import Answer, CertificateRequest, Entry, EtcdMember, KubernetesVersion, Lease
from kubenode.model.observed import BootedSlot, BootEntry, Slot
from kubenode.model.version import Version
from kubenode.plan.backoff import step_key
from kubenode.plan.kubernetes import skew
from kubenode.plan.kubernetes.requests import approvable
from kubenode.plan.kubernetes.rollout import count
from tests.sim.facts import NOW, window
from tests.sim.situations import COMPONENTS, NEW, OLD, PLANES, R1, R2, Situation, cluster, plane, release, worker

CLOSED = (window((5,), "02:00", 4),)
PLANE_LEASE, WORKER_LEASE = "slot-control-plane-0", "slot-pool-workers-0"


def act(situation: Situation):
    decision = situation.decide()
    assert isinstance(decision, Act), decision
    return decision.action


def reason(situation: Situation) -> str:
    decision = situation.decide()
    assert isinstance(decision, Wait | Stuck), decision
    return decision.reason


V = KubernetesVersion


# Versions.


@pytest.mark.parametrize(
    ("kubelet", "apiserver", "fits"),
    [
        ("v1.34.2", "v1.34.2", True),
        ("v1.34.3", "v1.34.2", False),
        ("v1.31.0", "v1.34.0", True),
        ("v1.30.9", "v1.34.0", False),
        ("v1.24.0", "v1.26.0", True),
        ("v1.24.0", "v1.27.0", False),
        ("v1.25.0", "v1.28.0", True),
        ("v1.9.0", "v1.10.0", True),
    ],
)
def test_kubelet_and_api_server(kubelet, apiserver, fits):
    assert skew.kubelet_fits(V(kubelet), V(apiserver)) is fits


@pytest.mark.parametrize(
    ("role", "kubelet", "plane", "new", "may"),
    [
        (Role.CONTROL_PLANE, "1.31.4", "1.31.4", "1.32.0", True),
        (Role.CONTROL_PLANE, "1.31.4", "1.31.4", "1.33.0", False),
        (Role.CONTROL_PLANE, "1.31.4", "1.32.0", "1.33.0", True),
        (Role.CONTROL_PLANE, "1.31.4", "1.34.0", "1.35.0", False),
        (Role.WORKER, "1.31.4", "1.31.4", "1.34.0", True),
        (Role.WORKER, "1.31.4", "1.31.4", "1.35.0", False),
        (Role.WORKER, "1.32.4", "1.32.4", "1.31.9", False),
        (Role.WORKER, "1.32.4", "1.32.4", "1.32.1", True),
    ],
)
def test_the_next_release(role, kubelet, plane, new, may):
    assert skew.may_follow(role, V(kubelet), V(plane), V(new)) is may


def test_etcd():
    assert skew.etcd_too_old(Version("3.5.25"), V("1.34.0"))
    assert not skew.etcd_too_old(Version("3.5.26"), V("1.34.0"))
    assert not skew.etcd_too_old(Version("3.5.1"), V("1.33.9"))


def test_versions():
    assert V("1.9.0") < V("1.10.0") and str(V("1.34.2")) == "v1.34.2" and V("v1.34.2") == V("1.34.2")
    for bad in ("1.34", "v1.34.2+k3s1", "", "v01.2.3"):
        with pytest.raises(ValueError, match="not a Kubernetes version"):
            V(bad)


# A control plane, step by step.


def test_pass_one_step_by_step():
    assert act(plane("running")) == FetchRelease(R2)
    assert act(plane("staged")) == PullImages(R2, NEW)
    assert act(plane("pulled")) == AcquireLease(PLANE_LEASE, "move the control plane to v1.32.3", None)
    held = plane("leased")
    assert act(held) == SnapshotEtcd(R2)
    saved = held.here(snapshots=frozenset({R2.manifest}))
    assert act(saved) == KubeadmUpgrade(R2, NEW, first=True)
    assert act(saved.cluster(version=NEW, apiservers={**saved.view.apiservers, "cp-2": NEW})) == KubeadmUpgrade(
        R2, NEW, first=False
    )
    moved = saved.here(manifests=dict.fromkeys(COMPONENTS, NEW)).cluster(
        version=NEW, apiservers={**saved.view.apiservers, "cp-1": NEW}
    )
    assert act(moved) == ReleaseLease(PLANE_LEASE)
    done = moved.lease(PLANE_LEASE, None)
    assert reason(done) == "WaitsForApiServers"
    assert "cp-2 (v1.31.4), cp-3 (v1.31.4)" in done.decide().message


def test_pass_two_step_by_step():
    here = {"kubelet_sets": {}}
    assert act(plane("pulled", passed=True).here(**here)) == PrepareKubelet(R2, "conf")
    assert act(plane("prepared", passed=True)) == AcquireLease(PLANE_LEASE, "restart into release 2.0", None)
    assert act(plane("leased", passed=True)) == Cordon("cp-1")
    assert act(plane("cordoned", passed=True)) == Drain("cp-1", force=False)
    assert act(plane("drained", passed=True)) == ActivateSlot(R2)
    assert act(plane("activated", passed=True)) == Reboot(R2)


def test_a_worker_step_by_step():
    assert act(worker("running")) == FetchRelease(R2)
    assert act(worker("staged")) == PrepareKubelet(R2, "conf")
    assert act(worker("prepared")) == AcquireLease(WORKER_LEASE, "restart into release 2.0", None)
    assert act(worker("leased")) == Cordon("w-1")
    assert act(worker("cordoned")) == Drain("w-1", force=False)
    assert act(worker("drained")) == ActivateSlot(R2)
    assert act(worker("activated")) == Reboot(R2)


def back(situation: Situation, name: str) -> Situation:
    """The same node after its restart, blessed."""
    return (
        situation.sees(
            booted=BootedSlot(Slot.B, R2.version, R2.root_hash),
            entries=(BootEntry(R2.version, R2.root_hash), BootEntry(R1.version, R1.root_hash)),
            spare=R1.root_hash,
            staged=None,
            fetched=frozenset(),
            boot_id="boot-2",
        )
        .here(kubelet=NEW)
        .node(name, kubelet=NEW, boot_id="boot-2")
    )


def test_back_in_service_step_by_step():
    came = back(worker("drained"), "w-1")
    assert reason(came.sees(booted=replace(came.see.booted, trial=True))) == "TrialBoot"
    assert reason(came.node("w-1", ready=False)) == "NodeNotReady"
    assert reason(came.node("w-1", boot_id="boot")) == "NodeNotReady", "an old look at the Node"
    assert reason(came.node("w-1", kubelet=OLD)) == "NodeNotReady"
    report = act(came)
    assert isinstance(report, PublishReport) and report.report.root_hash == R2.root_hash
    assert report.report.since == NOW, "its soak begins now"
    told = came.node("w-1", report=report.report)
    assert act(told) == Uncordon("w-1")
    free = told.node("w-1", cordoned=False, cordoned_by_us=False)
    assert act(free) == ReleaseLease(WORKER_LEASE)
    assert isinstance(free.lease(WORKER_LEASE, None).decide(), Converged)


def test_a_control_plane_gives_back_only_what_is_healthy():
    came = back(plane("drained", passed=True), "cp-1").report("cp-1", root_hash=R2.root_hash, release=R2.version)
    assert act(came) == Uncordon("cp-1")
    assert reason(came.cluster(apiservers={**came.view.apiservers, "cp-1": None})) == "ClusterNotHealthy"
    assert reason(came.cluster(apiservers={**came.view.apiservers, "cp-1": OLD})) == "ClusterNotHealthy"
    assert reason(came.member("cp-1", healthy=False)) == "ClusterNotHealthy"
    assert reason(came.cluster(etcd=None)) == "ClusterNotHealthy"


# What stops a control plane.


READY = plane("saved")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda it: it.sees(cluster=None), "ApiUnreachable"),
        (lambda it: it.wants(halted=True), "Halted"),
        (lambda it: it.wants(windows=CLOSED), "OutsideWindow"),
        (lambda it: it.node("cp-2", ready=False), "ControlPlaneUnavailable"),
        (lambda it: it.node("cp-2", cordoned=True), "ControlPlaneUnavailable"),
        (lambda it: it.cluster(apiservers={**it.view.apiservers, "cp-3": None}), "ControlPlaneUnavailable"),
        (lambda it: it.member("cp-2", healthy=False), "EtcdUnhealthy"),
        (lambda it: it.member("cp-2", learner=True), "EtcdLearner"),
        (lambda it: it.member("cp-2", name="cp-9"), "EtcdMembersMismatch"),
        (lambda it: it.cluster(etcd=replace(it.view.etcd, alarms=("NOSPACE",))), "EtcdAlarm"),
        (lambda it: it.cluster(etcd=None), "EtcdUnknown"),
        (lambda it: it.node("w-1", kubelet=V("1.28.9")), "KubeletsTooOld"),
        (lambda it: it.cluster(apiservers={**it.view.apiservers, "cp-2": V("1.30.1")}), "ApiServersBehind"),
        (lambda it: it.report("cp-2", poisoned=frozenset({R2.root_hash})), "RolloutClosed"),
        (lambda it: it.cluster(leases=()), "NoLease"),
        (lambda it: it.lease(PLANE_LEASE, "cp-2"), "LeaseHeld"),
    ],
)
def test_what_stops_pass_one(change, code):
    before = change(plane("pulled"))
    if code == "NoLease":
        assert act(before) == CreateLeases(frozenset({PLANE_LEASE, WORKER_LEASE}))
        return
    assert reason(before) == code
    if code in ("LeaseHeld", "ApiUnreachable"):
        return
    # The same while the lease is held: it is given back, or kept only because nobody could take it.
    held = change(READY)
    if code in ("EtcdUnhealthy", "EtcdUnknown"):
        assert reason(held) == "ClusterNotHealthy"
    else:
        assert act(held) == ReleaseLease(PLANE_LEASE)


def test_a_control_plane_itself_must_be_in_service():
    assert reason(plane("pulled").node("cp-1", ready=False)) == "NodeNotReady"
    assert reason(plane("pulled").node("cp-1", cordoned=True)) == "NodeNotReady"


def test_etcd_36_is_entered_from_3_5_26_on():
    new = release("2.0", "v1.34.0")
    it = plane("pulled").wants(releases=(new, R1), cluster=cluster(new, R1)).here(kubelet=V("1.33.1"))
    it = it.here(manifests=dict.fromkeys(COMPONENTS, V("1.33.1")), pulled=frozenset({V("1.34.0")}))
    it = it.cluster(version=V("1.33.1"), apiservers=dict.fromkeys(PLANES, V("1.33.1")))
    assert isinstance(act(it), AcquireLease)
    assert reason(it.member("cp-2", version=Version("3.5.21"))) == "EtcdTooOld"


def test_what_is_half_done_is_finished_whatever_else_is_wanted():
    half = READY.here(manifests={**dict.fromkeys(COMPONENTS, NEW), "kube-scheduler": OLD})
    assert act(half.wants(halted=True)) == KubeadmUpgrade(R2, NEW, first=True)
    assert act(half.wants(windows=CLOSED)) == KubeadmUpgrade(R2, NEW, first=True)
    assert reason(half.sees(cluster=None)) == "ApiUnreachable"
    documents = READY.here(manifests=dict.fromkeys(COMPONENTS, NEW))
    assert act(documents) == KubeadmUpgrade(R2, NEW, first=True), "the cluster's documents are written last"
    # Both are at the new version already: done is what has written git's documents.
    unwritten = READY.here(manifests=dict.fromkeys(COMPONENTS, NEW)).cluster(version=NEW, configuration="old")
    again = KubeadmUpgrade(R2, NEW, first=True)
    assert act(unwritten) == again and not holds(again, unwritten.see, unwritten.journal)
    assert holds(again, unwritten.cluster(configuration="conf").see, unwritten.journal)
    key = f"upgrade:{R2.manifest}"
    spent = replace(half, journal=Journal(attempts={key: Attempt(5, NOW - timedelta(days=1), "it broke")}))
    assert reason(spent) == "UpgradeBudget", "and the lease is kept"
    moved_back = half.wants(releases=(R1,), cluster=cluster(R1))
    assert act(moved_back.wants(releases=(R1,))) is not None
    settled = moved_back.sees(spare=None, staged=None, fetched=frozenset())
    assert reason(settled) == "UpgradeUnfinished"


# What stops a restart.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda it: it.sees(cluster=None), "ApiUnreachable"),
        (lambda it: it.wants(halted=True), "Halted"),
        (lambda it: it.wants(windows=CLOSED), "OutsideWindow"),
        (lambda it: it.without("w-1"), "NodeMissing"),
        (lambda it: it.cluster(apiservers={**it.view.apiservers, "cp-2": OLD}), "WaitsForApiServers"),
        (lambda it: it.cluster(apiservers={**it.view.apiservers, "cp-2": V("1.36.0")}), "WaitsForApiServers"),
        (lambda it: it.cluster(apiservers={**it.view.apiservers, "cp-2": None}), "WaitsForApiServers"),
        (lambda it: it.cluster(apiservers={}), "ApiServersUnknown"),
        (lambda it: it.cluster(configuration="older"), "WaitsForConfiguration"),
        (lambda it: it.report("w-3", poisoned=frozenset({R2.root_hash})), "RolloutClosed"),
        (lambda it: it.report("cp-2", root_hash=R1.root_hash, release=R1.version), "WaitsForPool"),
        (lambda it: it.node("cp-2", report=None), "WaitsForPool"),
        (lambda it: it.node("cp-2", ready=False), "WaitsForPool"),
        (
            lambda it: it.report("cp-2", root_hash=R1.root_hash, poisoned=frozenset({R2.root_hash})),
            "WaitsForPool",
        ),
        (lambda it: it.rollout("planes", soak=timedelta(hours=2)), "Soaking"),
        (lambda it: it.node("w-4", ready=False), "TooManyUnavailable"),
        (lambda it: it.node("w-4", cordoned=True), "TooManyUnavailable"),
        (lambda it: it.lease(WORKER_LEASE, "w-2"), "LeaseHeld"),
        (lambda it: it.lease(WORKER_LEASE, "w-2").without("w-2"), "LeaseHeld"),
        (lambda it: it.cluster(leases=()), "NoLease"),
    ],
)
def test_what_stops_a_restart(change, code):
    assert reason(change(worker("prepared"))) == code
    if code in ("LeaseHeld", "NoLease", "ApiUnreachable"):
        return
    activated = change(worker("activated"))
    if code == "NodeMissing":
        return
    assert act(activated) == RetireEntry(BootEntry(R2.version, R2.root_hash, 3)), "a power cut would start it"
    drained = change(worker("drained"))
    assert act(drained) == Uncordon("w-1")
    free = change(worker("leased"))
    assert act(free) == ReleaseLease(WORKER_LEASE)


def test_without_the_api_an_activated_release_stays_and_is_not_started():
    assert reason(worker("activated").sees(cluster=None)) == "ApiUnreachable"


def test_an_activated_release_without_its_lease_is_taken_back():
    broken = worker("activated").lease(WORKER_LEASE, None)
    assert act(broken) == RetireEntry(BootEntry(R2.version, R2.root_hash, 3))
    assert isinstance(act(worker("activated").node("w-1", cordoned=False)), RetireEntry)
    assert isinstance(act(worker("activated").cluster(pods={"w-1": ()}).here(kubelet_sets={})), RetireEntry)


def test_an_update_of_the_operating_system_alone_needs_no_pass_one():
    same = release("2.0", "v1.31.4")
    it = plane("staged").wants(releases=(same, R1), cluster=cluster(same, R1))
    assert act(it) == PrepareKubelet(same, "conf")
    silent = worker("prepared").wants(releases=(same, R1)).node("cp-2", ready=True)
    silent = silent.cluster(apiservers={**silent.view.apiservers, "cp-2": None})
    assert isinstance(act(silent), AcquireLease), "a control plane that is away says nothing against the same kubelet"


def test_waves():
    it = worker("prepared", "w-3").rollout("workers", waves=("1", "50%", "100%"), soak=timedelta(minutes=30))
    assert reason(it) == "WaitsForWave" and "w-1, w-2" in it.decide().message
    arrived = {"root_hash": R2.root_hash, "release": R2.version}
    it = it.report("w-1", **arrived)
    assert reason(it) == "WaitsForWave"
    it = it.report("w-2", **arrived, since=NOW - timedelta(minutes=29))
    assert reason(it) == "Soaking" and it.decide().until == NOW + timedelta(minutes=1)
    it = it.report("w-2", since=NOW - timedelta(minutes=30))
    assert isinstance(act(it), AcquireLease)
    assert reason(it.node("w-2", ready=False)) == "WaitsForWave"
    assert isinstance(act(it.without("w-2")), AcquireLease), "a node that is not in the cluster holds up nobody"
    assert isinstance(act(it.report("w-2", release=Version("3.0"), root_hash="r-3.0")), AcquireLease), "gone on"


def test_failures_up_to_the_limit_do_not_close_a_rollout():
    it = worker("prepared").report("w-3", poisoned=frozenset({R2.root_hash})).rollout("workers", max_failures=1)
    assert isinstance(act(it), AcquireLease)
    closed = it.report("w-4", poisoned=frozenset({R2.root_hash})).decide()
    assert isinstance(closed, Stuck) and "w-3, w-4" in closed.message and "(1)" in closed.message


@pytest.mark.parametrize(
    ("amount", "total", "up", "found"),
    [("1", 9, False, 1), ("25%", 10, False, 2), ("25%", 10, True, 3), ("1%", 10, False, 1), ("100%", 7, True, 7)],
)
def test_amounts(amount, total, up, found):
    assert count(amount, total, up=up) == found


def test_two_nodes_that_saw_the_same_room():
    """Two of four may be away and one is down: whoever has the lower lease goes on."""
    it = worker("leased").rollout("workers", max_unavailable="2").node("w-4", ready=False)
    assert act(it.lease("slot-pool-workers-1", "w-2")) == Cordon("w-1")
    second = worker("prepared").rollout("workers", max_unavailable="2").node("w-4", ready=False)
    second = second.lease(WORKER_LEASE, "w-2").lease("slot-pool-workers-1", "w-1")
    assert act(second) == ReleaseLease("slot-pool-workers-1")


def test_a_lease_is_never_stolen_on_time():
    it = worker("prepared").lease(WORKER_LEASE, "w-2", since=timedelta(days=300))
    assert reason(it) == "LeaseHeld" and "w-2 holds slot-pool-workers-0 (a test)" in it.decide().message
    gone = worker("prepared").lease(WORKER_LEASE, "ghost", since=timedelta(days=300))
    assert act(gone) == AcquireLease(WORKER_LEASE, "restart into release 2.0", "ghost")
    failed = gone.report("w-2", poisoned=frozenset({R2.root_hash}))
    assert reason(failed) == "RolloutClosed"


# Drains.


def test_a_drain_that_takes_too_long():
    late = worker("cordoned").lease(WORKER_LEASE, "w-1", since=timedelta(minutes=11))
    assert act(late) == Uncordon("w-1")
    free = late.node("w-1", cordoned=False, cordoned_by_us=False)
    assert act(free) == ReleaseLease(WORKER_LEASE)
    tried = replace(
        worker("prepared"), journal=Journal(attempts={"drain:w-1": Attempt(4, NOW - timedelta(minutes=7), "web-1")})
    )
    assert reason(tried) == "DrainFailed" and tried.decide().until == NOW + timedelta(minutes=1)
    forced = late.rollout("workers", drain_force=True)
    assert act(forced) == Drain("w-1", force=True)
    by_hand = late.node("w-1", cordoned_by_us=False)
    assert act(by_hand) == ReleaseLease(WORKER_LEASE), "what a person cordoned stays cordoned"


def test_rounds_of_a_drain_follow_each_other_soon():
    tried = Journal(attempts={"drain:w-1": Attempt(9, NOW - timedelta(seconds=59), "web-1 is left")})
    it = replace(worker("cordoned"), journal=tried)
    waits = it.decide()
    assert isinstance(waits, Wait) and (waits.reason, waits.until) == ("Draining", NOW + timedelta(seconds=1))
    # Pods take their time: that is no failure.
    assert waits.message == "w-1 is emptied before it restarts: web-1 is left; asked again at 12:00:01 UTC."


@pytest.mark.parametrize(
    ("step", "before"),
    [
        (f"snapshot:{R2.manifest}", plane("pulled")),
        (f"upgrade:{R2.manifest}", plane("pulled")),
        ("cordon:w-1", worker("prepared")),
        (f"activate:{R2.manifest}", worker("prepared")),
        (f"reboot:{R2.manifest}", worker("prepared")),
    ],
)
def test_a_lease_is_not_taken_for_work_that_is_held_back(step, before):
    tried = Journal(attempts={step: Attempt(2, NOW - timedelta(seconds=30), "it broke")})
    assert reason(replace(before, journal=tried)) == "Backoff"


def broken(step: str, situation: Situation, failures: int = 1) -> Situation:
    attempts = {f"{step}:{R2.manifest}": Attempt(failures, NOW - timedelta(seconds=30), "it broke")}
    return replace(situation, journal=Journal(attempts=attempts))


@pytest.mark.parametrize(
    ("name", "lease", "drained"),
    [("w-1", WORKER_LEASE, worker("drained")), ("cp-1", PLANE_LEASE, plane("drained", passed=True))],
)
def test_a_node_whose_activation_fails_gives_everything_back_and_waits(name, lease, drained):
    """And takes nothing again in the same tick: its next try is later, others may have their turn."""
    it = broken("activate", drained)
    assert act(it) == Uncordon(name)
    it = it.node(name, cordoned=False, cordoned_by_us=False)
    assert act(it) == ReleaseLease(lease)
    it = it.lease(lease, None)
    waits = it.decide()
    assert reason(it) == "Backoff" and waits.until == NOW + timedelta(seconds=30)
    assert "Activating release 2.0 has failed once" in waits.message and "it broke" in waits.message
    later = replace(
        it,
        journal=Journal(
            attempts={
                key: replace(tried, last=NOW - timedelta(minutes=1)) for key, tried in it.journal.attempts.items()
            }
        ),
    )
    assert act(later) == AcquireLease(lease, "restart into release 2.0", None)
    assert reason(broken("activate", it, failures=5)) == "ActivateBudget"


def test_a_restart_that_fails_is_taken_back_before_the_node_is_in_service():
    it = broken("reboot", worker("activated"))
    assert act(it) == RetireEntry(BootEntry(R2.version, R2.root_hash, 3)), "a power cut would start it in service"
    it = broken("reboot", worker("drained"))
    assert act(it) == Uncordon("w-1")


def test_what_was_done_although_it_looked_like_a_failure_holds_nothing_back():
    assert act(broken("activate", worker("activated"))) == Reboot(R2), "it is activated"
    cordon = Journal(attempts={"cordon:w-1": Attempt(1, NOW, "no answer")})
    assert act(replace(worker("cordoned"), journal=cordon)) == Drain("w-1", force=False)


@pytest.mark.parametrize("step", ["snapshot", "upgrade"])
def test_pass_one_that_is_held_back_holds_nothing(step):
    assert act(broken(step, plane("leased"))) == ReleaseLease(PLANE_LEASE)
    half = plane("saved").here(manifests={**dict.fromkeys(COMPONENTS, NEW), "kube-scheduler": OLD})
    assert reason(broken("upgrade", half)) == "Backoff", "half done, it keeps its lease"


def test_a_kubelet_set_that_cannot_be_made_holds_nothing():
    assert act(broken("prepare", worker("leased").here(kubelet_sets={}))) == ReleaseLease(WORKER_LEASE)
    assert reason(broken("prepare", worker("staged"))) == "Backoff"


def test_pods_that_cannot_be_seen_are_not_gone():
    assert act(worker("cordoned").cluster(pods={})) == Uncordon("w-1")
    assert reason(worker("prepared").cluster(pods={})) == "PodsUnknown"
    assert reason(worker("cordoned").cluster(pods={}).node("w-1", ready=False)) == "NodeNotReady"


# After a failed trial.


def test_a_fallback_tells_the_others_before_they_go_on():
    bad = Poisoned(R2.version, R2.root_hash, R2.manifest, "its trial failed")
    fell = replace(worker("drained"), journal=Journal(poisoned=(bad,)))
    fell = fell.sees(spare=None, staged=None, fetched=frozenset())
    told = act(fell)
    assert isinstance(told, PublishReport) and told.report.poisoned == {R2.root_hash}
    fell = fell.node("w-1", report=told.report)
    assert act(fell) == Uncordon("w-1")
    fell = fell.node("w-1", cordoned=False, cordoned_by_us=False)
    assert act(fell) == ReleaseLease(WORKER_LEASE)
    assert reason(fell.lease(WORKER_LEASE, None)) == "ReleasePoisoned"


def test_a_fallback_tells_the_others_also_when_a_repaired_release_waits_already():
    bad = Poisoned(R2.version, R2.root_hash, R2.manifest, "its trial failed")
    healed = release("2.1", "v1.32.3")
    fell = replace(worker("drained"), journal=Journal(poisoned=(bad,)))
    fell = fell.sees(spare=None, staged=None, fetched=frozenset())
    fell = fell.wants(releases=(healed, R2, R1), cluster=cluster(healed))
    told = act(fell)
    assert isinstance(told, PublishReport) and told.report.poisoned == {R2.root_hash}
    free = fell.node("w-1", cordoned=False, cordoned_by_us=False, report=told.report)
    assert act(free) == ReleaseLease(WORKER_LEASE)
    assert act(free.lease(WORKER_LEASE, None)) == FetchRelease(healed)


def test_kubernetes_never_goes_back_by_a_minor():
    it = back(worker("prepared"), "w-1").wants(releases=(R1,), cluster=cluster(R1)).lease(WORKER_LEASE, None)
    it = it.report("w-1", root_hash=R2.root_hash, release=R2.version)
    assert reason(it) == "KubernetesDowngrade"
    bare = release("3.0", None)
    assert reason(it.wants(releases=(bare,), cluster=cluster(bare))) == "KubernetesDowngrade"


# The way in.


def newcomer(role: Role, name: str, *answers: str) -> Situation:
    it = plane("running", name=name) if role is Role.CONTROL_PLANE else worker("running", name=name)
    it = it.wants(releases=(R1,), cluster=cluster(R1)).without(name)
    it = it.here(joined=None, manifests={}, configuration=None)
    it = it.sees(answers=tuple(Answer(f"cp-{number}", V(version)) for number, version in enumerate(answers, 1)))
    if role is Role.WORKER or not answers:
        return it.sees(cluster=None)
    members = tuple(member for member in it.view.etcd.members if member.name != name)
    apiservers = {who: version for who, version in it.view.apiservers.items() if who != name}
    return it.cluster(etcd=replace(it.view.etcd, members=members), apiservers=apiservers)


def test_init_happens_once():
    first = newcomer(Role.CONTROL_PLANE, "cp-1")
    assert act(first) == KubeadmInit(OLD)
    assert reason(newcomer(Role.CONTROL_PLANE, "cp-2")) == "WaitsForCluster"
    assert reason(newcomer(Role.WORKER, "w-1")) == "WaitsForCluster"
    assert reason(first.wants(halted=True)) == "Halted"
    late = first.wants(cluster=replace(first.want.cluster, init_before=NOW))
    assert reason(late) == "InitExpired"
    assert not isinstance(act(newcomer(Role.CONTROL_PLANE, "cp-1", "1.31.4")), KubeadmInit), "somebody answers"


def test_what_was_begun_is_finished():
    """An API server answers as soon as an init is half done: it is this machine's own, and no cluster to join."""
    init = newcomer(Role.CONTROL_PLANE, "cp-1", "1.31.4").here(entering=Entry.INIT)
    assert act(init) == KubeadmInit(OLD)
    expired = init.wants(cluster=replace(init.want.cluster, init_before=NOW), halted=True)
    assert act(expired) == KubeadmInit(OLD)
    update = newcomer(Role.WORKER, "w-1", "1.31.4").wants(releases=(R2, R1))
    assert isinstance(act(update.sees(answers=(Answer("endpoint", NEW),))), FetchRelease), "its release comes first"
    assert act(update.here(entering=Entry.JOIN).sees(answers=(Answer("endpoint", NEW),))) == KubeadmJoin(Role.WORKER)


def test_joining():
    assert act(newcomer(Role.WORKER, "w-1", "1.31.4")) == KubeadmJoin(Role.WORKER)
    assert act(newcomer(Role.WORKER, "w-1", "1.34.4")) == KubeadmJoin(Role.WORKER)
    assert reason(newcomer(Role.WORKER, "w-1", "1.31.3")) == "CannotJoinYet"
    assert reason(newcomer(Role.WORKER, "w-1", "1.35.0")) == "NoReleaseToJoin"
    assert reason(newcomer(Role.WORKER, "w-1", "1.31.4").wants(halted=True)) == "Halted"
    it = newcomer(Role.CONTROL_PLANE, "cp-2", "1.31.4")
    assert act(it) == AcquireLease(PLANE_LEASE, "join cp-2 as a control plane", None)
    held = it.lease(PLANE_LEASE, "cp-2")
    assert act(held) == KubeadmJoin(Role.CONTROL_PLANE)
    assert reason(newcomer(Role.CONTROL_PLANE, "cp-2", "1.31.4", "1.32.0")) == "CannotJoinYet"
    assert reason(newcomer(Role.CONTROL_PLANE, "cp-2", "1.32.0")) == "NoReleaseToJoin"
    assert reason(it.sees(cluster=None)) == "ApiUnreachable"
    assert reason(it.member("cp-3", healthy=False)) == "EtcdUnhealthy"
    assert act(held.member("cp-3", healthy=False)) == ReleaseLease(PLANE_LEASE), "who waits holds nothing"


def test_a_join_begins_when_the_cluster_knows_the_token():
    """kubeadm would wait five minutes for it and fail; this is no failure, and no slot is taken meanwhile."""
    for it in (newcomer(Role.WORKER, "w-1", "1.31.4"), newcomer(Role.CONTROL_PLANE, "cp-2", "1.31.4")):
        early = it.sees(invited=False)
        assert reason(early) == "WaitsForToken"
        assert act(early.sees(invited=True)) == act(early.sees(invited=None)) == act(it)
    worker = newcomer(Role.WORKER, "w-1", "1.31.4").sees(invited=False)
    assert act(worker.here(entering=Entry.JOIN)) == KubeadmJoin(Role.WORKER), "its Node may be Ready by now"


def test_a_stale_member_leaves_first_and_never_the_quorum():
    it = newcomer(Role.CONTROL_PLANE, "cp-2", "1.31.4").lease(PLANE_LEASE, "cp-2")
    stale = plane("running").view.etcd
    members = tuple(replace(member, healthy=member.name != "cp-2") for member in stale.members)
    it = it.cluster(etcd=replace(stale, members=members))
    assert act(it) == RemoveEtcdMember("cp-2", "id-cp-2")
    two = it.cluster(etcd=replace(stale, members=members[:2])).without("cp-3")
    two = two.cluster(apiservers={"cp-1": OLD})
    assert act(two) == ReleaseLease(PLANE_LEASE)
    assert reason(two.lease(PLANE_LEASE, None)) == "NoQuorum", "and it is not taken for nothing"


@pytest.mark.parametrize("healthy", [True, False])
def test_a_member_that_this_life_has_begun_stays(healthy):
    """kubeadm goes on beside it; removed, its data would name a member that is gone for ever, and none could start."""
    it = newcomer(Role.CONTROL_PLANE, "cp-2", "1.31.4").lease(PLANE_LEASE, "cp-2")
    members = tuple(replace(it, healthy=healthy or it.name != "cp-2") for it in plane("running").view.etcd.members)
    begun = it.cluster(etcd=replace(it.view.etcd, members=members))
    assert act(begun) == RemoveEtcdMember("cp-2", "id-cp-2")
    assert act(begun.here(entering=Entry.JOIN)) == KubeadmJoin(Role.CONTROL_PLANE)


def test_a_member_that_was_added_and_never_started_keeps_only_other_machines_waiting():
    """The power failed between `etcd member add` and its manifest: etcd knows an address and no name."""
    it = newcomer(Role.CONTROL_PLANE, "cp-2", "1.31.4").lease(PLANE_LEASE, "cp-2")
    for peer, goes in (("https://10.0.0.2:2380", True), ("https://192.0.2.99:2380", False)):
        nameless = EtcdMember("", "7", healthy=False, peers=(peer,))
        members = (*(m for m in plane("running").view.etcd.members if m.name != "cp-2"), nameless)
        begun = it.cluster(etcd=replace(it.view.etcd, members=members))
        assert act(begun) == ReleaseLease(PLANE_LEASE), "of an earlier life, nobody knows whose it is"
        expected = KubeadmJoin(Role.CONTROL_PLANE) if goes else ReleaseLease(PLANE_LEASE)
        assert act(begun.here(entering=Entry.JOIN)) == expected


def test_flashed_too_new_or_too_old_a_node_moves_its_release_first():
    three = release("3.0", "v1.33.1")
    it = newcomer(Role.WORKER, "w-1", "1.32.3").wants(releases=(three, R2, R1), cluster=cluster(three))
    assert act(it) == FetchRelease(R2), "the newest that may join"
    too_new = it.sees(booted=BootedSlot(Slot.A, three.version, three.root_hash)).here(kubelet=V("1.33.1"))
    too_new = too_new.sees(entries=(BootEntry(three.version, three.root_hash),))
    assert act(too_new) == FetchRelease(R2)
    assert act(it.wants(windows=CLOSED)) == FetchRelease(R2)


def test_roles_never_change_in_place():
    assert (
        reason(worker("prepared").here(joined=Role.CONTROL_PLANE, manifests={"kube-apiserver": OLD})) == "RoleChanged"
    )


# Upkeep.


def settled(situation: Situation, name: str) -> Situation:
    return situation.wants(releases=(R1,), cluster=cluster(R1))


PLANE, WORKER = settled(plane("running"), "cp-1"), settled(worker("running"), "w-1")


def test_nothing_to_do():
    assert isinstance(PLANE.decide(), Converged)
    assert isinstance(WORKER.decide(), Converged)


def test_certificates():
    def ends(days: float, it: Situation = PLANE) -> Situation:
        return it.here(certificates_until=NOW + timedelta(days=days))

    assert isinstance(ends(61).decide(), Converged)
    assert isinstance(act(ends(59)), AcquireLease)
    assert act(ends(59, PLANE.lease(PLANE_LEASE, "cp-1"))) == RenewCertificates(NOW + timedelta(days=60))
    assert reason(ends(59, PLANE.wants(windows=CLOSED))) == "OutsideWindow"
    assert isinstance(act(ends(13, PLANE.wants(windows=CLOSED, halted=True))), AcquireLease)
    assert reason(ends(59, PLANE.node("cp-2", ready=False))) == "ControlPlaneUnavailable"
    assert reason(ends(1, PLANE.sees(cluster=None))) == "ApiUnreachable"
    assert act(ends(0, PLANE.sees(cluster=None))) == RenewCertificates(NOW + timedelta(days=60))


def test_configuration():
    changed = PLANE.here(configuration="older").report("cp-1", configuration="older").cluster(configuration="older")
    assert isinstance(act(changed), AcquireLease)
    assert act(changed.lease(PLANE_LEASE, "cp-1")) == Reconfigure("conf", first=True)
    assert "cp-1 still runs older." in changed.lease(PLANE_LEASE, "cp-1").decide().why
    assert act(changed.cluster(configuration="conf").lease(PLANE_LEASE, "cp-1")) == Reconfigure("conf", first=False)
    joined = PLANE.here(configuration=None).report("cp-1", configuration=None).lease(PLANE_LEASE, "cp-1")
    assert act(joined) == Reconfigure("conf", first=False)
    assert joined.decide().why.startswith("cp-1 has joined, and nothing says yet that its configuration")
    foreign = PLANE.cluster(configuration="older").lease(PLANE_LEASE, "cp-1")
    assert act(foreign) == Reconfigure("conf", first=True)
    assert foreign.decide().why.startswith("The cluster's own documents are not those of git")
    assert reason(changed.wants(halted=True)) == "Halted"
    newer = changed.here(manifests=dict.fromkeys(COMPONENTS, NEW)).cluster(
        version=NEW, apiservers=dict.fromkeys(PLANES, NEW)
    )
    assert reason(newer) == "WaitsForRelease"
    behind = WORKER.here(configuration="older").report("w-1", configuration="older")
    assert isinstance(act(behind), AcquireLease)
    assert reason(behind.cluster(configuration="older")) == "WaitsForConfiguration"
    assert reason(behind.report("cp-1", root_hash="r-0.9", release=Version("0.9"))) == "WaitsForPool"


def test_documents_that_change_between_the_passes_are_written_by_the_staged_kubeadm():
    """Only it can render the static pods that run, and no kubelet set may come from documents that are not git's.

    So it is after a power cut between `kubeadm upgrade apply` and the mark, too.
    """
    moved = plane("pulled", passed=True).here(configuration="older", snapshots=frozenset({R2.manifest}))
    moved = moved.report("cp-1", configuration="older").cluster(configuration="older")
    assert act(moved) == AcquireLease(PLANE_LEASE, "move the control plane to v1.32.3", None)
    held = moved.lease(PLANE_LEASE, "cp-1")
    assert act(held) == KubeadmUpgrade(R2, NEW, first=True)
    assert "from v1.32.3 to" not in held.decide().why
    assert reason(moved.wants(halted=True)) == "Halted"
    written = held.here(configuration="conf", kubelet_sets={R2.root_hash: "conf"}).cluster(configuration="conf")
    assert act(written) == Cordon("cp-1")


def test_who_moves_while_the_documents_are_not_gits_writes_them():
    """`kubeadm upgrade node` would render the older ones, and the node would call them git's."""
    second = plane("saved").cluster(version=NEW, configuration="older")
    second = second.cluster(apiservers={**second.view.apiservers, "cp-2": NEW})
    assert act(second) == KubeadmUpgrade(R2, NEW, first=True)


def test_tokens_are_there_only_while_they_are_needed():
    none = {"tokens": frozenset()}
    assert act(PLANE.node("w-2", ready=False).cluster(**none)) == SetTokens(frozenset({"w-2"}))
    assert act(PLANE.without("w-2").cluster(**none)) == SetTokens(frozenset({"w-2"}))
    assert act(PLANE.cluster(tokens=frozenset({"w-2"}))) == SetTokens(frozenset())


def test_a_node_without_a_token_keeps_no_other_chore_waiting():
    tokenless = PLANE.node("w-2", ready=False).cluster(tokens=frozenset())
    key = step_key(SetTokens(frozenset({"w-2"})))
    failed = replace(tokenless, journal=Journal(attempts={key: Attempt(3, NOW, "the fleet has no token for w-2")}))
    assert "the fleet has no token for w-2" in failed.decide().message, "said when nothing else is to be done"
    assert act(failed.cluster(requests=(SERVING,))) == ApproveRequests(frozenset({"csr-1"}))
    ends = failed.here(certificates_until=NOW + timedelta(days=1))
    assert isinstance(act(ends), AcquireLease)


@pytest.mark.parametrize("rejected", [frozenset({"etcd"}), frozenset({"etcd", "kube-apiserver"})])
def test_a_static_pod_that_the_kubelet_rejected_is_made_anew(rejected):
    """Without it there may be no quorum, so nobody is asked and nothing else comes first."""
    revive = RestartStaticPods(rejected)
    alone = PLANE.here(rejected=rejected).sees(cluster=None)
    assert act(alone) == act(alone.wants(halted=True)) == act(alone.wants(windows=CLOSED)) == revive
    joining = newcomer(Role.CONTROL_PLANE, "cp-2", "1.31.4").here(entering=Entry.JOIN, rejected=rejected)
    assert act(joining.sees(cluster=None)) == revive, "its own etcd member is what the quorum lacks"
    failed = replace(
        PLANE.here(rejected=rejected, leftovers=True),
        journal=Journal(attempts={step_key(revive): Attempt(1, NOW, "it broke")}),
    )
    assert act(failed) == PruneKubeadm(), "a repair that failed keeps nothing else waiting"


def test_leftovers():
    assert act(PLANE.here(leftovers=True)) == PruneKubeadm()


def test_leases_of_every_group_are_created():
    it = PLANE.rollout("workers", max_unavailable="50%").cluster(leases=(Lease(PLANE_LEASE),))
    assert act(it) == CreateLeases(frozenset({WORKER_LEASE, "slot-pool-workers-1"}))


def leaver(name: str, **fields: object) -> Situation:
    gone = tuple(peer for peer in PLANE.want.cluster.peers if peer.name != name)
    it = PLANE.wants(cluster=replace(PLANE.want.cluster, peers=gone)).lease(PLANE_LEASE, "cp-1")
    return it.node(name, **fields).cluster(tokens=frozenset(), pods={"cp-1": (), name: ()})


def test_a_node_that_left_git_leaves_the_cluster():
    assert act(leaver("w-4")) == Cordon("w-4")
    assert act(leaver("w-4", cordoned=True)) == DeleteNode("w-4")
    full = leaver("w-4", cordoned=True).cluster(tokens=frozenset(), pods={"w-4": worker("leased").view.pods["w-1"]})
    assert act(full) == Drain("w-4", force=False)
    assert act(leaver("w-4", ready=False)) == DeleteNode("w-4"), "a dead node cannot be drained"
    assert act(leaver("cp-3", cordoned=True)) == RemoveEtcdMember("cp-3", "id-cp-3")
    assert act(leaver("w-4", report=None)) == ReleaseLease(PLANE_LEASE), "what kubenode did not bring in stays"
    assert act(leaver("w-4").wants(halted=True)) == ReleaseLease(PLANE_LEASE)


# Certificate requests.


SERVING = CertificateRequest(
    "csr-1",
    "kubernetes.io/kubelet-serving",
    "system:node:w-1",
    frozenset({"system:nodes", "system:authenticated"}),
    "system:node:w-1",
    frozenset({"system:nodes"}),
    frozenset({"digital signature", "server auth"}),
    frozenset({"w-1", "10.0.1.1"}),
)
AGENT = CertificateRequest(
    "csr-2",
    "kubernetes.io/kube-apiserver-client",
    "system:node:w-1",
    frozenset({"system:nodes"}),
    "kubenode:agent:w-1",
    frozenset({"kubenode:agents", "kubenode:pool:workers"}),
    frozenset({"digital signature", "client auth"}),
)


def test_requests_that_follow_from_git_are_approved():
    assert act(PLANE.cluster(requests=(SERVING, AGENT))) == ApproveRequests(frozenset({"csr-1", "csr-2"}))


@pytest.mark.parametrize(
    "request_",
    [
        replace(SERVING, signer="example.net/other"),
        replace(SERVING, requestor="system:node:w-2"),
        replace(SERVING, requestor="system:node:stranger", common_name="system:node:stranger"),
        replace(SERVING, organizations=frozenset({"system:nodes", "system:masters"})),
        replace(SERVING, requestor_groups=frozenset()),
        replace(SERVING, usages=frozenset({"server auth", "client auth"})),
        replace(SERVING, usages=frozenset({"digital signature"})),
        replace(SERVING, names=frozenset({"w-1", "10.0.1.2"})),
        replace(SERVING, names=frozenset()),
        replace(AGENT, common_name="kubenode:agent:w-2"),
        replace(AGENT, requestor="system:node:w-2"),
        replace(AGENT, organizations=frozenset({"kubenode:agents", "kubenode:pool:planes"})),
        replace(AGENT, organizations=frozenset({"system:masters"})),
        replace(AGENT, usages=frozenset({"digital signature", "client auth", "server auth"})),
        replace(AGENT, names=frozenset({"w-1"})),
        replace(AGENT, requestor_groups=frozenset()),
    ],
)
def test_other_requests_are_left_for_a_person(request_):
    assert approvable((request_,), PLANE.want.cluster) == frozenset()


def test_a_node_that_claims_to_have_arrived_at_the_end_of_time_fails_nobody() -> None:
    """Every node of the pool reads that report: none may end its tick with a traceback over it."""
    it = worker("prepared", "w-3").rollout("workers", waves=("1", "100%"), soak=timedelta(minutes=30))
    last = datetime.max.replace(tzinfo=UTC)
    decision = it.report("w-1", release=R2.version, root_hash=R2.root_hash, since=last).decide()
    assert isinstance(decision, Wait) and decision.reason == "Soaking"


def test_a_member_that_cannot_ask_its_cluster_says_so():
    """Seen: a worker called itself up to date whose agent had no certificate yet, and which nobody had heard of."""
    it = worker("running").wants(releases=(R1,))
    assert "could not be asked" not in it.decide().message
    alone = it.sees(cluster=None).decide()
    assert isinstance(alone, Converged)
    assert alone.message.endswith("; its cluster could not be asked, so nothing is known of what is left to do there.")
