"""How the command speaks: results on stdout, everything else on stderr, one closing sentence."""

import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from textwrap import fill
from typing import Any

import typer

from kubenode.errors import KubenodeError, Untrusted
from kubenode.model.texts import printable

API_VERSION = "cli.kubenode.dev/v1alpha1"
WIDTH_OF_FILES = 100
"""Columns of a table when stdout is not a terminal."""
_INVISIBLE = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff]")


class Format(StrEnum):
    """Forms of a result on stdout."""

    TABLE = "table"
    JSON = "json"


def prepare_streams() -> None:
    """Let no file name and no encoding of the terminal end a command: what cannot be shown is shown escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(kind: str, result: Mapping[str, Any]) -> None:
    """Print a versioned JSON document on stdout."""
    text = json.dumps({"apiVersion": API_VERSION, "kind": kind, **result}, indent=2, ensure_ascii=False)
    # JSON escapes what is below the space only; a terminal also obeys some of these.
    typer.echo(_INVISIBLE.sub(lambda it: f"\\u{ord(it[0]):04x}", text))


def say(sentence: str) -> None:
    """Print a line of progress or the closing sentence on stderr."""
    typer.echo(harmless(sentence), err=True)


def harmless(text: str) -> str:
    """Return text in whose lines nothing is left that a terminal obeys: messages quote nodes, servers and programs."""
    return text if text.isprintable() else "\n".join(printable(it.expandtabs(4)) for it in text.split("\n"))


def count(number: int, noun: str) -> str:
    """Return "1 file", "2 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def conclude(text: str) -> None:
    """Print the closing sentence on stderr; a terminal gets it in lines that break between words."""
    from rich.console import Console

    console = Console(stderr=True)
    say(fill(text, console.width, break_long_words=False, break_on_hyphens=False) if console.is_terminal else text)


def show_error(error: KubenodeError, lines: Sequence[str] = ()) -> None:
    """Print what went wrong, where, and what to do next, on stderr; `lines` say it at more length than one sentence."""
    said = "\n".join(lines) or str(error)
    typer.echo(f"{styled('Error:', typer.colors.RED)} {harmless(said)}", err=True)
    if error.hint:
        typer.echo(f"{styled('Hint:')} {harmless(error.hint)}", err=True)


def show_refusal(
    kind: str, refusal: Untrusted, output: Format, *, details: Sequence[str] = (), **fields: str
) -> typer.Exit:
    """Print the verdict about evidence that was refused, `details` instead of its message; return what to raise."""
    if output is Format.JSON:
        verdict = {"verdict": "refused", "reason": refusal.reason, **fields}
        print_json(kind, {**verdict, "message": refusal.message, "hint": refusal.hint})
    show_error(refusal, details)
    say(f"Refused ({refusal.reason}).")
    return typer.Exit(int(refusal.exit_code))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout that stays within the terminal; plain text when stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(harmless, row))
    probe = Console()
    width = None if probe.is_terminal else WIDTH_OF_FILES
    Console(width=width, markup=False, highlight=False).print(table)


def styled(text: str, colour: str | None = None) -> str:
    """Return text for a terminal; see https://no-color.org for NO_COLOR. What goes to a file is stripped by echo."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=colour, bold=True)
