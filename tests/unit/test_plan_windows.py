from datetime import UTC, datetime, timedelta

import pytest

from kubenode.plan.windows import is_open, next_opening
from tests.sim.facts import NOW, window

SATURDAY = datetime(2026, 11, 28, tzinfo=UTC)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_no_windows_means_always():
    assert is_open((), NOW)


@pytest.mark.parametrize(
    ("when", "opened"),
    [("01:59:59", False), ("02:00:00", True), ("05:59:59", True), ("06:00:00", False)],
)
def test_edges(when, opened):
    assert is_open((window((5,), "02:00", 4),), at(f"2026-11-28T{when}")) is opened


def test_over_midnight_and_over_the_end_of_the_week():
    night = (window((6,), "23:00", 3),)
    assert is_open(night, at("2026-11-29T23:30:00"))
    assert is_open(night, at("2026-11-30T01:59:00"))
    assert not is_open(night, at("2026-11-30T02:00:00"))
    assert not is_open(night, at("2026-11-29T01:00:00"))


def test_a_week_long_window_never_closes():
    whole = (window((2,), "00:00", 7 * 24),)
    assert all(is_open(whole, SATURDAY + timedelta(hours=hours)) for hours in range(0, 400, 7))


def test_next_opening_is_the_earliest_of_all():
    both = (window((5,), "02:00", 1), window((1, 6), "04:30", 1))
    assert next_opening(both, NOW) == at("2026-11-24T04:30:00")
    assert next_opening(both, at("2026-11-24T04:30:00")) == at("2026-11-28T02:00:00"), "after, not at"


@pytest.mark.parametrize("never", [window((), "02:00", 1), window((1,), "02:00", 0), window((9,), "02:00", 1)])
def test_a_window_that_never_opens(never):
    assert not is_open((never,), NOW) and next_opening((never,), NOW) is None


def test_local_time_follows_the_clock_changes():
    pytest.importorskip("zoneinfo").ZoneInfo("Europe/Berlin")
    berlin = (window((5,), "02:00", 1, "Europe/Berlin"),)
    assert next_opening(berlin, NOW) == at("2026-11-28T01:00:00")
    assert next_opening(berlin, at("2026-07-01T00:00:00")) == at("2026-07-04T00:00:00")
    # 02:30 does not exist on the last Sunday of March: the window opens once all the same.
    skipped = (window((6,), "02:30", 1, "Europe/Berlin"),)
    assert next_opening(skipped, at("2026-03-28T12:00:00")) == at("2026-03-29T01:30:00")


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "", "../etc/passwd", "Europe", "\0", "\udcff"])
def test_an_unknown_time_zone_is_closed(zone):
    unknown = (window((0, 1, 2, 3, 4, 5, 6), "00:00", 24, zone),)
    assert not is_open(unknown, NOW) and next_opening(unknown, NOW) is None


@pytest.mark.parametrize("now", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_ends_of_the_calendar(now):
    windows = (window((0, 1, 2, 3, 4, 5, 6), "12:00", 1, "Europe/Berlin"), window((0,), "12:00", 1))
    assert is_open(windows, now) in (True, False)
    next_opening(windows, now)
