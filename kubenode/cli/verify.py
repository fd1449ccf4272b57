"""The command verify: a release as a node would look at it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import git, repository
from kubenode.cli.complete import names
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, say, show_refusal
from kubenode.cli.release import policy_in
from kubenode.errors import TryLater, Untrusted, UsageError
from kubenode.fleet.layout import Kind

if TYPE_CHECKING:
    from kubenode.model.version import Version
    from kubenode.trust.bundle import VerifiedRelease
    from kubenode.trust.manifest import Manifest
    from kubenode.trust.policy import Builder


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


def verify(
    release: Annotated[str, typer.Argument(help="Release folder, or its URL in a store.")],
    channel: Annotated[
        str, typer.Option(help="Channel whose builders are accepted.", autocompletion=names(Kind.CHANNEL))
    ],
    fleet: FleetFolder = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Check a release as a node would, and where it was built from; exit code 3 when it is refused.

    Example: kubenode verify out/2026.11.2 -C homelab --channel stable
    """
    from kubenode.trust.reasons import Reason

    say(
        f"Note: digest, builders and trusted root are read from the files in {fleet}, which nothing authenticates here."
    )
    checked = _Checked(release, channel)
    try:
        verified = _verify(checked, fleet)
        source = _check_source(checked, fleet)
    except Untrusted as refusal:
        _explain(checked, refusal)
        details = {"documents": _DOCUMENTS, "file": _file(refusal), "signer": checked.signer}
        subject = refusal.subject or release
        raise show_refusal("ReleaseVerdict", refusal, output, subject=subject, **details) from refusal
    manifest = verified.manifest
    message = (
        f"{manifest.version} is what {channel} accepts: built by {verified.builder.identity} "
        f"(issuer {verified.builder.issuer}), all {len(manifest.artifacts)} artifacts match; {source}."
    )
    if output is Format.JSON:
        result = {"verdict": "trusted", "reason": Reason.TRUSTED.value, "subject": verified.manifest_sha256}
        print_json("ReleaseVerdict", {**result, "documents": _DOCUMENTS, "message": message, "hint": ""})
    say(message)


_DOCUMENTS = "working tree, not authenticated"
_COLUMNS = 100


@dataclass
class _Checked:
    """What is known about a release so far, for the explanation of a refusal; `signer` is its own claim."""

    release: str
    channel: str
    manifest: bytes = b""
    signer: str = ""
    accepted: "Sequence[Builder]" = ()


def _explain(checked: _Checked, refusal: Untrusted) -> None:
    """Say which file was refused, who signed it and who could have."""
    facts = [("Release", checked.release), ("File", _file(refusal))]
    if checked.signer:
        accepted = ", ".join(f"{it.identity!r} (by {it.issuer!r})" for it in checked.accepted) or "nobody"
        facts += [
            ("Signed by", f"{checked.signer}, says the bundle"),
            ("Accepted", f"for {checked.channel}: {accepted}"),
        ]
    for name, fact in facts:
        indent = " " * 11
        say(
            textwrap.fill(
                fact, _COLUMNS, initial_indent=f"{name:<11}", subsequent_indent=indent, break_on_hyphens=False
            )
        )


def _file(refusal: Untrusted) -> str:
    """Return the file that a refusal is about."""
    from kubenode.fleet.layout import TRUSTED_ROOT_PATH
    from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME
    from kubenode.trust.reasons import Reason

    if refusal.reason in (Reason.TRUSTED_ROOT_INVALID, Reason.TRUSTED_ROOT_EXPIRED, Reason.TRUSTED_ROOT_NOT_YET_VALID):
        return f"{TRUSTED_ROOT_PATH} of the fleet repo"
    if refusal.reason.startswith("Artifact"):
        return refusal.subject
    of_manifest = ("Manifest", "Provenance", "Subject", "Release", "WrongPredicate", "WrongStatement")
    return MANIFEST_NAME if refusal.reason.startswith(of_manifest) else BUNDLE_NAME


