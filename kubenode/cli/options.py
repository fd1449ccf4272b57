"""Options that several commands share, and how they find the fleet repo."""

from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.output import Format
from kubenode.errors import UsageError

Output = Annotated[Format, typer.Option("--output", "-o", help="Form of the result on stdout.")]
FleetFolder = Annotated[Path, typer.Option("-C", "--fleet", help="Folder of the fleet repo.", show_default=True)]


def repository(folder: Path) -> Path:
    """Return the git folder of a fleet repo's working clone or bare clone. Raises UsageError when it is neither."""
    for candidate in (folder / ".git", folder):
        if (candidate / "objects").is_dir() and (candidate / "HEAD").is_file():
            return candidate
    raise UsageError(
        f"{folder} is not a git repository", hint="Name the fleet repo with -C, or make one with `kubenode new DIR`."
    )
