"""Commands of the builder: build, publish, verify."""

import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode import __version__
from kubenode.cli.fleet import commit_signed
from kubenode.cli.options import FleetFolder, Output, repository
from kubenode.cli.output import Format, print_json, say, show_error
from kubenode.errors import Untrusted, UsageError

if TYPE_CHECKING:
    from kubenode.trust.bundle import VerifiedRelease
    from kubenode.trust.policy import TrustPolicy

SCHEMAS = ("kubenode.dev/v1alpha1",)
"""The document apiVersions that the agent of this version reads."""
LOCAL_BUILDER = "https://kubenode.dev/builder/local"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(build)
    app.command()(publish)
    app.command()(verify)


def build(
    image: Annotated[str, typer.Argument(help="Recipe in images/, for example node.")],
    version: Annotated[str, typer.Option(help="Version of the release, for example 2026.11.2.")],
    sigstore: Annotated[Path, typer.Option(help="Folder of the local Sigstore instance that signs.")],
    fleet: FleetFolder = Path(),
    output: Annotated[Path, typer.Option("--output", help="Folder for releases.")] = Path("out"),
    identity: Annotated[str | None, typer.Option(help="Who builds; the policy's builder if not given.")] = None,
) -> None:
    """Build a release from the committed recipe and sign its manifest.

    Example: kubenode build node --version 2026.11.2 -C homelab --sigstore homelab.sigstore
    """
    from kubenode.fleet.load import load_fleet
    from kubenode.host.clock import SystemClock
    from kubenode.host.package import agent_source
    from kubenode.host.process import run
    from kubenode.host.tree import read_folder
    from kubenode.image import sigstore_local
    from kubenode.image.build import BuildRequest
    from kubenode.image.build import build as build_image
    from kubenode.image.sign import LocalSigner
    from kubenode.model.version import Version
    from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, Artifact, Manifest, Provenance, encode

    repository(fleet)
    try:
        wanted = Version(version)
    except ValueError as error:
        raise UsageError(str(error)) from error
    changed = run(["git", "-C", fleet, "status", "--porcelain"], timeout=60).text.strip()
    if changed:
        raise UsageError(
            f"{fleet} has changes that are not committed: {changed.splitlines()[0].strip()}",
            hint="Commit them first: a release names the commit that it was built from.",
        )
    files = read_folder(fleet).files
    recipes = load_fleet(files).images
    if image not in recipes:
        known = ", ".join(sorted(recipes)) or "none"
        raise UsageError(f"{fleet} has no recipe images/{image}.yaml", hint=f"Known recipes: {known}.")
    recipe = recipes[image]
    identity = identity or _builder(_policy(files), sigstore_local.load(sigstore).issuer)
    clock = SystemClock()
    started = clock.now()
    commit, when = run(["git", "-C", fleet, "log", "-1", "--format=%H %ct"], timeout=30).text.split()
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
        Artifact(it.path.name, it.role, _sha256(it.path), it.path.stat().st_size) for it in folder.artifacts
    )
    manifest = Manifest(
        image=image,
        version=wanted,
        kubernetes=None,
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
    release = output / version
    (release / BUNDLE_NAME).write_bytes(LocalSigner(sigstore, identity, clock).sign(statement))
    (release / MANIFEST_NAME).write_bytes(statement)
    size = sum(it.size for it in artifacts if it.role in ("root", "verity", "uki"))
    say(f"Built {image} {version} in {release}, signed by {identity}: an update is {size / 1e6:.0f} MB.")


def publish(
    release: Annotated[Path, typer.Argument(help="Release folder, for example out/2026.11.2.")],
    store: Annotated[Path, typer.Option(help="Folder of the image store, served by any HTTP server.")],
    fleet: FleetFolder = Path(),
    commit: Annotated[bool, typer.Option("--commit", help="Commit the release's document, signed.")] = False,
) -> None:
    """Put a release into a store and its document (digest and root hash) into the fleet repo.

    Example: kubenode publish out/2026.11.2 --store /srv/images -C homelab --commit
    """
    from kubenode.fleet.promote import release_document
    from kubenode.image.publish import publish as put
    from kubenode.trust.manifest import MANIFEST_NAME, parse

    if not (release / MANIFEST_NAME).is_file():
        raise UsageError(f"{release} is not a release: it has no {MANIFEST_NAME}", hint="Build one: kubenode build")
    manifest = parse((release / MANIFEST_NAME).read_bytes())
    put(release, store)
    digest = _sha256(release / MANIFEST_NAME)
    path = fleet / "releases" / f"{manifest.version}.yaml"
    path.parent.mkdir(exist_ok=True)
    document = release_document(
        str(manifest.version),
        digest,
        manifest.root_hash,
        manifest.kubernetes,
        str(manifest.floor) if manifest.floor else None,
    )
    if not path.exists() or path.read_bytes() != document:
        path.write_bytes(document)
    done = "not committed"
    if commit:
        done = f"commit {commit_signed(fleet, f'Release {manifest.version}', [path])[:12]}"
    say(f"Published {manifest.version} to {store} (manifest sha256:{digest[:12]}..., {path}, {done}).")


def verify(
    release: Annotated[str, typer.Argument(help="Release folder, or its URL in a store.")],
    channel: Annotated[str, typer.Option(help="Channel whose builders are accepted.")],
    fleet: FleetFolder = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Check a release as a node would: digest in git, bundle, builder, every artifact; exit code 3 when refused.

    Example: kubenode verify out/2026.11.2 -C homelab --channel stable
    """
    from kubenode.trust.reasons import Reason

    try:
        verified = _verify(release, channel, fleet)
    except Untrusted as refusal:
        if output is Format.JSON:
            verdict = {"verdict": "refused", "reason": refusal.reason, "subject": refusal.subject}
            print_json("ReleaseVerdict", {**verdict, "message": refusal.message, "hint": refusal.hint})
        show_error(refusal)
        say(f"Refused ({refusal.reason}).")
        raise typer.Exit(int(refusal.exit_code)) from refusal
    manifest = verified.manifest
    message = (
        f"{manifest.version} is what {channel} accepts: built by {verified.builder}, "
        f"all {len(manifest.artifacts)} artifacts match."
    )
    if output is Format.JSON:
        result = {"verdict": "trusted", "reason": Reason.TRUSTED.value, "subject": verified.manifest_sha256}
        print_json("ReleaseVerdict", {**result, "message": message, "hint": ""})
    say(message)


def _verify(release: str, channel: str, fleet: Path) -> "VerifiedRelease":
    from kubenode.fleet.load import load_fleet
    from kubenode.host.stores import HttpStores
    from kubenode.host.tree import read_folder
    from kubenode.model.version import Version
    from kubenode.trust.bundle import ArtifactVerifier, verify_release

    base, _, last = (release if "://" in release else Path(release).resolve().as_uri()).rstrip("/").rpartition("/")
    try:
        version = Version(last)
    except ValueError as error:
        raise UsageError(
            f"{release} does not end in a release version", hint="A release is kept in a folder named by its version."
        ) from error
    files = read_folder(fleet).files
    documents = load_fleet(files)
    if version not in documents.releases:
        raise UsageError(
            f"{fleet} has no releases/{version}.yaml, so nothing says what {version} must be",
            hint="Publish the release into the fleet repo first, or correct -C.",
        )
    root_path = "trust/sigstore/trusted_root.json"
    if root_path not in files:
        raise UsageError(f"{fleet} has no {root_path}", hint="Copy the trusted root of your Sigstore instance there.")
    with HttpStores((base,)) as store:
        manifest, bundle = store.manifest(version)
        verified = verify_release(
            manifest,
            bundle,
            expected_manifest_sha256=documents.releases[version].manifest,
            trusted_root_json=files[root_path],
            builders=_policy(files).builders_of(channel),
            version=version,
        )
        for artifact in verified.manifest.artifacts:
            check = ArtifactVerifier(artifact)
            for chunk in store.artifact(version, artifact.name, 0):
                check.update(chunk)
            check.finish()
    return verified


def _policy(files: dict[str, bytes]) -> "TrustPolicy":
    from kubenode.trust.policy import POLICY_PATH
    from kubenode.trust.policyfile import parse_policy

    if POLICY_PATH not in files:
        raise UsageError(f"the fleet repo has no {POLICY_PATH}", hint="Is -C the folder of a fleet repo?")
    return parse_policy(files[POLICY_PATH])


def _builder(policy: "TrustPolicy", issuer: str) -> str:
    """Return the only identity that the policy accepts from this issuer. Raises UsageError when it is not one."""
    found = sorted({it.identity for builders in policy.builders.values() for it in builders if it.issuer == issuer})
    if len(found) != 1:
        raise UsageError(
            f"trust/policy.yaml names {len(found)} builders of {issuer}", hint="Say who builds with --identity."
        )
    return found[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
