"""The one YAML reader: a bounded, strict subset of YAML 1.2 that keeps the position of every value.

Read with ruamel.yaml's pure scanner and parser. What different YAML readers understand differently (duplicate keys,
tags, anchors, merge keys, `yes`, `0755`, directives, odd line breaks) is refused, so that what was reviewed is what
runs. Limits: 1 MiB, 32 levels, 50,000 values, lines of 32,768 characters, integers of 64 bits.
"""

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from kubenode.errors import FleetInvalid, Location

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 50_000
MAX_LINE = 32_768

Value = dict[str, Any] | list[Any] | str | int | float | bool | None
"""A plain value: mappings have string keys only, timestamps stay strings."""

_PLAIN = (
    "Look at the lines before, too: indentation, a missing colon or quote, a tab. `kubenode validate` shows the place."
)

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
# YAML 1.1 readers, the one in kubeadm among them, make booleans or other numbers of these; YAML 1.2 does not.
_AMBIGUOUS = re.compile(
    r"(?i:yes|no|on|off)|[-+]?0[0-9_]+|[-+]?0[bo][0-7_]+|[-+]?[0-9][0-9_]*_[0-9_]*|[-+]?[0-9]+[eE][-+]?[0-9]+"
)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
# Line breaks that only some tools see (bare CR, NEL, LS, PS) and marks that reorder text on screen hide content from
# reviewers (CVE-2021-42574); a BOM inside a file is a stray one.
_HIDDEN = re.compile("\r(?!\n)|[\x85\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_LONG_LINE = re.compile(f"[^\n]{{{MAX_LINE + 1}}}")
_DIRECTIVE = re.compile("^%", re.MULTILINE)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NAMES = {"\r": "a bare carriage return", "\ufeff": "a byte order mark"}


@dataclass
class _Place:
    line: int
    column: int
    key_line: int
    key_column: int
    children: dict[str | int, "_Place"] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """One YAML document: its plain `value` and where each part of it stands."""

    path: str
    value: Value
    _root: _Place | None = None

    def locate(self, *keys: str | int) -> Location:
        """Return where a value stands (str: key of a mapping, int: list item), or its nearest parent if absent."""
        place, _ = self._find(keys)
        return Location(self.path, place.line, place.column) if place else Location(self.path)

    def locate_key(self, *keys: str | int) -> Location:
        """Return where the key leading to a value stands (for unknown fields), or the nearest parent if absent."""
        place, complete = self._find(keys)
        if place is None or not complete:
            return self.locate(*keys)
        return Location(self.path, place.key_line, place.key_column)

    def _find(self, keys: tuple[str | int, ...]) -> tuple[_Place | None, bool]:
        place = self._root
        for key in keys:
            child = place.children.get(key) if place else None
            if child is None:
                return place, False
            place = child
        return place, True


def load(data: bytes, path: str) -> Document:
    """Read one document; `path` is only for messages. An empty document has the value None.

    Raises FleetInvalid, with a location and a hint, for everything outside the strict subset.
    """
    text = _decode(data, path)
    reader = YAML(typ="safe", pure=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Builder(path, reader.parse(text)).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(path, mark.line + 1, mark.column + 1) if mark else Location(path)
        said = ", ".join(str(part).strip() for part in (error.context, error.problem) if part)
        raise FleetInvalid(f"not valid YAML: {said}", location=where, hint=_PLAIN) from error
    except (YAMLError, ValueError, OverflowError, LookupError, AttributeError, TypeError, AssertionError) as error:
        # ruamel.yaml lets some broken escapes and directives escape as other exceptions.
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise FleetInvalid(f"not valid YAML: {first}", location=Location(path), hint=_PLAIN) from error


def _decode(data: bytes, path: str) -> str:
    if len(data) > MAX_BYTES:
        raise FleetInvalid(
            f"the file has {len(data):,} bytes; at most {MAX_BYTES:,} are read",
            location=Location(path),
            hint="Split the document, or keep large contents in a file of their own.",
        )
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data.startswith(b"\xef\xbb\xbf"):
        raise FleetInvalid(
            "the file starts with a byte order mark", location=Location(path), hint="Save it as UTF-8 without BOM."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise FleetInvalid(
            "the file is not UTF-8", location=Location(path, line, column), hint="Save it as UTF-8."
        ) from error
    for pattern, hint in (
        (_HIDDEN, "Remove it, or write it as an escape in a double-quoted string."),
        (_CONTROL, "Remove it."),
        (_DIRECTIVE, "Remove the line."),
        (_LONG_LINE, "Use a block scalar (`|` or `>`), or keep the contents in a file of their own."),
    ):
        found = pattern.search(text)
        if found:
            start = found.start()
            where = Location(path, text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start))
            raise FleetInvalid(_unwanted(found.group()), location=where, hint=hint)
    return text


def _unwanted(found: str) -> str:
    if len(found) > 1:
        return f"a line is longer than {MAX_LINE:,} characters"
    if found == "%":
        return "directives (`%YAML`, `%TAG`) are not allowed"
    name = _NAMES.get(found, f"the character U+{ord(found):04X}")
    return f"the file contains {name}, which hides text from readers or other tools"


class _Builder:
    """Builds values from parse events, without recursion, so that nesting is bounded before anything is built."""

    def __init__(self, path: str, events: Iterator[Any]) -> None:
        self._path = path
        self._events = events
        self._values = 0
        self._documents = 0
        self._root: _Place | None = None
        self._result: Value = None
        # One frame per open collection: the collection, its place, and the pending key of a mapping.
        self._stack: list[tuple[dict[str, Any] | list[Any], _Place]] = []
        self._key: list[tuple[str, Any] | None] = []

    def document(self) -> Document:
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                self._start_document(event)
            elif isinstance(event, AliasEvent):
                self._refuse(event, "an alias (`*name`) is not allowed", "Write the value out.")
            elif isinstance(event, ScalarEvent):
                self._check_node(event)
                self._scalar(event)
            elif isinstance(event, MappingStartEvent):
                self._check_node(event)
                self._open(event, {})
            elif isinstance(event, SequenceStartEvent):
                self._check_node(event)
                self._open(event, [])
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                self._stack.pop()
                self._key.pop()
            elif isinstance(event, StreamEndEvent):
                break
        return Document(self._path, self._result, self._root)

    def _start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._refuse(event, "a second document starts here", "Keep one document per file.")

    def _check_node(self, event: Any) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            self._refuse(event, f"more than {MAX_VALUES:,} values in one document", "Split the document.")
        if event.anchor is not None:
            self._refuse(event, "an anchor (`&name`) is not allowed", "Write the value out where it is used.")
        if event.tag is not None:
            hint = "Remove it; quote a value to make it a string."
            self._refuse(event, f"a tag (`{event.tag[:80]}`) is not allowed", hint)

    def _open(self, event: Any, collection: dict[str, Any] | list[Any]) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(event, f"nested more than {MAX_DEPTH} levels deep", "")
        if self._wants_key():
            self._refuse(event, "a mapping key must be a plain string", "")
        place = self._store(event, collection)
        self._stack.append((collection, place))
        self._key.append(None)

    def _scalar(self, event: Any) -> None:
        if self._wants_key():
            mapping, _ = self._stack[-1]
            key = self._resolve(event)
            if not isinstance(key, str) or (event.value == "<<" and event.style is None):
                hint = "Merge keys are not read: write the values out." if event.value == "<<" else "Put it in quotes."
                self._refuse(event, f"the key `{event.value[:80]}` is not a string", hint)
            if key in mapping:
                self._refuse(event, f"the key `{key[:80]}` appears twice in one mapping", "Keep one of the two.")
            self._key[-1] = (key, event)
        else:
            self._store(event, self._resolve(event))

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1][0], dict) and self._key[-1] is None

    def _store(self, event: Any, value: Value) -> _Place:
        mark = event.start_mark
        place = _Place(mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 1)
        if not self._stack:
            self._result, self._root = value, place
            return place
        collection, parent = self._stack[-1]
        if isinstance(collection, list):
            parent.children[len(collection)] = place
            collection.append(value)
        else:
            pending = self._key[-1]
            assert pending is not None
            key, key_event = pending
            place.key_line, place.key_column = key_event.start_mark.line + 1, key_event.start_mark.column + 1
            parent.children[key] = place
            collection[key] = value
            self._key[-1] = None
        return place

    def _resolve(self, event: Any) -> str | int | float | bool | None:
        """Resolve a scalar by YAML 1.2's core schema (section 10.3.2), minus what other readers see differently."""
        text: str = event.value
        if _CONTROL.search(text):
            self._refuse(event, "a string contains a control character", "Only tab and line feed are allowed.")
        if event.style is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _AMBIGUOUS.fullmatch(text):
            self._refuse(
                event,
                f"`{text}` means different things to different YAML readers",
                'Write true or false, a plain decimal number, or put a string in quotes: "' + text + '".',
            )
        if _INTEGER.fullmatch(text):
            return self._integer(event, text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                self._refuse(event, f"the number `{text[:40]}` is too large", "")
            return number
        return text

    def _integer(self, event: Any, text: str) -> int:
        number = int(text, 0) if len(text) <= 24 else 1 << 64
        if not -(1 << 63) <= number < 1 << 63:
            self._refuse(event, f"the number `{text[:40]}` does not fit in 64 bits", "Put a string in quotes.")
        return number

    def _refuse(self, event: Any, message: str, hint: str) -> NoReturn:
        mark = event.start_mark
        raise FleetInvalid(message, location=Location(self._path, mark.line + 1, mark.column + 1), hint=hint)
