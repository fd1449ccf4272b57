"""Shared by the tests of manifests, bundles, the local Sigstore instance and publishing; holds no tests itself."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kubenode.image import sigstore_local
from kubenode.model.version import Version
from kubenode.trust.bundle import VerifiedRelease, verify_release
from kubenode.trust.manifest import ROLES, Artifact, Manifest, encode
from kubenode.trust.policy import Builder
from kubenode.trust.provenance import Provenance

NOW = datetime(2025, 6, 1, 12, 0, 0, 250_000, tzinfo=UTC)
ISSUER = "https://issuer.example.net"
IDENTITY = "ci@example.net"
BUILDER = Builder(ISSUER, IDENTITY)
VERSION = "2026.11.1"

CONTENT = {f"node_{VERSION}.{role}.raw": f"the {role} of the release".encode() for role in ROLES}


def artifact(name: str, content: bytes, role: str) -> Artifact:
    return Artifact(name, role, hashlib.sha256(content).hexdigest(), len(content))


MANIFEST = Manifest(
    image="node",
    version=Version(VERSION),
    kubernetes="1.34.2",
    floor=Version("2026.10.1"),
    schemas=("kubenode.dev/v1alpha1",),
    root_hash="ab" * 32,
    artifacts=tuple(artifact(name, content, name.split(".")[-2]) for name, content in sorted(CONTENT.items())),
)
PROVENANCE = Provenance(
    recipe_sha256="01" * 32,
    lock_sha256=MANIFEST.artifact("packages").sha256,
    fleet_commit="03" * 20,
    builder_id="https://builder.example.net/1",
    invocation_id="build-17",
    started_on=NOW,
)
STATEMENT = encode(MANIFEST, PROVENANCE)


def statement(**changes: Any) -> bytes:
    return encode(replace(MANIFEST, **changes), PROVENANCE)


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the manifest after `change` has edited its decoded JSON in place."""
    decoded = json.loads(STATEMENT)
    change(decoded)
    return json.dumps(decoded).encode()


@dataclass(frozen=True)
class Signed:
    """A manifest, its bundle and the trusted root of who signed it."""

    directory: Path
    manifest: bytes
    bundle: bytes
    root: bytes

    def verify(self, **changes: Any) -> VerifiedRelease:
        manifest = changes.pop("manifest", self.manifest)
        arguments: dict[str, Any] = {
            "expected_manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "trusted_root_json": self.root,
            "builders": [BUILDER],
            "version": VERSION,
        }
        bundle = changes.pop("bundle", self.bundle)
        return verify_release(manifest, bundle, **(arguments | changes))


_KEEP: list[TemporaryDirectory[str]] = []


@cache
def signed(log_entries: int = 5) -> Signed:
    """Return a signed manifest; it is the last of `log_entries` entries, so that its proof has a path."""
    _KEEP.append(TemporaryDirectory())
    directory = Path(_KEEP[-1].name) / "sigstore"
    root = sigstore_local.create(directory, issuer=ISSUER, now=NOW)
    bundles = [sigstore_local.sign(directory, STATEMENT, IDENTITY, NOW) for _ in range(log_entries)]
    return Signed(directory, STATEMENT, bundles[-1], root.read_bytes())


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield (path, text) of every string in decoded JSON."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from leaves(child, (*path, index))
    else:
        yield path, value


def put(bundle: bytes, path: tuple[str | int, ...], value: Any) -> bytes:
    """Return a bundle with another value at a path; None removes it."""
    decoded = json.loads(bundle)
    place = decoded
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(decoded).encode()


def get(bundle: bytes, path: tuple[str | int, ...]) -> Any:
    place = json.loads(bundle)
    for key in path:
        place = place[key]
    return place


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
