"""The release manifest: an in-toto statement with SLSA provenance that names every artifact of one release.

Formats: in-toto Statement v1 (https://in-toto.io/Statement/v1), SLSA provenance v1
(https://slsa.dev/spec/v1.0/provenance). Unknown fields and unknown artifact roles are accepted, as both specifications
ask of consumers: an old agent must be able to read the manifest of a newer release, or it could never update to it.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from kubenode.errors import Untrusted
from kubenode.model.documents import Release
from kubenode.model.version import Version
from kubenode.trust.manifestfields import SHA256, field, invalid, mapping, match, matching, optional, text
from kubenode.trust.provenance import BUILD_TYPE, Provenance, read_provenance
from kubenode.trust.reasons import Reason
from kubenode.trust.strictjson import short, strict_json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
ROLE_ANNOTATION = "dev.kubenode/role"
SIZE_ANNOTATION = "dev.kubenode/size"

MANIFEST_NAME = "manifest.json"
BUNDLE_NAME = "manifest.sigstore.json"

MAX_MANIFEST_BYTES = 1 << 20
MAX_ARTIFACTS = 64
MAX_ARTIFACT_BYTES = 1 << 40

ROOT, VERITY, UKI, DISK, PACKAGES = "root", "verity", "uki", "disk", "packages"
REQUIRED_ROLES = (ROOT, VERITY, UKI)
ROLES = (*REQUIRED_ROLES, DISK, PACKAGES)

# A name becomes a file in staging, a file in a store and a segment of a URL: nothing that means something to a path,
# a shell or a URL, no hidden file, and short enough for a suffix on every file system (255 bytes).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_IMAGE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_KUBERNETES = re.compile(r"(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]{0,3})){2}")
_SIZE = re.compile(r"[1-9][0-9]{0,15}")
_SCHEMA = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}/v[0-9][a-z0-9]{0,19}")


@dataclass(frozen=True)
class Artifact:
    """One file of a release: plain file name, role (see `ROLES`), sha256 (64 hex digits) and size in bytes."""

    name: str
    role: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What a release is.

    `kubernetes` is the Kubernetes version in the image, None for an image without it. `floor` is the oldest version
    that may update to this one, None when any may. `schemas` are the document apiVersions its agent reads.
    `root_hash` is the dm-verity root hash (64 hex digits). `artifacts` are ordered by name.
    """

    image: str
    version: Version
    kubernetes: str | None
    floor: Version | None
    schemas: tuple[str, ...]
    root_hash: str
    artifacts: tuple[Artifact, ...]

    @property
    def root(self) -> Artifact:
        """The root file system."""
        return self.artifact(ROOT)

    @property
    def verity(self) -> Artifact:
        """The dm-verity hash tree of the root file system."""
        return self.artifact(VERITY)

    @property
    def uki(self) -> Artifact:
        """The unified kernel image, with the root hash on its command line."""
        return self.artifact(UKI)

    def artifact(self, role: str) -> Artifact:
        """Return the first artifact with this role. Raise KeyError when there is none."""
        for artifact in self.artifacts:
            if artifact.role == role:
                return artifact
        raise KeyError(role)


