"""Downloads below /var/lib/kubenode/downloads/<manifest digest>: resumable, and complete only when marked so.

In each folder: `manifest.json` and `manifest.sigstore.json` (the evidence, replaced atomically), `<artifact>.part`
(what has arrived; the suffix stays when it is whole, so that no artifact's name can be that of another file) and
`complete` (the mark: everything is there and was verified).
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.files import (
    free_bytes,
    host_errors,
    make_folder,
    no_space,
    replacing,
    sync_folder,
    write_atomically,
)
from kubenode.trust.bundle import ArtifactVerifier
from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, Artifact

_AGAIN = "Nothing to do: the next tick looks again and fetches what is missing."

MARGIN = 64 << 20
"""Bytes that a download must leave free: etcd and the kubelet keep their state on the same partition."""
CHUNK = 4 << 20
_MAX_EVIDENCE = 8 << 20
_MARK = "complete"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")


class Downloads:
    """Implements `kubenode.ports.Staging` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_evidence(self, digest: str, manifest: bytes, bundle: bytes) -> None:
        """Keep a manifest and its bundle, durably. Raises NoSpace, HostError."""
        folder = self._digest(digest)
        make_folder(folder)
        write_atomically(folder / MANIFEST_NAME, manifest)
        write_atomically(folder / BUNDLE_NAME, bundle)

    def evidence(self, digest: str) -> tuple[bytes, bytes]:
        """Return (manifest, bundle) as kept. Raises HostError when they are missing or larger than 8 MiB."""
        folder = self._digest(digest)
        return _read(folder / MANIFEST_NAME), _read(folder / BUNDLE_NAME)

    def require_space(self, digest: str, size: int) -> None:
        """Raise NoSpace unless `size` bytes, less what is there for this digest, fit with a margin of 64 MiB."""
        folder = self._digest(digest)
        make_folder(self._folder)
        present = 0
        with suppress(OSError):
            present = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
        needed = max(0, size - present) + MARGIN
        free = free_bytes(self._folder)
        if free < needed:
            raise no_space(self._folder, needed, free)

    def partial(self, digest: str, name: str) -> Iterator[bytes]:
        """Yield the bytes already kept of an artifact, none when there is no download of it. Raises HostError."""
        path = self.path(digest, name)
        with host_errors(f"{path} cannot be read", path.parent):
            if not path.exists():
                return
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk

    def append(self, digest: str, name: str, chunks: Iterator[bytes]) -> None:
        """Append chunks to a download and flush it to the disk; what came before `chunks` failed is kept.

        Raises NoSpace, HostError, and whatever `chunks` raises.
        """
        path = self.path(digest, name)
        make_folder(path.parent)
        self._unmark(path.parent)
        with host_errors(f"{path} cannot be written", path.parent), path.open("ab", buffering=0) as file:
            # Durable name first: after a crash the bytes that were flushed must be found again.
            sync_folder(path.parent)
            try:
                for chunk in chunks:
                    with host_errors(f"{path} cannot be written", path.parent, len(chunk)):
                        _write_all(file, chunk)
            finally:
                # Also on a break: the next attempt goes on where this one ended. The length of an appended file grows
                # with its data only (ext4, ordered mode), so a crash leaves a prefix; digests are checked later anyway.
                os.fsync(file.fileno())

    def discard(self, digest: str, name: str) -> None:
        """Throw an artifact's download away. Raises HostError."""
        path = self.path(digest, name)
        self._unmark(path.parent)
        with host_errors(f"{path} cannot be removed", path.parent):
            if path.exists():
                path.unlink()
                sync_folder(path.parent)

    def complete(self, digest: str) -> None:
        """Mark a download as complete and verified. Raises HostError when there is none."""
        folder = self._digest(digest)
        if not folder.is_dir():
            raise HostError(f"there is no download {digest[:12]} to be marked as complete", hint=_AGAIN)
        write_atomically(folder / _MARK, b"")

    def prune(self, digests: frozenset[str]) -> None:
        """Delete these downloads. Raises HostError."""
        for digest in sorted(digests):
            folder = self._digest(digest)
            if folder.is_dir():
                # The mark goes first: a download that is half deleted must not look complete.
                self._unmark(folder)
                with host_errors(f"{folder} cannot be removed", folder.parent):
                    shutil.rmtree(folder)
                    sync_folder(self._folder)

    def listing(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the digests of (complete, begun) downloads. Raises HostError."""
        if not self._folder.exists():
            return frozenset(), frozenset()
        with host_errors(f"{self._folder} cannot be listed", self._folder):
            digests = {path.name for path in self._folder.iterdir() if _DIGEST.fullmatch(path.name)}
        complete = frozenset(digest for digest in digests if (self._folder / digest / _MARK).is_file())
        return complete, frozenset(digests) - complete

    def path(self, digest: str, name: str) -> Path:
        """Return where an artifact is kept. Raises HostError for a name or digest that is none."""
        if not _NAME.fullmatch(name):
            raise HostError(f"{name[:80]!r} is not the name of an artifact", hint=_AGAIN)
        return self._digest(digest) / f"{name}.part"

    def verify(self, digest: str, artifact: Artifact) -> Path:
        """Return where an artifact is kept, after comparing it with the signed manifest.

        Raises Untrusted when it differs, HostError when it is missing.
        """
        path = self.path(digest, artifact.name)
        if not path.is_file():
            raise HostError(f"the download of {artifact.name} is missing: it has to be fetched again", hint=_AGAIN)
        verify_file(path, artifact)
        return path

    def _digest(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise HostError(f"{digest[:80]!r} is not the digest of a manifest", hint=_AGAIN)
        return self._folder / digest

    def _unmark(self, folder: Path) -> None:
        mark = folder / _MARK
        with host_errors(f"{mark} cannot be removed", folder):
            if mark.exists():
                mark.unlink()
                sync_folder(folder)


def copy_verified(source: Path, target: Path, artifact: Artifact) -> None:
    """Copy an artifact to `target` atomically and durably, comparing it with the signed manifest on the way.

    Raises Untrusted when it differs (nothing appears at `target`), NoSpace, HostError.
    """
    verifier = ArtifactVerifier(artifact)
    make_folder(target.parent)
    with replacing(target, size=artifact.size) as write, source.open("rb") as read:
        while chunk := read.read(CHUNK):
            verifier.update(chunk)
            write.write(chunk)
        verifier.finish()


def verify_file(path: Path, artifact: Artifact) -> None:
    """Compare a file with the signed manifest. Raises Untrusted, HostError."""
    verifier = ArtifactVerifier(artifact)
    with host_errors(f"{path} cannot be read", path.parent), path.open("rb") as file:
        while chunk := file.read(CHUNK):
            verifier.update(chunk)
    verifier.finish()


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read(path: Path) -> bytes:
    with host_errors(f"{path} cannot be read", path.parent), path.open("rb") as file:
        data = file.read(_MAX_EVIDENCE + 1)
    if len(data) > _MAX_EVIDENCE:
        raise HostError(f"{path} is larger than {_MAX_EVIDENCE} bytes", hint=_AGAIN)
    return data
