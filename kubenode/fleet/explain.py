"""Turns violations of a schema into problems that people understand, one for each mistake."""

from collections.abc import Iterator
from typing import Any

from kubenode.errors import Location
from kubenode.fleet import schemas
from kubenode.fleet.layout import Kind
from kubenode.fleet.problems import Problem, did_you_mean, nearest, problem
from kubenode.fleet.schemas import Violation
from kubenode.trust.strictyaml import Document

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_UNKNOWN = "additionalProperties"
_LIMITS = {
    "minimum": "the least is",
    "maximum": "the most is",
    "minItems": "the least number of items is",
    "maxItems": "the greatest number of items is",
    "minProperties": "the least number of entries is",
}


def explain(kind: Kind, document: Document) -> list[Problem]:
    """Return one problem per mistake that the schema of `kind` finds in a document."""
    found = schemas.violations(kind, document.value)
    unknown = {broken.at: _unknown(broken) for broken in found if broken.keyword == _UNKNOWN}
    problems: list[Problem] = []
    for broken in found:
        if broken.keyword == _UNKNOWN:
            problems.extend(_unknown_fields(kind, document, broken))
        elif broken.keyword in ("required", "anyOf"):
            problems.extend(_missing_fields(document, broken, unknown.get(broken.at, [])))
        else:
            problems.append(_wrong_value(document, broken))
    return problems


def label(at: tuple[str | int, ...]) -> str:
    """Return a path into a document as people write it: spec.rollout.waves[1]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".") or "the document"


def _unknown(broken: Violation) -> list[str]:
    known = broken.schema.get("properties", {})
    return [key for key in broken.value if key not in known]


def _unknown_fields(kind: Kind, document: Document, broken: Violation) -> Iterator[Problem]:
    known = sorted(broken.schema.get("properties", {}))
    for key in _unknown(broken):
        elsewhere = _homes(kind).get(key, [])
        hint = did_you_mean(key, known)
        if elsewhere and not hint:
            hint = f"This field belongs in {elsewhere[0]}."
        yield problem(
            document.locate_key(*broken.at, key),
            "unknown-field",
            f"{label(broken.at)} has no field {key[:80]!r}",
            hint or f"Fields here: {', '.join(known)}.",
        )


def _homes(kind: Kind) -> dict[str, list[str]]:
    """Return where in the schema each field name may stand."""
    homes: dict[str, list[str]] = {}

    def walk(part: dict[str, Any], at: str) -> None:
        part = schemas.resolve(kind, part)
        for name, child in part.get("properties", {}).items():
            homes.setdefault(name, []).append(at or "the document")
            walk(child, f"{at}.{name}".removeprefix("."))
        for nested in (part.get("items"), part.get("additionalProperties")):
            if isinstance(nested, dict):
                walk(nested, f"{at}[]")

    walk(schemas.schema(kind), "")
    return homes


def _missing_fields(document: Document, broken: Violation, unknown: list[str]) -> Iterator[Problem]:
    if broken.keyword == "required":
        missing = [broken.message.split("'")[1]]
        text = f"{label(broken.at)} needs the field {missing[0]!r}"
    else:
        missing = [name for branch in broken.expected for name in branch["required"]]
        text = f"{label(broken.at)} needs one of the fields {' and '.join(repr(name) for name in missing)}"
    if any(nearest(key, missing) for key in unknown):
        return  # The unknown field is the missing one, misspelled: one mistake, one problem.
    properties = broken.schema.get("properties", {})
    described = properties.get(missing[0], {}).get("description", "") if len(missing) == 1 else ""
    yield problem(document.locate(*broken.at), "missing-field", text, described)


def _wrong_value(document: Document, broken: Violation) -> Problem:
    name, value = label(broken.at), broken.value
    # The place of an empty value is wherever the next one begins.
    where = document.locate(*broken.at) if value is not None else document.locate_key(*broken.at)
    if broken.in_key:
        where, name = document.locate_key(*broken.at, str(value)), f"a key of {name}"
    match broken.keyword:
        case "type":
            return _wrong_type(where, name, broken)
        case "enum":
            allowed = [str(one) for one in broken.expected]
            message = f"{name} is {_short(value)}; allowed: {', '.join(allowed)}"
            return problem(where, "not-allowed", message, did_you_mean(str(value), allowed))
        case "uniqueItems":
            index = next(index for index, item in enumerate(value) if item in value[:index])
            where = document.locate(*broken.at, index)
            return problem(where, "duplicate-item", f"{name} lists {_short(value[index])} twice", "Remove one of them.")
        case "minItems" | "minProperties" if not value:
            return problem(where, "out-of-range", f"{name} is empty", str(broken.schema.get("description", "")))
        case limit if limit in _LIMITS:
            size = len(value) if isinstance(value, list | dict) else value
            return problem(where, "out-of-range", f"{name} is {size}; {_LIMITS[limit]} {broken.expected}")
    title = _small(str(broken.schema.get("title", "value")))
    message = f"{name} is {_short(value)}, which is not a valid {title}"
    return problem(where, "bad-value", message, _example(broken.schema))


def _wrong_type(where: Location, name: str, broken: Violation) -> Problem:
    types = broken.expected if isinstance(broken.expected, list) else [broken.expected]
    wanted = " or ".join(_TYPES[one] for one in types)
    value = broken.value
    hint = _example(broken.schema)
    if "string" in types and isinstance(value, int | float):
        hint = "Put it in quotes: YAML reads it as a number or as true or false."
    elif isinstance(value, str) and "array" in types:
        hint = "Write a list: [a, b], or one item per line after a dash."
    instead = "but it is empty" if value is None else f"not {_describe(value)}"
    return problem(where, "wrong-type", f"{name} must be {wanted}, {instead}", hint)


def _describe(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
    return f"the text {_short(value)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:76] + "...'"


def _small(title: str) -> str:
    """Return a title for the middle of a sentence: acronyms keep their capitals."""
    return title[0].lower() + title[1:] if title[1:2].islower() else title


def _example(part: dict[str, Any]) -> str:
    examples = [str(one) for one in part.get("examples", []) if isinstance(one, str | int)]
    shown = f"For example: {', '.join(examples)}. " if examples else ""
    return (shown + str(part.get("description", ""))).strip()
