"""Reads a fleet repo from a folder, for laptops; nodes read trees of authenticated commits instead."""

import os
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import UsageError

_READABLE = "Name the folder of the fleet repo, with rights to read it."

_LIMIT = (1 << 20) + 1
"""Bytes read of one file: one more than a document may have, so that its reader sees that it is too large."""


@dataclass(frozen=True)
class Folder:
    """The files of a folder by their path in it, and the paths that are neither files nor folders (symlinks, ...)."""

    files: dict[str, bytes]
    odd: tuple[str, ...]


def read_folder(root: Path) -> Folder:
    """Read every file below `root` except `.git`. Raises UsageError when `root` is no folder or cannot be read."""
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint="Name the folder of a fleet repo, the one with fleet.yaml.")
    files: dict[str, bytes] = {}
    odd: list[str] = []

    def unreadable(error: OSError) -> None:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}", hint=_READABLE) from error

    # Without `onerror` a folder that cannot be read would pass as empty.
    for folder, names, leaves in os.walk(root, onerror=unreadable):
        here = Path(folder)
        names[:] = sorted(name for name in names if name != ".git")
        for name in (*sorted(leaves), *(name for name in names if (here / name).is_symlink())):
            path = here / name
            key = path.relative_to(root).as_posix()
            if path.is_symlink() or not path.is_file():
                odd.append(key)
                continue
            try:
                with path.open("rb") as file:
                    files[key] = file.read(_LIMIT)
            except OSError as error:
                raise UsageError(f"{path} cannot be read: {error.strerror}", hint=_READABLE) from error
    return Folder(files, tuple(odd))