def encode(manifest: Manifest, provenance: Provenance) -> bytes:
    """Return the statement as canonical JSON: the same input gives the same bytes.

    Sorted keys, no white space, no floats, UTF-8: what RFC 8785 gives for this content. Raise ValueError when the
    content would not be accepted by `parse`, so that nothing unreadable is ever signed.
    """
    for artifact in manifest.artifacts:
        if artifact.role not in ROLES:
            raise ValueError(f"{artifact.role!r} is not a role of an artifact; roles are {', '.join(ROLES)}")
    if provenance.started_on.tzinfo is None:
        raise ValueError("started_on needs a time zone")
    data = json.dumps(
        _statement(manifest, provenance), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
    try:
        read = parse(data)
    except Untrusted as refusal:
        raise ValueError(refusal.message) from refusal
    if set(read.artifacts) != set(manifest.artifacts) or read.version != manifest.version:
        raise ValueError("the manifest does not survive being written and read again")
    return data


def _statement(manifest: Manifest, provenance: Provenance) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "predicateType": PREDICATE_TYPE,
        "subject": [
            {
                "name": artifact.name,
                "digest": {"sha256": artifact.sha256},
                "annotations": {ROLE_ANNOTATION: artifact.role, SIZE_ANNOTATION: str(artifact.size)},
            }
            for artifact in sorted(manifest.artifacts, key=lambda artifact: artifact.name)
        ],
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "image": manifest.image,
                    "version": str(manifest.version),
                    "kubernetes": manifest.kubernetes,
                    "floor": None if manifest.floor is None else str(manifest.floor),
                    "schemas": sorted(manifest.schemas),
                    "rootHash": manifest.root_hash,
                },
                "resolvedDependencies": [
                    {"name": "recipe", "digest": {"sha256": provenance.recipe_sha256}},
                    {"name": "lock", "digest": {"sha256": provenance.lock_sha256}},
                    {"name": "fleet", "digest": {"gitCommit": provenance.fleet_commit}},
                ],
            },
            "runDetails": {
                "builder": {"id": provenance.builder_id},
                "metadata": {
                    "invocationId": provenance.invocation_id,
                    "startedOn": provenance.started_on.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
            },
        },
    }


def parse(data: bytes) -> Manifest:
    """Read a manifest; see `parse_statement`."""
    return parse_statement(data)[0]


def parse_statement(data: bytes) -> tuple[Manifest, Provenance]:
    """Read a manifest and what it says about its build.

    Parsing proves nothing about who wrote it: use `kubenode.trust.bundle.verify_release` for that. Raise Untrusted with
    ManifestInvalid (not JSON, over 1 MiB, duplicate keys, a wrong type or value, an unsafe name), WrongStatementType,
    WrongPredicateType, SubjectMissing (no root, verity or uki), SubjectExtra (two of these, or a name used twice),
    ProvenanceInvalid, or ProvenanceMismatch (the lock is not the listing of packages that the release ships).
    """
    statement = mapping(strict_json(data, MAX_MANIFEST_BYTES, Reason.MANIFEST_INVALID, "the manifest"), "statement")
    statement_type = text(statement, "_type")
    if statement_type != STATEMENT_TYPE:
        raise Untrusted(
            Reason.STATEMENT_TYPE,
            f"the manifest is of type {short(statement_type)}, not an in-toto statement v1",
            hint=f"_type must be {STATEMENT_TYPE}",
        )
    predicate_type = text(statement, "predicateType")
    if predicate_type != PREDICATE_TYPE:
        raise Untrusted(
            Reason.PREDICATE_TYPE,
            f"the manifest is a statement about {short(predicate_type)}, not SLSA provenance v1",
            hint=f"predicateType must be {PREDICATE_TYPE}",
        )
    artifacts = _artifacts(field(statement, "subject", list))
    predicate = mapping(field(statement, "predicate", dict), "predicate")
    definition = mapping(field(predicate, "buildDefinition", dict), "buildDefinition")
    provenance = read_provenance(definition, predicate)
    manifest = _manifest(mapping(field(definition, "externalParameters", dict), "externalParameters"), artifacts)
    _check_lock(manifest, provenance)
    return manifest, provenance


def _check_lock(manifest: Manifest, provenance: Provenance) -> None:
    """The provenance's lock is what the release ships as its listing of packages, when it ships one."""
    for artifact in manifest.artifacts:
        if artifact.role == PACKAGES and artifact.sha256 != provenance.lock_sha256:
            raise Untrusted(
                Reason.PROVENANCE_MISMATCH,
                f"the provenance's lock is {provenance.lock_sha256[:16]}..., but {artifact.name} of the same release "
                f"is {artifact.sha256[:16]}...",
                subject=artifact.name,
                hint="the release was put together from two builds: build it again",
            )


