"""Whole rollouts through a cluster, driven by the planner: bootstrap, patch, minor, three minors, failures, crashes."""

import copy
import random
from dataclasses import replace
from datetime import time, timedelta

import pytest

from kubenode.errors import HostError
from kubenode.model.decision import (
    Cordon,
    Drain,
    KubeadmUpgrade,
    Reboot,
    Reconfigure,
    RemoveEtcdMember,
    RenewCertificates,
    RestartStaticPods,
)
from kubenode.model.documents import Role, Rollout, Window
from kubenode.model.kubernetes import Lease
from tests.sim.rollouts import PLANES, WORKERS, Fleet, Killed, PowerCut, Store, converged, release

R31 = release("1.0", "v1.31.4")
R31P = release("1.1", "v1.31.9")
R31OS = release("1.2", "v1.31.9")
R32 = release("2.0", "v1.32.3")
R33 = release("3.0", "v1.33.1")
R34 = release("4.0", "v1.34.2")


def founded(planes: int = 3, workers: int = 3, start=R31, **settings) -> Fleet:
    fleet = Fleet.create(planes, workers, (start,), start, **settings)
    fleet.run()
    assert converged(fleet), fleet.summary()
    for number in range(4):
        fleet.cluster.pods[f"web/{number}"] = f"worker-{number % workers + 1:04}"
    fleet.log.clear()
    fleet.trace.clear()
    return fleet


def test_a_cluster_founds_itself():
    fleet = founded()
    assert fleet.cluster.inits == 1
    assert sorted(fleet.cluster.members) == ["cp-1", "cp-2", "cp-3"]
    assert len(fleet.cluster.objects) == 6
    assert fleet.cluster.tokens == frozenset()


@pytest.mark.parametrize("size", [(1, 1), (3, 3)], ids=str)
@pytest.mark.parametrize(
    "channel",
    [(R31P, R31), (R32, R31), (R34, R33, R32, R31P, R31)],
    ids=["patch", "minor", "three minors"],
)
def test_a_rollout(size, channel):
    fleet = founded(*size)
    fleet.releases = channel
    fleet.run()
    assert converged(fleet), fleet.summary()
    assert {str(it.booted.version) for it in fleet.machines.values()} == {str(channel[0].version)}
    assert str(fleet.cluster.version) == channel[0].kubernetes
    assert all(lease.holder is None for lease in fleet.cluster.leases.values())
    assert not any(it.cordoned for it in fleet.cluster.objects.values())
    firsts = [action.first for _, action in fleet.log if isinstance(action, KubeadmUpgrade)]
    assert firsts.count(True) == (3 if len(channel) == 5 else 1)
    reboots = [name for name, action in fleet.log if isinstance(action, Reboot)]
    assert reboots.index("cp-1") < reboots.index("worker-0001")


def test_a_quorum_that_a_kubelet_has_cost_comes_back():
    """The kubelet of one of two control planes rejected etcd: the other can be asked nothing, and waits for ever."""
    fleet = founded(2, 1)
    fleet.cluster.hosts["cp-2"].rejected = frozenset({"etcd"})
    fleet.cluster.changed()
    assert not fleet.cluster.answering()
    fleet.releases = (R31P, R31)
    fleet.run()
    assert converged(fleet), fleet.summary()
    assert ("cp-2", RestartStaticPods(frozenset({"etcd"}))) in fleet.log
    assert {str(it.booted.version) for it in fleet.machines.values()} == {str(R31P.version)}


# One thing goes wrong, at every step in turn.


@pytest.fixture(scope="module")
def minor_upgrade():
    """What a start of every disturbed run is copied from, and the steps of the undisturbed one."""
    fleet = founded(3, 1)
    fleet.releases = (R32, R31)
    calm = copy.deepcopy(fleet)
    calm.run()
    return fleet, tuple(calm.trace)


@pytest.mark.parametrize("crash", [Killed, PowerCut, HostError])
def test_a_minor_upgrade_disturbed_at_every_step(minor_upgrade, crash):
    start, trace = minor_upgrade
    assert len(trace) > 100
    for at in range(1, len(trace) + 1):
        fleet = copy.deepcopy(start)
        fleet.crash_at, fleet.crash, fleet.cluster.watch_quorum = frozenset({at}), crash, True
        try:
            fleet.run()
            assert converged(fleet), fleet.summary()
            at_rest(fleet, R32)
        except BaseException as error:
            raise AssertionError(f"{crash.__name__} at step {at} ({trace[at - 1]}): {error}") from error


def with_new_documents(fleet: Fleet) -> None:
    fleet.cluster.wanted_configuration = "config-2"
    fleet.run()
    assert converged(fleet), fleet.summary()
    assert {host.configuration for host in fleet.cluster.hosts.values()} == {"config-2"}
    at_rest(fleet, R32)


