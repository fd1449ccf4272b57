"""The fleet repo into a static store: bundles first, then the index, head.json last.

A store can be served while it is written: whoever reads head.json finds everything that it leads to. A kill at any
instant leaves the store as it was before, or with files that nothing names yet; the next publisher removes these.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError, TryLater, Untrusted, UsageError
from kubenode.host import process
from kubenode.host.files import sync_folder
from kubenode.host.fleetindex import MAX_BUNDLE, MAX_BUNDLES, Bundle, Index, decode, encode, index_name
from kubenode.host.git import FleetRepository
from kubenode.host.git_run import git_environment
from kubenode.image.sigstore_local_files import locked, readable_errors, replace_durably
from kubenode.trust.headfile import HEAD_NAME, MAX_BYTES, read

MAX_STEPS = 16
"""Bundles that a new machine fetches after the full one; then a new full one is made."""
KEPT_STEPS = 64
"""Steps that are offered to machines that were away; who is further behind takes the full bundle."""
_TEMPORARY = ".publishing"

assert KEPT_STEPS < MAX_BUNDLES


@dataclass(frozen=True)
class PublishedFleet:
    """What a store offers: the commit, the bytes added as bundles, and whether head.json was written anew."""

    head: str
    added: int
    stamped: bool


def published_head(store: Path) -> bytes | None:
    """Return the head.json of a store, None when it has none. Raises HostError."""
    with readable_errors(f"reading {store}"):
        try:
            with (store / HEAD_NAME).open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None


def publish_fleet(
    git_dir: Path, store: Path, branch: str, head: str, stamp: Callable[[bytes | None], bytes]
) -> PublishedFleet:
    """Offer a branch whose head is `head` in a store (made when missing).

    `stamp` returns the new head.json, given the old one; publishers wait for one another, so the old one is the newest.
    When the head is the same and `stamp` returns what it was given, nothing changes.
    Raises UsageError when the branch was rewritten since, TryLater when it moves meanwhile, HostError.
    """
    with readable_errors(f"publishing to {store}"):
        (store / "bundles").mkdir(parents=True, exist_ok=True)
        (store / "index").mkdir(exist_ok=True)
        with locked(store / ".lock"):
            old = published_head(store)
            # First, because it may refuse the commit.
            new = stamp(old)
            before = _head(old)
            index, added = _index(git_dir, store, branch, head, before)
            if added:
                replace_durably(store / index_name(head), encode(index))
            if new != old:
                replace_durably(store / HEAD_NAME, new)
            if added:
                _prune(store, index, before)
    return PublishedFleet(head, added, new != old)


def _head(data: bytes | None) -> str | None:
    """Return the commit that a store's head.json names; None when there is none that can be read."""
    try:
        return read(data).head if data is not None else None
    except Untrusted:
        return None


def _index(git_dir: Path, store: Path, branch: str, head: str, before: str | None) -> tuple[Index, int]:
    """Return the index that leads to `head`, its bundles in place, and the bytes that were added."""
    known = _known(store, before)
    if known is not None and known.head == head:
        return known, 0
    bundles = list(known.bundles) if known is not None else []
    added = 0
    if known is not None:
        with FleetRepository(git_dir, borrowed=True) as repository:
            if not repository.on_line(known.head, head):
                raise UsageError(
                    f"{store} offers commit {known.head[:12]}, and {head[:12]} does not build on it",
                    hint="Was the branch rewritten, or is this clone behind? Nodes would refuse it.",
                )
        step = _bundle(git_dir, store, branch, head, known.head)
        bundles.append(step)
        added += step.size
    full = next((position for position, bundle in enumerate(bundles) if bundle.start is None), None)
    since = bundles[full + 1 :] if full is not None else []
    if full is None or len(since) > MAX_STEPS or sum(step.size for step in since) > bundles[full].size:
        if full is not None:
            del bundles[full]
        whole = _bundle(git_dir, store, branch, head, None)
        bundles.append(whole)
        added += whole.size
    steps = [bundle for bundle in bundles if bundle.start is not None]
    dropped = set(steps[: max(0, len(steps) - KEPT_STEPS)])
    return Index(head, tuple(bundle for bundle in bundles if bundle not in dropped)), added


def _known(store: Path, before: str | None) -> Index | None:
    """Return the index that the store offers now; None when it or a file that it names is missing or damaged."""
    if before is None:
        return None
    try:
        index = decode((store / index_name(before)).read_bytes(), before)
        sizes = [(store / bundle.name).stat().st_size for bundle in index.bundles]
    except (FileNotFoundError, ValueError):
        return None
    return index if sizes == [bundle.size for bundle in index.bundles] else None


def _bundle(git_dir: Path, store: Path, branch: str, head: str, start: str | None) -> Bundle:
    """Make a bundle of the branch, without what `start` has, and put it into the store under its digest."""
    temporary = store / _TEMPORARY
    temporary.unlink(missing_ok=True)
    ref = f"refs/heads/{branch}"
    git = ("git", "--no-pager", "bundle")
    environment = git_environment(git_dir)
    ranges = (ref,) if start is None else (ref, f"^{start}")
    process.run([*git, "create", "--quiet", "--version=2", temporary.absolute(), *ranges], timeout=600, env=environment)
    heads = process.run([*git, "list-heads", temporary.absolute()], timeout=60, env=environment).text
    if heads.split() != [head, ref]:
        raise TryLater(f"branch {branch} moved while it was published", hint="Publish it again.")
    with temporary.open("r+b") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        if size > MAX_BUNDLE:
            raise HostError(
                f"a bundle of the fleet repo has {size} bytes; nodes take at most {MAX_BUNDLE}",
                hint="Keep large files out of the fleet repo.",
            )
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    bundle = Bundle(start, head, sha256, size)
    temporary.replace(store / bundle.name)
    sync_folder(store / "bundles")
    return bundle


def _prune(store: Path, index: Index, before: str | None) -> None:
    """Remove what neither this head.json nor the one before it leads to: a node may be reading by the older one."""
    kept = {store / index_name(index.head), *(store / bundle.name for bundle in index.bundles)}
    older = _known(store, before)
    if older is not None:
        kept |= {store / index_name(older.head), *(store / bundle.name for bundle in older.bundles)}
    for path in (*(store / "bundles").glob("*.bundle"), *(store / "index").glob("*.json"), *store.glob("**/*.tmp")):
        if path not in kept:
            path.unlink(missing_ok=True)
