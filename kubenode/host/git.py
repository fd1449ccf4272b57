"""The fleet repo on a machine: a bare copy, never checked out, with no configuration but its own.

Two repositories: the copy at `path` holds accepted commits and what they build on; the *candidate* beside it holds what
the last fetch brought beyond that. Nothing here decides about trust; `kubenode.trust` checks every commit and byte.
"""

import fcntl
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from kubenode.errors import HostError, NoSpace, TryLater, Untrusted, UsageError
from kubenode.host import files, git_evidence, git_fetch, process
from kubenode.host.git_commit import commit_all, init_repository
from kubenode.host.git_objects import HEAD_REF, Damaged, GitObjects
from kubenode.host.git_run import check_address, shown
from kubenode.trust.commit import check_oid
from kubenode.trust.evidence import CommitEvidence, TreeEvidence
from kubenode.trust.reasons import Reason

__all__ = ["FleetRepository", "commit_all", "init_repository"]

DAMAGED = "kubenode-damaged"


class FleetRepository:
    """A bare copy of the fleet repo at `path`; make one object per thread. Also a context manager.

    `borrowed`: it is a person's own clone, which is only read: never marked as damaged, never replaced.
    """

    def __init__(self, path: Path, *, ssh_options: Sequence[str] = (), borrowed: bool = False) -> None:
        self.path = path.absolute()
        self._borrowed = borrowed
        self._ssh_options = tuple(ssh_options)
        self._main = GitObjects(self.path)
        self._candidate = GitObjects(self._sibling(".candidate"))

    def __enter__(self) -> "FleetRepository":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the object readers; they start again when needed."""
        self._main.close()
        self._candidate.close()

    # Fetching and accepting.

    def fetch(self, url: str, branch: str = "main", *, timeout: float = 300) -> str:
        """Fetch a branch as the new candidate and return the id of its head; `timeout` is in seconds.

        The candidate of an earlier fetch that was not accepted is dropped, so what is refused does not pile up.
        A failure or a kill at any moment leaves the previous state.
        Raises TryLater (not reachable, no such branch, slow), Untrusted (objects that fsck refuses, SHA-256 repos,
        TooMuchEvidence for more than 256 MiB or a million objects), NoSpace, UsageError (an address or a name that is
        not allowed).
        """
        check_address(url)
        return self._fetch((url,), branch, timeout)

    def fetch_bundle(self, *bundles: Path, branch: str = "main", timeout: float = 300) -> str:
        """Do what `fetch` does from git bundles on this machine, in this order, and return the id of the last head.

        A bundle may build on the accepted commits and on the bundles before it; when it needs others, TryLater says so.
        """
        for bundle in bundles:
            if not bundle.is_file():
                raise UsageError(
                    f"there is no git bundle at {bundle}",
                    hint="Make it with `git bundle create`, or publish the fleet again: `kubenode publish --fleet`.",
                )
        return self._fetch(tuple(str(bundle.absolute()) for bundle in bundles), branch, timeout)

    def accept(self, oid: str) -> None:
        """Keep a commit and all it builds on for good; the caller has authenticated it.

        When it is the candidate's head, the candidate goes. A damaged copy is replaced here, and only by one that has
        this commit. A failure or a kill leaves the previous state.
        Raises NoSpace, HostError, TryLater (a fetch is running).
        """
        check_oid(oid)
        waiting = self._candidate.head()
        if waiting is None and self._main.has(oid):
            return
        with self._exclusive():
            self._tidy()
            # Killed in between, a copy has objects without the name that keeps them: the candidate still has both.
            kept = self._main.head() == oid if waiting == oid else self._main.has(oid)
            if not (self._sound and kept):
                try:
                    self._take_over(oid)
                except (process.ProcessFailed, TryLater) as error:
                    raise self._damage(self._candidate, error.message) from error
            if waiting == oid:
                self._drop_candidate()

    def stored_head(self) -> str | None:
        """Return the head of the last complete fetch, or None."""
        if not self.path.exists() and self._sibling(".old").exists():
            with self._exclusive():
                self._tidy()
        return self._candidate.head() or self._main.head()

    def accepted_head(self) -> str | None:
        """Return the accepted commit that a fetch can build on; None without one, or in a damaged copy."""
        return self._main.head() if self._sound else None

    def lacks(self, head: str) -> bool:
        """Say whether a head has to be fetched: it is not the stored one, or it is in a damaged copy only."""
        return self.stored_head() != head or (not self._sound and self._candidate.head() != head)

    def drop(self) -> None:
        """Forget what was fetched and not accepted. Raises HostError, TryLater (a fetch is running)."""
        with self._exclusive():
            self._tidy()
            self._drop_candidate()

    # Reading.

    def anchor(self, oid: str) -> CommitEvidence:
        """Return the evidence for the commit that is trusted already.

        Raises Untrusted(AnchorMissing) when the repo does not have it, HostError when the copy is damaged.
        """
        check_oid(oid)
        place = self._place(oid)
        if place is None:
            self._check_complete()
            raise Untrusted(
                Reason.ANCHOR_MISSING,
                f"the fleet repo does not contain the trusted commit {oid[:12]}",
                subject=oid,
                hint="Was the history rewritten, or is this another repo? Nodes only follow the history they trust.",
            )
        with self._telling_damage(place):
            return git_evidence.anchor(place, oid)

    def first_parent_chain(self, trusted: str, head: str) -> Iterator[CommitEvidence]:
        """Yield the commits after `trusted` up to `head` along the first parents, oldest first.

        Raises Untrusted: NotDescendant when `trusted` is not on the first-parent chain of `head`, TooMuchEvidence for
        more than 100,000 commits, AnchorMissing. Memory holds the ids of all and the contents of 256 commits.
        """
        check_oid(head)
        start = self.anchor(trusted)
        place = self._must_have(head)
        with self._telling_damage(place):
            yield from git_evidence.first_parent_chain(place, start, head)

    def read_tree(self, oid: str) -> TreeEvidence:
        """Read all trees and blobs of a commit. Raises Untrusted(TooMuchEvidence) before reading too much."""
        check_oid(oid)
        place = self._must_have(oid)
        with self._telling_damage(place):
            return git_evidence.read_tree(place, oid)

    def on_line(self, commit: str, head: str) -> bool:
        """Say whether `commit` is `head` or lies below it on its first-parent chain (at most 100,000 commits down)."""
        check_oid(commit)
        check_oid(head)
        place = self._place(head)
        return commit == head or (place is not None and git_evidence.on_line(place, commit, head))

    def _place(self, oid: str) -> GitObjects | None:
        """Return where a commit is read. A damaged copy comes last: what it still has may be all there is."""
        places = (self._main, self._candidate) if self._sound else (self._candidate, self._main)
        return next((place for place in places if place.has(oid)), None)

    def _must_have(self, oid: str) -> GitObjects:
        place = self._place(oid)
        if place is None:
            raise self._damage(self._main, f"commit {oid[:12]} is missing")
        return place

    @property
    def _sound(self) -> bool:
        return self._main.usable and (self._borrowed or not (self.path / DAMAGED).exists())

    @contextmanager
    def _telling_damage(self, place: GitObjects) -> Iterator[None]:
        try:
            yield
        except Damaged as error:
            raise self._damage(place, error.message) from error

    def _damage(self, place: GitObjects, what: str) -> HostError:
        """Remember damage, so that the next fetch starts from nothing; return what to say."""
        if self._borrowed:
            return HostError(f"the clone at {self.path} is damaged: {what}", hint="`git fsck` there says more.")
        if place is self._candidate:
            # It sees the copy's objects too, and the damage may be there.
            self._drop_candidate()
        if self.path.is_dir():
            with suppress(OSError):
                (self.path / DAMAGED).touch()
        return HostError(
            f"the copy of the fleet repo at {self.path} is damaged: {what}",
            hint="The next fetch replaces it.",
        )

    def _check_complete(self) -> None:
        """Tell a damaged copy from a complete one that merely lacks a commit."""
        if self._borrowed or not self.path.exists():
            return
        # All below an accepted head came with it, so it must be there.
        words = ("rev-list", "--objects", "--quiet", HEAD_REF)
        if not self._sound or self._main.git(*words, check=False).returncode:
            raise self._damage(self._main, "objects of the accepted head are missing")

    # Files.

    def _fetch(self, sources: Sequence[str], branch: str, timeout: float) -> str:
        if process.run(["git", "check-ref-format", f"refs/heads/{branch}"], timeout=10, check=False).returncode:
            raise UsageError(
                f"`{branch}` is not a branch name",
                hint="Write it as git does, for example main; see git-check-ref-format(1).",
            )
        with self._exclusive():
            self._tidy()
            incoming = self._sibling(f".fetch-{secrets.token_hex(8)}")
            try:
                try:
                    head = self._download(incoming, sources, branch, timeout)
                except NoSpace:
                    if not self._candidate.path.exists():
                        raise
                    # What was fetched before, and not accepted, takes the room of what comes now.
                    self._drop_candidate()
                    shutil.rmtree(incoming, ignore_errors=True)
                    head = self._download(incoming, sources, branch, timeout)
                self._drop_candidate()
                if not (self._sound and self._main.head() == head):
                    with files.host_errors(f"{self._candidate.path} cannot be made", self.path.parent):
                        incoming.rename(self._candidate.path)
                        files.sync_folder(self.path.parent)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            return head

    def _download(self, incoming: Path, sources: Sequence[str], branch: str, timeout: float) -> str:
        options = self._ssh_options
        if self._sound:
            with suppress(process.ProcessFailed):  # Not the remote's fault: the copy may be damaged; do without it.
                return git_fetch.download(
                    incoming, sources, branch, base=self._main, timeout=timeout, ssh_options=options
                )
            shutil.rmtree(incoming, ignore_errors=True)
        try:
            return git_fetch.download(incoming, sources, branch, base=None, timeout=timeout, ssh_options=options)
        except process.ProcessFailed as error:
            where = shown(sources[-1])
            raise HostError(f"{where} cannot be fetched: {shown(error.message)}", hint=error.hint) from error

    def _take_over(self, oid: str) -> None:
        """Bring a commit into the copy, or make a new copy of it when there is none or a damaged one."""
        if not self._candidate.has(oid):
            if self._main.has(oid):
                return  # Damaged, and yet all there is.
            raise HostError(
                f"commit {oid[:12]} is gone: the fleet repo was fetched again meanwhile", hint="The next tick goes on."
            )
        builds_on_main = (self._candidate.path / "objects" / "info" / "alternates").exists()
        if self._sound and builds_on_main:
            git_fetch.take_over(self.path, self._candidate.path, oid, timeout=300)
            self._main.close()
            with suppress(process.ProcessFailed):  # Keeps the number of packs small; a failure costs speed only.
                self._main.git("gc", "--auto", "--quiet", timeout=300)
            return
        new = self._sibling(".new")
        git_fetch.make(new)
        git_fetch.take_over(new, self._candidate.path, oid, timeout=300)
        self.close()
        with files.host_errors(f"{self.path} cannot be replaced", self.path.parent):
            old = self._sibling(".old")
            if self.path.exists():
                self.path.rename(old)
            new.rename(self.path)
            files.sync_folder(self.path.parent)
            shutil.rmtree(old, ignore_errors=True)

    def _drop_candidate(self) -> None:
        self._candidate.close()
        # Renamed first: a part of it must never be taken for all of it.
        gone = self._sibling(f".fetch-{secrets.token_hex(8)}")
        if self._candidate.path.exists():
            with files.host_errors(f"{self._candidate.path} cannot be removed", self.path.parent):
                self._candidate.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _sibling(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _tidy(self) -> None:
        """Clear what a killed process left; only under the lock, so nobody is at work."""
        old = self._sibling(".old")
        if not self.path.exists() and old.exists():
            old.rename(self.path)
        for left in (old, self._sibling(".new"), *self.path.parent.glob(f"{self.path.name}.fetch-*")):
            shutil.rmtree(left, ignore_errors=True)
        for left in (*self.path.glob("*.lock"), *self.path.glob("refs/**/*.lock")):
            left.unlink(missing_ok=True)
        for left in (*self.path.glob("objects/pack/tmp_*"), *self.path.glob("objects/pack/.tmp-*")):
            left.unlink(missing_ok=True)
        (self.path / "gc.pid").unlink(missing_ok=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with files.host_errors(f"{self.path} cannot be locked", self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self._sibling(".lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TryLater(f"another process is fetching into {self.path}", hint="Wait for it to end.") from error
            yield
