"""Releases into a store: a plain directory `STORE/VERSION/` that any static HTTP server can serve.

A version is immutable: it appears complete, by one rename, and never changes afterwards.
"""

import base64
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError, KubenodeError, Untrusted, UsageError
from kubenode.host.files import sync_folder
from kubenode.image.sigstore_local_files import locked, readable_errors, write_durably
from kubenode.model.version import Version
from kubenode.trust.bundle import MAX_BUNDLE_BYTES, ArtifactVerifier
from kubenode.trust.manifest import (
    BUNDLE_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Artifact,
    Manifest,
    parse,
)
from kubenode.trust.reasons import Reason
from kubenode.trust.strictjson import strict_json

_REBUILD = "Name a folder as `kubenode build` left it (out/VERSION); build the release again if it was changed since."

_TEMPORARY = ".publishing-"
_CHUNK = 1 << 20


class VersionTaken(KubenodeError):
    """The store has another release under this version; versions are immutable."""


@dataclass(frozen=True)
class Published:
    """A release in a store; `created` is False when it was there already. The digest is what a Release pins."""

    version: Version
    manifest_sha256: str
    path: Path
    created: bool


def publish(release_dir: Path, store: Path) -> Published:
    """Copy a signed release into a store (created when missing) and return where it is.

    `release_dir` holds manifest.json, manifest.sigstore.json and exactly the artifacts that the manifest names.
    Artifacts are compared with the manifest while they are copied; who signed it is for the nodes to judge. A kill at
    any instant leaves the whole release or nothing of it; the next publisher removes what was left over. Publishers
    wait for one another. Publishing the same manifest again changes nothing (the first bundle stays).

    Raise UsageError when a file is missing or too many, Untrusted when one differs from the manifest, VersionTaken
    when the version is there with another manifest, HostError when the store cannot be written or is damaged.
    """
    with readable_errors(f"publishing {release_dir} to {store}"):
        manifest_bytes = _read(release_dir / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        bundle_bytes = _read(release_dir / BUNDLE_NAME, MAX_BUNDLE_BYTES)
        manifest = parse(manifest_bytes)
        _check_bundle(manifest_bytes, bundle_bytes)
        _check_names(release_dir, manifest)
        digest = hashlib.sha256(manifest_bytes).hexdigest()
        final = store / str(manifest.version)
        store.mkdir(parents=True, exist_ok=True)
        with locked(store / ".lock"):
            # Holding the lock means that nobody else publishes: whatever is unfinished was left by a kill.
            for stale in store.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(stale)
            created = not final.exists()
            if created:
                _copy(release_dir, manifest, manifest_bytes, bundle_bytes, final)
            else:
                _check_same(final, manifest, digest)
        return Published(manifest.version, digest, final, created)


def _copy(release_dir: Path, manifest: Manifest, manifest_bytes: bytes, bundle_bytes: bytes, final: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{final.name}-", dir=final.parent))
    try:
        for artifact in manifest.artifacts:
            _copy_artifact(release_dir / artifact.name, temporary / artifact.name, artifact)
        write_durably(temporary / BUNDLE_NAME, bundle_bytes)
        write_durably(temporary / MANIFEST_NAME, manifest_bytes)
        temporary.chmod(0o755)  # mkdtemp makes it private, but a web server must read it.
        sync_folder(temporary)
        # Fails on a directory with content, so it is safe even where the lock is not (some network file systems).
        temporary.rename(final)
        sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _copy_artifact(source: Path, target: Path, artifact: Artifact) -> None:
    verifier = ArtifactVerifier(artifact)
    with source.open("rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), 0o644)
        while chunk := reader.read(_CHUNK):
            verifier.update(chunk)
            writer.write(chunk)
        verifier.finish()
        writer.flush()
        os.fsync(writer.fileno())


def _check_same(final: Path, manifest: Manifest, digest: str) -> None:
    try:
        found = hashlib.sha256(_read(final / MANIFEST_NAME, MAX_MANIFEST_BYTES)).hexdigest()
    except UsageError:
        raise _damaged(final) from None
    if found != digest:
        raise VersionTaken(
            f"{final} already holds another release of version {manifest.version} (manifest {found}, not {digest})",
            hint="a published version never changes: build again with a new version",
        )
    expected = {artifact.name: artifact.size for artifact in manifest.artifacts}
    files = {entry.name: entry.stat().st_size for entry in final.iterdir() if entry.is_file()}
    if BUNDLE_NAME not in files or {name: files.get(name) for name in expected} != expected:
        raise _damaged(final)


def _damaged(final: Path) -> HostError:
    return HostError(
        f"{final} is damaged: files of the release are missing or have another size",
        hint="move it away and publish again",
    )


def _check_names(release_dir: Path, manifest: Manifest) -> None:
    """Refuse missing and unsigned files early, by name."""
    expected = {artifact.name for artifact in manifest.artifacts} | {MANIFEST_NAME, BUNDLE_NAME}
    found = {entry.name for entry in release_dir.iterdir()}
    for name in sorted(expected - found):
        raise UsageError(f"{release_dir} lacks {name}, which the manifest names", hint=_REBUILD)
    for name in sorted(found - expected):
        raise UsageError(
            f"{release_dir} holds {name}, which is not in the signed manifest",
            hint="a store holds only what was signed: remove the file, or build it as an artifact",
        )
    for name in sorted(expected):
        if not (release_dir / name).is_file():
            raise UsageError(f"{release_dir / name} is not a regular file", hint=_REBUILD)


def _check_bundle(manifest_bytes: bytes, bundle_bytes: bytes) -> None:
    """Catch a bundle of another build, without judging its signature: that needs the fleet's trusted root."""
    bundle = strict_json(bundle_bytes, MAX_BUNDLE_BYTES, Reason.BUNDLE_INVALID, "the bundle")
    try:
        payload = base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True)  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise Untrusted(
            Reason.BUNDLE_INVALID, f"{BUNDLE_NAME} is not a Sigstore bundle with an envelope", hint=_REBUILD
        ) from None
    if payload != manifest_bytes:
        raise Untrusted(
            Reason.BUNDLE_PAYLOAD_MISMATCH, f"{BUNDLE_NAME} signs another manifest than {MANIFEST_NAME}", hint=_REBUILD
        )


def _read(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise UsageError(f"{path} is missing", hint=_REBUILD)
    with path.open("rb") as file:
        # One byte more than allowed, so that the reader of the bytes refuses them for their size.
        return file.read(limit + 1)
