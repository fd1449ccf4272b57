"""Commands for the halt switch of the fleet: halt and resume, each a signed commit."""

from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.clone import where
from kubenode.cli.options import Branch, FleetFolder, Push, Remote
from kubenode.cli.output import say

WHAT_GOES_ON = """\
Not stopped by this:
  - nodes that are restarting or on trial come up, fall back if they must, and give their leases back
  - control planes between two Kubernetes versions finish, and certificates in their last 14 days are renewed
  - downloads, and writing releases into spare slots"""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(halt)
    app.command()(resume)


def halt(
    reason: Annotated[str, typer.Option(help="Why: it stands in the commit, and others will read it.")],
    fleet: FleetFolder = Path(),
    push: Push = False,
    remote: Remote = None,
    branch: Branch = "main",
) -> None:
    """Stop every node from starting a new change that disturbs: `halted: true` in fleet.yaml, in a signed commit.

    Nodes see it at their next look, within six minutes. What runs, keeps running.

    Example: kubenode halt -C homelab --reason "disks are full" --push
    """
    _switch(fleet, reason, push, remote, branch, halted=True)


def resume(
    reason: Annotated[str, typer.Option(help="Why: it stands in the commit.")] = "The halt is over.",
    fleet: FleetFolder = Path(),
    push: Push = False,
    remote: Remote = None,
    branch: Branch = "main",
) -> None:
    """Let nodes go on after `kubenode halt`, in a signed commit.

    Example: kubenode resume -C homelab --push
    """
    _switch(fleet, reason, push, remote, branch, halted=False)


def _switch(fleet: Path, reason: str, push: bool, remote: str | None, branch: str, *, halted: bool) -> None:
    from kubenode.cli.applygit import push_head
    from kubenode.cli.edits import commit_document, files_to_change, message_of
    from kubenode.fleet.decode import missing
    from kubenode.fleet.halt import set_halted
    from kubenode.fleet.layout import FLEET_PATH

    message = message_of("Halt the fleet" if halted else "Resume the fleet", reason)
    files = files_to_change(fleet, FLEET_PATH)
    if FLEET_PATH not in files:
        raise missing(FLEET_PATH, "A fleet repo has a fleet.yaml at its top: is this the right folder?")
    new = set_halted(files[FLEET_PATH], halted)
    commit = commit_document(fleet, files, FLEET_PATH, new, message) if new != files[FLEET_PATH] else None
    done = f"commit {commit[:12]}" if commit is not None else "it was so already, and nothing is committed"
    later = f"nodes know it once it is pushed: git{where(fleet)} push"
    pushed = push_head(fleet, remote, branch, commit) if push else later
    if halted:
        say(WHAT_GOES_ON)
    state = "halted" if halted else "not halted any more"
    say(f"{'The fleet is' if push else 'In this clone the fleet is'} {state} ({done}; {pushed}).")
