"""Files that survive a power cut: whole or not at all, flushed to the disk before anybody relies on them."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kubenode.errors import HostError, NoSpace, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that after a crash at any instant it has the old or the new content, never a part.

    The data and the folder are flushed to the disk before this returns. Raises NoSpace, HostError.
    """
    with replacing(path, mode, size=len(data)) as file:
        file.write(data)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that must not be there yet, flushed to the disk; nothing of it is left when that fails.

    It is never readable by more than `mode` says. Raises UsageError when it exists, NoSpace, HostError.
    """
    with host_errors(f"{path} cannot be written", path.parent, len(data)):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        except FileExistsError as error:
            raise UsageError(f"{path} exists and is not written over", hint="Name another place.") from error
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextmanager
def replacing(path: Path, mode: int = 0o600, *, size: int = 0) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path` that takes its place when the block ends without an exception.

    `size` is the expected size in bytes, for the message of a full disk. Raises NoSpace, HostError.
    """
    with host_errors(f"{path} cannot be written", path.parent, size):
        _remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                # Held while this process lives: how others tell a file being written from a leftover.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield file
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
                temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (renames, removals) to the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of a lock file (created when missing), waiting for it; a killed holder loses it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder (0700) and its parents, durably. Raises NoSpace, HostError."""
    if folder.is_dir():
        return
    with host_errors(f"{folder} cannot be made", folder.parent):
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def free_bytes(folder: Path) -> int:
    """Return the free space of a folder's file system, in bytes. Raises HostError."""
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        raise HostError(
            f"the free space of {folder} cannot be read: {error.strerror}",
            hint="Is the file system still mounted and healthy? See `findmnt` and `dmesg`.",
        ) from error
    return stat.f_bavail * stat.f_frsize


def require_free(folder: Path, needed: int) -> None:
    """Raise NoSpace unless `needed` bytes are free on a folder's file system."""
    free = free_bytes(folder)
    if free < needed:
        raise no_space(folder, needed, free)


def no_space(folder: Path, needed: int, free: int) -> NoSpace:
    """Return the error for a file system that is too full; `needed` and `free` are in bytes."""
    return NoSpace(
        f"the file system {_mount_point(folder)} is too full: {needed} bytes are needed, {free} bytes are free",
        hint="free space there, or give it a larger disk or partition",
    )


@contextmanager
def host_errors(what: str, folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn OSError into HostError ("`what`: reason"), and that of a full disk into NoSpace for the file system."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            free = 0
            with suppress(HostError):
                free = free_bytes(folder)
            raise no_space(folder, needed, free) from error
        raise HostError(
            f"{what}: {error.strerror or error}",
            hint="Does the folder exist, may you write to it, is its file system healthy (`findmnt`, `df`, `dmesg`)?",
        ) from error


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left of an earlier attempt to write `path`."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError), leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _mount_point(folder: Path) -> Path:
    """Return where the file system of a folder is mounted."""
    with suppress(OSError):
        place = folder.resolve()
        while place != place.parent and place.stat().st_dev == place.parent.stat().st_dev:
            place = place.parent
        return place
    return folder