@pytest.mark.parametrize("crash", [Killed, PowerCut])
def test_an_upgrade_with_new_documents_cut_at_every_step_of_kubeadm(minor_upgrade, crash):
    start, trace = minor_upgrade
    steps = [at for at, name in enumerate(trace, 1) if "kubeadm.upgrade" in name]
    assert any("unmarked" in trace[at - 1] for at in steps)
    for at in steps:
        fleet = copy.deepcopy(start)
        fleet.crash_at, fleet.crash, fleet.cluster.watch_quorum = frozenset({at}), crash, True
        try:
            with_new_documents(fleet)
        except BaseException as error:
            raise AssertionError(f"{crash.__name__} at step {at} ({trace[at - 1]}): {error}") from error


def test_documents_that_change_at_any_time_during_an_upgrade(minor_upgrade):
    start, _ = minor_upgrade
    fleet = copy.deepcopy(start)
    moved = 0
    while fleet.round():
        moved += 1
        try:
            with_new_documents(copy.deepcopy(fleet))
        except BaseException as error:
            raise AssertionError(f"after round {moved}: {error}") from error
    assert moved > 5


def at_rest(fleet: Fleet, wanted) -> None:
    assert {str(it.booted.version) for it in fleet.machines.values() if it.name not in fleet.removed} == {
        str(wanted.version)
    }
    assert str(fleet.cluster.version) == wanted.kubernetes
    assert all(lease.holder is None for lease in fleet.cluster.leases.values()), "no lease is leaked"
    assert not any(it.cordoned for it in fleet.cluster.objects.values())
    assert fleet.cluster.inits == 1
    for host in fleet.cluster.hosts.values():
        assert not host.manifests or {str(it) for it in host.manifests.values()} == {wanted.kubernetes}


# A release that is bad.


def test_a_broken_kubelet_stays_on_one_worker_and_a_later_release_heals():
    fleet = founded(3, 4)
    fleet.rollouts = {**fleet.rollouts, WORKERS: Rollout("2", waves=("1", "100%"))}
    fleet.releases = (R32, R31)
    fleet.bad = {("worker-0001", "2.0"), ("worker-0002", "2.0"), ("worker-0003", "2.0"), ("worker-0004", "2.0")}
    fleet.run()
    codes = {name: machine.reasons[-1] for name, machine in fleet.machines.items()}
    assert codes == {
        "cp-1": "Converged",
        "cp-2": "Converged",
        "cp-3": "Converged",
        "worker-0001": "ReleasePoisoned",
        "worker-0002": "RolloutClosed",
        "worker-0003": "RolloutClosed",
        "worker-0004": "RolloutClosed",
    }
    assert "worker-0001" in fleet.machines["worker-0002"].last.message
    assert [name for name, action in fleet.log if isinstance(action, Reboot) and "worker" in name] == ["worker-0001"]
    assert all(lease.holder is None for lease in fleet.cluster.leases.values())
    assert not any(it.cordoned for it in fleet.cluster.objects.values())
    healed = release("2.1", "v1.32.4")
    fleet.releases = (healed, R32, R31)
    fleet.run()
    assert converged(fleet), fleet.summary()
    at_rest(fleet, healed)


def test_a_control_plane_that_falls_back_runs_its_old_kubelet_under_the_new_api_server():
    fleet = founded(3, 1)
    fleet.releases = (R32, R31)
    fleet.bad = {("*", "2.0")}
    fleet.run()
    assert str(fleet.cluster.version) == "v1.32.3"
    assert {str(it.booted.version) for it in fleet.machines.values()} == {"1.0"}
    codes = sorted(fleet.machines[name].reasons[-1] for name in ("cp-1", "cp-2", "cp-3"))
    assert codes == ["ReleasePoisoned", "RolloutClosed", "RolloutClosed"]
    assert fleet.machines["worker-0001"].reasons[-1] == "WaitsForPool"
    assert sum(isinstance(action, Reboot) for _, action in fleet.log) == 1, "no loop"
    healed = release("2.1", "v1.32.3")
    fleet.releases = (healed, R32, R31)
    fleet.run()
    at_rest(fleet, healed)


# Everything else that a cluster goes through.


def test_the_second_pool_may_be_as_far_back_as_control_planes_bear():
    r35 = release("5.0", "v1.35.0")
    fleet = founded(1, 1)
    fleet.releases = (r35, R34, R33, R32, R31)
    fleet.run()
    at_rest(fleet, r35)
    hops = [str(action.release.version) for name, action in fleet.log if isinstance(action, Reboot) and "w" in name]
    assert hops == ["4.0", "5.0"], "the worker moves when the control plane would leave it behind, and not before"


