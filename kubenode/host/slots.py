"""Writes the spare slot and moves UKIs in and out of the ESP: `kubenode.ports.Slots` for real disks.

The order of steps is the safety argument: a slot can be booted only by the partition UUIDs that spell its root hash,
and an update starts only when its UKI is in the ESP. Both come last, after everything was flushed and read back.
"""

import secrets
from contextlib import suppress
from uuid import UUID

from kubenode.errors import HostError, Untrusted
from kubenode.host.booted import DmTable, Running, dmsetup_table, is_trial, running
from kubenode.host.bootentries import BootEntries, EntryFile
from kubenode.host.disk import NEUTRAL, Disk, Partition, SlotPartitions, slot_uuids
from kubenode.host.files import host_errors, make_folder, require_free, sync_folder
from kubenode.host.gpt import set_partition_uuid
from kubenode.host.paths import Paths
from kubenode.host.slotwriter import check_fits, write_and_verify
from kubenode.host.staging import MARGIN, Downloads, copy_verified, verify_file
from kubenode.host.uki import read_uki
from kubenode.model.observed import BootEntry, Slot, StagedImage
from kubenode.ports import Progress
from kubenode.trust.bundle import VerifiedRelease
from kubenode.trust.manifest import Manifest

_AGAIN = (
    "Nothing was changed. The next tick looks at the machine again; was something on the EFI partition moved by hand?"
)


