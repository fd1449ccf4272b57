import struct
import uuid
import zlib
from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host.disk import slot_uuids
from kubenode.image.gpt import SECTOR, TYPES, Partition, write_disk

DISK = uuid.UUID(int=7)


def test_slot_identifiers_are_the_halves_of_the_root_hash():
    data, hashes = slot_uuids("0123456789abcdef" * 4)
    assert str(data) == "01234567-89ab-cdef-0123-456789abcdef"
    assert data == hashes


def test_disk_has_two_valid_tables_and_the_contents(tmp_path: Path):
    content = tmp_path / "content"
    content.write_bytes(b"root" * 300_000)
    disk = tmp_path / "disk.raw"
    write_disk(
        disk,
        DISK,
        [
            Partition("esp", "esp", uuid.UUID(int=1), 2, content),
            Partition("root-x86-64", "root-a", uuid.UUID(int=2), 3, content),
        ],
    )
    data = disk.read_bytes()
    assert len(data) == (1 + 2 + 3 + 1) * 1024 * 1024
    assert data[510:512] == b"\x55\xaa"
    for at in (1, len(data) // SECTOR - 1):
        header = data[at * SECTOR :][:92]
        assert header[:8] == b"EFI PART"
        crc, mine, other, entries_at = (
            struct.unpack_from(f, header, o)[0] for f, o in (("<I", 16), ("<Q", 24), ("<Q", 32), ("<Q", 72))
        )
        assert crc == zlib.crc32(header[:16] + bytes(4) + header[20:])
        assert mine == at
        assert other == len(data) // SECTOR - at
        entries = data[entries_at * SECTOR :][: 128 * 128]
        assert struct.unpack_from("<I", header, 88)[0] == zlib.crc32(entries)
        second = entries[128:256]
        assert uuid.UUID(bytes_le=second[:16]) == TYPES["root-x86-64"]
        assert second[56:].decode("utf-16-le").rstrip("\0") == "root-a"
        first, last = struct.unpack_from("<QQ", second, 32)
        assert (first, last) == (3 * 2048, 6 * 2048 - 1)
        assert data[first * SECTOR :].startswith(b"rootroot")


def test_content_that_does_not_fit_is_refused(tmp_path: Path):
    content = tmp_path / "content"
    content.write_bytes(bytes(1024 * 1024 + 1))
    with pytest.raises(HostError, match="larger than partition root-a"):
        write_disk(tmp_path / "disk.raw", DISK, [Partition("root-x86-64", "root-a", uuid.UUID(int=2), 1, content)])