def test_halted_in_the_middle_nobody_is_left_out_of_service():
    start = founded(3, 2)
    start.releases = (R32, R31)
    for after in range(1, 18):
        fleet = copy.deepcopy(start)
        for _ in range(after):
            fleet.round()
        fleet.halted = True
        fleet.run()
        assert all(lease.holder is None for lease in fleet.cluster.leases.values())
        assert not any(it.cordoned or not it.ready for it in fleet.cluster.objects.values())
        fleet.halted = False
        fleet.run()
        at_rest(fleet, R32)


def test_a_budget_that_blocks_ends_in_service_and_with_a_word():
    fleet = founded(1, 1)
    fleet.cluster.at_least["web"] = 4
    fleet.releases = (R31OS, R31)
    for _ in range(60):
        fleet.round()
    worker = fleet.machines["worker-0001"]
    assert "DrainFailed" in worker.reasons or "DrainTimedOut" in worker.reasons
    assert "Draining" in worker.reasons
    assert str(worker.booted.version) == "1.0"
    node = fleet.cluster.objects["worker-0001"]
    assert worker.reasons[-1] == "Draining" or not node.cordoned
    assert "web" in worker.store.journal.attempts["drain:worker-0001"].error
    del fleet.cluster.at_least["web"]
    fleet.run()
    at_rest(fleet, R31OS)


def test_a_budget_that_blocks_is_overruled_when_the_pool_says_so():
    fleet = founded(1, 1)
    fleet.rollouts = {**fleet.rollouts, WORKERS: Rollout(drain_force=True)}
    fleet.cluster.at_least["web"] = 4
    fleet.releases = (R31OS, R31)
    fleet.run()
    drains = [action for name, action in fleet.log if isinstance(action, Drain) and name == "worker-0001"]
    assert not drains[0].force and drains[-1].force, "in time at first, by force when it took too long"
    at_rest(fleet, R31OS)


def test_certificates_are_renewed_one_control_plane_at_a_time():
    fleet = founded(3, 1)
    fleet.cluster.now += timedelta(days=335)
    fleet.run()
    renewed = [name for name, action in fleet.log if isinstance(action, RenewCertificates)]
    assert sorted(renewed) == ["cp-1", "cp-2", "cp-3"]
    assert converged(fleet)
    at_rest(fleet, R31)


def test_certificates_that_ended_are_renewed_without_the_api():
    fleet = founded(3, 1)
    fleet.cluster.now += timedelta(days=400)
    assert fleet.cluster.view("cp-1") is None
    fleet.run()
    assert converged(fleet), fleet.summary()


def test_a_changed_configuration_goes_control_planes_first():
    fleet = founded(3, 3)
    fleet.cluster.wanted_configuration = "config-2"
    fleet.run()
    assert converged(fleet), fleet.summary()
    changed = [(name, action.first) for name, action in fleet.log if isinstance(action, Reconfigure)]
    assert sorted(name for name, _ in changed[:3]) == ["cp-1", "cp-2", "cp-3"] and len(changed) == 6
    assert [first for _, first in changed] == [True] + [False] * 5
    assert not any(isinstance(action, Reboot | Cordon) for _, action in fleet.log)
    assert {host.configuration for host in fleet.cluster.hosts.values()} == {"config-2"}
    at_rest(fleet, R31)


@pytest.mark.parametrize("newer", [R31OS, R32], ids=["same minor", "new minor"])
def test_a_configuration_and_a_release_at_once(newer):
    fleet = founded(3, 2)
    fleet.cluster.wanted_configuration, fleet.releases = "config-2", (newer, R31)
    fleet.run()
    assert converged(fleet), fleet.summary()
    assert {host.configuration for host in fleet.cluster.hosts.values()} == {"config-2"}
    at_rest(fleet, newer)


@pytest.mark.parametrize("name", ["worker-0001", "cp-1", "cp-2"])
def test_a_wiped_machine_comes_back_by_itself(name):
    fleet = founded(3, 2)
    wipe(fleet, name)
    fleet.run()
    assert converged(fleet), fleet.summary()
    at_rest(fleet, R31)
    assert sorted(fleet.cluster.members) == ["cp-1", "cp-2", "cp-3"]
    assert (name in [it.name for _, it in fleet.log if isinstance(it, RemoveEtcdMember)]) == name.startswith("cp")


def test_a_wiped_bootstrap_node_that_reaches_nobody_founds_nothing():
    fleet = founded(1, 1)
    fleet.init_before = fleet.now
    wipe(fleet, "cp-1")
    fleet.run()
    assert fleet.machines["cp-1"].reasons[-1] == "InitExpired" and fleet.cluster.inits == 1
    assert fleet.machines["worker-0001"].reasons[-1] == "Converged", "what runs, keeps running"


