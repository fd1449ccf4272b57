"""The command build: a release from a committed recipe, signed."""

import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode import __version__
from kubenode.cli.clone import git, repository, uncommitted
from kubenode.cli.complete import names
from kubenode.cli.options import FleetFolder
from kubenode.cli.output import say
from kubenode.cli.release import policy_in, sha256_of
from kubenode.errors import HostError, Untrusted, UsageError
from kubenode.fleet.layout import Kind

if TYPE_CHECKING:
    from kubenode.image.sign import LocalSigner, ServiceSigner
    from kubenode.model.version import Version
    from kubenode.ports import Clock
    from kubenode.trust.policy import Builder, TrustPolicy

SCHEMAS = ("kubenode.dev/v1alpha1",)
"""The document apiVersions that the agent of this version reads."""
LOCAL_BUILDER = "https://kubenode.dev/builder/local"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(build)


def build(
    image: Annotated[
        str, typer.Argument(help="Recipe in images/, for example node.", autocompletion=names(Kind.IMAGE))
    ],
    version: Annotated[str, typer.Option(help="Version of the release, for example 2026.11.2.")],
    sigstore: Annotated[
        str,
        typer.Option(
            metavar="DIR|FILE|public",
            help="Who signs: the folder of a local Sigstore instance, the client trust config of a private one, or "
            "`public` for the public instance.",
        ),
    ],
    fleet: FleetFolder = Path(),
    output: Annotated[Path, typer.Option("--output", help="Folder for releases.")] = Path("out"),
    identity: Annotated[
        str | None, typer.Option(help="Who builds, for a local instance; the policy's builder if not given.")
    ] = None,
    identity_token: Annotated[
        Path | None, typer.Option(help="File with the OIDC token for a Sigstore service; otherwise the CI system's.")
    ] = None,
) -> None:
    """Build a release from the committed recipe and sign its manifest.

    Example: kubenode build node --version 2026.11.2 -C homelab --sigstore homelab.sigstore
    """
    from kubenode.fleet.load import load_fleet
    from kubenode.host.clock import SystemClock
    from kubenode.host.package import agent_source
    from kubenode.host.tree import read_folder
    from kubenode.image.build import BuildRequest
    from kubenode.image.build import build as build_image
    from kubenode.model.version import Version
    from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, Artifact, Manifest, encode, parse
    from kubenode.trust.provenance import Provenance

    repository(fleet)
    try:
        wanted = Version(version)
    except ValueError as error:
        raise UsageError(
            str(error), hint="For example --version 2026.11.2: two to four dotted numbers without leading zeros."
        ) from error
    changed = uncommitted(fleet)
    if changed:
        raise UsageError(
            f"{fleet} has changes that are not committed: {changed}",
            hint="Commit them first: a release names the commit that it was built from.",
        )
    files = read_folder(fleet).files
    recipes = load_fleet(files).images
    if image not in recipes:
        known = ", ".join(sorted(recipes)) or "none"
        raise UsageError(f"{fleet} has no recipe images/{image}.yaml", hint=f"Known recipes: {known}.")
    recipe = recipes[image]
    policy = policy_in(files)
    clock = SystemClock()
    signer = _signer(sigstore, identity, identity_token, policy, clock)
    signer.check()
    release = output / version
    commit, when = git(fleet, "log", "-1", "--format=%H %ct").text.split()
    statement = _unsigned(release, image, commit)
    if statement is None:
        started = clock.now()
        folder = build_image(
            BuildRequest(
                recipe=recipe,
                version=version,
                output=output.resolve(),
                agent_source=agent_source(),
                source_date_epoch=int(when),
                progress=say,
                overlay=(fleet / recipe.overlay).resolve() if recipe.overlay else None,
            )
        )
        artifacts = tuple(
            Artifact(it.path.name, it.role, sha256_of(it.path), it.path.stat().st_size) for it in folder.artifacts
        )
        manifest = Manifest(
            image=image,
            version=wanted,
            kubernetes=recipe.kubernetes.version.removeprefix("v") if recipe.kubernetes else None,
            floor=None,
            schemas=SCHEMAS,
            root_hash=folder.root_hash,
            artifacts=artifacts,
        )
        packages = next(it.sha256 for it in artifacts if it.role == "packages")
        statement = encode(
            manifest,
            Provenance(
                recipe_sha256=hashlib.sha256(files[f"images/{image}.yaml"]).hexdigest(),
                lock_sha256=packages,
                fleet_commit=commit,
                builder_id=f"{LOCAL_BUILDER}@{__version__}",
                invocation_id=str(uuid.uuid4()),
                started_on=started,
            ),
        )
        (release / MANIFEST_NAME).write_bytes(statement)
    bundle = signer.sign(statement)
    (release / BUNDLE_NAME).write_bytes(bundle)
    builder = _accepted(statement, bundle, files, policy, wanted)
    size = sum(it.size for it in parse(statement).artifacts if it.role in ("root", "verity", "uki"))
    say(f"Built {image} {version} in {release}, signed by {builder.identity}: an update is {size / 1e6:.0f} MB.")


