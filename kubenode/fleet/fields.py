"""Reads the fields of one mapping of a document, with errors that point at them.

Fields that are not asked for are not looked at: a node must be able to read documents of a newer kubenode.
"""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from kubenode.errors import FleetInvalid
from kubenode.trust.strictyaml import Document

T = TypeVar("T")


class Fields:
    """The mapping at one place of a document. Every reader raises FleetInvalid with the location of the field."""

    def __init__(self, document: Document, *at: str | int) -> None:
        self._document = document
        self._at = at
        value: Any = document.value
        for key in at:
            if isinstance(value, dict):
                value = value.get(str(key))
            elif isinstance(value, list) and isinstance(key, int):
                value = value[key]
        if value is None:  # An absent optional mapping reads as an empty one.
            value = {}
        if not isinstance(value, dict):
            raise FleetInvalid(
                f"{self._name()} must be a mapping",
                location=document.locate(*at),
                hint="Write `name: value` lines below it, indented by two spaces.",
            )
        self._value: dict[str, Any] = value

    def part(self, name: str) -> "Fields":
        """Return a mapping inside this one; an absent one reads as empty."""
        return Fields(self._document, *self._at, name)

    def parts(self, name: str) -> list["Fields"]:
        """Return the mappings of a list; an absent list reads as empty."""
        return [Fields(self._document, *self._at, name, index) for index in range(len(self._list(name)))]

    def text(self, name: str) -> str:
        """Return a text that must be there."""
        value = self._value.get(name)
        if value is None:
            self.refuse(name, f"{self._name(name)} is missing")
        if not isinstance(value, str):
            self.refuse(name, f"{self._name(name)} must be text", "Put it in quotes.")
        return value

    def text_or_none(self, name: str) -> str | None:
        """Return a text, or None when it is absent."""
        return None if self._value.get(name) is None else self.text(name)

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        """Return a text that must be there, read by `parse`, whose ValueError becomes FleetInvalid."""
        text = self.text(name)
        try:
            return parse(text)
        except ValueError as error:
            self.refuse(name, f"{self._name(name)}: {error}")

    def parsed_or(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return a text read by `parse`, or the default when it is absent."""
        return default if self._value.get(name) is None else self.parsed(name, parse)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; an absent list reads as empty."""
        return self.parsed_list(name, str)

    def parsed_list(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Return a list of texts, each read by `parse`; whole numbers count as text."""
        found: list[T] = []
        for index, value in enumerate(self._list(name)):
            try:
                found.append(parse(self._scalar(value)))
            except ValueError as error:
                where = self._document.locate(*self._at, name, index)
                raise FleetInvalid(
                    f"{self._name(name)}[{index}]: {error}",
                    location=where,
                    hint="docs/fleet-format.md explains every field, with examples.",
                ) from error
        return tuple(found)

    def scalar_or(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return a text or whole number, read by `parse`, or the default when it is absent."""
        value = self._value.get(name)
        if value is None:
            return default
        try:
            return parse(self._scalar(value))
        except ValueError as error:
            self.refuse(name, f"{self._name(name)}: {error}")

    def number_or(self, name: str, default: int) -> int:
        """Return a whole number that is not negative, or the default when it is absent."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.refuse(name, f"{self._name(name)} must be a whole number")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false; an absent flag is false."""
        value = self._value.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, f"{self._name(name)} must be true or false")
        return value is True

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return every key of this mapping with its value as text."""
        found: list[tuple[str, str]] = []
        for key, value in self._value.items():
            try:
                found.append((key, self._scalar(value)))
            except ValueError as error:
                self.refuse(key, f"{self._name(key)}: {error}")
        return tuple(found)

    def names(self) -> tuple[str, ...]:
        """Return every key of this mapping."""
        return tuple(self._value)

    def present(self, name: str) -> bool:
        """Say whether a field is there and not null."""
        return self._value.get(name) is not None

    def refuse(self, name: str, message: str, hint: str = "") -> NoReturn:
        """Raise FleetInvalid at a field."""
        raise FleetInvalid(message, location=self._document.locate(*self._at, name), hint=hint)

    def _list(self, name: str) -> list[Any]:
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(name, f"{self._name(name)} must be a list")
        return value

    def _scalar(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError("expected text or a whole number here")
        return str(value)

    def _name(self, *more: str) -> str:
        return ".".join(str(part) for part in (*self._at, *more)) or "the document"
