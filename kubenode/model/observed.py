"""What a machine shows of itself. Everything here is read from the machine, nothing is remembered."""

from dataclasses import dataclass
from enum import StrEnum

from kubenode.model.kubernetes import Answer, ClusterView, LocalKubernetes
from kubenode.model.version import Version


class Slot(StrEnum):
    """One of the two root filesystems."""

    A = "a"
    B = "b"

    @property
    def other(self) -> "Slot":
        """The slot that is not this one."""
        return Slot.B if self is Slot.A else Slot.A


@dataclass(frozen=True)
class BootEntry:
    """A UKI in the ESP. `tries_left` is None once blessed (no counter in its name), 0 when it is bad.

    A bad entry with `tries_done` 0 was never tried: it was superseded, it did not fail.
    Source: the Automatic Boot Assessment of systemd (`+LEFT-DONE` in the file name).
    """

    version: Version
    root_hash: str
    tries_left: int | None = None
    tries_done: int = 0


@dataclass(frozen=True)
class BootedSlot:
    """The slot that runs; `trial` is true until systemd-bless-boot has marked this boot as good.

    A boot that was good stays good: marking its entry bad (`ActivateSlot.supersede`) makes it no trial again.
    """

    slot: Slot
    version: Version
    root_hash: str
    trial: bool = False


@dataclass(frozen=True)
class StagedImage:
    """A release's identity on disk: the version and dm-verity root hash of a complete, verified copy."""

    version: Version
    root_hash: str


@dataclass(frozen=True)
class Observed:
    """One look at a machine.

    `entries`: the UKIs in the ESP. `spare`: root hash that the spare slot's partition UUIDs spell, None when it is
    empty or half written. `staged`: the UKI kept beside the state, which pairs with the spare slot and is not yet
    visible to the boot loader. `fetched`: manifest digests (sha256 hex) whose download is complete and verified.
    `partial`: digests with a download begun. `kubernetes`: None for an image without kubelet. `cluster`: None when
    the API does not answer, or this machine has no way to ask. `answers`: who answers with the cluster's CA, asked
    while this machine is no member yet. `invited`: whether the cluster shows that it knows this machine's bootstrap
    token, asked likewise; None when that cannot be told.
    """

    boot_id: str
    booted: BootedSlot
    entries: tuple[BootEntry, ...] = ()
    spare: str | None = None
    staged: StagedImage | None = None
    fetched: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()
    kubernetes: LocalKubernetes | None = None
    cluster: ClusterView | None = None
    answers: tuple[Answer, ...] = ()
    invited: bool | None = None
