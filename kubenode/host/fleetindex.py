"""The files of a static fleet store: head.json, index.json and git bundles by their digest.

    head.json                  which commit is the newest; written last, so what it speaks of is there
    index/<commit>.json        which bundle leads from which commit to which, and so to this one
    bundles/<sha256>.bundle    git bundles; a full one leads from nothing

Only head.json ever changes, so caches in between can keep everything else. Nothing of it is trusted: sizes and digests
only tell a broken transfer from a whole one.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

API_VERSION = "kubenode.dev/v1alpha1"
KIND = "FleetIndex"
MAX_INDEX = 256 << 10
MAX_BUNDLES = 256
MAX_BUNDLE = 256 << 20
"""Bytes of one bundle; a fleet repo is text, and one of this size would be refused when it is read."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bundle:
    """A git bundle of a branch up to commit `end`, for who has commit `start`; for everybody when that is None."""

    start: str | None
    end: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Its path in the store."""
        return f"bundles/{self.sha256}.bundle"


@dataclass(frozen=True)
class Index:
    """The bundles of a store, oldest first, and the commit that they lead to."""

    head: str
    bundles: tuple[Bundle, ...]

    def way(self, start: str | None) -> tuple[Bundle, ...] | None:
        """Return the bundles that lead from a commit (None: from nothing) to the head, None when there is no way."""
        way: list[Bundle] = []
        at = start
        while at != self.head:
            # Of several the newest, which leads furthest.
            step = next((bundle for bundle in reversed(self.bundles) if bundle.start == at), None)
            if step is None or step in way:
                return None
            way.append(step)
            at = step.end
        return tuple(way)


def index_name(head: str) -> str:
    """Return the path of the index that leads to a commit."""
    return f"index/{head}.json"


def encode(index: Index) -> bytes:
    """Return an index as JSON; the same index gives the same bytes."""
    bundles = [
        {"from": bundle.start, "to": bundle.end, "sha256": bundle.sha256, "size": bundle.size}
        for bundle in index.bundles
    ]
    document = {"apiVersion": API_VERSION, "kind": KIND, "head": index.head, "bundles": bundles}
    return json.dumps(document, indent=1).encode() + b"\n"


def decode(data: bytes, head: str) -> Index:
    """Read the index that leads to `head`. Raises ValueError saying what is wrong with it."""
    if len(data) > MAX_INDEX:
        raise ValueError(f"it has more than {MAX_INDEX} bytes")
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise ValueError(f"it is not of the kind {KIND}")
    listed = document.get("bundles")
    if not isinstance(listed, list) or len(listed) > MAX_BUNDLES:
        raise ValueError(f"its bundles are not a list of at most {MAX_BUNDLES}")
    if document.get("head") != head:
        raise ValueError(f"it does not lead to {head[:12]}")
    return Index(head, tuple(_bundle(item) for item in listed))


def _bundle(item: Any) -> Bundle:
    if not isinstance(item, dict):
        raise ValueError("a bundle is not an object")
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= MAX_BUNDLE:
        raise ValueError(f"the size of a bundle is not a number from 1 to {MAX_BUNDLE}")
    start = None if item.get("from") is None else _text(item, "from", _COMMIT)
    return Bundle(start, _text(item, "to", _COMMIT), _text(item, "sha256", _SHA256), size)


def _text(document: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"its {key} is {str(value)[:80]!r}")
    return value
