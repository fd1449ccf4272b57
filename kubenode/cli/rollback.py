"""The command rollback: a channel back to the release before, in a signed commit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import where
from kubenode.cli.options import Branch, FleetFolder, Push, Remote
from kubenode.cli.output import count, say
from kubenode.errors import UsageError

if TYPE_CHECKING:
    from kubenode.model.version import Version


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rollback)


def rollback(
    channel: Annotated[str, typer.Argument(help="Channel: stable, beta or nightly.")],
    to: Annotated[str | None, typer.Option(help="Release to go back to; the one before if not given.")] = None,
    reason: Annotated[str, typer.Option(help="Why: it stands in the commit.")] = "",
    fleet: FleetFolder = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, whatever stays behind.")] = False,
    push: Push = False,
    remote: Remote = None,
    branch: Branch = "main",
) -> None:
    """Move a channel back to the release before, in a signed commit; it asks when nodes would be left stuck.

    The way back is a change like any other: nodes take it in their order, waves and windows. A node that fails a new
    release falls back by itself; this is for a release that runs and is bad nevertheless.

    Example: kubenode rollback stable -C homelab --reason "time drifts" --push
    """
    from kubenode.cli.applygit import push_head
    from kubenode.cli.edits import commit_document, files_to_change, message_of
    from kubenode.fleet.layout import Kind, names_of, path_of
    from kubenode.fleet.load import load_fleet
    from kubenode.fleet.rollback import barriers, followers, roll_back, strands

    path = path_of(Kind.CHANNEL, channel)
    files = files_to_change(fleet, path)
    channels = names_of(Kind.CHANNEL, files)
    if channel not in channels:
        raise UsageError(
            f"there is no channel {channel} in {fleet}", hint=f"Known channels: {', '.join(channels) or 'none'}."
        )
    new = roll_back(files[path], _version(to))
    documents = load_fleet(files)
    releases = documents.channels[channel].releases
    if new == files[path]:
        pushed = push_head(fleet, remote, branch, None) if push else "nothing is committed"
        say(f"{channel} is at {releases[0]} already; {pushed}.")
        return
    old, back = releases[0], load_fleet({**files, path: new}).channels[channel].releases[0]
    subject = f"Roll {channel} back from {old} to {back}"
    message = message_of(subject, reason) if reason else subject
    pools = {pool.name for pool in followers(documents, channel)}
    nodes = [node.pool for node in documents.nodes.values() if node.pool in pools]
    whose = f"{count(len(nodes), 'node')} of {', '.join(sorted(set(nodes))) or 'no pool'}"
    say(f"{channel}: {old} back to {back}, for {whose}.")
    for barrier in barriers(documents, channel, old, back):
        say(f"  - {barrier}")
    if strands(documents, channel, old, back) and not yes:
        say(f"Better: stop what is under way (kubenode halt), and repair {old} in a newer release with its Kubernetes.")
        typer.confirm("Move it back nevertheless?", abort=True, err=True)
    commit = commit_document(fleet, files, path, new, message)
    pushed = push_head(fleet, remote, branch, commit) if push else f"not pushed yet; next: kubenode apply{where(fleet)}"
    say(f"{'' if push else 'In this clone '}{channel} is back at {back} (commit {commit[:12]}, {pushed}).")


def _version(text: str | None) -> "Version | None":
    from kubenode.model.version import Version

    try:
        return Version(text) if text is not None else None
    except ValueError as error:
        raise UsageError(str(error), hint="Versions are two to four dotted numbers.") from error
