"""Reads GUID partition tables from a disk or a disk image, and sets partition UUIDs with sfdisk.

Read here and not asked of udev, which learns late or never what sfdisk changed on a disk in use.
Format: UEFI specification 2.10, chapter 5.3.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from kubenode.errors import HostError
from kubenode.host import process

_TABLE = "Look at the disk with `sfdisk --dump` and `dmesg`; a table that is lost is written by installing again."

_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MAX_ENTRIES = 512
_SFDISK_SECONDS = 120


@dataclass(frozen=True)
class GptPartition:
    """A partition as the table says; `number` counts from 1, `start` and `size` are in bytes."""

    number: int
    label: str
    uuid: UUID
    start: int
    size: int


def read_gpt(disk: Path, sector: int = 512) -> tuple[GptPartition, ...]:
    """Return the partitions of a disk whose logical sectors have `sector` bytes.

    The backup table counts when the primary one is damaged, as for sfdisk. Raises HostError when neither is valid.
    """
    try:
        handle = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(handle, 0, os.SEEK_END)
            # The disk must answer, not what this machine remembers of it.
            os.posix_fadvise(handle, 0, 4 << 20, os.POSIX_FADV_DONTNEED)
            for address in (1, size // sector - 1):
                entries = _table(handle, address, sector)
                if entries is not None:
                    return tuple(_partitions(entries, sector))
        finally:
            os.close(handle)
    except OSError as error:
        raise HostError(f"the partition table of {disk} cannot be read: {error.strerror}", hint=_TABLE) from error
    raise HostError(f"{disk} has no valid GUID partition table, neither the primary one nor the backup", hint=_TABLE)


def set_partition_uuid(disk: Path, number: int, uuid: UUID) -> None:
    """Set a partition's UUID; works while other partitions of the disk are in use.

    The kernel and udev are not told: nothing that runs uses the partition, and systemd looks again at the next boot.
    The lock keeps udev from reading a half-written table. sfdisk writes the backup table first, then the primary one,
    so one of them is whole at any instant. Raises HostError.
    """
    quiet = ("--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--lock=yes")
    process.run(["sfdisk", *quiet, "--part-uuid", disk, str(number), str(uuid)], timeout=_SFDISK_SECONDS)
    try:
        handle = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise HostError(f"{disk} cannot be flushed: {error.strerror}", hint=_TABLE) from error


def _table(handle: int, address: int, sector: int) -> list[tuple[int, bytes]] | None:
    """Return (number, entry) of one table, None when its checksums are wrong."""
    raw = os.pread(handle, sector, address * sector)
    if len(raw) < _HEADER.size:
        return None
    signature, _, header_size, checksum, _, own, _, _, _, _, first, count, entry_size, entries_checksum = (
        _HEADER.unpack_from(raw)
    )
    plausible = _HEADER.size <= header_size <= sector and count <= _MAX_ENTRIES and entry_size in (128, 256, 512)
    if signature != b"EFI PART" or own != address or not plausible:
        return None
    blank = raw[:16] + bytes(4) + raw[20:header_size]
    entries = os.pread(handle, count * entry_size, first * sector)
    if zlib.crc32(blank) != checksum or zlib.crc32(entries) != entries_checksum:
        return None
    return [
        (index + 1, entries[index * entry_size : (index + 1) * entry_size])
        for index in range(len(entries) // entry_size)
    ]


def _partitions(entries: list[tuple[int, bytes]], sector: int) -> list[GptPartition]:
    found = []
    for number, raw in entries:
        kind, uuid, first, last, _, label = _ENTRY.unpack_from(raw)
        if kind != bytes(16):
            text = label.decode("utf-16-le", "replace").partition("\0")[0]
            size = (last - first + 1) * sector
            found.append(GptPartition(number, text, UUID(bytes_le=uuid), first * sector, size))
    return found
