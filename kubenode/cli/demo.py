"""The command demo: the whole story in a virtual machine."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.output import print_table, say
from kubenode.errors import ExitCode, KubenodeError, UsageError

if TYPE_CHECKING:
    from kubenode.host.requirements import Requirement


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(demo)


def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Folder for everything the demo makes; replaced if a demo made it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Install missing system packages without asking.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder afterwards.")] = False,
) -> None:
    """Show the whole story in a virtual machine: a commit updates a node, a bad release falls back by itself.

    Example: kubenode demo --yes
    """
    from kubenode.host import requirements
    from kubenode.image.mkosi_tool import cache_folder
    from kubenode.lab.story import Story

    needed = requirements.missing(requirements.LAPTOP + requirements.BUILDER + requirements.LAB)
    if needed:
        install_missing(needed, yes=yes)
    folder = (directory or cache_folder() / "demo").resolve()
    marker = folder / ".kubenode-demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise UsageError(f"{folder} holds something that no demo made", hint="Choose another folder with --dir.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    story = Story(folder, say)
    try:
        story.run()
    except KubenodeError as error:
        say(f"The story stopped early; everything it made is in {folder}.")
        raise error
    failed = [check for check in story.checks if not check.ok]
    print_table(
        ("Check", "Result", "Seen"),
        [(check.name, "ok" if check.ok else "FAILED", check.seen) for check in story.checks],
    )
    if not keep and not failed:
        shutil.rmtree(folder)
    minutes, seconds = divmod(int(story.elapsed), 60)
    say(f"{len(story.checks) - len(failed)} of {len(story.checks)} checks held after {minutes} min {seconds} s.")
    if failed:
        raise typer.Exit(int(ExitCode.FAILURE))


def install_missing(needed: "tuple[Requirement, ...]", *, yes: bool) -> None:
    """Install system packages, after asking unless `yes`. Raises UsageError when that is refused or did not help."""
    from kubenode.host import requirements

    command = " ".join(requirements.install_command(needed))
    if not yes and not typer.confirm(f"Missing system packages. Run `{command}`?", err=True):
        raise UsageError("system packages are missing", hint=f"Install them with: {command}")
    say(f"$ {command}")
    requirements.install(needed)
    still = requirements.missing(needed)
    if still:
        names = ", ".join(it.package for it in still)
        raise UsageError(f"still missing after the installation: {names}", hint="Is this a Debian system?")
