"""Reading the fields of a decoded manifest; everything here raises Untrusted(ManifestInvalid)."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from kubenode.errors import Untrusted
from kubenode.trust.reasons import Reason
from kubenode.trust.strictjson import short

_T = TypeVar("_T")

SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def invalid(message: str) -> Untrusted:
    """Return the refusal of a manifest with this content."""
    return Untrusted(Reason.MANIFEST_INVALID, message)


def mapping(value: object, what: str) -> dict[str, Any]:
    """Return a JSON object. Raise Untrusted(ManifestInvalid) when it is something else."""
    if not isinstance(value, dict):
        raise invalid(f"the manifest's {what} is not an object")
    return value


def field(mapping: dict[str, Any], key: str, kind: type[_T]) -> _T:
    """Return a field that must be there and of this type."""
    if key not in mapping:
        raise invalid(f"the manifest lacks the field {key}")
    value = mapping[key]
    if not isinstance(value, kind):
        raise invalid(f"the manifest's {key} has the wrong type ({type(value).__name__})")
    return value


def optional(mapping: dict[str, Any], key: str, read: Callable[[], _T]) -> _T | None:
    """Return None for null, else what `read` returns; the field must be there."""
    if key not in mapping:
        raise invalid(f"the manifest lacks the field {key} (null is allowed)")
    return None if mapping[key] is None else read()


def text(mapping: dict[str, Any], key: str) -> str:
    """Return a field that is a string."""
    return field(mapping, key, str)


def match(value: object, key: str, pattern: re.Pattern[str]) -> str:
    """Return a string that matches the whole pattern; `key` names it in messages."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise invalid(f"the manifest's {key} is not acceptable: {short(value)}")
    return value


def matching(mapping: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    """Return a field that is a string and matches the whole pattern."""
    return match(text(mapping, key), key, pattern)
