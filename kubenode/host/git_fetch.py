"""Fetches into a repository of its own, under limits: what comes from outside never touches a copy that is in use.

A remote is taken to be hostile: it may send any bytes, at any speed, for ever.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from kubenode.errors import HostError, KubenodeError, NoSpace, TryLater
from kubenode.host import files, process
from kubenode.host.git_objects import HEAD_REF, GitObjects
from kubenode.host.git_run import CPU, MEMORY, fetch_error, git_environment, shown, too_much

MAX_FETCH = 256 << 20
"""Bytes on disk of all that one fetch may bring, temporary files included."""
RESERVE = 16 << 20
"""Bytes of the file system that a fetch leaves free."""
MAX_OBJECTS = 1_000_000
MAX_SAID = 1 << 20

_FLAGS = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc", "--quiet")
_ACCEPTED_REF = "refs/kubenode/accepted"


def make(path: Path) -> None:
    """Make an empty bare repository. Raises HostError, NoSpace."""
    words = ("init", "--bare", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=main")
    with files.host_errors(f"{path} cannot be made", path.parent):
        try:
            process.run(["git", *words, str(path)], timeout=60, env=git_environment())
        except process.ProcessFailed as error:
            raise _local(error, path) from error
        # Read when another git serves this repository on this machine: it has no other configuration.
        with (path / "config").open("a") as config:
            config.write("[pack]\n\tthreads = 1\n")


def download(
    path: Path,
    sources: Sequence[str],
    branch: str,
    *,
    base: GitObjects | None,
    timeout: float,
    ssh_options: Sequence[str] = (),
) -> str:
    """Fetch a branch from each source in turn into a new repository at `path`; return the id of its head.

    With `base`, what that repository has is not fetched again: it is read from there, and must stay there.
    Raises TryLater, Untrusted and NoSpace as `FleetRepository.fetch`, ProcessFailed when `base` may be damaged.
    """
    make(path)
    if base is not None:
        head = base.head()
        with files.host_errors(f"{path} cannot be written", path.parent):
            (path / "objects" / "info").mkdir(exist_ok=True)
            (path / "objects" / "info" / "alternates").write_text(f"{base.path / 'objects'}\n")
            if head is not None:
                (path / "refs" / "kubenode").mkdir(exist_ok=True)
                (path / "refs" / "kubenode" / "base").write_text(f"{head}\n")
    for source in sources:
        _fetch(path, source, f"+refs/heads/{branch}:{HEAD_REF}", branch, timeout, ssh_options)
    _check_number(path, sources[-1])
    fetched = GitObjects(path).head()
    if fetched is None:
        # git leaves a branch alone that ends at the border of a shallow clone, and calls that a success.
        raise TryLater(
            f"{shown(sources[-1])} does not give the whole branch {branch}; is it a shallow clone?",
            hint="Serve a complete clone: `git fetch --unshallow` makes one.",
        )
    return fetched


def take_over(path: Path, source: Path, oid: str, *, timeout: float) -> None:
    """Copy a commit with all it builds on from the repository `source`, and nothing else that `source` holds.

    A fetch on this machine, so that objects are checked, complete and on disk before the head moves.
    Raises NoSpace, Untrusted (objects that fsck refuses), TryLater and ProcessFailed (one of the two may be damaged).
    """
    GitObjects(source).git("update-ref", _ACCEPTED_REF, oid)
    _fetch(path, str(source), f"+{_ACCEPTED_REF}:{HEAD_REF}", "", timeout, ())


def _fetch(path: Path, source: str, spec: str, branch: str, timeout: float, ssh_options: Sequence[str]) -> None:
    free = files.free_bytes(path) - RESERVE
    if free < 1 << 20:
        raise files.no_space(path.parent, RESERVE + (1 << 20), free + RESERVE)
    before = disk_usage(path)
    limits = process.Limits(memory=MEMORY, file=min(MAX_FETCH, free), cpu=CPU)
    argv = limits.around(["git", "--no-pager", "fetch", *_FLAGS, "--", source, spec])
    try:
        process.run_watched(
            argv,
            timeout=timeout,
            watch=_watch(path, before, limits.file, source),
            env=git_environment(path, ssh_options),
        )
    except process.ProcessFailed as error:
        found = fetch_error(error, source, branch)
        if _file_too_large(error):
            found = _over(path, limits.file, source)
        raise found from error


def _watch(path: Path, before: int, limit: int, source: str) -> Callable[[int], None]:
    def watch(said: int) -> None:
        if said >= min(MAX_SAID, limit):
            raise too_much(source, "its messages have no end")
        if disk_usage(path) - before > limit:
            raise _over(path, limit, source)

    return watch


def _over(path: Path, limit: int, source: str) -> KubenodeError:
    """Say whose fault it is that a fetch was stopped at `limit` bytes."""
    if limit >= MAX_FETCH:
        return too_much(source, f"it was stopped at {MAX_FETCH >> 20} MiB")
    return files.no_space(path.parent, MAX_FETCH + RESERVE, limit + RESERVE)


def _file_too_large(error: process.ProcessFailed) -> bool:
    """Say whether RLIMIT_FSIZE stopped git (EFBIG)."""
    return error.completed is not None and b"File too large" in error.completed.stderr


def _check_number(path: Path, source: str) -> None:
    counted = GitObjects(path).git("count-objects", "-v").text
    numbers = dict(line.split(": ", 1) for line in counted.splitlines() if ": " in line)
    number = int(numbers.get("count", 0)) + int(numbers.get("in-pack", 0))
    if number > MAX_OBJECTS:
        raise too_much(source, f"it has {number:,} objects, and at most {MAX_OBJECTS:,} are taken at once")


def disk_usage(path: Path) -> int:
    """Return the bytes that a folder takes on disk; what disappears meanwhile does not count."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += Path(folder, name).lstat().st_blocks * 512
    return total


def _local(error: process.ProcessFailed, path: Path) -> HostError:
    said = error.completed.stderr if error.completed is not None else b""
    if b"No space left" in said or b"Disk quota exceeded" in said:
        return NoSpace(f"no space left while writing {path}", hint="Free some space.")
    return HostError(f"{path} cannot be written: {shown(error.message)}", hint=error.hint)
