"""All generated pages together."""

from collections.abc import Mapping
from pathlib import Path

from docs.generate import errors, fleet_format, man, reference
from docs.generate.commands import commands

DOCS = Path(__file__).parents[1]
OWNED = ("reference", "man")
"""Folders in which nothing is written by hand."""


def pages() -> Mapping[str, str]:
    """Return the text of every generated page by its path below docs/."""
    known = commands()
    return {
        "errors.md": errors.page(),
        "fleet-format.md": fleet_format.page(),
        "reference/README.md": reference.index(known),
        **{f"reference/{it.slug}.md": reference.page(it) for it in known if it.words},
        **{f"man/{it.man_name}.1": man.page(it, known) for it in known},
    }