class HostSlots:
    """Implements `kubenode.ports.Slots`."""

    def __init__(self, paths: Paths = Paths(), dm_table: DmTable = dmsetup_table) -> None:  # noqa: B008 - frozen
        self._paths = paths
        self._dm_table = dm_table
        self._entries = BootEntries(paths.entries)
        self._downloads = Downloads(paths.downloads)

    def write(self, release: VerifiedRelease, slot: Slot, progress: Progress) -> None:
        """Write a fetched release to a slot, read it back, then set the partition UUIDs and stage its UKI.

        Raises Untrusted when an artifact differs from the manifest (before the first byte is written), NoSpace,
        HostError for the booted slot, a slot that is too small, or a disk that gives back something else.
        """
        manifest, digest = release.manifest, release.manifest_sha256
        disk = Disk(self._paths)
        if slot is disk.booted:
            raise HostError(f"slot {slot} runs: it is never written", hint=_AGAIN)
        target = disk.slot(slot)
        check_fits(target.root, manifest.root)
        check_fits(target.verity, manifest.verity)
        root = self._downloads.verify(digest, manifest.root)
        verity = self._downloads.verify(digest, manifest.verity)
        uki = self._downloads.verify(digest, manifest.uki)
        _check_pairs(read_uki(uki), manifest)
        self.prune_staged()
        make_folder(self._paths.staged)
        require_free(self._paths.staged, manifest.uki.size + MARGIN)

        # From here on the slot holds nothing, and says so: whatever happens, no root hash finds it.
        self._name(disk, target.root, _neutral())
        self._name(disk, target.verity, _neutral())
        _check_named(disk.slot(slot), None)
        write_and_verify(root, target.root, manifest.root, progress)
        write_and_verify(verity, target.verity, manifest.verity, progress)
        root_uuid, verity_uuid = slot_uuids(manifest.root_hash)
        self._name(disk, target.verity, verity_uuid)
        self._name(disk, target.root, root_uuid)
        _check_named(disk.slot(slot), manifest.root_hash)
        copy_verified(uki, self._paths.staged / f"kubenode_{manifest.version}.efi", manifest.uki)

    def activate(self, release: VerifiedRelease, supersede: BootEntry | None) -> None:
        """Copy the staged UKI into the ESP with three tries; mark `supersede` as bad (`+0-0`) first when given.

        The copy is flushed and compared with the manifest before anything that the boot loader sees changes. The
        staged UKI stays, so that a lost entry can be written again. Raises NoSpace, Untrusted, HostError.
        """
        manifest = release.manifest
        disk, now = Disk(self._paths), self._running()
        if manifest.root_hash == now.root_hash:
            raise HostError(f"release {manifest.version} runs: it cannot be activated for a trial", hint=_AGAIN)
        if disk.slot(disk.booted.other).root_hash() != manifest.root_hash:
            raise HostError(f"slot {disk.booted.other} does not hold release {manifest.version}", hint=_AGAIN)
        staged = self._paths.staged / f"kubenode_{manifest.version}.efi"
        if not staged.is_file():
            raise HostError(f"the UKI of release {manifest.version} is not staged", hint=_AGAIN)
        try:
            verify_file(staged, manifest.uki)
        except Untrusted:
            # Damaged since it was staged: without it the slot counts as not written, and is written again.
            self.prune_staged()
            raise
        _check_pairs(read_uki(staged), manifest)
        old = self._found(supersede) if supersede is not None else ()
        others = [file for file in self._entries.files() if file.name.version == manifest.version and file not in old]
        for file in others:
            self._refuse_booted(file, now)
        with self._entries.installing(staged, manifest.version) as copy:
            verify_file(copy, manifest.uki)
            # systemd-bless-boot renames to the name without counter and gives up when that exists already.
            for file in others:
                self._entries.remove(file)
            for file in old:
                self._entries.rename(file, 0)

    def retire(self, entry: BootEntry) -> None:
        """Remove a UKI from the ESP, under whatever names it is there. Raises HostError for the booted one.

        One that is gone already is no error.
        """
        now = self._running()
        for file in self._entries.files():
            # The same root hash under another counter is the same release; what cannot be read has none.
            if file.entry == entry or (entry.root_hash and file.entry.root_hash == entry.root_hash):
                self._refuse_booted(file, now)
                self._entries.remove(file)

    def restore(self, entry: BootEntry) -> None:
        """Take the counter out of the booted UKI's name, which an `activate` marked bad.

        Raises HostError when the entry is not the booted one, was not superseded, or this boot is a trial: only
        systemd-bless-boot ends a trial.
        """
        now = self._running()
        if entry.root_hash != now.root_hash or entry.tries_left != 0:
            raise HostError(
                f"the boot entry of release {entry.version} is not the running one, marked bad", hint=_AGAIN
            )
        own = tuple(file for file in self._entries.files() if file.entry.root_hash == now.root_hash)
        if is_trial(self._paths, own):
            raise HostError("this boot is a trial: only its health gate may mark it good", hint=_AGAIN)
        self._found(entry)
        for file in own:
            self._entries.rename(file, None)

    def prune_staged(self) -> None:
        """Delete the staged UKI. Raises HostError."""
        folder = self._paths.staged
        if folder.is_dir():
            with host_errors(f"{folder} cannot be emptied", folder):
                for path in folder.iterdir():
                    path.unlink()
                sync_folder(folder)

    def _running(self) -> Running:
        return running(self._paths, self._dm_table)

    def _found(self, entry: BootEntry) -> tuple[EntryFile, ...]:
        files = self._entries.find(entry)
        if not files:
            raise HostError(f"the ESP has no boot entry of release {entry.version} as it was observed", hint=_AGAIN)
        return files

    def _refuse_booted(self, file: EntryFile, now: Running) -> None:
        # An entry that cannot be read is told by its name: it may be the booted one, damaged.
        unreadable = file.entry.root_hash == "" and file.entry.version == now.version
        if file.entry.root_hash == now.root_hash or unreadable:
            raise HostError(f"{file.path.name} boots what runs: it is never removed", hint=_AGAIN)

    def _name(self, disk: Disk, partition: Partition, uuid: UUID) -> None:
        set_partition_uuid(disk.device, partition.entry.number, uuid)


def staged_image(paths: Paths, spare: str | None) -> StagedImage | None:
    """Return the staged UKI that boots the spare slot, None when there is none. `spare` is the slot's root hash."""
    for path in sorted(paths.staged.glob("kubenode_*.efi")):
        with suppress(HostError):
            image = read_uki(path)
            if image.root_hash == spare:
                return image
    return None


def _check_pairs(image: StagedImage, manifest: Manifest) -> None:
    if image != StagedImage(manifest.version, manifest.root_hash):
        raise HostError(
            f"the UKI of release {manifest.version} boots release {image.version} with the root hash "
            f"{image.root_hash}, the manifest says {manifest.root_hash}",
            hint="the release is broken: build and publish it again under a new version",
        )


def _check_named(slot: SlotPartitions, root_hash: str | None) -> None:
    if slot.root_hash() != root_hash:
        raise HostError(
            f"the partition table does not show the UUIDs that were set on {slot.root.entry.label}", hint=_AGAIN
        )


def _neutral() -> UUID:
    return UUID(f"{NEUTRAL}{secrets.token_hex(2)}-{secrets.token_hex(6)}")
