"""The command verify: a release as a node would look at it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, say, show_refusal
from kubenode.cli.release import policy_in
from kubenode.errors import TryLater, Untrusted, UsageError

if TYPE_CHECKING:
    from kubenode.model.version import Version
    from kubenode.trust.bundle import VerifiedRelease


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


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
            builders=policy_in(files).builders_of(channel),
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
