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


def commit_of(fleet: Path, revision: str) -> str:
    """Return the id of the commit that a branch, tag or abbreviated id names. Raises UsageError when none is."""
    from kubenode.host.process import run

    words = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    found = run(["git", "-C", fleet, *words], timeout=30, check=False)
    if found.returncode != 0:
        raise UsageError(f"{fleet} has no revision {revision!r}", hint="Name a branch, a tag or a commit id.")
    return found.text.strip()
