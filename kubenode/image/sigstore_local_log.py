"""A transparency log in a directory: entries in one append-only file, signed checkpoints, inclusion proofs.

Merkle tree: RFC 6962 section 2.1. Checkpoint: the signed note format of https://github.com/transparency-dev/formats,
with the origin `HOST - TREE_ID` of Rekor v1 or the origin `HOST` of Rekor v2.
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kubenode.errors import HostError
from kubenode.host.files import sync_folder
from kubenode.image.sigstore_local_files import locked, replace_durably


def key_id(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the log id of a key: sha256 of its SubjectPublicKeyInfo (RFC 6962 section 3.2)."""
    return hashlib.sha256(spki(key)).digest()


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the DER encoding of a public key."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def leaf_hash(entry: bytes) -> bytes:
    """Return the Merkle leaf hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash of these leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = _split(len(leaves))
    return _node_hash(tree_root(leaves[:middle]), tree_root(leaves[middle:]))


def inclusion_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the audit path of a leaf, lowest sibling first."""
    if len(leaves) <= 1:
        return []
    middle = _split(len(leaves))
    if index < middle:
        return [*inclusion_path(index, leaves[:middle]), tree_root(leaves[middle:])]
    return [*inclusion_path(index - middle, leaves[middle:]), tree_root(leaves[:middle])]


@dataclass(frozen=True)
class LoggedEntry:
    """Proof that an entry is in the log: position, tree, audit path, signed checkpoint, signed entry timestamp."""

    index: int
    tree_size: int
    root_hash: bytes
    path: tuple[bytes, ...]
    checkpoint: str
    integrated_time: int
    signed_entry_timestamp: bytes


class Log:
    """The log in a directory; `key` signs checkpoints and entry timestamps, `tree_id` is None for Rekor v2.

    A line of `entries.jsonl` is committed by its line feed. The newest checkpoint is kept in `checkpoint`, written
    after the entries it covers: entries may go beyond it (after a kill), never behind it.
    """

    def __init__(self, directory: Path, *, host: str, tree_id: int | None, key: ec.EllipticCurvePrivateKey) -> None:
        self._directory = directory
        self._host = host
        self._origin = host if tree_id is None else f"{host} - {tree_id}"
        self._key = key
        self._id = key_id(key.public_key())

    def append(self, body: bytes, at: datetime) -> LoggedEntry:
        """Append an entry durably and return its proof; concurrent callers wait for one another.

        Raise HostError when the log was changed behind the checkpoint it once signed: it must not sign a second
        history. An entry that a kill left unfinished at the end is dropped; nobody ever got its proof.
        """
        integrated_time = int(at.timestamp())
        with locked(self._directory / "lock"):
            bodies = self._read()
            line = {"body": base64.b64encode(body).decode(), "integratedTime": integrated_time}
            self._append_line(json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")
            leaves = [leaf_hash(entry) for entry in (*bodies, body)]
            root = tree_root(leaves)
            checkpoint = self.signed_checkpoint(len(leaves), root)
            replace_durably(self._directory / "checkpoint", checkpoint.encode())
        index = len(leaves) - 1
        return LoggedEntry(
            index=index,
            tree_size=len(leaves),
            root_hash=root,
            path=tuple(inclusion_path(index, leaves)),
            checkpoint=checkpoint,
            integrated_time=integrated_time,
            signed_entry_timestamp=self._entry_timestamp(body, integrated_time, index),
        )

    def signed_checkpoint(self, size: int, root: bytes) -> str:
        """Return the signed note for a tree of `size` entries with this root hash."""
        note = f"{self._origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        signature = self._key.sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        signed = base64.b64encode(self._id[:4] + signature).decode()
        return f"{note}\n\N{EM DASH} {self._host} {signed}\n"

    def _entry_timestamp(self, body: bytes, integrated_time: int, index: int) -> bytes:
        """Return Rekor v1's signed entry timestamp: it also binds the time and the position, which no proof covers."""
        content = {
            "body": base64.b64encode(body).decode(),
            "integratedTime": integrated_time,
            "logID": self._id.hex(),
            "logIndex": index,
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        return self._key.sign(canonical, ec.ECDSA(hashes.SHA256()))

    def _append_line(self, line: bytes) -> None:
        path = self._directory / "entries.jsonl"
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._directory)

    def _read(self) -> list[bytes]:
        """Return the bodies of all entries; cut off an unfinished last line. Callers hold the lock."""
        path = self._directory / "entries.jsonl"
        data = path.read_bytes() if path.exists() else b""
        committed = data.rfind(b"\n") + 1
        if committed < len(data):
            with path.open("r+b") as file:
                file.truncate(committed)
                file.flush()
                os.fsync(file.fileno())
        bodies = [self._body(number, line) for number, line in enumerate(data[:committed].splitlines(), 1)]
        self._check_history(bodies)
        return bodies

    def _body(self, number: int, line: bytes) -> bytes:
        try:
            return base64.b64decode(json.loads(line)["body"], validate=True)
        except (ValueError, KeyError, TypeError):
            raise HostError(
                f"line {number} of the transparency log {self._directory / 'entries.jsonl'} is damaged",
                hint="restore the log from a backup; a log that lost entries can't prove anything",
            ) from None

    def _check_history(self, bodies: Sequence[bytes]) -> None:
        path = self._directory / "checkpoint"
        if not path.exists():
            return
        lines = path.read_text().split("\n")
        try:
            size, root = int(lines[1]), base64.b64decode(lines[2], validate=True)
        except (ValueError, IndexError):
            raise HostError(f"the checkpoint {path} is damaged", hint="restore it from a backup") from None
        if size > len(bodies) or tree_root([leaf_hash(body) for body in bodies[:size]]) != root:
            raise HostError(
                f"the transparency log in {self._directory} no longer contains what its checkpoint covers",
                hint="entries were changed or removed; restore the log from a backup",
            )
