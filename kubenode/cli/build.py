"""Commands of the builder: build, publish, verify."""

import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode import __version__
from kubenode.cli.clone import commit_signed, git, repository, signing_key, uncommitted, write_file
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, say, show_refusal
from kubenode.errors import TryLater, Untrusted, UsageError

if TYPE_CHECKING:
    from kubenode.model.version import Version
    from kubenode.trust.bundle import VerifiedRelease
    from kubenode.trust.manifest import Manifest
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
    identity = identity or _builder(_policy(files), sigstore_local.load(sigstore).issuer)
    clock = SystemClock()
    started = clock.now()
    commit, when = git(fleet, "log", "-1", "--format=%H %ct").text.split()
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
    from kubenode.image.publish import publish as put
    from kubenode.trust.manifest import MANIFEST_NAME, parse

    if not (release / MANIFEST_NAME).is_file():
        raise UsageError(f"{release} is not a release: it has no {MANIFEST_NAME}", hint="Build one: kubenode build")
    # The fleet repo is looked at first: a store keeps a version for ever.
    if not (fleet / "fleet.yaml").is_file():
        raise UsageError(f"{fleet} is not a fleet repo: it has no fleet.yaml", hint="Name it with -C.")
    if commit:
        repository(fleet)
        signing_key(fleet)
    manifest = parse((release / MANIFEST_NAME).read_bytes())
    digest = _sha256(release / MANIFEST_NAME)
    path = f"releases/{manifest.version}.yaml"
    document = _new_document(fleet / path, manifest, digest)
    created = put(release, store).created
    if document is not None:
        write_file(fleet / path, document)
    done = "not committed"
    if commit and uncommitted(fleet, (path,)):
        done = f"commit {commit_signed(fleet, f'Release {manifest.version}', path)[:12]}, not pushed yet"
    elif commit:
        done = "committed already"
    what = f"Published {manifest.version} to {store}" if created else f"{manifest.version} was in {store} already"
    say(f"{what}, manifest sha256:{digest[:12]}...; {fleet / path}: {done}.")


def _new_document(path: Path, manifest: "Manifest", digest: str) -> bytes | None:
    """Return the release's document, None when it is there already. Raises UsageError when it names other bytes."""
    from kubenode.fleet import decode
    from kubenode.fleet.promote import release_document
    from kubenode.trust.strictyaml import load

    version = str(manifest.version)
    if not path.exists():
        floor = str(manifest.floor) if manifest.floor else None
        # Documents write it as Kubernetes does, the manifest as a bare version.
        kubernetes = f"v{manifest.kubernetes}" if manifest.kubernetes else None
        return release_document(version, digest, manifest.root_hash, kubernetes, floor)
    known = decode.release(load(path.read_bytes(), str(path)), version)
    if (known.manifest, known.root_hash) != (digest, manifest.root_hash):
        raise UsageError(
            f"{path} names another manifest (sha256:{known.manifest[:12]}..., this one is sha256:{digest[:12]}...)",
            hint="A release never changes, nodes may run it already: build again with a new version.",
        )
    return None


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

    say(
        f"Note: digest, builders and trusted root are read from the files in {fleet}, which nothing authenticates here."
    )
    try:
        verified = _verify(release, channel, fleet)
    except Untrusted as refusal:
        subject = refusal.subject or release
        raise show_refusal("ReleaseVerdict", refusal, output, subject=subject, documents=_DOCUMENTS) from refusal
    manifest = verified.manifest
    message = (
        f"{manifest.version} is what {channel} accepts: built by {verified.builder.identity} "
        f"(issuer {verified.builder.issuer}), all {len(manifest.artifacts)} artifacts match."
    )
    if output is Format.JSON:
        result = {"verdict": "trusted", "reason": Reason.TRUSTED.value, "subject": verified.manifest_sha256}
        print_json("ReleaseVerdict", {**result, "documents": _DOCUMENTS, "message": message, "hint": ""})
    say(message)


