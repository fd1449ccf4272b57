"""Write a GUID partition table into a sparse disk image (UEFI specification 2.10, chapter 5)."""

import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError

SECTOR = 512
ALIGNMENT = 2048
"""Partitions start at multiples of this many sectors (1 MiB)."""
ENTRIES = 128
ENTRY_SIZE = 128
TYPES = {
    "esp": uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
    "root-x86-64": uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    "root-x86-64-verity": uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
}
"""Type identifiers of the Discoverable Partitions Specification."""


@dataclass(frozen=True)
class Partition:
    """One partition of a new disk: its type's name, label, identifier, size in MiB and the file with its content."""

    kind: str
    label: str
    identifier: uuid.UUID
    size_mib: int
    content: Path


def write_disk(disk: Path, identifier: uuid.UUID, partitions: Sequence[Partition]) -> None:
    """Make `disk`, a sparse image that holds `partitions` in order and room for the two tables only."""
    entries = b""
    start = ALIGNMENT
    with disk.open("wb") as out:
        for partition in partitions:
            sectors = partition.size_mib * 1024 * 1024 // SECTOR
            if partition.content.stat().st_size > sectors * SECTOR:
                raise HostError(
                    f"{partition.content.name} is larger than partition {partition.label}",
                    hint="Raise spec.slots in images/NAME.yaml; machines must be installed again for larger slots.",
                )
            entries += struct.pack(
                "<16s16sQQQ72s",
                TYPES[partition.kind].bytes_le,
                partition.identifier.bytes_le,
                start,
                start + sectors - 1,
                0,
                partition.label.encode("utf-16-le"),
            )
            copy_sparse(partition.content, out.fileno(), start * SECTOR)
            start += sectors
        total = start + ALIGNMENT
        os.truncate(out.fileno(), total * SECTOR)
        entries = entries.ljust(ENTRIES * ENTRY_SIZE, b"\0")
        table = len(entries) // SECTOR
        first, last = 2 + table, total - table - 2

        def header(mine: int, other: int, entries_at: int) -> bytes:
            fields = struct.pack(
                "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, mine, other, first, last,
                identifier.bytes_le, entries_at, ENTRIES, ENTRY_SIZE, zlib.crc32(entries),
            )  # fmt: skip
            return (fields[:16] + struct.pack("<I", zlib.crc32(fields)) + fields[20:]).ljust(SECTOR, b"\0")

        protective = struct.pack("<B3sB3sII", 0, b"\0\x02\0", 0xEE, b"\xff\xff\xff", 1, min(total - 1, 0xFFFFFFFF))
        boot_record = b"\0" * 446 + protective + b"\0" * 48 + b"\x55\xaa"
        os.pwrite(out.fileno(), boot_record + header(1, total - 1, 2) + entries, 0)
        os.pwrite(out.fileno(), entries + header(total - 1, 1, total - 1 - table), (total - 1 - table) * SECTOR)


def copy_sparse(source: Path, target: int, offset: int, block: int = 1 << 20) -> None:
    """Copy a file into an open one at `offset`, leaving holes where the source holds only zeros."""
    zeros = bytes(block)
    with source.open("rb") as file:
        while data := file.read(block):
            if data != zeros[: len(data)]:
                os.pwrite(target, data, offset)
            offset += len(data)