def _unsigned(release: Path, image: str, commit: str) -> bytes | None:
    """Return the manifest of a release that was built before and then not signed, None when there is none.

    Raises UsageError when it was built from something else, HostError when its artifacts changed since.
    """
    from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, parse_statement

    if not (release / MANIFEST_NAME).is_file() or (release / BUNDLE_NAME).exists():
        return None
    statement = (release / MANIFEST_NAME).read_bytes()
    manifest, provenance = parse_statement(statement)
    if (manifest.image, provenance.fleet_commit) != (image, commit):
        raise UsageError(
            f"{release} was built as {manifest.image} from commit {provenance.fleet_commit[:12]} and never signed",
            hint="Remove it, or choose another version: a version is one image from one commit.",
        )
    for artifact in manifest.artifacts:
        path = release / artifact.name
        if not path.is_file() or sha256_of(path) != artifact.sha256:
            raise HostError(f"{path} changed since it was built", hint=f"remove {release} and build it again")
    say(f"{release} is built and not signed yet: signing what is there.")
    return statement


def _signer(
    sigstore: str, identity: str | None, token: Path | None, policy: "TrustPolicy", clock: "Clock"
) -> "LocalSigner | ServiceSigner":
    """Return who signs. Raises UsageError when the options do not fit together or name nothing."""
    from kubenode.image import sigstore_local
    from kubenode.image.sign import LocalSigner, ServiceSigner

    place = Path(sigstore)
    if place.is_dir():
        if token is not None:
            raise UsageError(
                f"{sigstore} is a local Sigstore instance, which asks nobody for a token",
                hint="Leave out --identity-token, or name the client trust config of a service with --sigstore.",
            )
        return LocalSigner(place, identity or _builder(policy, sigstore_local.load(place).issuer), clock)
    if not place.is_file() and sigstore != "public":
        raise UsageError(
            f"there is no {sigstore} to sign with",
            hint="Name the folder of a local Sigstore instance (kubenode trust local-sigstore DIR), the client trust "
            "config of a private one, or `public`.",
        )
    if identity is not None:
        raise UsageError(
            "a Sigstore service decides itself who signed, from the identity token", hint="Leave out --identity."
        )
    return ServiceSigner(place if place.is_file() else None, token)


def _accepted(
    statement: bytes, bundle: bytes, files: dict[str, bytes], policy: "TrustPolicy", version: "Version"
) -> "Builder":
    """Return who signed, as a node would see it. Raises Untrusted when no channel would accept the release."""
    from kubenode.fleet.layout import TRUSTED_ROOT_PATH
    from kubenode.trust.bundle import verify_release

    try:
        return verify_release(
            statement,
            bundle,
            expected_manifest_sha256=hashlib.sha256(statement).hexdigest(),
            trusted_root_json=files.get(TRUSTED_ROOT_PATH, b""),
            builders=sorted({it for builders in policy.builders.values() for it in builders}, key=str),
            version=version,
        ).builder
    except Untrusted as refusal:
        refusal.message = f"the release is built and signed, but no node would accept it: {refusal.message}"
        raise


def _builder(policy: "TrustPolicy", issuer: str) -> str:
    """Return the only identity that the policy accepts from this issuer. Raises UsageError when it is not one."""
    found = sorted({it.identity for builders in policy.builders.values() for it in builders if it.issuer == issuer})
    if len(found) != 1:
        raise UsageError(
            f"trust/policy.yaml names {len(found)} builders of {issuer}", hint="Say who builds with --identity."
        )
    return found[0]
