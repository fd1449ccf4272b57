"""Reads the small languages inside documents: durations, amounts, times, versions of Kubernetes."""

import re
from datetime import UTC, datetime, time, timedelta

_DURATION = re.compile(r"(0|[1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AMOUNT = re.compile(r"[1-9][0-9]{0,5}|([1-9][0-9]?|100)%")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_KUBERNETES = re.compile(r"v([1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def duration(text: str) -> timedelta:
    """Read "30m", "4h", "7d" or "45s". Raise ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not a duration such as 30m, 4h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def amount(text: str) -> str:
    """Check a number of nodes or a percentage and return it as written. Raise ValueError."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not an amount such as 1 or 10%")
    return text


def time_of_day(text: str) -> time:
    """Read "02:00". Raise ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not a time of day such as 02:00")
    return time(int(match[1]), int(match[2]))


def timestamp(text: str) -> datetime:
    """Read an RFC 3339 time in UTC, "2026-12-01T00:00:00Z". Raise ValueError."""
    if _TIMESTAMP.fullmatch(text):
        try:
            return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
        except ValueError:
            pass
    raise ValueError(f"{text[:80]!r} is not a time in UTC such as 2026-12-01T00:00:00Z")


def day(text: str) -> int:
    """Return the number of a day of the week, 0 for Mon. Raise ValueError."""
    if text not in DAYS:
        raise ValueError(f"{text[:80]!r} is not a day; use {', '.join(DAYS)}")
    return DAYS.index(text)


def kubernetes(text: str) -> str:
    """Check a Kubernetes version such as v1.34.2 and return it. Raise ValueError."""
    if not _KUBERNETES.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a Kubernetes version such as v1.34.2")
    return text


def kubernetes_minor(text: str) -> tuple[int, int]:
    """Return major and minor of a Kubernetes version. Raise ValueError."""
    match = _KUBERNETES.fullmatch(kubernetes(text))
    assert match is not None
    return int(match[1]), int(match[2])


def hex_digest(text: str) -> str:
    """Check 64 lower-case hex digits, perhaps after "sha256:", and return the digits. Raise ValueError."""
    digits = text.removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError(f"{text[:80]!r} is not a sha256 of 64 hex digits")
    return digits


def mode(text: str) -> int:
    """Read file permissions such as "0644". Raise ValueError."""
    if not re.fullmatch("0[0-7]{3}", text):
        raise ValueError(f"{text[:80]!r} is not an octal mode such as 0644")
    return int(text, 8)