def _manifest(parameters: dict[str, Any], artifacts: tuple[Artifact, ...]) -> Manifest:
    schemas = field(parameters, "schemas", list)
    if not schemas or len(schemas) > 32 or len(set(map(repr, schemas))) != len(schemas):
        raise invalid("the manifest's schemas must be 1 to 32 different apiVersions")
    return Manifest(
        image=matching(parameters, "image", _IMAGE),
        version=_version(text(parameters, "version"), "version"),
        kubernetes=optional(parameters, "kubernetes", lambda: matching(parameters, "kubernetes", _KUBERNETES)),
        floor=optional(parameters, "floor", lambda: _version(text(parameters, "floor"), "floor")),
        schemas=tuple(match(schema, "schemas", _SCHEMA) for schema in schemas),
        root_hash=matching(parameters, "rootHash", SHA256),
        artifacts=artifacts,
    )


def _artifacts(subjects: list[Any]) -> tuple[Artifact, ...]:
    if len(subjects) > MAX_ARTIFACTS:
        raise invalid(f"the manifest has {len(subjects)} subjects, more than {MAX_ARTIFACTS}")
    artifacts = [_artifact(mapping(subject, "subject")) for subject in subjects]
    # Compared without case, because a store may live on a file system that ignores it.
    for name, count in Counter(artifact.name.lower() for artifact in artifacts).items():
        if count > 1:
            raise Untrusted(Reason.SUBJECT_EXTRA, f"the manifest names {name} {count} times", subject=name)
    roles = Counter(artifact.role for artifact in artifacts)
    for role in REQUIRED_ROLES:
        if roles[role] == 0:
            raise Untrusted(Reason.SUBJECT_MISSING, f"the manifest names no artifact with the role {role}")
        if roles[role] > 1:
            raise Untrusted(Reason.SUBJECT_EXTRA, f"the manifest names {roles[role]} artifacts with the role {role}")
    return tuple(sorted(artifacts, key=lambda artifact: artifact.name))


def _artifact(subject: dict[str, Any]) -> Artifact:
    name = matching(subject, "name", _NAME)
    if name in (MANIFEST_NAME, BUNDLE_NAME):
        raise invalid(f"an artifact may not be called {name}: that name is the manifest's own")
    annotations = mapping(field(subject, "annotations", dict), "annotations")
    size = int(matching(annotations, SIZE_ANNOTATION, _SIZE))
    if size > MAX_ARTIFACT_BYTES:
        raise invalid(f"{name} has {size} bytes, more than {MAX_ARTIFACT_BYTES}")
    return Artifact(
        name=name,
        role=matching(annotations, ROLE_ANNOTATION, _ROLE),
        sha256=matching(mapping(field(subject, "digest", dict), "digest"), "sha256", SHA256),
        size=size,
    )


def _version(text: str, key: str) -> Version:
    try:
        return Version(text)
    except ValueError:
        raise invalid(f"the manifest's {key} is not a version: {short(text)}") from None


def check_document(manifest: Manifest, release: Release) -> None:
    """Check what a manifest says about its release against the document that people approved.

    Raise Untrusted(ReleaseMismatch) when the version, the root hash or the Kubernetes version differs, or when the
    document lets older versions update than the builder's floor does.
    """
    floor = manifest.floor
    # Documents write `v1.34.2`, as Kubernetes does; the manifest has the bare version.
    kubernetes = release.kubernetes.removeprefix("v") if release.kubernetes is not None else None
    for what, built, approved, same in (
        ("version", manifest.version, release.version, str(manifest.version) == str(release.version)),
        # The planner recognises a release by this hash: with another one it would never see it arrive.
        ("root hash", manifest.root_hash, release.root_hash, manifest.root_hash == release.root_hash),
        ("Kubernetes version", manifest.kubernetes, kubernetes, manifest.kubernetes == kubernetes),
        ("floor", floor, release.floor, floor is None or (release.floor is not None and release.floor >= floor)),
    ):
        if not same:
            raise Untrusted(
                Reason.RELEASE_MISMATCH,
                f"the manifest's {what} is {_brief(built)}, releases/{release.version}.yaml says {_brief(approved)}",
                subject=str(release.version),
                hint=f"correct releases/{release.version}.yaml, or build the release again",
            )


def _brief(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 20 else f"{text[:16]}..."
