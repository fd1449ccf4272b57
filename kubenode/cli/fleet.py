"""Commands for the fleet repo: new, validate, promote."""

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.clone import remember_signer, where
from kubenode.cli.complete import names
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, count, print_json, say, styled
from kubenode.errors import ExitCode, UsageError
from kubenode.fleet.layout import Kind, path_of

DEFAULT_ISSUER = "https://sigstore.kubenode.internal"
"""The issuer that certificates of a new local Sigstore instance name; a name for policies, nothing listens there."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(new)
    app.command()(validate)
    app.command()(promote)


def new(
    directory: Annotated[Path, typer.Argument(help="Folder to create.")],
    store: Annotated[list[str], typer.Option(help="URL where nodes download images; can be repeated.")],
    name: Annotated[str | None, typer.Option(help="Name of the fleet; the folder's name if not given.")] = None,
    key: Annotated[
        Path | None, typer.Option("--signing-key", help="SSH private key that signs commits; made when missing.")
    ] = None,
    sigstore: Annotated[
        Path | None, typer.Option(help="Folder of the local Sigstore instance; made when missing.")
    ] = None,
) -> None:
    """Make a fleet repo: documents, an operator's key, a local Sigstore instance and the first signed commit.

    Example: kubenode new homelab --store https://images.example.net/kubenode
    """
    from kubenode.fleet.new import render_new
    from kubenode.host.clock import SystemClock
    from kubenode.host.keys import ssh_key
    from kubenode.host.package import example_fleet
    from kubenode.image import sigstore_local
    from kubenode.trust.policy import Builder

    target = directory.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{directory} exists and is not an empty folder", hint="Choose a folder that is not there.")
    name = name or target.name
    key = key or target.parent / f"{name}.key"
    sigstore = sigstore or target.parent / f"{name}.sigstore"
    fleet_id = str(uuid.uuid4())

    def render(public_key: str, issuer: str, root: bytes | None) -> Mapping[str, bytes]:
        return render_new(
            example_fleet(),
            name=name,
            fleet_id=fleet_id,
            person="operator",
            ssh_key=public_key,
            stores=tuple(store),
            builder=Builder(issuer, f"builder@{name}.internal"),
            trusted_root=root,
        )

    try:
        # First with stand-ins: a name or a URL that cannot be used must not leave keys behind.
        render(_ANY_KEY, DEFAULT_ISSUER, None)
    except UsageError as error:
        advice = "Name the fleet with --name, its image store with --store."
        raise UsageError(error.message, hint=f"{error.hint} {advice}".strip()) from error
    public_key, made = ssh_key(key, comment=f"operator@{name}")
    say(f"{'Made' if made else 'Using'} the signing key {key}")
    made = not (sigstore / "trusted_root.json").exists()
    if made:
        sigstore_local.create(sigstore, issuer=DEFAULT_ISSUER, now=SystemClock().now())
    say(f"{'Made' if made else 'Using'} the local Sigstore instance {sigstore}")
    root = (sigstore / "trusted_root.json").read_bytes()
    files = render(public_key, sigstore_local.load(sigstore).issuer, root)
    commit = _write_repository(target, files, name, key)
    say(f"Fleet {name} is ready in {directory}; its anchor is {commit}.")


_ANY_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA7T8V0Cz7mYWUNhfxPRWh2Yj7hPBtKhFbg1iC4jTZ0C any"


def _write_repository(target: Path, files: Mapping[str, bytes], name: str, key: Path) -> str:
    """Make the repository with its first commit beside `target`, then put it there whole; return the commit."""
    from kubenode.host.git_commit import commit_all, init_repository

    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)  # What a kill may have left.
    try:
        init_repository(staging)
        for path, content in files.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).write_bytes(content)
        email = f"operator@{name}.internal"
        commit = commit_all(staging, f"Start the fleet {name}", key, "operator", email)
        remember_signer(staging, key, email)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return commit


def validate(
    directory: Annotated[Path, typer.Argument(help="Folder of the fleet repo.")] = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Check every document of a fleet repo; exit code 1 when one is wrong.

    Example: kubenode validate . --output json
    """
    from kubenode.errors import Location
    from kubenode.fleet.problems import Severity, problem
    from kubenode.fleet.validate import validate as find_problems
    from kubenode.host.tree import read_folder

    folder = read_folder(directory)
    problems = list(find_problems(folder.files))
    for path in folder.odd:
        hint = "Replace it by a plain file; nodes refuse links and special files."
        problems.append(problem(Location(path), "not-a-file", "this is not a plain file", hint))
    errors = [it for it in problems if it.severity is Severity.ERROR]
    if output is Format.JSON:
        rows = [
            {
                "path": it.path,
                "line": it.line,
                "column": it.column,
                "rule": it.rule,
                "severity": it.severity.value,
                "message": it.message,
                "hint": it.hint,
            }
            for it in problems
        ]
        print_json("Problems", {"problems": rows})
    else:
        for it in problems:
            colour = typer.colors.RED if it.severity is Severity.ERROR else typer.colors.YELLOW
            typer.echo(f"{styled(str(it.location))}: {styled(it.severity, colour)}: {it.message} [{it.rule}]")
            typer.echo(f"    {it.hint}")
    advice = len(problems) - len(errors)
    extra = f" and {count(advice, 'warning')}" if advice else ""
    if errors:
        say(f"{count(len(errors), 'problem')}{extra} in {directory}.")
        raise typer.Exit(int(ExitCode.FAILURE))
    say(f"{directory} is valid: {count(len(folder.files), 'file')} checked, no problems{extra}.")


def promote(
    version: Annotated[
        str, typer.Argument(help="Release version, for example 2026.11.2.", autocompletion=names(Kind.RELEASE))
    ],
    channel: Annotated[
        str, typer.Argument(help="Channel: stable, beta or nightly.", autocompletion=names(Kind.CHANNEL))
    ],
    fleet: FleetFolder = Path(),
    message: Annotated[str | None, typer.Option("--message", "-m", help="Commit message.")] = None,
) -> None:
    """Make a release the newest of a channel, in a signed commit; comments in the file stay.

    Example: kubenode promote 2026.11.2 stable -C homelab
    """
    from kubenode.cli.edits import commit_document, files_to_change
    from kubenode.fleet.layout import names_of
    from kubenode.fleet.promote import promote as edit

    path, document = path_of(Kind.CHANNEL, channel), path_of(Kind.RELEASE, version)
    files = files_to_change(fleet, path, document)
    channels = names_of(Kind.CHANNEL, files)
    if channel not in channels:
        raise UsageError(
            f"there is no channel {channel} in {fleet}", hint=f"Known channels: {', '.join(channels) or 'none'}."
        )
    if version not in names_of(Kind.RELEASE, files):
        raise UsageError(f"{fleet} has no {document}", hint=f"Publish it first: kubenode publish out/{version} ...")
    new = edit(files[path], version)
    commit = commit_document(fleet, files, path, new, message or f"Promote {version} to {channel}")
    what = f"{version} is now the newest release of {channel} (commit {commit[:12]}, not pushed yet)"
    say(f"{what}; next: kubenode apply{where(fleet)}")
