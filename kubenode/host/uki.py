"""Reads which release a UKI (unified kernel image) boots, without trusting a byte of it.

Formats: PE/COFF (Microsoft PE Format specification), UKI (UAPI group, unified kernel image specification).
"""

import re
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kubenode.errors import HostError
from kubenode.model.observed import StagedImage
from kubenode.model.version import Version

_MAX_SECTIONS = 96
"""The limit of the Windows loader; real UKIs have about ten, with profiles twenty."""
_MAX_TEXT = 64 << 10
_TEXTS = (".cmdline", ".osrel")
_HASH = re.compile(r"[0-9a-f]{64}")


def read_uki(path: Path) -> StagedImage:
    """Return the release that a UKI boots.

    Raises HostError when the file is not a whole UKI with one version (IMAGE_VERSION in .osrel) and one root hash
    (roothash= in .cmdline). A UKI with several profiles must say the same in each of them.
    """
    try:
        with path.open("rb") as file:
            texts = list(_texts(file, path))
    except OSError as error:
        raise HostError(
            f"{path} cannot be read: {error.strerror}", hint="Is the EFI partition mounted at /efi, and are you root?"
        ) from error
    hashes = {value for name, text in texts if name == ".cmdline" for value in root_hashes(text)}
    versions = {os_release(text).get("IMAGE_VERSION", "") for name, text in texts if name == ".osrel"}
    if len(hashes) != 1 or len(versions) != 1:
        raise _bad(path, "it must name exactly one root hash and one image version")
    root_hash, version = hashes.pop(), versions.pop()
    if not _HASH.fullmatch(root_hash):
        raise _bad(path, "its root hash is not 64 hex digits")
    try:
        return StagedImage(Version(version), root_hash)
    except ValueError as error:
        raise _bad(path, f"its image version {version[:40]!r} is not a version") from error


def root_hashes(command_line: str) -> list[str]:
    """Return the values of roothash= on a kernel command line."""
    return [word.removeprefix("roothash=") for word in command_line.split() if word.startswith("roothash=")]


def os_release(text: str) -> dict[str, str]:
    """Return the assignments of an os-release file; lines that are none are left out (os-release(5))."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        values[name] = words[0] if words else ""
    return values


def _texts(file: BinaryIO, path: Path) -> Iterator[tuple[str, str]]:
    size = file.seek(0, 2)
    if _read(file, path, 0, 2) != b"MZ":
        raise _bad(path, "it is not a PE file")
    (header,) = struct.unpack("<I", _read(file, path, 0x3C, 4))
    signature, _, count, _, _, _, optional, _ = struct.unpack("<4sHHIIIHH", _read(file, path, header, 24))
    if signature != b"PE\0\0" or not 0 < count <= _MAX_SECTIONS:
        raise _bad(path, "it is not a PE file")
    table = _read(file, path, header + 24 + optional, 40 * count)
    for index in range(count):
        raw_name, virtual, _, raw, offset = struct.unpack_from("<8sIIII", table, 40 * index)
        # What is copied half has its headers, and sections that end behind its end.
        if offset + raw > size:
            raise _bad(path, "it is truncated")
        name = raw_name.rstrip(b"\0").decode("ascii", "replace")
        if name in _TEXTS:
            # The raw size is padded to the file alignment; the virtual size is the content's.
            length = min(raw, virtual or raw)
            if length > _MAX_TEXT:
                raise _bad(path, f"its section {name} is too large")
            yield name, _read(file, path, offset, length).rstrip(b"\0").decode("utf-8", "replace")


def _read(file: BinaryIO, path: Path, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise _bad(path, "it is truncated")
    return data


def _bad(path: Path, why: str) -> HostError:
    return HostError(
        f"{path} is not a usable unified kernel image: {why}",
        hint="Build the release again; on a node the next tick writes the file again.",
    )
