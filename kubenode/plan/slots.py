"""What the boot entries and the spare slot mean.

The boot loader's rule (systemd-boot, Automatic Boot Assessment): entries with no tries left come last, of the others
the newest version comes first, and the first entry is booted. So an entry in the ESP is never just stored: it is what
the next power cut may start.
"""

from kubenode.model.documents import Release
from kubenode.model.journal import Journal
from kubenode.model.observed import BootEntry, Observed


def booted_entry(observed: Observed) -> BootEntry | None:
    """Return the entry of the running release; of several the good one."""
    own = [entry for entry in observed.entries if entry.root_hash == observed.booted.root_hash]
    return min(own, key=lambda entry: entry.tries_left is not None, default=None)


def other_entries(observed: Observed) -> tuple[BootEntry, ...]:
    """Return the entries that do not start the running release."""
    return tuple(entry for entry in observed.entries if entry.root_hash != observed.booted.root_hash)


def is_superseded(entry: BootEntry, journal: Journal) -> bool:
    """Say whether an entry is bad only because a downgrade marked it so.

    The journal may be lost; that a bad entry was never tried shows the same.
    """
    return entry.tries_left == 0 and (entry.tries_done == 0 or entry.root_hash == journal.superseded)


def failed_trials(observed: Observed, journal: Journal) -> tuple[BootEntry, ...]:
    """Return the entries that used up their tries and are not remembered as poisoned yet."""
    known = {bad.root_hash for bad in journal.poisoned}
    return tuple(
        entry
        for entry in other_entries(observed)
        if entry.tries_left == 0 and not is_superseded(entry, journal) and entry.root_hash not in known
    )


def is_staged(release: Release, observed: Observed) -> bool:
    """Say whether the spare slot holds the release and its UKI waits beside it."""
    return (
        observed.spare == release.root_hash
        and observed.staged is not None
        and observed.staged.root_hash == release.root_hash
    )


def starts_next(entry: BootEntry, observed: Observed) -> bool:
    """Say whether the boot loader prefers this entry to that of the running release."""
    own = booted_entry(observed)
    return entry.tries_left != 0 and (own is None or own.tries_left == 0 or entry.version >= observed.booted.version)


def is_activated(release: Release, observed: Observed) -> bool:
    """Say whether the next boot is a trial of the release: counted, preferred by the loader, with a whole slot."""
    return observed.spare == release.root_hash and any(
        entry.root_hash == release.root_hash and (entry.tries_left or 0) > 0 and starts_next(entry, observed)
        for entry in other_entries(observed)
    )


def stray_entries(observed: Observed, journal: Journal, wanted: Release | None) -> tuple[BootEntry, ...]:
    """Return the entries that must leave the ESP whatever else is planned.

    These are: one whose slot no longer holds its release (it cannot boot), a poisoned one, and one that the next boot
    would start or try although it is not `wanted`. An older good entry stays: it is the fallback.
    """
    poisoned = {bad.root_hash for bad in journal.poisoned}

    def stray(entry: BootEntry) -> bool:
        if entry.root_hash != observed.spare or entry.root_hash in poisoned:
            return True
        if wanted is not None and entry.root_hash == wanted.root_hash and is_activated(wanted, observed):
            return False
        return (entry.tries_left or 0) > 0 or starts_next(entry, observed)

    return tuple(entry for entry in other_entries(observed) if stray(entry))
