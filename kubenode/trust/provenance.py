"""How a release says it was built (SLSA provenance v1), and the checks of it against what is known.

Specification: https://slsa.dev/spec/v1.0/provenance, and for what to compare https://slsa.dev/spec/v1.0/verifying-
artifacts. What is checked where, and what is not, is a table in docs/sigstore.md.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubenode.errors import Untrusted
from kubenode.trust.manifestfields import COMMIT, SHA256, field, invalid, mapping, matching, text
from kubenode.trust.reasons import Reason
from kubenode.trust.strictjson import short

BUILD_TYPE = "https://kubenode.dev/image/v1"
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,500}")


@dataclass(frozen=True)
class Provenance:
    """How a release was built.

    `recipe_sha256` and `lock_sha256` are 64 hex digits, `fleet_commit` a git commit id (40 or 64 hex digits),
    `builder_id` and `invocation_id` URIs or names for people and auditors; `started_on` is aware.
    """

    recipe_sha256: str
    lock_sha256: str
    fleet_commit: str
    builder_id: str
    invocation_id: str
    started_on: datetime


def read_provenance(definition: dict[str, Any], predicate: dict[str, Any]) -> Provenance:
    """Read a provenance from its decoded buildDefinition and predicate. Raise Untrusted(ProvenanceInvalid)."""
    try:
        return _read(definition, predicate)
    except Untrusted as refusal:
        raise Untrusted(Reason.PROVENANCE_INVALID, refusal.message, hint=_HINT) from None


_HINT = "a release is built by `kubenode build`, which writes its provenance"


def _read(definition: dict[str, Any], predicate: dict[str, Any]) -> Provenance:
    if text(definition, "buildType") != BUILD_TYPE:
        raise invalid(f"the manifest's buildType must be {BUILD_TYPE}, it is {short(definition['buildType'])}")
    dependencies: dict[str, dict[str, Any]] = {}
    for entry in field(definition, "resolvedDependencies", list):
        name = mapping(entry, "dependency").get("name")
        if not isinstance(name, str):
            continue
        if name in dependencies:
            raise invalid(f"the manifest's resolvedDependencies name {short(name)} twice")
        dependencies[name] = mapping(field(entry, "digest", dict), "digest")
    for name in ("recipe", "lock", "fleet"):
        if name not in dependencies:
            raise invalid(f"the manifest's resolvedDependencies lack {name}")
    details = mapping(field(predicate, "runDetails", dict), "runDetails")
    metadata = mapping(field(details, "metadata", dict), "metadata")
    try:
        started = datetime.fromisoformat(text(metadata, "startedOn"))
    except ValueError:
        started = None
    if started is None or started.tzinfo is None:
        raise invalid("the manifest's startedOn is not a time with a zone (RFC 3339)")
    return Provenance(
        recipe_sha256=matching(dependencies["recipe"], "sha256", SHA256),
        lock_sha256=matching(dependencies["lock"], "sha256", SHA256),
        fleet_commit=matching(dependencies["fleet"], "gitCommit", COMMIT),
        builder_id=matching(mapping(field(details, "builder", dict), "builder"), "id", _URI),
        invocation_id=text(metadata, "invocationId"),
        started_on=started,
    )


@dataclass(frozen=True)
class Source:
    """What a clone of the fleet repo says about the commit that a release names as its source.

    `on_chain`: the commit is the head or a first-parent ancestor of it. `recipe`: the recipe's bytes in the commit.
    """

    on_chain: bool
    recipe: bytes | None


def check_source(provenance: Provenance, image: str, source: Source) -> None:
    """Check that a release was built from the fleet's own history, by the recipe that is there.

    Raise Untrusted(ProvenanceMismatch).
    """
    commit = provenance.fleet_commit[:12]
    if not source.on_chain:
        raise Untrusted(
            Reason.PROVENANCE_MISMATCH,
            f"the release was built from commit {commit}, which is not on the first-parent history of the fleet repo",
            subject=provenance.fleet_commit,
            hint="build from the branch that nodes follow, after the merge",
        )
    path = f"images/{image}.yaml"
    if source.recipe is None:
        raise Untrusted(
            Reason.PROVENANCE_MISMATCH,
            f"the release was built as {image} from commit {commit}, which has no {path}",
            subject=provenance.fleet_commit,
            hint="build the release again from a commit of this fleet repo",
        )
    digest = hashlib.sha256(source.recipe).hexdigest()
    if digest != provenance.recipe_sha256:
        raise Untrusted(
            Reason.PROVENANCE_MISMATCH,
            f"the release was built by a recipe with the sha256 {provenance.recipe_sha256[:16]}..., but {path} in "
            f"commit {commit} is {digest[:16]}...",
            subject=provenance.fleet_commit,
            hint="the builder used another recipe than the one that was reviewed: build again from a clean clone",
        )
