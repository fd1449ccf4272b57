"""Reads the fleet repo as evidence: a bare copy, fetched with fsck, never checked out, no configuration but its own.

Nothing here decides about trust; `kubenode.trust` checks every commit and every byte that leaves this module.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from kubenode.errors import HostError, TryLater, Untrusted, UsageError
from kubenode.host import process
from kubenode.host.git_commit import commit_all, init_repository
from kubenode.host.git_run import check_address, fetch_error, git_environment, shown
from kubenode.trust.commit import MAX_COMMIT, check_oid, parse_commit
from kubenode.trust.evidence import ChangedPath, CommitEvidence, TreeEvidence
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from kubenode.trust.strictyaml import MAX_BYTES
from kubenode.trust.tree import MAX_FILES, MAX_TREE_BYTES

if TYPE_CHECKING:
    from git import Git

__all__ = ["FleetRepository", "commit_all", "init_repository"]

MAX_COMMITS = 100_000
BATCH = 256
HEAD_REF = "refs/kubenode/head"
DAMAGED = "kubenode-damaged"


class FleetRepository:
    """A bare copy of the fleet repo at `path`; make one object per thread. Also a context manager.

    `borrowed`: it is a person's own clone, which is only read: never marked as damaged, never replaced.
    """

    def __init__(self, path: Path, *, ssh_options: Sequence[str] = (), borrowed: bool = False) -> None:
        self.path = path.absolute()
        self._borrowed = borrowed
        self._ssh_options = tuple(ssh_options)
        self._batch: Git | None = None

    def __enter__(self) -> "FleetRepository":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the object reader; it starts again when needed."""
        if self._batch is not None:
            self._batch.clear_cache()
            self._batch = None

    def fetch(self, url: str, branch: str = "main", *, timeout: float = 300) -> str:
        """Fetch a branch and return the id of its head; `timeout` is in seconds.

        A failure or a kill at any moment leaves the previous state. A damaged copy is replaced by a new one.
        Raises TryLater (not reachable, no such branch, slow), Untrusted (objects that fsck refuses, SHA-256 repos),
        NoSpace, UsageError (an address that is not allowed).
        """
        check_address(url)
        if process.run(["git", "check-ref-format", f"refs/heads/{branch}"], timeout=10, check=False).returncode:
            raise UsageError(f"`{branch}` is not a branch name")
        with self._exclusive():
            self._tidy()
            if self._usable():
                try:
                    return self._fetch_into(self.path, url, branch, timeout)
                except process.ProcessFailed:
                    pass  # Not the remote's fault: the copy may be damaged, which a new one tells.
            try:
                return self._clone(url, branch, timeout)
            except process.ProcessFailed as error:
                raise HostError(f"{shown(url)} cannot be fetched: {shown(error.message)}", hint=error.hint) from error

    def stored_head(self) -> str | None:
        """Return the head of the last complete fetch, or None."""
        if not self.path.exists() and self._sibling(".old").exists():
            with self._exclusive():
                self._tidy()
        if not self._usable():
            return None
        done = self._run("rev-parse", "--verify", "--quiet", f"{HEAD_REF}^{{commit}}", check=False)
        return done.text.strip() or None

    def anchor(self, oid: str) -> CommitEvidence:
        """Return the evidence for the commit that is trusted already.

        Raises Untrusted(AnchorMissing) when the repo does not have it, HostError when the copy is damaged.
        """
        check_oid(oid)
        raw = self._read(oid, "commit", MAX_COMMIT) if self._usable() else None
        if raw is None:
            self._check_complete()
            raise Untrusted(
                Reason.ANCHOR_MISSING,
                f"the fleet repo does not contain the trusted commit {oid[:12]}",
                subject=oid,
                hint="Was the history rewritten, or is this another repo? Nodes only follow the history they trust.",
            )
        listed = self._run("ls-tree", "-z", "--full-tree", oid, "--", POLICY_PATH).stdout
        policy = None
        if listed:
            mode, kind, blob = listed.partition(b"\t")[0].decode().split()
            policy = self._policy(blob) if kind == "blob" and mode.startswith("100") else None
        return CommitEvidence(oid, raw, (), policy)

    def first_parent_chain(self, trusted: str, head: str) -> Iterator[CommitEvidence]:
        """Yield the commits after `trusted` up to `head` along the first parents, oldest first.

        Raises Untrusted: NotDescendant when `trusted` is not on the first-parent chain of `head`, TooMuchEvidence for
        more than 100,000 commits, AnchorMissing. Memory holds the ids of all and the contents of 256 commits.
        """
        check_oid(head)
        policy = self.anchor(trusted).policy
        if head == trusted:
            return
        self._commit(head)
        limit = f"--max-count={MAX_COMMITS + 1}"
        oids = self._run("rev-list", "--first-parent", "--reverse", limit, head, f"^{trusted}").text.split()
        if len(oids) > MAX_COMMITS:
            raise Untrusted(
                Reason.TOO_MUCH_EVIDENCE,
                f"more than {MAX_COMMITS:,} commits lie between {trusted[:12]} and {head[:12]}",
                subject=head,
                hint="Install the machine again with a newer anchor.",
            )
        first = parse_commit(oids[0], self._commit(oids[0])) if oids else None
        if first is None or first.parents[:1] != (trusted,):
            raise self._not_descendant(trusted, head, rewound=not oids)
        previous = trusted
        for start in range(0, len(oids), BATCH):
            batch = oids[start : start + BATCH]
            changes = self._changes(previous, batch)
            for oid in batch:
                changed = changes.get(oid, ())
                entry = next((change for change in changed if change.path == POLICY_PATH.encode()), None)
                if entry is not None:
                    policy = self._policy(entry.oid) if entry.mode & 0o170000 == 0o100000 else None
                yield CommitEvidence(oid, self._commit(oid), changed, policy)
            previous = batch[-1]

    def on_line(self, commit: str, head: str) -> bool:
        """Say whether `commit` is `head` or lies below it on its first-parent chain (at most 100,000 commits down)."""
        check_oid(commit)
        check_oid(head)
        if commit == head:
            return True
        limit = f"--max-count={MAX_COMMITS + 1}"
        # Fails for a commit that is not there. What is not below `commit` ends just above it, if it is on the line.
        done = self._run("rev-list", "--first-parent", "--parents", limit, head, f"^{commit}", check=False)
        last = done.text.splitlines()[-1:] if done.returncode == 0 else []
        return [line.split()[1:2] for line in last] == [[commit]]

    def point(self, oid: str) -> None:
        """Take a commit that is there for the head of the last fetch."""
        check_oid(oid)
        with self._exclusive():
            self._run("update-ref", HEAD_REF, oid)

    def read_tree(self, oid: str) -> TreeEvidence:
        """Read all trees and blobs of a commit. Raises Untrusted(TooMuchEvidence) before reading too much."""
        check_oid(oid)
        commit = parse_commit(oid, self._commit(oid))
        wanted: dict[str, set[str]] = {"tree": {commit.tree}, "blob": set()}
        total = 0
        entries = self._run("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", oid).stdout.split(b"\0")[:-1]
        for entry in entries:
            _, kind, name, size = entry.partition(b"\t")[0].decode().split()
            if kind in wanted:
                wanted[kind].add(name)
                total += int(size) if kind == "blob" else 0
        if len(entries) > MAX_FILES or total > MAX_TREE_BYTES:
            raise Untrusted(
                Reason.TOO_MUCH_EVIDENCE,
                f"commit {oid[:12]} has {len(entries):,} entries with {total:,} bytes; "
                f"at most {MAX_FILES:,} and {MAX_TREE_BYTES:,} are read",
                subject=oid,
                hint="Keep large files out of the fleet repo.",
            )
        objects = {
            kind: {name: self._present(name, kind, MAX_TREE_BYTES) for name in sorted(names)}
            for kind, names in wanted.items()
        }
        return TreeEvidence(objects["tree"], objects["blob"])

    # Reading objects.

    def _changes(self, previous: str, batch: Sequence[str]) -> dict[str, tuple[ChangedPath, ...]]:
        """Compare each commit with the one before it, in one process."""
        pairs = zip(batch, (previous, *batch), strict=False)
        asked = "".join(f"{child} {parent}\n" for child, parent in pairs)
        flags = ("--stdin", "-r", "--raw", "-z", "--no-renames", "--full-index", "--ignore-submodules=none")
        done = self._run("diff-tree", *flags, "--no-ext-diff", "--no-textconv", stdin=asked.encode())
        found: dict[str, list[ChangedPath]] = {}
        words = iter(done.stdout.split(b"\0")[:-1])
        current: list[ChangedPath] = []
        for word in words:
            if not word.startswith(b":"):
                current = found.setdefault(word.decode("ascii", "replace"), [])
                continue
            _, mode, _, oid, _ = word.decode("ascii").split(" ")
            current.append(ChangedPath(next(words), int(mode, 8), oid))
        return {oid: tuple(changed) for oid, changed in found.items()}

    def _commit(self, oid: str) -> bytes:
        return self._present(oid, "commit", MAX_COMMIT)

    def _policy(self, oid: str) -> bytes:
        try:
            return self._present(oid, "blob", MAX_BYTES)
        except Untrusted as error:
            raise Untrusted(Reason.POLICY_INVALID, f"{POLICY_PATH}: {error.message}", subject=oid) from error

    def _present(self, oid: str, kind: str, limit: int) -> bytes:
        data = self._read(oid, kind, limit)
        if data is None:
            raise self._damage(f"{kind} {oid[:12]} is missing")
        return data

    def _read(self, oid: str, kind: str, limit: int) -> bytes | None:
        """Return an object's bytes through `git cat-file --batch` that stays open; None when it is missing."""
        batch = self._open_batch()
        from git.exc import GitError

        try:
            # GitPython says str and gives bytes; both are taken.
            *_, size = batch.get_object_header(oid)
            if size > limit:
                raise Untrusted(
                    Reason.TOO_MUCH_EVIDENCE,
                    f"{kind} {oid[:12]} has {size:,} bytes; at most {limit:,} are read",
                    subject=oid,
                )
            *words, size, stream = batch.stream_object_data(oid)
            name, found = (os.fsdecode(word) for word in words)
            data: bytes = stream.read(size)
        except ValueError as error:
            self.close()
            if "missing" in str(error):
                return None
            raise self._damage(f"{kind} {oid[:12]} cannot be read") from error
        except GitError as error:
            raise HostError(f"git cannot read {self.path}: {error}") from error
        except OSError as error:
            self.close()
            raise self._damage(f"{kind} {oid[:12]} cannot be read") from error
        if name != oid or len(data) != size:
            self.close()
            raise self._damage(f"{kind} {oid[:12]} is cut off")
        if found != kind:
            raise Untrusted(Reason.COMMIT_MALFORMED, f"{oid[:12]} is a {found}, not a {kind}", subject=oid)
        return data

    def _open_batch(self) -> "Git":
        if self._batch is None:
            # Imported late: GitPython looks for git when it is imported, and takes a while.
            os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
            from git import Git

            self._batch = Git(str(self.path))
            # GitPython adds to the inherited environment: what could point elsewhere is emptied.
            self._batch.update_environment(**git_environment(self.path), HOME="", XDG_CONFIG_HOME="", GIT_NAMESPACE="")
            self._batch.update_environment(GIT_ALTERNATE_OBJECT_DIRECTORIES="", GIT_COMMON_DIR=str(self.path))
        return self._batch

    def _not_descendant(self, trusted: str, head: str, *, rewound: bool) -> Untrusted:
        if rewound:
            what = f"the branch went back: its head {head[:12]} lies before the trusted commit {trusted[:12]}"
        elif self._run("merge-base", "--is-ancestor", trusted, head, check=False).returncode == 0:
            what = (
                f"a merge below {head[:12]} swapped its parents: the trusted {trusted[:12]} is no first parent any more"
            )
        else:
            what = f"the branch was rewritten: its head {head[:12]} does not contain the trusted commit {trusted[:12]}"
        hint = f"Put {trusted[:12]} back as the head (it only ever moves forward), and merge other work into it."
        return Untrusted(Reason.NOT_DESCENDANT, what, subject=head, hint=hint)

    def _damage(self, what: str) -> HostError:
        if self._borrowed:
            return HostError(f"the clone at {self.path} is damaged: {what}", hint="`git fsck` there says more.")
        with_marker = self.path / DAMAGED
        if self.path.is_dir():
            with_marker.touch()
        return HostError(
            f"the copy of the fleet repo at {self.path} is damaged: {what}",
            hint="The next fetch replaces it.",
        )

    def _check_complete(self) -> None:
        """Tell a damaged copy from a complete one that merely lacks a commit."""
        if self._borrowed or not self.path.exists():
            return
        # A copy is put in place only after a complete fetch, so the head and all below it must be there.
        if not self._usable() or self._run("rev-list", "--objects", "--quiet", HEAD_REF, check=False).returncode:
            raise self._damage("objects of the fetched head are missing")

    # Fetching.

    def _run(
        self, *words: str, stdin: bytes = b"", check: bool = True, timeout: float = 120, path: Path | None = None
    ) -> process.Completed:
        environment = git_environment(path or self.path, self._ssh_options)
        argv = ["git", "--no-pager", *words]
        return process.run(argv, timeout=timeout, env=environment, stdin=stdin, check=check)

    def _usable(self) -> bool:
        present = all((self.path / name).exists() for name in ("HEAD", "config", "objects", "refs"))
        return present and (self._borrowed or not (self.path / DAMAGED).exists())

    def _fetch_into(self, path: Path, url: str, branch: str, timeout: float) -> str:
        flags = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc", "--quiet")
        spec = f"+refs/heads/{branch}:{HEAD_REF}"
        try:
            self._run("fetch", *flags, "--", url, spec, path=path, timeout=timeout)
        except process.ProcessFailed as error:
            raise fetch_error(error, url, branch) from error
        head = self._run("rev-parse", "--verify", f"{HEAD_REF}^{{commit}}", path=path).text.strip()
        with suppress(process.ProcessFailed):  # Keeps the number of packs small; a failure costs speed only.
            self._run("gc", "--auto", "--quiet", path=path, timeout=timeout)
        return head

    def _clone(self, url: str, branch: str, timeout: float) -> str:
        """Fetch into a new copy and put it in place of the old one."""
        new, old = self._sibling(".new"), self._sibling(".old")
        shutil.rmtree(new, ignore_errors=True)
        words = ("init", "--bare", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=main")
        process.run(["git", *words, str(new)], timeout=60, env=git_environment())
        head = self._fetch_into(new, url, branch, timeout)
        self.close()
        if self.path.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.path.rename(old)
        new.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        shutil.rmtree(old, ignore_errors=True)
        return head

    def _sibling(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _tidy(self) -> None:
        """Clear what a killed fetch left; only under the lock, so nobody is at work."""
        old = self._sibling(".old")
        if not self.path.exists() and old.exists():
            old.rename(self.path)
        for left in (*self.path.glob("*.lock"), *self.path.glob("refs/**/*.lock")):
            left.unlink(missing_ok=True)
        for left in (*self.path.glob("objects/pack/tmp_*"), *self.path.glob("objects/pack/.tmp-*")):
            left.unlink(missing_ok=True)
        (self.path / "gc.pid").unlink(missing_ok=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._sibling(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TryLater(f"another process is fetching into {self.path}", hint="Wait for it to end.") from error
            yield
