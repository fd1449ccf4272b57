"""What `host` hands in: plain bytes read from git, of which nothing is believed before it is checked.

What is checked here and what is assumed of the reader is listed in docs/trust.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MODE_FILE = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_SYMLINK = 0o120000
MODE_SUBMODULE = 0o160000
MODE_TREE = 0o040000


@dataclass(frozen=True, slots=True)
class ChangedPath:
    """One path that differs from the first parent: its name and its new mode and object (mode 0: it was removed).

    A rename is a removal and an addition, so that the rules of both paths decide.
    """

    path: bytes
    mode: int
    oid: str

    @property
    def name(self) -> str:
        """The path as text; bytes that are not UTF-8 become lone surrogates, which only `*`, `?` and `**` match."""
        return self.path.decode("utf-8", "surrogateescape")

    @property
    def shown(self) -> str:
        """The path for messages: without control characters or broken text."""
        text = self.path.decode("utf-8", "replace")
        return (text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text))[:200]


@dataclass(frozen=True, slots=True)
class CommitEvidence:
    """A raw commit object, what it changes against its first parent, and the trust policy's bytes in it (or None)."""

    oid: str
    raw: bytes
    changed: tuple[ChangedPath, ...]
    policy: bytes | None


@dataclass(frozen=True, slots=True)
class TreeEvidence:
    """All raw tree objects and blobs of one commit, each by the object id under which it was asked for."""

    trees: Mapping[str, bytes]
    blobs: Mapping[str, bytes]
