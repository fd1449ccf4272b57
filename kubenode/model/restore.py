"""Reads model values back from plain JSON values: the other direction of `kubenode.model.plain`."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

from kubenode.model.kubernetes import KubernetesVersion
from kubenode.model.version import Version

T = TypeVar("T")


def restore(kind: type[T], value: object) -> T:
    """Return the value of a dataclass of the model; fields that are left out get their defaults.

    Raises ValueError, TypeError or KeyError (the field's name) when it is not the plain form of one.
    """
    return cast(T, _restore(kind, value))


def _restore(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        others = [one for one in arguments if one is not type(None)]
        return None if value is None else _restore(others[0], value)
    if origin in (tuple, frozenset):
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is no list")
        return origin(_restore(arguments[0], item) for item in value)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is no object")
        return {_restore(arguments[0], key): _restore(arguments[1], item) for key, item in value.items()}
    if kind is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(f"{value!r} is a time without its zone")
        return moment
    if kind in (Version, KubernetesVersion) or issubclass(kind, Enum):
        return kind(value)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is no object")
        return _dataclass(kind, value)
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value


def _dataclass(kind: Any, value: dict[str, Any]) -> Any:
    hints = _hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            found[field.name] = _restore(hints[field.name], value[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise KeyError(field.name)
    return kind(**found)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
