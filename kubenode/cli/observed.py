"""Recorded observations of nodes, from a file or stdin."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from kubenode.errors import UsageError
from kubenode.plan.observations import HINT


def title(observed: Path) -> str:
    """Return what a record is called in messages."""
    return "stdin" if str(observed) == "-" else str(observed)


def recorded_documents(observed: Path) -> list[object]:
    """Return the documents of a record, a single one or a list of them. Raises UsageError when there is none."""
    try:
        data = sys.stdin.buffer.read() if title(observed) == "stdin" else observed.read_bytes()
        found: object = json.loads(data)
    except OSError as error:
        raise UsageError(f"{title(observed)} cannot be read: {error.strerror}", hint=HINT) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{title(observed)} is not JSON: {error}", hint=HINT) from error
    items = found if isinstance(found, list) else [found]
    if not items:
        raise UsageError(f"{title(observed)} has no observation", hint=HINT)
    return items


def refuse_twice(observed: Path, nodes: Iterable[str]) -> None:
    """Raise UsageError when two observations are of one node."""
    seen: set[str] = set()
    for node in nodes:
        if node in seen:
            raise UsageError(f"{title(observed)} has two observations of node {node!r}", hint="Keep the newer one.")
        seen.add(node)
