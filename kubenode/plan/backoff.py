"""How long to wait after failures, and when to stop trying."""

from datetime import UTC, datetime, timedelta

from kubenode.model.decision import (
    Action,
    ActivateSlot,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    Stuck,
    Wait,
    WriteSlot,
)
from kubenode.model.journal import Attempt, Journal

FIRST_DELAY = timedelta(minutes=1)
LONGEST_DELAY = timedelta(hours=1)

BUDGETS = {"write": 5, "activate": 5, "retire": 5, "restore": 5, "reboot": 3}
"""Failures in a row after which a step is given up for a release.

What depends on the network or only tidies up is tried for ever: it harms nothing and nobody need look at it.
"""

_WORDS = {
    "fetch": "Fetching",
    "write": "Writing",
    "activate": "Activating",
    "reboot": "Restarting into",
    "retire": "Removing the boot entry of",
    "restore": "Making good again the boot entry of",
    "poison": "Recording the failed trial of",
    "prune": "Deleting",
}


def step_key(action: Action) -> str:
    """Return the key of an action in `Journal.attempts`: "<step>:<manifest digest>", or the root hash without one."""
    match action:
        case FetchRelease(release):
            return f"fetch:{release.manifest}"
        case WriteSlot(release):
            return f"write:{release.manifest}"
        case ActivateSlot(release):
            return f"activate:{release.manifest}"
        case Reboot(release):
            return f"reboot:{release.manifest}"
        case RetireEntry(entry):
            return f"retire:{entry.root_hash}"
        case RestoreEntry(entry):
            return f"restore:{entry.root_hash}"
        case PoisonRelease(_, root_hash):
            return f"poison:{root_hash}"
        case PruneStaging():
            return "prune:staging"


def delay(failures: int) -> timedelta:
    """Return how long to wait after so many failures in a row: a minute, doubled each time, at most an hour."""
    return min(FIRST_DELAY * 2 ** min(failures - 1, 10), LONGEST_DELAY) if failures > 0 else timedelta(0)


def held_back(action: Action, journal: Journal, now: datetime) -> Wait | Stuck | None:
    """Return why this action may not be tried now, None when it may."""
    key = step_key(action)
    attempt = journal.attempts.get(key)
    if attempt is None:
        return None
    step = key.partition(":")[0]
    what = f"{_WORDS[step]} {_subject(action)}"
    if attempt.failures >= BUDGETS.get(step, attempt.failures + 1):
        return Stuck(
            f"{step.capitalize()}Budget",
            f"{what} has failed {_times(attempt)}, so it is not tried again{_last_error(attempt)}.",
            "Find the cause in the machine's journal (journalctl -u kubenode-reconcile). Then publish another release, "
            "or delete the agent's journal.json on the node: it counts anew from there.",
        )
    since = now - attempt.last
    # A time of failure in the future means that the clock was set back: waiting for it could take years.
    if timedelta(0) <= since < delay(attempt.failures):
        until = _later(now, delay(attempt.failures) - since)
        return Wait(
            "Backoff",
            f"{what} has failed {_times(attempt)}; the next try is at {until:%H:%M:%S} UTC{_last_error(attempt)}.",
            until,
        )
    return None


def _subject(action: Action) -> str:
    match action:
        case FetchRelease(release) | WriteSlot(release) | ActivateSlot(release) | Reboot(release):
            return f"release {release.version}"
        case RetireEntry(entry) | RestoreEntry(entry):
            return f"release {entry.version}"
        case PoisonRelease(version):
            return f"release {version}"
        case PruneStaging():
            return "downloads that are not needed"


def _times(attempt: Attempt) -> str:
    return "once" if attempt.failures == 1 else f"{attempt.failures} times"


def _last_error(attempt: Attempt) -> str:
    return f" (last: {attempt.error.rstrip('.')})" if attempt.error else ""


def _later(now: datetime, span: timedelta) -> datetime:
    try:
        return now + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
