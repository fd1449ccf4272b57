"""Reads objects of one bare git repository through one `git cat-file`; what is read must hash to its id."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kubenode.errors import HostError, Untrusted
from kubenode.host import process
from kubenode.host.git_run import CPU, MEMORY, git_environment
from kubenode.trust.commit import object_id
from kubenode.trust.reasons import Reason

HEAD_REF = "refs/kubenode/head"

_AT_ONCE = 256
"""Questions: with 50 bytes each they fit into a pipe."""
_BUFFER = 4 << 20
_LIMITS = process.Limits(memory=MEMORY, file=1 << 30, cpu=CPU)


class Damaged(HostError):
    """Objects of a repository are missing or unreadable."""

    advice = (
        "A node fetches a new copy at its next tick. On a laptop: `git fsck`, and clone again if that finds it too."
    )


class GitObjects:
    """The objects of the repository at `path` (and of its alternates); one per thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: process.Conversation | None = None

    def close(self) -> None:
        """End the reader; it starts again when needed."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def usable(self) -> bool:
        """Whether this looks like a repository at all."""
        return all((self.path / name).exists() for name in ("HEAD", "config", "objects", "refs"))

    def git(self, *words: str, stdin: bytes = b"", check: bool = True, timeout: float = 120) -> process.Completed:
        """Run git in the repository. Raises ProcessFailed."""
        argv = _LIMITS.around(["git", "--no-pager", *words])
        return process.run(argv, timeout=timeout, env=git_environment(self.path), stdin=stdin, check=check)

    def stream(self, *words: str) -> process.Conversation:
        """Start git in the repository, to read its answer piece by piece. Raises ProcessFailed."""
        return process.Conversation(_LIMITS.around(["git", "--no-pager", *words]), env=git_environment(self.path))

    def head(self) -> str | None:
        """Return the commit that was fetched last, or None."""
        if not self.usable:
            return None
        done = self.git("rev-parse", "--verify", "--quiet", f"{HEAD_REF}^{{commit}}", check=False)
        return done.text.strip() or None

    def has(self, oid: str) -> bool:
        """Say whether an object is there; False when the repository is too damaged to tell."""
        try:
            return self.usable and bool(self._sizes((oid,)))
        except Damaged:
            return False

    def read(self, oid: str, kind: str, limit: int) -> bytes:
        """Return one object's bytes; see `read_all`."""
        return next(self.read_all((oid,), kind, limit))[1]

    def sizes(self, oids: Sequence[str], kind: str) -> Mapping[str, int]:
        """Return the size of each object, in bytes, without reading it. Raises Damaged, Untrusted(CommitMalformed)."""
        found: dict[str, int] = {}
        for start in range(0, len(oids), _AT_ONCE):
            batch = oids[start : start + _AT_ONCE]
            known = self._sizes(batch)
            for oid in batch:
                if oid not in known:
                    raise Damaged(f"{kind} {oid[:12]} is missing")
                actual, found[oid] = known[oid]
                if actual != kind:
                    raise Untrusted(Reason.COMMIT_MALFORMED, f"{oid[:12]} is a {actual}, not a {kind}", subject=oid)
        return found

    def read_all(self, oids: Sequence[str], kind: str, limit: int) -> Iterator[tuple[str, bytes]]:
        """Yield (id, bytes) of each object in order; at most 4 MiB or one object are kept in memory.

        Raises Untrusted (TooMuchEvidence before an object of more than `limit` bytes is read, CommitMalformed for one
        of another kind) and Damaged (missing, unreadable, other bytes than the id says).
        """
        for start in range(0, len(oids), _AT_ONCE):
            batch = oids[start : start + _AT_ONCE]
            sizes = self.sizes(batch, kind)
            group: list[str] = []
            room = _BUFFER
            for oid in batch:
                size = sizes[oid]
                if size > limit:
                    yield from self._contents(group, kind)
                    raise Untrusted(
                        Reason.TOO_MUCH_EVIDENCE,
                        f"{kind} {oid[:12]} has {size:,} bytes; at most {limit:,} are read",
                        subject=oid,
                    )
                if group and size > room:
                    yield from self._contents(group, kind)
                    group, room = [], _BUFFER
                group.append(oid)
                room -= size
            yield from self._contents(group, kind)

    def _contents(self, oids: Sequence[str], kind: str) -> Iterator[tuple[str, bytes]]:
        """Yield objects that are there; all are read before the first is handed out, so others may ask in between."""
        if not oids:
            return
        found: list[tuple[str, bytes]] = []
        try:
            reader = self._ask("contents", oids)
            for oid in oids:
                words = reader.line().split()
                if len(words) != 3:
                    raise self._broken(f"{kind} {oid[:12]} cannot be read")
                data = reader.read(int(words[2]))
                reader.read(1)
                if object_id(kind, data) != oid:
                    raise self._broken(f"{kind} {oid[:12]} has other bytes than its id says")
                found.append((oid, data))
        except process.ProcessFailed as error:
            raise self._broken(f"{kind} {oids[len(found)][:12]} cannot be read") from error
        yield from found

    def _sizes(self, oids: Sequence[str]) -> dict[str, tuple[str, int]]:
        found: dict[str, tuple[str, int]] = {}
        try:
            reader = self._ask("info", oids)
            for oid in oids:
                words = reader.line().split()
                if len(words) == 3:
                    found[oid] = words[1].decode("ascii", "replace"), int(words[2])
        except process.ProcessFailed as error:
            raise self._broken(f"an object among {oids[0][:12]} and {len(oids) - 1} others cannot be read") from error
        return found

    def _ask(self, command: str, oids: Iterable[str]) -> process.Conversation:
        if self._reader is None:
            self._reader = self.stream("cat-file", "--batch-command", "--buffer")
        self._reader.ask("".join(f"{command} {oid}\n" for oid in oids).encode() + b"flush\n")
        return self._reader

    def _broken(self, what: str) -> Damaged:
        self.close()
        return Damaged(what)
