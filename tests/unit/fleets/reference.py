"""Writes the field tables of docs/fleet.md from the schemas: `python tests/unit/fleets/reference.py` updates them."""

import json
from pathlib import Path
from typing import Any

from kubenode.fleet import schemas
from kubenode.fleet.layout import Kind

DOC = Path(__file__).parents[3] / "docs" / "fleet.md"
BEGIN = "<!-- Written by tests/unit/fleets/reference.py from schemas/. -->\n"
END = "<!-- End of what is written from schemas/. -->\n"


def reference() -> str:
    """Return a heading and a table of fields for every kind of document."""
    parts = []
    for kind in Kind:
        whole = schemas.schema(kind)
        rows = "".join(_rows(kind, whole["properties"]["spec"], "spec"))
        parts.append(f"### {kind}\n\n{whole['description']}\n\n| field | value | meaning |\n|---|---|---|\n{rows}")
    return "\n".join(parts)


def updated(text: str) -> str:
    """Return the text of the doc with fresh tables."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def _rows(kind: Kind, part: dict[str, Any], at: str) -> list[str]:
    rows: list[str] = []
    required = part.get("required", [])
    for name, child in part.get("properties", {}).items():
        resolved = schemas.resolve(kind, child)
        where = f"{at}.{name}"
        default = f" Default: `{_plain(resolved['default'])}`." if resolved.get("default") is not None else ""
        star = " (required)" if name in required else ""
        rows.append(f"| `{where}`{star} | {_value(kind, resolved)} | {resolved['description']}{default} |\n")
        rows.extend(_rows(kind, *_inside(kind, resolved, where)))
    return rows


def _inside(kind: Kind, part: dict[str, Any], at: str) -> tuple[dict[str, Any], str]:
    """Return the mapping inside lists and mappings with free keys, and its path."""
    for key, suffix in (("items", "[]"), ("additionalProperties", ".NAME")):
        if part.get(key):
            return _inside(kind, schemas.resolve(kind, part[key]), at + suffix)
    return part, at


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(kind: Kind, part: dict[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{one}`" for one in part["enum"])
    if part.get("type") == "array":
        return "list of: " + _value(kind, schemas.resolve(kind, part["items"]))
    if part.get("type") == "object":
        return "mapping"
    examples = [one for one in part.get("examples", []) if isinstance(one, str | int)]
    shown = ", ".join(f"`{str(one) if len(str(one)) < 50 else str(one)[:46] + '...'}`" for one in examples[:2])
    if part.get("type") == "boolean":
        return "`true`, `false`"
    if part.get("type") == "integer":
        return shown or "whole number"
    return shown or "text"


if __name__ == "__main__":
    DOC.write_text(updated(DOC.read_text()))
