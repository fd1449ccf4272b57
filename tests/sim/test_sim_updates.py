"""Whole updates on the simulated machine, disturbed at every single step in every way.

A story is run once undisturbed to count its steps. Then it is run again for every step and every disturbance there:
the agent is killed, the power is cut, the disk returns an error, the disk is full. What must be true at the end does
not depend on the disturbance.
"""

import random
from dataclasses import dataclass, field

import pytest

from kubenode.agent.tick import TickResult
from kubenode.errors import HostError, NoSpace
from kubenode.model.decision import Converged, Stuck, Wait
from tests.sim.fleet import Fleet
from tests.sim.machine import Killed, PowerCut, TornJournal, World, content

DISTURBANCES: dict[str, BaseException] = {
    "kill": Killed(),
    "power": PowerCut(),
    "torn journal": TornJournal(),
    "error": HostError("input/output error"),
    "full": NoSpace("no space left on device"),
}
TICKS = 40


@dataclass(frozen=True)
class Story:
    """Where a machine starts, what its fleet wants, and where it must end: a version and a decision's code."""

    start: str
    channel: tuple[str, ...]
    end: str
    code: str = "Converged"
    verdicts: dict[str, str] = field(default_factory=dict)
    stores: tuple[str, ...] = ("honest",)
    settings: dict[str, object] = field(default_factory=dict)


STORIES = {
    "update": Story("1.0", ("2.0", "1.0"), "2.0"),
    "two hops": Story("1.0", ("4.0", "2.0", "1.0"), "4.0"),
    "downgrade": Story("2.0", ("1.0",), "1.0"),
    "failed gate": Story("1.0", ("2.0", "1.0"), "1.0", "ReleasePoisoned", {"2.0": "gate"}),
    "dead kernel": Story("1.0", ("2.0", "1.0"), "1.0", "ReleasePoisoned", {"2.0": "dead"}),
    "failed downgrade": Story("2.0", ("1.0",), "2.0", "ReleasePoisoned", {"1.0": "gate"}),
    "dead downgrade": Story("2.0", ("1.0",), "2.0", "ReleasePoisoned", {"1.0": "dead"}),
    "failed second hop": Story("1.0", ("4.0", "2.0", "1.0"), "2.0", "ReleasePoisoned", {"4.0": "gate"}),
    "a liar first": Story("1.0", ("2.0", "1.0"), "2.0", stores=("liar", "honest")),
    "a short liar first": Story("1.0", ("2.0", "1.0"), "2.0", stores=("short", "honest")),
    "an old manifest first": Story("1.0", ("2.0", "1.0"), "2.0", stores=("old", "down", "honest")),
    "halted": Story("1.0", ("2.0", "1.0"), "1.0", "Halted", settings={"halted": True}),
    "window": Story("1.0", ("2.0",), "2.0", settings={"window": '{days: [Tue], start: "02:00", duration: 4h}'}),
}


def begin(fleet: Fleet, story: Story) -> World:
    world = World.installed(fleet, story.start, *story.channel)
    world.head = fleet.commit(world.anchor, *story.channel, **story.settings)
    world.verdicts = dict(story.verdicts)
    world.stores = list(story.stores)
    return world


def finish(world: World) -> TickResult:
    """Run ticks until there is nothing to wait for but a person or a window that the test keeps closed."""
    for _ in range(TICKS):
        result = world.tick()
        if result is None:
            continue
        over = isinstance(result.decision, Converged | Stuck) or (
            isinstance(result.decision, Wait) and result.decision.reason == "Halted"
        )
        if over and result.status.commit == world.head:
            return result
    raise AssertionError(f"no end after {TICKS} ticks: {result}")


def check(world: World, result: TickResult, allowed: set[str], cuts: int = 0) -> None:
    """Check what must be true of every end, after so many power cuts."""
    running = str(world.running.version)
    assert running in allowed
    assert not world.running.trial
    assert world.slots[world.running.slot] == content(world.fleet, running), "a whole, verified release"
    assert all(count <= 3 for count in world.restarts.values()), world.restarts
    failed = {version for version, verdict in world.verdicts.items() if verdict != "good"}
    poisoned = {str(bad.version) for bad in world.trust.poisoned}
    # Three power cuts in its trial look like a release that never comes up; fewer do not.
    assert poisoned <= failed or cuts >= 3, "a good release was poisoned"
    if isinstance(result.decision, Stuck):
        assert result.decision.hint
    if isinstance(result.decision, Converged):
        assert not world.downloads and world.staged is None
    assert len({it.root_hash for it in world.esp}) == len(world.esp)
    world.boot()
    world.finish_boot()
    assert str(world.running.version) == running, "a power cut now changes the release"