_DOCUMENTS = "working tree, not authenticated"


def _verify(release: str, channel: str, fleet: Path) -> "VerifiedRelease":
    """Do what a node does with a release (see `agent.execute`), with the documents of a folder."""
    from kubenode.fleet.layout import TRUSTED_ROOT_PATH
    from kubenode.fleet.load import load_fleet
    from kubenode.host.stores import HttpStores
    from kubenode.host.tree import read_folder
    from kubenode.trust.bundle import ArtifactVerifier, verify_release
    from kubenode.trust.reasons import Reason

    store_url, version, folder = _locate(release)
    files = read_folder(fleet).files
    documents = load_fleet(files)
    if channel not in documents.channels:
        known = ", ".join(sorted(documents.channels)) or "none"
        raise UsageError(f"there is no channel {channel} in {fleet}", hint=f"Known channels: {known}.")
    if version not in documents.releases:
        raise UsageError(
            f"{fleet} has no releases/{version}.yaml, so nothing says what {version} must be",
            hint="Publish the release into the fleet repo first, or correct -C.",
        )
    if TRUSTED_ROOT_PATH not in files:
        raise UsageError(
            f"{fleet} has no {TRUSTED_ROOT_PATH}", hint="Copy the trusted root of your Sigstore instance there."
        )
    wanted = documents.releases[version]
    with HttpStores((store_url,)) as store:
        try:
            manifest, bundle = store.manifest(version)
        except TryLater as error:
            raise TryLater(error.message, hint=f"Is {release} the right place?") from error
        verified = verify_release(
            manifest,
            bundle,
            expected_manifest_sha256=wanted.manifest,
            trusted_root_json=files[TRUSTED_ROOT_PATH],
            builders=_policy(files).builders_of(channel),
            version=version,
        )
        if verified.manifest.root_hash != wanted.root_hash:
            raise Untrusted(
                Reason.RELEASE_MISMATCH,
                f"the manifest's root hash is {verified.manifest.root_hash[:16]}..., releases/{version}.yaml says "
                f"{wanted.root_hash[:16]}...",
                subject=str(version),
            )
        for artifact in verified.manifest.artifacts:
            if folder is not None and not (folder / artifact.name).is_file():
                raise Untrusted(
                    Reason.ARTIFACT_SIZE, f"{release} lacks {artifact.name}, which was signed", subject=artifact.name
                )
            check = ArtifactVerifier(artifact)
            for chunk in store.artifact(version, artifact.name, 0):
                check.update(chunk)
            check.finish()
    return verified


def _locate(release: str) -> "tuple[str, Version, Path | None]":
    """Return the store's URL, the version in it, and the release's folder when it is on this machine."""
    from urllib.parse import unquote, urlsplit

    from kubenode.model.version import Version
    from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME
    from kubenode.trust.reasons import Reason

    scheme = urlsplit(release).scheme if "://" in release else "file"
    if scheme not in ("file", "http", "https"):
        raise UsageError(f"{release} is not a folder and not an http://, https:// or file:// URL")
    folder = None
    if scheme == "file":
        folder = Path(unquote(urlsplit(release).path) if "://" in release else release).resolve()
        if not (folder / MANIFEST_NAME).is_file():
            raise UsageError(
                f"{release} is not a release: it has no {MANIFEST_NAME}", hint="Name the folder of one version."
            )
        if not (folder / BUNDLE_NAME).is_file():
            raise Untrusted(
                Reason.BUNDLE_INVALID, f"{release} has no {BUNDLE_NAME}: nobody signed it", subject=folder.name
            )
    store_url, _, last = (folder.as_uri() if folder else release.rstrip("/")).rpartition("/")
    try:
        return store_url, Version(last), folder
    except ValueError as error:
        raise UsageError(
            f"{release} does not end in a release version", hint="A release is kept in a folder named by its version."
        ) from error


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
