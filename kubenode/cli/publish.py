"""The command publish: a release into a store, its document into the fleet repo; or the fleet repo itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import commit_signed, repository, signing_key, uncommitted, write_file
from kubenode.cli.options import Branch, FleetFolder
from kubenode.cli.output import say
from kubenode.cli.release import sha256_of
from kubenode.cli.stamp import Anchor, Expires, Keys, publish_fleet_repo
from kubenode.errors import UsageError

if TYPE_CHECKING:
    from kubenode.trust.manifest import Manifest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(publish)


def publish(
    store: Annotated[Path, typer.Option(help="Folder of the store, served by any HTTP server.")],
    release: Annotated[Path | None, typer.Argument(help="Release folder, for example out/2026.11.2.")] = None,
    fleet: FleetFolder = Path(),
    commit: Annotated[bool, typer.Option("--commit", help="Commit the release's document, signed.")] = False,
    whole_fleet: Annotated[
        bool, typer.Option("--fleet", help="Publish the fleet repo itself, as head.json and git bundles.")
    ] = False,
    key: Keys = None,
    anchor: Anchor = None,
    branch: Branch = "main",
    expires: Expires = None,
) -> None:
    """Put a release into a store and its document (digest and root hash) into the fleet repo; or the repo itself.

    Example: kubenode publish out/2026.11.2 --store /srv/images -C homelab --commit

    Example: kubenode publish --fleet --store /srv/fleet -C homelab --key stamp.key
    """
    if whole_fleet:
        if release is not None or commit:
            raise UsageError("--fleet publishes the fleet repo, without a release", hint="Call it once for each.")
        publish_fleet_repo(fleet, store, branch, anchor, tuple(key or ()), expires)
        return
    if key or anchor or expires:
        raise UsageError("--key, --anchor and --expires are for --fleet", hint="A release is signed when it is built.")
    if release is None:
        raise UsageError("no release is named", hint="Name its folder, or publish the fleet repo itself with --fleet.")
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
    digest = sha256_of(release / MANIFEST_NAME)
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
