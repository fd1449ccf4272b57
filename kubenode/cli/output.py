"""How the command speaks: results on stdout, everything else on stderr, one closing sentence."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from kubenode.errors import KubenodeError

if TYPE_CHECKING:
    from rich.console import Console

API_VERSION = "cli.kubenode.dev/v1alpha1"


class Format(StrEnum):
    """Forms of a result on stdout."""

    TABLE = "table"
    JSON = "json"


def print_json(kind: str, result: Mapping[str, Any]) -> None:
    """Print a versioned JSON document on stdout."""
    typer.echo(json.dumps({"apiVersion": API_VERSION, "kind": kind, **result}, indent=2, ensure_ascii=False))


def say(sentence: str) -> None:
    """Print a line of progress or the closing sentence on stderr."""
    typer.echo(sentence, err=True)


def show_error(error: KubenodeError) -> None:
    """Print what went wrong, where, and what to do next, on stderr."""
    head = typer.style("Error:", fg=typer.colors.RED, bold=True)
    typer.echo(f"{head} {error}", err=True)
    if error.hint:
        typer.echo(f"{typer.style('Hint:', bold=True)} {error.hint}", err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout that stays within the terminal; plain text when stdout is not a terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def console() -> "Console":
    """Return a console on stdout: 100 columns wide when stdout is not a terminal, no markup, no highlighting."""
    from rich.console import Console

    probe = Console()
    return Console(width=None if probe.is_terminal else 100, markup=False, highlight=False)
