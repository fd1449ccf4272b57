"""The part of a fleet source that needs no network: the copy of the repo, and the head.json that came with it."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubenode.host.files import make_folder, write_atomically
from kubenode.host.git import FleetRepository
from kubenode.trust.chain import TrustedCommit, TrustedTree
from kubenode.trust.evidence import CommitEvidence
from kubenode.trust.headfile import MAX_BYTES
from kubenode.trust.tree import trusted_tree

_KIND = "FleetHead"


@dataclass(frozen=True)
class KeptHead:
    """A head.json as it was fetched, None when there was none, and what marks this version at each address.

    `marks`: by address, plain strings (an ETag, a commit id): the address still has these bytes when they are the same.
    """

    data: bytes | None = None
    marks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class StoredFleet:
    """What `kubenode.ports.FleetSource` asks of a copy of the fleet repo that is on disk."""

    def __init__(self, repository: FleetRepository, *, fleet_id: str | None = None) -> None:
        self.repository = repository
        self._fleet_id = fleet_id
        self._path = repository.path.with_name(f"{repository.path.stem}.head.json")

    def stored_head(self) -> str | None:
        """Return the head of the last complete fetch without network, or None."""
        return self.repository.stored_head()

    def stamp(self) -> bytes | None:
        """Return the head.json that came with the last complete fetch without network, or None."""
        return self.kept().data

    def on_line(self, commit: str, head: str) -> bool:
        """Say whether `commit` is `head` or lies below it on its first-parent chain."""
        return self.repository.on_line(commit, head)

    def anchor(self, commit: str) -> CommitEvidence:
        """Return the evidence for the commit that is trusted already. Raises Untrusted(AnchorMissing)."""
        return self.repository.anchor(commit)

    def accept(self, commit: TrustedCommit) -> None:
        """Keep an authenticated commit for good; see FleetRepository.accept for what is raised."""
        self.repository.accept(commit.oid)

    def chain(self, trusted: str, head: str) -> Iterator[CommitEvidence]:
        """Yield the commits after `trusted` up to `head`, oldest first. Raises Untrusted(NotDescendant)."""
        return self.repository.first_parent_chain(trusted, head)

    def tree(self, commit: TrustedCommit) -> TrustedTree:
        """Return the files of an authenticated commit; every byte and the fleet id are checked."""
        return trusted_tree(commit, self.repository.read_tree(commit.oid), fleet_id=self._fleet_id)

    def kept(self) -> KeptHead:
        """Return the head.json of the last complete fetch; one that cannot be read is fetched again."""
        with suppress(OSError, ValueError, RecursionError), self._path.open("rb") as file:
            return _decoded(json.loads(file.read(2 * MAX_BYTES + 1)))
        return KeptHead()

    def keep(self, head: KeptHead) -> None:
        """Keep a head.json after everything that it speaks of has arrived. Raises NoSpace, HostError."""
        if head == self.kept():
            return
        data = None if head.data is None else base64.b64encode(head.data).decode()
        document = {"kind": _KIND, "data": data, "marks": {name: dict(mark) for name, mark in head.marks.items()}}
        make_folder(self._path.parent)
        write_atomically(self._path, json.dumps(document).encode() + b"\n")

    def free(self, name: str) -> Path:
        """Return a path beside the copy for something temporary."""
        return self.repository.path.with_name(f"{self.repository.path.stem}.{name}")


def _decoded(document: Any) -> KeptHead:
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise ValueError(f"it is not of the kind {_KIND}")
    data, marks = document.get("data"), document.get("marks")
    if not isinstance(marks, dict) or not all(
        isinstance(mark, dict) and all(isinstance(value, str) for value in mark.values()) for mark in marks.values()
    ):
        raise ValueError("its marks are not texts by address")
    return KeptHead(None if data is None else base64.b64decode(data, validate=True), marks)
