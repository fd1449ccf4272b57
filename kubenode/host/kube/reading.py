"""Reads fields out of JSON objects that a server sent: what has another type than promised is `Malformed`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kubenode.host.kube.errors import Malformed

Object = dict[str, Any]
"""A JSON object as the API sends it."""


def find(value: Any, *keys: str) -> Any:
    """Return what stands below `keys`, or None when any of them is missing. Raises Malformed for other containers."""
    for key in keys:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise Malformed(f"{key!r} was expected in an object, the server sent {_kind(value)}")
        value = value.get(key)
    return value


def text(value: Any, *keys: str, default: str | None = None) -> str:
    """Return a string field; `default` when it is missing, without one it must be there. Raises Malformed."""
    found = find(value, *keys)
    if found is None and default is not None:
        return default
    if not isinstance(found, str):
        raise Malformed(f"{'.'.join(keys)} should be text, the server sent {_kind(found)}")
    return found


def flag(value: Any, *keys: str) -> bool:
    """Return a boolean field, False when it is missing. Raises Malformed."""
    found = find(value, *keys)
    if found is not None and not isinstance(found, bool):
        raise Malformed(f"{'.'.join(keys)} should be true or false, the server sent {_kind(found)}")
    return bool(found)


def items(value: Any, *keys: str) -> list[Any]:
    """Return a list field, empty when it is missing. Raises Malformed."""
    found = find(value, *keys)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Malformed(f"{'.'.join(keys)} should be a list, the server sent {_kind(found)}")
    return found


def texts(value: Any, *keys: str) -> dict[str, str]:
    """Return an object of strings (labels, annotations), empty when it is missing. Raises Malformed."""
    found = find(value, *keys)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(it, str) for it in found.values()):
        raise Malformed(f"{'.'.join(keys)} should be an object of texts, the server sent {_kind(found)}")
    return found


def moment(value: Any, *keys: str) -> datetime | None:
    """Return a time field in UTC, None when it is missing (RFC 3339, as `Time` and `MicroTime` are written)."""
    found = text(value, *keys, default="")
    if not found:
        return None
    try:
        at = datetime.fromisoformat(found)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{'.'.join(keys)} should be a time, the server sent {found[:40]!r}") from error


def name_of(value: Any) -> str:
    """Return an object's name. Raises Malformed for one that no API server would let pass."""
    found = text(value, "metadata", "name")
    if not found.isprintable():
        raise Malformed(f"metadata.name should be a name, the server sent {shown(found, 40)!r}")
    return found


def stamp(at: datetime) -> str:
    """Return a time as `MicroTime` wants it (leases use it)."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def shown(value: object, size: int = 300) -> str:
    """Return what a server said for a message: one line, short, printable."""
    line = " ".join(str(value).split())[:size]
    return "".join(it if " " <= it <= "~" else it.encode("unicode_escape").decode("ascii") for it in line)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {shown(value, 40)!r}"
