"""When an action counts as done: what the next look at the machine has to show."""

from kubenode.model.decision import (
    Action,
    ActivateSlot,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    WriteSlot,
)
from kubenode.model.journal import Journal
from kubenode.model.observed import BootEntry, Observed


def holds(action: Action, observed: Observed, journal: Journal) -> bool:
    """Say whether an action's postcondition shows."""
    match action:
        case FetchRelease(release):
            return release.manifest in observed.fetched
        case RetireEntry(entry):
            return not _entries(observed, entry.root_hash)
        case RestoreEntry(entry):
            entries = _entries(observed, entry.root_hash)
            return bool(entries) and all(found.tries_left is None for found in entries)
        case WriteSlot(release, slot):
            staged = observed.staged
            return (
                slot is observed.booted.slot.other
                and observed.spare == release.root_hash
                and staged is not None
                and staged.root_hash == release.root_hash
            )
        case ActivateSlot(release, supersede):
            counted = any((entry.tries_left or 0) > 0 for entry in _entries(observed, release.root_hash))
            return counted and (
                supersede is None or all(entry.tries_left == 0 for entry in _entries(observed, supersede.root_hash))
            )
        case Reboot(release):
            return observed.booted.root_hash == release.root_hash
        case PoisonRelease(_, root_hash):
            return any(bad.root_hash == root_hash for bad in journal.poisoned)
        case PruneStaging(downloads, staged_too):
            left = downloads & (observed.fetched | observed.partial)
            return not left and not (staged_too and observed.staged is not None)


def _entries(observed: Observed, root_hash: str) -> list[BootEntry]:
    return [entry for entry in observed.entries if entry.root_hash == root_hash]
