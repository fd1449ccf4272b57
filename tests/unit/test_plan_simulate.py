"""Simulated rollouts: the order of things, windows, soak, what never ends, and the cost of a thousand nodes."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kubenode.model.decision import (
    AcquireLease,
    Act,
    Action,
    Converged,
    Cordon,
    Drain,
    FetchRelease,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    Reboot,
    Reconfigure,
    ReleaseLease,
    Stuck,
    Uncordon,
    Wait,
)
from kubenode.model.documents import Role, Rollout
from kubenode.model.kubernetes import Lease
from kubenode.model.observed import BootEntry
from kubenode.plan.decide import decide
from kubenode.plan.observations import Report
from kubenode.plan.simulate import run
from kubenode.plan.simulate.cluster import Change
from kubenode.plan.simulate.rows import rows
from kubenode.plan.simulate.timeline import Timeline
from tests.sim import facts
from tests.sim.rollouts import PLANES, WORKERS, Fleet, converged, release

R31, R32, R33, R34 = (release(f"{number}.0", f"v1.3{number}.2") for number in (1, 2, 3, 4))
ORDERED = Rollout("1", ("1", "2", "3"), soak=timedelta(minutes=30))


def founded(planes: int = 3, workers: int = 3, rollout: Rollout = ORDERED) -> Fleet:
    """A cluster of the test simulation that runs 1.31, with a pod on each worker."""
    fleet = Fleet.create(planes, workers, (R31,), R31)
    fleet.rollouts = {PLANES: Rollout(), WORKERS: rollout}
    fleet.run()
    assert converged(fleet), fleet.summary()
    fleet.cluster.pods = {f"web/{number}": f"worker-{number + 1:04}" for number in range(workers)}
    fleet.cluster.changed()
    fleet.log.clear()
    return fleet


def reports(fleet: Fleet, without: tuple[str, ...] = ()) -> list[Report]:
    return [Report(it.name, it.observe(), it.store.journal) for it in fleet.machines.values() if it.name not in without]


def simulated(fleet: Fleet, *, without: tuple[str, ...] = ()) -> Timeline:
    seen = reports(fleet, without)
    return run.simulate({it.node: fleet.desired(it.node) for it in seen}, fleet.machines, seen, fleet.now)


def alone(*releases: Any, see: Any = None, **settings: Any) -> Timeline:
    """One machine outside a cluster that runs 1.0."""
    want = facts.desired(*releases, **settings)
    return run.simulate({"n1": want}, {"n1"}, [Report("n1", see or facts.observed("1.0"), facts.Journal())], facts.NOW)


def done(timeline: Timeline, *kinds: type[Action]) -> list[tuple[str, Any]]:
    return [(it.node, it.action) for it in timeline.events if isinstance(it.action, kinds)]


# Machines outside a cluster.


def test_an_update_of_one_machine_takes_what_its_actions_take() -> None:
    timeline = alone("2.0", "1.0")
    assert [type(it.action).__name__ for it in timeline.events] == [
        "FetchRelease", "WriteSlot", "ActivateSlot", "Reboot", "PruneStaging",
    ]  # fmt: skip
    assert timeline.length == timedelta(seconds=60 + 20 + 5 + 100)
    (ending,) = timeline.endings
    assert (str(ending.release), type(ending.decision)) == ("2.0", Converged)


def test_time_jumps_to_the_window() -> None:
    timeline = alone("2.0", "1.0", windows=(facts.window((5,), "02:00", 4),))
    restart = next(it for it in timeline.events if isinstance(it.action, Reboot))
    assert f"{timeline.began + restart.at:%a %H:%M}" == "Sat 02:00"
    (pause,) = timeline.pauses
    assert (pause.reason, f"{pause.until:%a %H:%M}") == ("OutsideWindow", "Sat 02:00")
    assert len(timeline.events) == 5


def test_a_downgrade_and_the_way_back_up() -> None:
    timeline = alone("1.0", see=facts.observed("2.0"))
    assert [str(it.release) for it in timeline.endings] == ["1.0"]
    assert isinstance(timeline.endings[0].decision, Converged)


def test_what_a_halted_fleet_and_a_window_that_never_opens_hold_back() -> None:
    halted = alone("2.0", "1.0", halted=True)
    assert done(halted, FetchRelease) and not done(halted, Reboot)
    assert [it.decision.reason for it in halted.held_back if isinstance(it.decision, Wait)] == ["Halted"]
    closed = alone("2.0", "1.0", windows=(facts.window((5,), "02:00", 4, "No/Where"),))
    assert [it.decision.reason for it in closed.stuck if isinstance(it.decision, Stuck)] == ["NoWindow"]


def test_a_trial_boot_that_runs_is_blessed_first() -> None:
    trial = facts.observed("1.0", own=BootEntry(facts.Version("1.0"), facts.root("1.0"), 2, 1), trial=True)
    timeline = alone("2.0", "1.0", see=trial)
    assert timeline.events[0].at == timedelta(seconds=60)
    assert isinstance(timeline.endings[0].decision, Converged)


def test_a_release_that_failed_here_is_not_tried() -> None:
    want, see = facts.desired("2.0", "1.0"), facts.observed("1.0")
    journal = facts.Journal(poisoned=(facts.poisoned("2.0"),))
    timeline = run.simulate({"n1": want}, {"n1"}, [Report("n1", see, journal)], facts.NOW)
    assert not timeline.events
    assert [it.decision.reason for it in timeline.stuck if isinstance(it.decision, Stuck)] == ["ReleasePoisoned"]


# Clusters, compared with the simulation that tests the agent.

DISRUPTIVE = (AcquireLease, ReleaseLease, Cordon, Drain, Uncordon, KubeadmUpgrade, Reboot, Reconfigure)


def played(log: Any) -> list[tuple[str, type[Action], Any]]:
    return [(name, type(it), getattr(it, "release", None)) for name, it in log if isinstance(it, DISRUPTIVE)]


@pytest.mark.parametrize("size", [(1, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("channel", [(R32, R31), (replace(R32, kubernetes="v1.31.9"), R31)], ids=["minor", "patch"])
def test_disruptive_actions_have_the_order_of_the_agents_simulation(size: tuple[int, int], channel: Any) -> None:
    fleet = founded(*size)
    fleet.releases = channel
    timeline = simulated(fleet)
    fleet.run()
    assert converged(fleet), fleet.summary()
    assert played(done(timeline, *DISRUPTIVE)) == played(fleet.log)
    assert {str(it.release) for it in timeline.endings} == {str(channel[0].version)}
    assert len(timeline.done) == sum(size)


def test_over_three_minors_every_node_does_what_its_agent_does() -> None:
    """Who of the control planes is first depends on when they look; what each of them does, does not."""
    fleet = founded(3, 3)
    fleet.releases = (R34, R33, R32, R31)
    timeline = simulated(fleet)
    fleet.run()
    one, other = played(done(timeline, *DISRUPTIVE)), played(fleet.log)
    for name in fleet.machines:
        assert [it for it in one if it[0] == name] == [it for it in other if it[0] == name]
    assert [it for it in one if it[0].startswith("worker")] == [it for it in other if it[0].startswith("worker")]


def test_waves_soak_before_the_next_begins() -> None:
    fleet = founded(3, 3)
    fleet.releases = (R32, R31)
    timeline = simulated(fleet)
    restarts = {it.node: it for it in timeline.events if isinstance(it.action, Reboot)}
    assert [restarts[f"worker-000{number}"].wave for number in (1, 2, 3)] == [1, 2, 3]
    for one, other in (("worker-0001", "worker-0002"), ("worker-0002", "worker-0003")):
        assert restarts[other].at - restarts[one].end >= timedelta(minutes=30)
    soaks = [it for it in timeline.pauses if it.reason == "Soaking"]
    assert {it.wave for it in soaks} >= {2, 3}


def test_no_more_are_away_than_may_be() -> None:
    fleet = founded(3, 10, Rollout("2"))
    fleet.releases = (R32, R31)
    away: set[str] = set()
    most = 0
    for it in simulated(fleet).events:
        if it.pool == WORKERS and isinstance(it.action, Cordon):
            away.add(it.node)
        if isinstance(it.action, Uncordon):
            away.discard(it.node)
        most = max(most, len(away))
    assert most == 2


def test_a_worker_that_seemed_empty_is_drained_all_the_same() -> None:
    """Who looks before it is cordoned sees nothing that counts."""
    fleet = founded(1, 1)
    fleet.cluster.pods = {}
    fleet.cluster.changed()
    fleet.releases = (R32, R31)
    assert [name for name, _ in done(simulated(fleet), Drain)] == ["worker-0001"]


def test_a_cluster_is_founded_and_joined() -> None:
    fleet = Fleet.create(3, 2, (R31,), R31)
    timeline = simulated(fleet)
    entries = done(timeline, KubeadmInit, KubeadmJoin)
    assert entries[0][0] == "cp-1" and [type(it) for _, it in entries].count(KubeadmInit) == 1
    assert {name for name, _ in entries} == set(fleet.machines)
    assert len(timeline.done) == 5 and not timeline.endless


def test_a_newcomer_joins_a_cluster_that_others_observed() -> None:
    fleet = founded(3, 1)
    fleet.add("worker-0002", WORKERS, Role.WORKER, R31)
    timeline = simulated(fleet)
    assert [name for name, _ in done(timeline, KubeadmJoin)] == ["worker-0002"]
    assert len(timeline.done) == 5


# What nobody observed, and what never ends.


def test_a_node_that_nobody_observed_is_named_and_holds_up_those_who_wait_for_it() -> None:
    fleet = founded(3, 3)
    fleet.releases = (R32, R31)
    timeline = simulated(fleet, without=("worker-0001",))
    assert timeline.unseen == ("worker-0001",)
    assert {it.node for it in timeline.held_back} == {"worker-0002", "worker-0003"}
    assert all("worker-0001" in it.decision.message for it in timeline.held_back if isinstance(it.decision, Wait))
    assert any("worker-0001" in note for note in timeline.notes)
    assert not timeline.endless


def test_members_begin_nothing_when_nobody_observed_the_cluster() -> None:
    fleet = founded(1, 1)
    fleet.releases = (R32, R31)
    seen = [replace(it, observed=replace(it.observed, cluster=None)) for it in reports(fleet)]
    timeline = run.simulate({it.node: fleet.desired(it.node) for it in seen}, fleet.machines, seen, fleet.now)
    assert done(timeline, FetchRelease) and not done(timeline, *DISRUPTIVE)
    assert {it.decision.reason for it in timeline.held_back if isinstance(it.decision, Wait)} == {"ApiUnreachable"}
    assert any("cluster itself" in note for note in timeline.notes)


def test_what_one_member_did_not_see_holds_it_back_and_is_said() -> None:
    fleet = founded(3, 2, Rollout("1"))
    fleet.releases = (R32, R31)
    seen = reports(fleet)
    for number, it in enumerate(seen):
        if it.node == "worker-0001" and it.observed.cluster is not None:
            seen[number] = replace(it, observed=replace(it.observed, cluster=replace(it.observed.cluster, pods={})))
        if it.node == "worker-0002":
            seen[number] = replace(it, observed=replace(it.observed, cluster=None))
    timeline = run.simulate({it.node: fleet.desired(it.node) for it in seen}, fleet.machines, seen, fleet.now)
    reasons = {it.node: getattr(it.decision, "reason", "") for it in timeline.held_back}
    assert reasons == {"worker-0001": "PodsUnknown", "worker-0002": "ApiUnreachable"}
    assert [note.split(";")[0] for note in timeline.notes[1:]] == [
        "Not observed: the cluster as worker-0002 sees it",
        "Not observed: the pods of worker-0001",
    ]


def test_windows_of_two_pools_that_never_meet_end_the_simulation() -> None:
    """Every week the first waits for a node that never comes, and nothing else: a week later it is the same."""
    fleet = founded(3, 2, Rollout("1"))
    fleet.releases = (R32, R31)
    fleet.windows = (facts.window((5,), "02:00", 4),)
    timeline = simulated(fleet, without=("cp-1",))
    assert timeline.held_back and not timeline.endless
    assert timeline.length < timedelta(days=8)


def test_a_lease_that_is_held_by_nobody_who_moves_holds_the_others_up() -> None:
    fleet = founded(3, 2, Rollout("1"))
    fleet.releases = (R32, R31)
    fleet.machines["worker-0001"].host.cut_off = True
    fleet.cluster.leases["slot-pool-workers-0"] = Lease("slot-pool-workers-0", "worker-0001", fleet.now, "a test")
    fleet.cluster.settle()
    timeline = simulated(fleet, without=("worker-0001",))
    assert [it.node for it in timeline.held_back] == ["worker-0002"]
    assert "worker-0001" in getattr(timeline.held_back[0].decision, "message", "")


def test_two_that_saw_the_same_free_lease_do_not_both_get_it() -> None:
    fleet = founded(3, 2, Rollout("1"))
    fleet.releases = (R32, R31)
    for _ in range(20):
        for number in (1, 2, 3):
            fleet.machines[f"cp-{number}"].tick()
            fleet.cluster.settle()
        fleet.cluster.now += timedelta(minutes=2)
    for number in (1, 2):
        machine = fleet.machines[f"worker-000{number}"]
        machine.spare, machine.staged, machine.fetched = R32, True, {R32.manifest}
        machine.host.kubelet_sets[R32.root_hash] = str(fleet.cluster.configuration)
    timeline = simulated(fleet)
    tries = [it for it in timeline.events if it.pool == WORKERS and isinstance(it.action, AcquireLease)]
    assert [(it.node, it.failed) for it in tries[:2]] == [
        ("worker-0001", ""),
        ("worker-0002", "another node was faster"),
    ]
    assert len(timeline.done) == 5


def test_a_circle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def forth_and_back(want: Any, see: Any, *_words: Any, **_options: Any) -> Act:
        away = any(it.cordoned for it in see.cluster.nodes if it.name == want.node)
        return Act(Uncordon(want.node) if away else Cordon(want.node), "A circle.")

    monkeypatch.setattr(run, "decide", forth_and_back)
    timeline = simulated(founded(1, 1))
    assert "given up" in timeline.endless
    assert len(timeline.events) < 1000


# The grouping of those who wait.


@pytest.mark.parametrize("channel", [(R32, R31), (R34, R33, R32, R31)], ids=["one minor", "three minors"])
def test_asking_one_for_all_changes_nothing(monkeypatch: pytest.MonkeyPatch, channel: Any) -> None:
    """The same as when every node looks by itself after every change."""
    fleet = founded(3, 12, Rollout("25%", ("1", "25%", "100%"), soak=timedelta(minutes=7)))
    fleet.windows = (facts.window((0, 1), "12:00", 3),)
    fleet.releases = channel
    together = simulated(fleet)
    monkeypatch.setattr(run, "alike", lambda _machine, _view, node: node.name)
    monkeypatch.setattr(run, "ended_by", lambda _decision, _role: frozenset(Change))
    assert together.events == simulated(fleet).events
    assert len(together.done) == 15


def test_equal_actions_of_a_wave_are_one_row() -> None:
    fleet = founded(3, 12, Rollout("25%", ("1", "100%")))
    fleet.releases = (R32, R31)
    found = [it for it in rows(simulated(fleet)) if it.wave == 2 and it.what == "restart into release 2.0"]
    assert [len(it.nodes) for it in found] == [11]


@pytest.mark.parametrize("amount", ["1", "10%"])
def test_the_planner_is_asked_a_few_times_for_each_node(monkeypatch: pytest.MonkeyPatch, amount: str) -> None:
    """What a simulation costs; see tests/bench/simulate.py for the seconds."""
    asked = []

    def counted(*words: Any, **options: Any) -> Any:
        asked.append(words[0].node)
        return decide(*words, **options)

    monkeypatch.setattr(run, "decide", counted)
    fleet = large(150, amount)
    timeline = simulated(fleet)
    assert len(timeline.done) == 153
    assert len(asked) < 30 * 153


def large(workers: int, amount: str) -> Fleet:
    """A cluster that is founded by decree: letting it found itself takes longer than what is tested."""
    fleet = founded(3, 1, Rollout(amount, ("1", "10%", "100%"), soak=timedelta(minutes=30)))
    cluster = fleet.cluster
    model = cluster.objects["worker-0001"]
    for number in range(2, workers + 1):
        name = f"worker-{number:04}"
        host = fleet.add(name, WORKERS, Role.WORKER, R31).host
        host.joined, host.configuration = Role.WORKER, cluster.configuration
        host.kubelet_sets = dict(cluster.hosts["worker-0001"].kubelet_sets)
        cluster.objects[name] = replace(model, name=name)
    slots = (f"slot-pool-{WORKERS}-{number}" for number in range(workers // 10))
    cluster.leases |= {name: Lease(name) for name in slots}
    fleet.releases = (R32, R31)
    return fleet
