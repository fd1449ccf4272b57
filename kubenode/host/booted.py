"""What runs: the root hash that the kernel enforces, the version, and whether this boot is a trial."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from kubenode.errors import HostError
from kubenode.host import process
from kubenode.host.bootentries import EntryFile, parse_name
from kubenode.host.disk import MAPPED_ROOT
from kubenode.host.paths import Paths
from kubenode.host.uki import os_release, root_hashes
from kubenode.model.version import Version

_NOT_OURS = (
    "This machine does not run a kubenode image as it was built. On a laptop use `kubenode plan`; a node whose boot "
    "files were changed is installed again."
)
_ODD_ESP = (
    "Is the EFI partition mounted at /efi and efivarfs at /sys/firmware/efi/efivars? `kubenode reconcile` needs root."
)

DmTable = Callable[[], str]
"""Returns the device mapper table of the root file system, one line."""

_HASH = re.compile(r"[0-9a-f]{64}")
_ATTRIBUTES = 4
"""Bytes before the value of an EFI variable in efivarfs (Documentation/filesystems/efivarfs.rst)."""


@dataclass(frozen=True)
class Running:
    """The release that runs, whatever slot it is in."""

    version: Version
    root_hash: str


def dmsetup_table() -> str:
    """Return the table of the mapped device `root`. Raises ProcessFailed."""
    return process.run(["dmsetup", "table", MAPPED_ROOT], timeout=30).text


def running(paths: Paths, dm_table: DmTable = dmsetup_table) -> Running:
    """Return what runs. Raises HostError when the kernel, its command line and the image disagree or are silent."""
    enforced = table_hash(dm_table())
    asked = set(root_hashes(read_text(paths.cmdline)))
    if asked != {enforced}:
        raise HostError(
            f"the kernel enforces the root hash {enforced}, its command line says {', '.join(sorted(asked)) or 'none'}",
            hint=_NOT_OURS,
        )
    text = os_release(read_text(paths.os_release)).get("IMAGE_VERSION", "")
    try:
        return Running(Version(text), enforced)
    except ValueError as error:
        raise HostError(
            f"IMAGE_VERSION in {paths.os_release} is {text[:40]!r}, which is not a version", hint=_NOT_OURS
        ) from error


def table_hash(table: str) -> str:
    """Return the root hash in a dm-verity table (Documentation/admin-guide/device-mapper/verity.rst).

    Raises HostError when it is another table.
    """
    fields = table.split()
    # start length "verity" version data hash data-block hash-block blocks first-hash-block algorithm digest salt ...
    if len(fields) < 13 or fields[2] != "verity" or not _HASH.fullmatch(fields[11]):
        raise HostError("the root file system is not protected by dm-verity with a sha256 root hash", hint=_NOT_OURS)
    return fields[11]


def is_trial(paths: Paths, own: tuple[EntryFile, ...]) -> bool:
    """Say whether this boot still has to be marked good by systemd-bless-boot. `own`: the files that boot what runs.

    The boot loader leaves the counted name that it booted in an EFI variable, for the whole boot. Without it the
    entry was good before. With it, the file's name now tells what became of it: still counted, or marked bad by
    systemd-bless-boot (`+0-<done>`): a trial; no counter: blessed since; `+0-0`: blessed and then superseded by us
    (systemd never writes a `tries done` of 0 for something that runs). `systemd-bless-boot status` is not asked: it
    does not know the last case, and calls the last try "dirty" in some releases and "indeterminate" in others.
    Raises HostError when the variable cannot be read or understood.
    """
    booted = _counted_path(paths.boot_count)
    if booted is None:
        if not paths.loader_info.exists():
            # Otherwise a trial would pass for a good boot wherever EFI variables are not readable.
            raise HostError(
                f"the EFI variables of systemd-boot are not in {paths.loader_info.parent}, so it is not known whether "
                "this boot is a trial",
                hint="is efivarfs mounted, and was the machine started by systemd-boot?",
            )
        return False
    name = parse_name(PureWindowsPath(booted).name)
    if name is None or name.left is None:
        raise HostError(
            f"{paths.boot_count.name} names {booted!r}, which is not a counted entry of this image", hint=_ODD_ESP
        )
    files = [file for file in own if file.name.version == name.version]
    if any(file.name.left is None for file in files):
        return False
    return any(not (file.name.left == 0 and file.name.done == 0) for file in files)


def read_text(path: Path) -> str:
    """Return a file's text without white space at its ends. Raises HostError."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}", hint=_ODD_ESP) from error


def _counted_path(variable: Path) -> str | None:
    try:
        raw = variable.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"the EFI variable {variable.name} cannot be read: {error.strerror}", hint=_ODD_ESP) from error
    try:
        return raw[_ATTRIBUTES:].decode("utf-16-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise HostError(f"the EFI variable {variable.name} is not UTF-16", hint=_ODD_ESP) from error