def wipe(fleet: Fleet, name: str) -> None:
    machine = fleet.machines[name]
    machine.store = Store()
    host = machine.host
    host.joined, host.manifests, host.configuration, host.registered = None, {}, None, False
    host.kubelet_sets, host.pulled, host.snapshots, host.certificates_until = {}, set(), set(), None
    fleet.cluster.objects[name] = replace(fleet.cluster.objects[name], ready=False)
    fleet.cluster.changed()


@pytest.mark.parametrize("name", ["worker-0002", "cp-3"])
def test_a_node_that_left_git_is_taken_out(name):
    fleet = founded(3, 3)
    fleet.removed = {name}
    fleet.run()
    assert converged(fleet), fleet.summary()
    assert name not in fleet.cluster.objects and name not in fleet.cluster.members
    assert not fleet.cluster.pods_on(name)
    at_rest(fleet, R31)


def test_a_ghost_that_holds_a_lease_is_replaced_only_when_it_is_gone_everywhere():
    fleet = founded(3, 3)
    fleet.cluster.leases["slot-pool-workers-0"] = Lease("slot-pool-workers-0", "worker-0003", fleet.now, "restart")
    fleet.machines["worker-0003"].host.cut_off = True
    fleet.releases = (R31OS, R31)
    for _ in range(200):
        fleet.round()
    assert fleet.machines["worker-0001"].reasons[-1] == "LeaseHeld"
    assert "worker-0003 holds slot-pool-workers-0 (restart)" in fleet.machines["worker-0001"].last.message
    fleet.removed = {"worker-0003"}
    fleet.run()
    assert converged(fleet), fleet.summary()


def test_flashed_too_new_a_node_first_goes_back_to_what_may_join():
    fleet = founded(3, 1)
    fleet.releases = (R32, R31)
    fleet.halted = True
    fleet.round()
    fleet.halted = False
    fleet.rollouts = {**fleet.rollouts, PLANES: Rollout(windows=())}
    fleet.add("worker-0002", WORKERS, Role.WORKER, R32)
    fleet.add("cp-4", PLANES, Role.CONTROL_PLANE, R32)
    fleet.run()
    assert converged(fleet), fleet.summary()
    at_rest(fleet, R32)


def test_a_window_keeps_everything_and_certificates_do_not_wait_for_ever():
    closed = (Window(frozenset({5}), time(2), timedelta(hours=4)),)
    fleet = founded(1, 1)
    fleet.windows, fleet.releases = closed, (R31OS, R31)
    fleet.round()
    assert fleet.machines["cp-1"].reasons[-1] == "OutsideWindow"
    fleet.run()
    at_rest(fleet, R31OS)
    reboots = [name for name, action in fleet.log if isinstance(action, Reboot)]
    assert reboots == ["cp-1", "worker-0001"] and fleet.now.weekday() == 5


@pytest.mark.parametrize("seed", range(40))
def test_seeded_schedules(seed):
    """Several crashes, a bad release and a moving channel at once; the seed names the schedule."""
    dice = random.Random(seed)
    fleet = founded(dice.choice((1, 3)), dice.randint(1, 5))
    fleet.rollouts = {PLANES: Rollout(), WORKERS: Rollout(dice.choice(("1", "2", "50%")), ("1", "50%", "100%"))}
    fleet.releases = dice.choice(((R32, R31), (R33, R32, R31), (R34, R33, R32, R31P, R31), (R31P, R31)))
    if dice.random() < 0.4:
        fleet.bad = {(dice.choice(("*", "worker-0001", "cp-1")), str(dice.choice(fleet.releases[:-1]).version))}
    fleet.crash_at = frozenset(dice.sample(range(1, 300), dice.randint(0, 8)))
    fleet.crash = dice.choice((Killed, PowerCut, HostError))
    for _ in range(dice.randint(0, 30)):
        fleet.round(dice)
        if dice.random() < 0.1:
            victim = fleet.machines[dice.choice(list(fleet.machines))].host
            victim.cut_off = not victim.cut_off
            fleet.cluster.changed()
    for machine in fleet.machines.values():
        machine.host.cut_off = False
    fleet.cluster.changed()
    fleet.run(dice=dice)
    if not fleet.bad:
        at_rest(fleet, fleet.releases[0])
        assert converged(fleet), fleet.summary()
    fleet.bad = set()
    healed = release("9.0", fleet.releases[0].kubernetes)
    repaired = [release(f"{it.version}.1", it.kubernetes) for it in fleet.releases]
    channel = [healed, *fleet.releases, *repaired]
    fleet.releases = tuple(sorted(channel, key=lambda it: it.version, reverse=True))
    fleet.run(dice=dice)
    at_rest(fleet, healed)
