"""Maintenance windows: when something disruptive may begin."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from kubenode.model.documents import Window

# A window recurs weekly, so a week and a day (time zones) in both directions holds every opening that can matter.
_DAYS = 8


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """Say whether `now` (aware) lies in a window. No windows at all means always."""
    return not windows or any(
        timedelta(0) <= now - opening < window.duration for window in windows for opening in _openings(window, now)
    )


def next_opening(windows: Sequence[Window], now: datetime) -> datetime | None:
    """Return when (UTC) the next window opens after `now`, None when none ever does."""
    openings = (
        opening
        for window in windows
        if window.duration > timedelta(0)
        for opening in _openings(window, now)
        if opening > now
    )
    return min(openings, default=None)


def _openings(window: Window, now: datetime) -> Iterator[datetime]:
    """Yield the openings around `now`. A local time that a clock change skips or repeats counts once."""
    zone = _zone(window.timezone)
    if zone is None:
        return
    for offset in range(-_DAYS, _DAYS + 1):
        try:
            day = now.astimezone(zone).date() + timedelta(days=offset)
            opening = datetime.combine(day, window.start.replace(tzinfo=zone)).astimezone(UTC)
        except OverflowError:
            continue  # The ends of the calendar.
        if day.weekday() in window.days:
            yield opening


def _zone(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC  # Works on an image without time zone tables.
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # Closed is the safe reading: the decision then says that no window ever opens.
        return None
