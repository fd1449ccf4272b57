"""Turns model values into plain JSON values, one way for status documents, plans and tests."""

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from kubenode.model.kubernetes import KubernetesVersion
from kubenode.model.version import Version

Plain = dict[str, "Plain"] | list["Plain"] | str | int | float | bool | None


def plain(value: object) -> Plain:
    """Return `value` as JSON knows it: keys as in the dataclasses, times in RFC 3339, versions as text, sets sorted."""
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return str(value.value)
        case str():
            return value
        case Version() | KubernetesVersion():
            return value.text
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case frozenset() | set():
            return sorted((plain(item) for item in value), key=str)
        case tuple() | list():
            return [plain(item) for item in value]
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no plain form")


def bare(value: object) -> Plain:
    """Return `plain(value)` of a dataclass without what `kubenode.model.restore` fills in: fields at their defaults."""
    if isinstance(value, tuple | list):
        return [bare(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): bare(item) for key, item in value.items()}
    if isinstance(value, Version | KubernetesVersion) or not dataclasses.is_dataclass(value) or isinstance(value, type):
        return plain(value)
    found = {field.name: (field, getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {name: bare(item) for name, (field, item) in found.items() if not _is_default(field, item)}


def _is_default(field: "dataclasses.Field[Any]", value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def tagged(value: object) -> Plain:
    """Return a decision or an action as plain values with its kind (the name of its class) first."""
    fields = plain(value)
    assert isinstance(fields, dict)
    inner = getattr(value, "action", None)
    if inner is not None:
        fields["action"] = tagged(inner)
    return {"kind": type(value).__name__, **fields}
