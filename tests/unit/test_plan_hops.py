import pytest

from kubenode.model.version import Version
from kubenode.plan.hops import path_to_target
from tests.sim.facts import poisoned, release

CHANNEL = (release("5.0", "3.0"), release("4.0", "3.0"), release("3.0", "2.0"), release("2.0", "1.0"), release("1.0"))


def path(start, releases=CHANNEL, bad=()):
    return [str(it.version) for it in path_to_target(Version(start), releases, tuple(map(poisoned, bad)))]


@pytest.mark.parametrize(
    ("start", "hops"),
    [
        ("4.0", ["5.0"]),
        ("3.0", ["5.0"]),
        ("2.0", ["3.0", "5.0"]),
        ("1.0", ["2.0", "3.0", "5.0"]),
        ("1.5", ["2.0", "3.0", "5.0"]),
        ("0.9", ["1.0", "2.0", "3.0", "5.0"]),
    ],
)
def test_floors(start, hops):
    assert path(start) == hops


def test_of_equally_short_ways_the_newest_is_taken():
    channel = (CHANNEL[0], release("4.0", "2.9"), release("3.0", "2.0"))
    assert path("2.9", channel) == ["4.0", "5.0"]
    assert path("2.8", channel) == ["3.0", "5.0"]


def test_no_way_past_a_floor():
    assert path("1.0", CHANNEL[:3]) == []


def test_poisoned_hops_are_gone_around():
    assert path("2.0", bad=("3.0",)) == []
    around = (*CHANNEL, release("3.1", "2.0"))
    assert path("2.0", around, bad=("3.0",)) == ["3.1", "5.0"]
    assert path("2.0", around, bad=("3.1",)) == ["3.0", "5.0"]
    assert path("4.0", bad=("5.0",)) == [], "a poisoned target is no target"


def test_down_is_one_hop():
    assert path("3.0", (release("1.0"), release("2.0"))) == ["1.0"]
    assert path("3.0", (release("1.0", "3.1"),)) == [], "a floor is a floor"


def test_versions_count_as_numbers():
    assert path("2026.9.1", (release("2026.10.1", "2026.9.1"),)) == ["2026.10.1"]
