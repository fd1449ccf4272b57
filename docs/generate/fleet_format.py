"""docs/fleet-format.md: every field of every document of the fleet repo, from schemas/."""

import json
from collections.abc import Iterator
from typing import Any

from docs.generate.markdown import WRITTEN, code, table
from kubenode.fleet import schemas
from kubenode.fleet.layout import Kind

_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping", "null": "null"}
_SHOWN = 50
"""Characters of an example: keys and digests are cut."""


def page() -> str:
    """Return the page."""
    parts = "\n".join(_kind(kind) for kind in Kind)
    return f"""{WRITTEN}

# The format of the fleet repo

Every field of every document, from the schemas in `schemas/`. [The fleet repo](fleet.md) says how documents belong
together; `fleet-example/` is a complete fleet with comments. All documents begin alike:

```yaml
apiVersion: kubenode.dev/v1alpha1
kind: Channel
metadata:
  name: stable        # the file name without .yaml
spec: {{}}              # the fields below
```

A field in **bold** is required (where its mapping is there at all). `[]` is one item of a list, `NAME` a key that you
choose. What is not listed is refused by `kubenode validate`, see [its rules](errors.md#problems-that-validate-finds).

{parts}"""


def _kind(kind: Kind) -> str:
    whole = schemas.schema(kind)
    rows = list(_rows(kind, whole["properties"]["spec"], "spec"))
    return f"## {kind}\n\n{whole['description']}\n\n{table(('field', 'type', 'default', 'example', 'meaning'), rows)}"


def _rows(kind: Kind, part: dict[str, Any], at: str) -> Iterator[tuple[str, ...]]:
    required = part.get("required", [])
    for name, child in part.get("properties", {}).items():
        it = schemas.resolve(kind, child)
        where = f"{at}.{name}"
        shown = f"**{code(where)}**" if name in required else code(where)
        default = code(_plain(it["default"])) if it.get("default") is not None else ""
        yield shown, _type(kind, it), default, _example(kind, it), it["description"]
        yield from _rows(kind, *_inside(kind, it, where))


def _inside(kind: Kind, part: dict[str, Any], at: str) -> tuple[dict[str, Any], str]:
    """Return the mapping inside lists and mappings with free keys, and its path."""
    for key, suffix in (("items", "[]"), ("additionalProperties", ".NAME")):
        if part.get(key):
            return _inside(kind, schemas.resolve(kind, part[key]), at + suffix)
    return part, at


def _type(kind: Kind, part: dict[str, Any]) -> str:
    if "enum" in part:
        return " or ".join(code(_plain(one)) for one in part["enum"])
    types = part["type"] if isinstance(part["type"], list) else [part["type"]]
    if types == ["array"]:
        return "list of " + _type(kind, schemas.resolve(kind, part["items"]))
    if types == ["object"] and part.get("additionalProperties"):
        return "mapping to " + _type(kind, schemas.resolve(kind, part["additionalProperties"]))
    return " or ".join(_TYPES[one] for one in types)


def _example(kind: Kind, part: dict[str, Any]) -> str:
    examples = part.get("examples", [])
    if not examples and part.get("type") == "array":
        return _example(kind, schemas.resolve(kind, part["items"]))
    return code(_short(_plain(examples[0]))) if examples else ""


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