def code(result: TickResult) -> str:
    return "Converged" if isinstance(result.decision, Converged) else result.decision.reason


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_undisturbed(fleet, story):
    world = begin(fleet, story)
    result = finish(world)
    assert code(result) == story.code
    check(world, result, {story.end})


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_undisturbed_with_a_host_that_moves_the_uki(fleet, story):
    world = begin(fleet, story)
    world.staged_stays = False
    result = finish(world)
    assert code(result) == story.code
    check(world, result, {story.end})


@pytest.mark.parametrize("kind", DISTURBANCES)
@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_disturbed_at_every_step(fleet, story, kind):
    calm = begin(fleet, story)
    finish(calm)
    for at in range(1, len(calm.trace) + 1):
        world = begin(fleet, story)
        world.crash_at, world.crash = frozenset({at}), DISTURBANCES[kind]
        try:
            result = finish(world)
            assert code(result) == story.code
            check(world, result, {story.end})
        except BaseException as error:
            raise AssertionError(f"{kind} at step {at} ({calm.trace[at - 1]}): {error}") from error


MOVES = {
    "up and on": ("1.0", ("2.0",), ("3.0", "2.0"), "3.0"),
    "up and back": ("1.0", ("2.0",), ("1.0",), "1.0"),
    "up and back by a hop": ("1.0", ("4.0", "2.0"), ("2.0",), "2.0"),
    "down and back": ("2.0", ("1.0",), ("2.0",), "2.0"),
    "down and up": ("2.0", ("1.0",), ("3.0", "2.0", "1.0"), "3.0"),
    "down and further down": ("3.0", ("2.0",), ("1.0",), "1.0"),
}


@pytest.mark.parametrize("kind", ["calm", "kill", "power", "torn journal"])
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_the_channel_moves_at_every_step(fleet, move, kind):
    start, first, second, end = move
    calm = begin(fleet, Story(start, first, first[0]))
    finish(calm)
    for at in range(1, len(calm.trace) + 1):
        world = begin(fleet, Story(start, first, end))
        world.move_at, world.move_to = at, fleet.commit(world.head, *second)
        if kind != "calm":
            # The next tick sees the move in the middle of whatever the crash left behind.
            world.crash_at, world.crash = frozenset({at}), DISTURBANCES[kind]
        try:
            result = finish(world)
            if world.head != world.move_to:
                continue  # The crash spared the steps at which it would have moved.
            assert code(result) == "Converged"
            check(world, result, {end})
        except BaseException as error:
            raise AssertionError(f"move at step {at} ({calm.trace[at - 1]}): {error}") from error


@pytest.mark.parametrize("kind", ["kill", "error", "torn journal"])
def test_halted_at_every_step(fleet, kind):
    calm = begin(fleet, STORIES["update"])
    finish(calm)
    for at in range(1, len(calm.trace) + 1):
        world = begin(fleet, STORIES["update"])
        world.move_at, world.move_to = at, fleet.commit(world.head, "2.0", "1.0", halted=True)
        world.crash_at, world.crash = frozenset({at}), DISTURBANCES[kind]
        result = finish(world)
        assert code(result) in ("Halted", "Converged")
        check(world, result, {"1.0", "2.0"})
        assert not any((entry.tries_left or 0) > 0 for entry in world.esp), "a power cut would start a trial"


@pytest.mark.parametrize("seed", range(150))
def test_seeded_schedules(fleet, seed):
    """Several disturbances, moves and bad releases at once; the seed names the schedule."""
    dice = random.Random(seed)
    start = dice.choice(("1.0", "2.0", "3.0"))
    story = Story(start, tuple(dice.sample(("1.0", "2.0", "3.0", "4.0"), 4)), "")
    world = begin(fleet, story)
    world.verdicts = {
        version: dice.choice(("good", "good", "gate", "dead")) for version in ("1.0", "2.0", "3.0", "4.0")
    }
    world.verdicts[start] = "good"
    world.staged_stays = dice.random() < 0.5
    world.stores = dice.choice((["honest"], ["liar", "honest"], ["short", "honest"], ["old", "liar", "honest"]))
    world.crash = dice.choice(list(DISTURBANCES.values()))
    crashes = sorted(dice.sample(range(1, 120), dice.randint(0, 6)))
    world.crash_at = frozenset(crashes)
    if dice.random() < 0.5:
        world.move_at = dice.randint(1, 100)
        world.move_to = fleet.commit(world.head, *dice.sample(("1.0", "2.0", "3.0", "4.0"), 3))
    good = {version for version, verdict in world.verdicts.items() if verdict == "good"}
    result = finish(world)
    assert code(result) in ("Converged", "ReleasePoisoned", "NoUpgradePath"), result.decision
    check(world, result, good, cuts=len(crashes))
