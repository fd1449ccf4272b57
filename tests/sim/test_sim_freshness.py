"""Freshness on the simulated machine: real stamps, a source that freezes, rewinds and lies, clocks that are wrong."""

from datetime import timedelta

import pytest

from kubenode.agent import health
from kubenode.agent.tick import TickResult, run_tick
from kubenode.errors import ExitCode
from kubenode.model.decision import ActivateSlot, Converged, FetchRelease, Reboot, Wait, WriteSlot
from tests.sim.fleet import BEGIN, FLEET_ID, Fleet, root_hash
from tests.sim.machine import Killed, PowerCut, World
from tests.sim.ports import SimHealth
from tests.stamps import stamp

DAY = timedelta(days=1)
DISRUPTIVE = (FetchRelease, WriteSlot, ActivateSlot, Reboot)


def fresh_world(fleet: Fleet, *channel: str, age: str = "7d") -> World:
    """A machine that runs 1.0, whose fleet asks for freshness and is stamped now."""
    world = World.installed(fleet, "1.0", "1.0")
    world.head = fleet.commit(world.anchor, *channel, fresh=age)
    offer(world, 1)
    return world


def offer(world: World, serial: int, head: str = "", **changes: object) -> None:
    settings = {"issued": world.now, "fleet_id": FLEET_ID, **changes}
    world.offered = stamp(head or world.head, serial, world.fleet.key, **settings)  # type: ignore[arg-type]


def tick(world: World) -> TickResult:
    result = world.tick()
    assert result is not None
    return result


def fresh(result: TickResult) -> tuple[str, str]:
    condition = next(it for it in result.status.conditions if it.type == "Fresh")
    return condition.status, condition.reason


def run(world: World, ticks: int = 6) -> list[TickResult]:
    return [tick(world) for _ in range(ticks)]


def check_quiet(results: list[TickResult]) -> None:
    assert not [action for result in results for action in result.done if isinstance(action, DISRUPTIVE)]


def test_a_fresh_node_updates(fleet: Fleet) -> None:
    world = fresh_world(fleet, "2.0", "1.0")
    result = run(world)[-1]
    assert isinstance(result.decision, Converged) and str(world.running.version) == "2.0"
    assert (fresh(result), result.exit_code) == (("True", "Fresh"), ExitCode.OK)
    assert world.trust is not None and world.trust.stamp is not None and world.trust.stamp.serial == 1


def test_without_a_demand_the_status_says_so(fleet: Fleet) -> None:
    world = World.installed(fleet, "1.0", "2.0", "1.0")
    assert fresh(tick(world)) == ("Unknown", "NotRequired")
    assert str(world.running.version) == "2.0"


def test_without_any_stamp_nothing_begins(fleet: Fleet) -> None:
    world = fresh_world(fleet, "2.0", "1.0")
    world.offered = None
    results = run(world)
    check_quiet(results)
    assert fresh(results[-1]) == ("False", "HeadMissing")
    assert isinstance(results[-1].decision, Wait) and results[-1].decision.reason == "Stale"
    assert (results[-1].status.phase, results[-1].exit_code) == ("Stale", ExitCode.OK)
    assert results[-1].status.hint == "Stamp the newest commit where this machine reads it: kubenode trust stamp."
    offer(world, 1)
    assert isinstance(run(world)[-1].decision, Converged) and str(world.running.version) == "2.0"


def test_freeze(fleet: Fleet) -> None:
    """The source serves one head.json for ever, and keeps the commit that takes a bad release back."""
    world = fresh_world(fleet, "1.0")
    assert fresh(tick(world)) == ("True", "Fresh")
    frozen = fleet.commit(world.head, "2.0", "1.0", fresh="7d")
    world.head = frozen
    offer(world, 2)
    world.capacity = 10  # The disk is full for now, so that the update cannot begin before the freeze shows.
    world.now += 6 * DAY
    offer(world, 2, issued=world.now - 6 * DAY)
    assert fresh(tick(world)) == ("True", "Fresh")
    world.now += DAY
    world.capacity = 10**6
    results = run(world, 30)
    check_quiet(results)
    assert {fresh(result) for result in results} == {("False", "HeadStale")}
    assert str(world.running.version) == "1.0" and world.boots == 1
    assert "longer ago than the maxAge of 7d" in results[-1].status.message
    # The owners' newest word arrives at last: the release was taken back.
    world.head = fleet.commit(frozen, "1.0", fresh="7d")
    offer(world, 3)
    assert isinstance(tick(world).decision, Converged) and str(world.running.version) == "1.0"


def test_newer_commits_are_withheld(fleet: Fleet) -> None:
    world = fresh_world(fleet, "2.0", "1.0")
    newer = fleet.commit(world.head, "1.0", fresh="7d")
    offer(world, 2, newer)
    results = run(world)
    check_quiet(results)
    assert fresh(results[-1]) == ("False", "HeadWithheld")
    world.head = newer
    assert fresh(tick(world)) == ("True", "Fresh")


