"""JSON from untrusted sources: one reading of it, or none."""

import json
from collections import Counter
from typing import Any

from kubenode.errors import Untrusted
from kubenode.trust.reasons import Reason


def strict_json(data: bytes, limit: int, reason: Reason, what: str) -> object:
    """Decode JSON from an untrusted source; `limit` is in bytes, `what` names the source in messages.

    Raise Untrusted(reason) when there are more bytes than `limit`, when it is not UTF-8 JSON, when an object has a key
    twice (two readers may pick different ones), for NaN and Infinity, and for nesting that exhausts the stack.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = Counter(key for key, _ in items)
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise ValueError(f"the key {short(twice[0])} is there twice")
        return dict(items)

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    if len(data) > limit:
        raise Untrusted(reason, f"{what} has {len(data)} bytes, more than {limit}")
    try:
        decoded: object = json.loads(data.decode(), object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise Untrusted(reason, f"{what} is nested too deeply") from None
    except ValueError as error:
        raise Untrusted(reason, f"{what} is not acceptable JSON: {error}") from None
    return decoded


def short(value: object) -> str:
    """Return a value for a message: printable on any terminal, at most 80 characters."""
    # repr() escapes control characters and lone surrogates, so a message can be printed on any terminal.
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
