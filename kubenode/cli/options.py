"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.output import Format

Output = Annotated[Format, typer.Option("--output", "-o", help="Form of the result on stdout.")]
FleetFolder = Annotated[Path, typer.Option("-C", "--fleet-dir", help="Folder of the fleet repo.", show_default=True)]
Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", help="How to reach the cluster; else $KUBECONFIG, ~/.kube/config.")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of that file; else its current one.")]
Push = Annotated[bool, typer.Option("--push", help="Push the commit, so that nodes see it.")]
Remote = Annotated[str | None, typer.Option(help="Git remote that nodes read; the branch's own if not given.")]
Branch = Annotated[str, typer.Option(help="Branch that nodes follow.")]


def kubeconfig_of(path: Path | None) -> Path:
    """Return the kubeconfig to use: the given one, the first of $KUBECONFIG, or ~/.kube/config."""
    named = [it for it in os.environ.get("KUBECONFIG", "").split(os.pathsep) if it]
    return path or Path(named[0] if named else Path.home() / ".kube/config")
