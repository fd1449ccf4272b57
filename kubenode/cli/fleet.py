"""Commands for the fleet repo: new, validate, promote."""

import uuid
from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, say
from kubenode.errors import ExitCode, UsageError

DEFAULT_ISSUER = "https://sigstore.kubenode.internal"
"""The issuer that certificates of a new local Sigstore instance name; a name for policies, nothing listens there."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(new)
    app.command()(validate)
    app.command()(promote)


def new(
    directory: Annotated[Path, typer.Argument(help="Folder to create.")],
    name: Annotated[str | None, typer.Option(help="Name of the fleet; the folder's name if not given.")] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="SSH private key that signs commits; made when it does not exist.")
    ] = None,
    sigstore: Annotated[
        Path | None, typer.Option(help="Folder of the local Sigstore instance; made when it does not exist.")
    ] = None,
    store: Annotated[list[str] | None, typer.Option(help="URL of an image store; can be repeated.")] = None,
) -> None:
    """Make a fleet repo: documents, an operator's key, a local Sigstore instance and the first signed commit.

    Example: kubenode new homelab --store https://images.example.net/kubenode
    """
    from kubenode.fleet.new import render_new
    from kubenode.host.clock import SystemClock
    from kubenode.host.git_commit import commit_all, init_repository
    from kubenode.host.keys import ssh_key
    from kubenode.host.package import example_fleet
    from kubenode.image import sigstore_local
    from kubenode.trust.policy import Builder

    name = name or directory.resolve().name
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty", hint="Choose a folder that does not exist yet.")
    beside = directory.resolve().parent
    signing_key = signing_key or beside / f"{name}.key"
    sigstore = sigstore or beside / f"{name}.sigstore"
    public_key, made = ssh_key(signing_key, comment=f"operator@{name}")
    say(f"{'Made' if made else 'Using'} the signing key {signing_key}")
    if not (sigstore / "trusted_root.json").exists():
        sigstore_local.create(sigstore, issuer=DEFAULT_ISSUER, now=SystemClock().now())
        say(f"Made the local Sigstore instance {sigstore}")
    files = render_new(
        example_fleet(),
        name=name,
        fleet_id=str(uuid.uuid4()),
        person="operator",
        ssh_key=public_key,
        stores=tuple(store or ()),
        builder=Builder(sigstore_local.load(sigstore).issuer, f"builder@{name}.internal"),
        trusted_root=(sigstore / "trusted_root.json").read_bytes(),
    )
    init_repository(directory)
    for path, content in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    commit = commit_all(directory, f"Start the fleet {name}", signing_key, "operator", f"operator@{name}.internal")
    remember_signer(directory, signing_key, name)
    say(f"Fleet {name} is ready in {directory}; its anchor is {commit}.")


def remember_signer(directory: Path, signing_key: Path, name: str) -> None:
    """Set up the clone so that plain `git commit` signs with the operator's key too."""
    from kubenode.host.process import run

    settings = {
        "user.name": "operator",
        "user.email": f"operator@{name}.internal",
        "gpg.format": "ssh",
        "user.signingKey": str(signing_key.absolute()),
        "commit.gpgSign": "true",
    }
    for key, value in settings.items():
        run(["git", "-C", directory, "config", key, value], timeout=30)


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
            typer.echo(str(it))
            if it.hint:
                typer.echo(f"    {it.hint}")
    advice = len(problems) - len(errors)
    extra = f" and {_count(advice, 'warning')}" if advice else ""
    if errors:
        say(f"{_count(len(errors), 'problem')}{extra} in {directory}.")
        raise typer.Exit(int(ExitCode.FAILURE))
    say(f"{directory} is valid: {_count(len(folder.files), 'file')} checked, no problems{extra}.")


def promote(
    version: Annotated[str, typer.Argument(help="Release version, for example 2026.11.2.")],
    channel: Annotated[str, typer.Argument(help="Channel: stable, beta or nightly.")],
    fleet: FleetFolder = Path(),
    message: Annotated[str | None, typer.Option("--message", "-m", help="Commit message.")] = None,
) -> None:
    """Make a release the newest of a channel, in a signed commit; comments in the file stay.

    Example: kubenode promote 2026.11.2 stable -C homelab
    """
    from kubenode.fleet.promote import promote as edit

    path = fleet / "channels" / f"{channel}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(it.stem for it in path.parent.glob("*.yaml"))) or "none"
        raise UsageError(f"there is no channel {channel} in {fleet}", hint=f"Known channels: {known}.")
    if not (fleet / "releases" / f"{version}.yaml").is_file():
        raise UsageError(
            f"{fleet} has no releases/{version}.yaml", hint=f"Publish it first: kubenode publish out/{version} ..."
        )
    path.write_bytes(edit(path.read_bytes(), version))
    commit = commit_signed(fleet, message or f"Promote {version} to {channel}", [path])
    say(f"{version} is now the newest release of {channel} (commit {commit[:12]}, not pushed yet).")


def commit_signed(fleet: Path, message: str, paths: list[Path]) -> str:
    """Commit these files in the clone, signed with the clone's own key, and return the commit id.

    Raises UsageError when the clone has no SSH signing key set up.
    """
    from kubenode.host.process import run

    key = run(["git", "-C", fleet, "config", "user.signingKey"], timeout=30, check=False).text.strip()
    if not key:
        raise UsageError(
            f"{fleet} has no signing key set up",
            hint="git config gpg.format ssh && git config user.signingKey ~/.ssh/id_ed25519",
        )
    relative = [path.resolve().relative_to(fleet.resolve()).as_posix() for path in paths]
    run(["git", "-C", fleet, "add", "--", *relative], timeout=60)
    signing = ["-c", "gpg.format=ssh", "commit", "--quiet", "--gpg-sign", "--message", message, "--only", "--"]
    run(["git", "-C", fleet, *signing, *relative], timeout=60)
    return run(["git", "-C", fleet, "rev-parse", "HEAD"], timeout=30).text.strip()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
