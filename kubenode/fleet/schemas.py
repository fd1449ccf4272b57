"""The JSON Schemas of the documents: package data in an installed kubenode, `schemas/` in a checkout.

The only place in `fleet` that reads a file. jsonschema is imported when the first schema is used, never on a node.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from kubenode.fleet.layout import Kind

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

FILES = {
    Kind.FLEET: "fleet.json",
    Kind.TRUST_POLICY: "trust-policy.json",
    Kind.CHANNEL: "channel.json",
    Kind.RELEASE: "release.json",
    Kind.IMAGE: "image.json",
    Kind.POOL: "pool.json",
    Kind.NODE: "node.json",
    Kind.SEALED_SECRET: "sealed-secret.json",
}


@dataclass(frozen=True)
class Violation:
    """One violation of a schema: where, by which keyword, what the keyword asked for and what is there instead.

    `schema` is the part of the schema with the keyword; with `in_key` the value is the name of a key at `at`.
    """

    at: tuple[str | int, ...]
    keyword: str
    expected: Any
    value: Any
    schema: dict[str, Any]
    in_key: bool
    message: str


def schema_bytes(kind: Kind) -> bytes:
    """Return the schema file of a kind as it is shipped."""
    return _folder().joinpath(FILES[kind]).read_bytes()


@cache
def schema(kind: Kind) -> dict[str, Any]:
    """Return the schema of a kind; shared, do not change it."""
    loaded: dict[str, Any] = json.loads(schema_bytes(kind))
    return loaded


def violations(kind: Kind, value: object) -> list[Violation]:
    """Return every violation of the kind's schema."""
    return [
        Violation(
            at=tuple(error.absolute_path),
            keyword=str(error.validator),
            expected=error.validator_value,
            value=error.instance,
            schema=error.schema if isinstance(error.schema, dict) else {},
            in_key="propertyNames" in error.absolute_schema_path,
            message=error.message,
        )
        for error in _validator(kind).iter_errors(value)
    ]


def resolve(kind: Kind, part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a schema with its local `$ref` filled in; what stands beside the reference wins."""
    reference = part.get("$ref", "")
    if not reference:
        return part
    target: dict[str, Any] = schema(kind)["$defs"][reference.removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in part.items() if key != "$ref"}}


def _folder() -> Traversable:
    package = files("kubenode")
    installed = package.joinpath("_data", "schemas")
    return installed if installed.is_dir() else package.joinpath("..", "schemas")


@cache
def _validator(kind: Kind) -> "Draft202012Validator":
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # JSON Schema's `$` means the end of the text; in Python's re it also matches before a last line break.
    whole = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]
    validator: Draft202012Validator = whole(schema(kind))
    return validator


def _pattern(
    _validator: "Draft202012Validator", pattern: str, instance: object, _schema: object
) -> "Iterator[ValidationError]":
    if isinstance(instance, str) and not _compiled(pattern).fullmatch(instance):
        from jsonschema import ValidationError

        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.removeprefix("^").removesuffix("$"))
