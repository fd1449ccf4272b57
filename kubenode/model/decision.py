"""What the planner decides: one action, or a reason for none. Plain values: plans are printed, compared and stored."""

from dataclasses import dataclass
from datetime import datetime

from kubenode.model.documents import Release
from kubenode.model.observed import BootEntry, Slot
from kubenode.model.version import Version


@dataclass(frozen=True)
class FetchRelease:
    """Download and verify a release into the staging area. Done when its manifest digest is in `fetched`."""

    release: Release


@dataclass(frozen=True)
class RetireEntry:
    """Remove a UKI from the ESP. Done when no entry has this root hash."""

    entry: BootEntry


@dataclass(frozen=True)
class RestoreEntry:
    """Make the booted UKI good again after a downgrade was given up. Done when its entry has no counter.

    This takes back our own mark (`ActivateSlot.supersede`); a trial is blessed by systemd only.
    """

    entry: BootEntry


@dataclass(frozen=True)
class WriteSlot:
    """Write a fetched release to the spare slot and stage its UKI. Done when `spare` and `staged` show it."""

    release: Release
    slot: Slot


@dataclass(frozen=True)
class ActivateSlot:
    """Give the staged UKI to the boot loader with three tries. Done when `entries` show it.

    `supersede` is the booted entry when it is newer than the release: it sorts first and must be marked bad to let
    the older release be tried; it stays as the fallback.
    """

    release: Release
    supersede: BootEntry | None = None


@dataclass(frozen=True)
class Reboot:
    """Restart the machine into the activated release. Done when the boot id has changed."""

    release: Release


@dataclass(frozen=True)
class PoisonRelease:
    """Remember that a release failed its trial here. Done when the journal lists it."""

    version: Version
    root_hash: str
    manifest: str | None


@dataclass(frozen=True)
class PruneStaging:
    """Delete downloads (manifest digests) and, with `staged`, the staged UKI. Done when they are gone."""

    downloads: frozenset[str]
    staged: bool


Action = FetchRelease | RetireEntry | RestoreEntry | WriteSlot | ActivateSlot | Reboot | PoisonRelease | PruneStaging


@dataclass(frozen=True)
class Act:
    """Do this one action now. `then` names the steps expected after it, for people; it is never executed."""

    action: Action
    why: str
    then: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Nothing may be done now; `reason` is a stable code, `message` a sentence, `until` a UTC time if one is known."""

    reason: str
    message: str
    until: datetime | None = None


@dataclass(frozen=True)
class Converged:
    """The node is what git says."""

    message: str


@dataclass(frozen=True)
class Stuck:
    """Only a person can help; `reason` is a stable code, `hint` says what to do."""

    reason: str
    message: str
    hint: str


Decision = Act | Wait | Converged | Stuck
