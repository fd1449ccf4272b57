"""Shell completion of names in the fleet repo: from the names of its files, so that it is quick and needs no git.

The fleet repo is that of `-C` when it stands before the word that is completed, else the current folder.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from kubenode.fleet.layout import Kind, path_of
from kubenode.model.documents import Role

Completer = Callable[[typer.Context, str], list[str]]


def names(kind: Kind) -> Completer:
    """Return what completes the name of a document of this kind."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        return [it for it in _names(_fleet(context), kind) if it.startswith(incomplete)]

    return complete


def secret_readers(context: typer.Context, incomplete: str) -> list[str]:
    """Complete who needs a secret: node:NAME, pool:NAME, role:ROLE."""
    fleet = _fleet(context)
    known: dict[str, Iterable[str]] = {
        "node": _names(fleet, Kind.NODE),
        "pool": _names(fleet, Kind.POOL),
        "role": [role.value for role in Role],
    }
    every = [f"{what}:{name}" for what, found in known.items() for name in found]
    return [it for it in every if it.startswith(incomplete)]


def _fleet(context: typer.Context) -> Path:
    return Path(context.params.get("fleet") or ".")


def _names(fleet: Path, kind: Kind) -> list[str]:
    return sorted(path.stem for path in fleet.glob(path_of(kind, "*")) if path.is_file())