def test_an_older_stamp_is_played_back(fleet: Fleet) -> None:
    world = fresh_world(fleet, "1.0")
    old = world.offered
    tick(world)
    offer(world, 2)
    tick(world)
    world.offered = old
    result = tick(world)
    # The remembered one still holds; the replay is told and makes the command fail.
    assert (fresh(result), result.exit_code) == (("True", "Fresh"), ExitCode.UNTRUSTED)
    assert "stamp 1 is offered, and this machine has seen 2 already" in result.status.conditions[1].message
    world.now += 8 * DAY
    world.head = fleet.commit(world.head, "2.0", "1.0", fresh="7d")
    results = run(world)
    check_quiet(results)
    assert {fresh(it) for it in results} == {("False", "HeadRewound")}


def test_equivocation(fleet: Fleet) -> None:
    world = fresh_world(fleet, "1.0")
    tick(world)
    first = world.head
    world.head = fleet.commit(first, "2.0", "1.0", fresh="7d")
    offer(world, 1)
    results = run(world)
    check_quiet(results)
    assert {(fresh(it), it.exit_code) for it in results} == {(("False", "HeadEquivocation"), ExitCode.UNTRUSTED)}
    offer(world, 2)
    assert isinstance(run(world)[-1].decision, Converged) and str(world.running.version) == "2.0"


def test_one_bad_mirror_does_not_make_stale(fleet: Fleet) -> None:
    world = fresh_world(fleet, "2.0", "1.0")
    good = world.offered
    tick(world)
    for bad in (b"garbage", stamp(world.head, 9, fleet.stranger, fleet_id=FLEET_ID), good, b""):
        world.offered = bad
        assert fresh(tick(world)) == ("True", "Fresh")


def test_the_clock_of_a_first_boot_is_behind(fleet: Fleet) -> None:
    world = fresh_world(fleet, "2.0", "1.0")
    world.now = BEGIN - 300 * DAY
    result = tick(world)
    assert fresh(result) == ("True", "ClockBehind") and str(world.running.version) == "2.0"
    # A stamp of before is not taken for a new one because the clock says so.
    offer(world, 1, issued=BEGIN - 301 * DAY)
    assert world.trust is not None and world.trust.stamp is not None
    tick(world)
    assert world.trust.stamp.issued == BEGIN


def test_a_clock_that_is_ahead_breaks_nothing(fleet: Fleet) -> None:
    world = fresh_world(fleet, "1.0")
    tick(world)
    world.head = fleet.commit(world.head, "2.0", "1.0", fresh="7d")
    offer(world, 2)
    world.now += 3000 * DAY
    results = run(world)
    check_quiet(results)
    assert fresh(results[-1]) == ("False", "HeadExpired") and str(world.running.version) == "1.0"
    world.now = BEGIN + DAY
    assert isinstance(run(world)[-1].decision, Converged) and str(world.running.version) == "2.0"


def test_a_trial_boot_passes_its_gate_while_stale(fleet: Fleet) -> None:
    """Neither a missing network nor what a mirror offers may roll an operating system back."""
    world = fresh_world(fleet, "2.0", "1.0")
    tick(world)
    world.offered = b"garbage"
    world.online = False
    world.now += 30 * DAY
    assert all(result.ok for result in health.gate(world.ports(), SimHealth(True)))


def test_a_dry_run_judges_the_remembered_stamp(fleet: Fleet) -> None:
    world = fresh_world(fleet, "1.0")
    tick(world)
    world.git_stamp = b"garbage"
    kept = world.trust
    result = run_tick(world.ports(), dry_run=True)
    assert (fresh(result), result.exit_code) == (("True", "Fresh"), ExitCode.OK)
    assert world.trust == kept


@pytest.mark.parametrize("kind", [Killed(), PowerCut()], ids=["kill", "power"])
@pytest.mark.parametrize("channel", [("2.0", "1.0"), ("4.0", "2.0", "1.0")], ids=["update", "two hops"])
def test_it_turns_stale_at_every_step(fleet: Fleet, channel: tuple[str, ...], kind: BaseException) -> None:
    """Whatever step the crash left the machine at, a stale node starts nothing, and no power cut does it for it."""
    calm = fresh_world(fleet, *channel)
    run(calm)
    for at in range(1, len(calm.trace) + 1):
        world = fresh_world(fleet, *channel)
        world.crash_at, world.crash = frozenset({at}), kind
        while len(world.trace) < at:
            world.tick()
        world.now += 40 * DAY
        running = world.running
        results = run(world, 4)
        check_quiet(results)
        step = f"step {at} ({calm.trace[at - 1]})"
        assert fresh(results[-1])[0] == "False", step
        assert world.running.root_hash == running.root_hash, step
        for _ in range(2):
            world.boot()
            world.finish_boot()
        assert world.running.root_hash == running.root_hash, f"a power cut started something new: {step}"
        offer(world, 2)
        run(world, 8)
        assert world.running.root_hash == root_hash(channel[0]), step