def _verify(checked: _Checked, fleet: Path) -> "VerifiedRelease":
    """Do what a node does with a release (see `agent.execute`), with the documents of a folder."""
    from kubenode.fleet.layout import TRUSTED_ROOT_PATH
    from kubenode.fleet.load import load_fleet
    from kubenode.host.stores import HttpStores
    from kubenode.host.tree import read_folder
    from kubenode.trust.bundle import ArtifactVerifier, claimed_signer, verify_release
    from kubenode.trust.manifest import check_document
    from kubenode.trust.reasons import Reason

    release, channel = checked.release, checked.channel
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
            checked.manifest, bundle = store.manifest(version)
        except TryLater as error:
            raise TryLater(error.message, hint=f"Is {release} the right place?") from error
        checked.signer = claimed_signer(bundle)
        checked.accepted = policy_in(files).builders_of(channel)
        verified = verify_release(
            checked.manifest,
            bundle,
            expected_manifest_sha256=wanted.manifest,
            trusted_root_json=files[TRUSTED_ROOT_PATH],
            builders=checked.accepted,
            version=version,
        )
        check_document(verified.manifest, wanted)
        if folder is not None:
            _check_names(folder, verified.manifest)
        for artifact in verified.manifest.artifacts:
            check = ArtifactVerifier(artifact)
            try:
                for chunk in store.artifact(version, artifact.name, 0):
                    check.update(chunk)
                check.finish()
            except Untrusted as refusal:
                if refusal.reason in (Reason.ARTIFACT_DIGEST, Reason.ARTIFACT_SIZE):
                    refusal.hint = "the manifest is the approved one, this file is not: copy the release again"
                raise
    return verified


def _check_names(folder: Path, manifest: "Manifest") -> None:
    """Refuse a folder that lacks a signed file, or holds one that nobody signed."""
    from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME
    from kubenode.trust.reasons import Reason

    signed = {artifact.name for artifact in manifest.artifacts}
    found = {entry.name for entry in folder.iterdir()}
    for name in sorted(signed - found):
        raise Untrusted(
            Reason.ARTIFACT_MISSING,
            f"{folder} lacks {name}, which was signed",
            subject=name,
            hint="copy the whole release, or build it again",
        )
    for name in sorted(found - signed - {MANIFEST_NAME, BUNDLE_NAME}):
        raise Untrusted(
            Reason.ARTIFACT_EXTRA,
            f"{folder} holds {name}, which is not in the signed manifest",
            subject=name,
            hint="remove the file: no node would ask for it, and nobody vouches for it",
        )


def _check_source(checked: _Checked, fleet: Path) -> str:
    """Check the provenance against the clone's history and return what was found, or why nothing could be.

    Raises Untrusted(ProvenanceMismatch).
    """
    from kubenode.trust.manifest import parse_statement
    from kubenode.trust.provenance import Source, check_source

    manifest, provenance = parse_statement(checked.manifest)
    commit = provenance.fleet_commit
    try:
        objects = repository(fleet)
    except UsageError:
        return f"built from commit {commit[:12]}, not compared because {fleet} is not a git repository"
    known = git(fleet, "cat-file", "-e", f"{commit}^{{commit}}", check=False).returncode == 0
    if not known and (objects / "shallow").exists():
        return f"built from commit {commit[:12]}, not compared because this clone is shallow"
    chain = git(fleet, "rev-list", "--first-parent", "HEAD").text.split()
    recipe = git(fleet, "show", f"{commit}:images/{manifest.image}.yaml", check=False) if known else None
    found = recipe.stdout if recipe is not None and recipe.returncode == 0 else None
    check_source(provenance, manifest.image, Source(commit in chain, found))
    return f"built from commit {commit[:12]} by its recipe images/{manifest.image}.yaml"


def _locate(release: str) -> "tuple[str, Version, Path | None]":
    """Return the store's URL, the version in it, and the release's folder when it is on this machine."""
    from urllib.parse import unquote, urlsplit

    from kubenode.model.version import Version
    from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME
    from kubenode.trust.reasons import Reason

    scheme = urlsplit(release).scheme if "://" in release else "file"
    if scheme not in ("file", "http", "https"):
        raise UsageError(
            f"{release} is not a folder and not an http://, https:// or file:// URL",
            hint="Name the folder that `kubenode build` made (out/VERSION), or STORE/VERSION as a URL.",
        )
    folder = None
    if scheme == "file":
        folder = Path(unquote(urlsplit(release).path) if "://" in release else release).resolve()
        if not (folder / MANIFEST_NAME).is_file():
            raise UsageError(
                f"{release} is not a release: it has no {MANIFEST_NAME}", hint="Name the folder of one version."
            )
        if not (folder / BUNDLE_NAME).is_file():
            raise Untrusted(
                Reason.BUNDLE_MISSING,
                f"{release} has no {BUNDLE_NAME}: nobody signed it",
                subject=folder.name,
                hint="sign it: call `kubenode build` again with the same version",
            )
    store_url, _, last = (folder.as_uri() if folder else release.rstrip("/")).rpartition("/")
    try:
        return store_url, Version(last), folder
    except ValueError as error:
        raise UsageError(
            f"{release} does not end in a release version", hint="A release is kept in a folder named by its version."
        ) from error
