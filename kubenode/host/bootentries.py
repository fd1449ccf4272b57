"""The UKIs in the ESP, and the boot counters in their names.

Source: systemd, Automatic Boot Assessment (`+LEFT-DONE` before the extension); systemd-boot(7).
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host import process
from kubenode.host.files import host_errors, require_free, sync_folder
from kubenode.host.uki import read_uki
from kubenode.model.observed import BootEntry
from kubenode.model.version import Version

TRIES = 3
_MARGIN = 1 << 20
"""Bytes kept free in the ESP: folder entries, and what the firmware itself may store there."""
_TEMPORARY = ".new"
"""systemd-boot looks at names that end in .efi only, so that a half copied UKI is never started."""

# vfat keeps the case of a name but does not tell names apart by it.
_NAME = re.compile(r"kubenode_([0-9.]{3,31})(?:\+([0-9]{1,9})(?:-([0-9]{1,9}))?)?\.efi", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class EntryName:
    """A UKI's file name, taken apart. `left` is None when there is no counter."""

    version: Version
    left: int | None = None
    done: int = 0

    def __str__(self) -> str:
        counter = "" if self.left is None else f"+{self.left}" + (f"-{self.done}" if self.done else "")
        return f"kubenode_{self.version}{counter}.efi"


@dataclass(frozen=True)
class EntryFile:
    """A file in the ESP that systemd-boot may start, and what it is."""

    path: Path
    name: EntryName
    entry: BootEntry


def parse_name(name: str) -> EntryName | None:
    """Return the parts of a UKI's file name, None when it is not one of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    version, left, done = match.groups()
    try:
        return EntryName(Version(version), None if left is None else int(left), int(done or 0))
    except ValueError:
        return None


class BootEntries:
    """The folder EFI/Linux of the ESP; `folder` is where it is mounted. Files of others are left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self) -> tuple[EntryFile, ...]:
        """Return our UKIs, ordered by file name.

        One that cannot be read has the root hash "" and the version in its name: the loader may still try it, so it
        must not go unseen. Raises HostError when the ESP is not mounted.
        """
        with host_errors(f"the boot entries in {self._folder} cannot be listed (is the ESP mounted?)", self._folder):
            paths = sorted(self._folder.iterdir())
        found = []
        for path in paths:
            name = parse_name(path.name)
            if name is not None:
                found.append(self._look(path, name))
        return tuple(found)

    def find(self, entry: BootEntry) -> tuple[EntryFile, ...]:
        """Return the files that show as this entry."""
        return tuple(file for file in self.files() if file.entry == entry)

    def rename(self, file: EntryFile, left: int | None) -> None:
        """Set the tries left of an entry (None: no counter, good) and its tries done to 0, durably.

        Raises HostError.
        """
        counter = "" if left is None else f"+{left}-0"
        target = self._folder / f"kubenode_{file.name.version}{counter}.efi"
        if target.name.lower() == file.path.name.lower():
            return
        with host_errors(f"{file.path} cannot be renamed to {target.name}", self._folder):
            file.path.rename(target)
            self._sync()

    def remove(self, file: EntryFile) -> None:
        """Remove an entry, durably. Raises HostError."""
        with host_errors(f"{file.path} cannot be removed", self._folder):
            file.path.unlink(missing_ok=True)
            self._sync()

    @contextmanager
    def installing(self, source: Path, version: Version) -> Iterator[Path]:
        """Copy a UKI into the ESP under a name that the loader ignores; name it `kubenode_<version>+3.efi` at the end.

        Yields the copy, flushed to the disk, to be checked. Raises NoSpace before anything is changed, HostError.
        """
        size = source.stat().st_size
        temporary = self._folder / f"kubenode_{version}.efi{_TEMPORARY}"
        with host_errors(f"{source} cannot be copied into the ESP", self._folder, size):
            self._remove_temporaries()
            require_free(self._folder, size + _MARGIN)
            try:
                with source.open("rb") as read, temporary.open("wb") as write:
                    shutil.copyfileobj(read, write, 1 << 20)
                    write.flush()
                    os.fsync(write.fileno())
                    # What is checked next must come from the disk, not from memory.
                    os.posix_fadvise(write.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                yield temporary
                temporary.rename(self._folder / str(EntryName(version, TRIES)))
                self._sync()
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise

    def _look(self, path: Path, name: EntryName) -> EntryFile:
        try:
            image = read_uki(path)
            version, root_hash = image.version, image.root_hash
        except HostError:
            version, root_hash = name.version, ""
        return EntryFile(path, name, BootEntry(version, root_hash, name.left, name.done))

    def _remove_temporaries(self) -> None:
        for path in self._folder.iterdir():
            if path.name.lower().endswith(_TEMPORARY) and parse_name(path.name[: -len(_TEMPORARY)]) is not None:
                path.unlink(missing_ok=True)

    def _sync(self) -> None:
        """Flush names to the disk; vfat keeps folders and its allocation table in the device's buffers."""
        sync_folder(self._folder)
        process.run(["sync", "--file-system", self._folder], timeout=120)
