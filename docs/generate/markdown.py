"""Small pieces of Markdown."""

from collections.abc import Iterable, Sequence

WRITTEN = "<!-- Written by `python -m docs.generate`; changes by hand are lost. -->"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells may hold any text on one line."""
    head, *body = ("| " + " | ".join(_cell(it) for it in line) + " |\n" for line in (columns, *rows))
    return "".join([head, "|---" * len(columns), "|\n", *body])


def code(text: str) -> str:
    """Return text as code in a line."""
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
