"""Files that survive a kill and a power cut: written with fsync, replaced by rename, appended to under a lock."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.files import locked as locked
from kubenode.host.files import sync_folder


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Create a file that must not exist yet and flush it to disk; it never has more rights than `mode`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        # The umask may have taken away what a web server needs; it must not decide.
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file: a reader sees the old or the new content, also after a power cut. Callers hold a lock."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    write_durably(temporary, data, mode)
    temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def readable_errors(doing: str) -> Iterator[None]:
    """Turn an OSError into a HostError that says what was being done and which file was in the way."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HostError(
            f"{doing} failed: {error.strerror or error}{where}",
            hint="Check the rights of the folder and the free space, then the same command again.",
        ) from error
