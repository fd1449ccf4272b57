"""Commands that make what the lab needs."""

from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.demo import install_missing
from kubenode.cli.options import Output
from kubenode.cli.output import Format, print_json, print_table, say


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="What the virtual machines of tests need.", no_args_is_help=True)
    group.callback()(_group)
    group.command()(kubernetes)
    app.add_typer(group, name="lab")


def _group() -> None:
    """What the virtual machines of tests need."""


def kubernetes(
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder for everything; the user's cache if not given.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Install missing system packages without asking.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Build a real Kubernetes from Debian's source package: 1.20.2, and the same source stamped as 1.20.3 and 1.21.0.

    Example: kubenode lab kubernetes --yes
    """
    from kubenode.host import requirements
    from kubenode.image.mkosi_tool import cache_folder
    from kubenode.lab.kubernetes.cluster import OLD, VERSIONS, provide

    needed = requirements.missing(requirements.BUILDER + requirements.KUBERNETES)
    if needed:
        install_missing(needed, yes=yes)
    folder = (into or cache_folder() / "kubernetes").resolve()
    made = provide(folder, VERSIONS, say)
    if output is Format.JSON:
        found = [{"version": it.version, "binaries": str(it.binaries), "sha256": it.digests()} for it in made]
        print_json("Kubernetes", {"versions": found})
    else:
        rows = [(it.version, str(it.binaries), ", ".join(path.stem for path in it.archives)) for it in made]
        print_table(("Version", "Binaries", "Images"), rows)
    say(f"Kubernetes {OLD} is in {folder}, and again as {' and '.join(VERSIONS[1:])}.")
