"""Finds what belongs to the installed kubenode package: its own source, the example fleet."""

from pathlib import Path

import kubenode
from kubenode.errors import HostError

_PACKAGE = Path(kubenode.__file__).resolve().parent


def agent_source() -> Path:
    """Return the folder of the running kubenode package: what an image installs as its agent."""
    return _PACKAGE


def example_fleet() -> dict[str, bytes]:
    """Return the files of fleet-example, from the wheel's data or from the checkout. Raises HostError without it."""
    for folder in (_PACKAGE / "_data" / "fleet-example", _PACKAGE.parent / "fleet-example"):
        if folder.is_dir():
            return {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
    raise HostError("the example fleet is missing from this installation", hint="Install kubenode again.")
