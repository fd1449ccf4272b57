"""Changes single values in the text of a document and leaves every other character alone."""

import json
import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./:@-]*[A-Za-z0-9_/]|[0-9]+(\.[0-9]+){2,3}")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


def node_at(text: str, *keys: str) -> Any | None:
    """Return ruamel's node of a value, whose marks index into `text`, or None when it is not there."""
    node = YAML(typ="rt", pure=True).compose(text)
    for key in keys:
        pairs = node.value if node is not None and isinstance(node.value, list) else []
        node = next((value for name, value in pairs if name.value == key), None)
    return node


def replace(text: str, new: str, *keys: str) -> str:
    """Return the text with the scalar or the list or mapping in braces at `keys` replaced by YAML text.

    Raises KeyError when there is no such value.
    """
    node = node_at(text, *keys)
    if node is None:
        raise KeyError(".".join(keys))
    return text[: node.start_mark.index] + new + text[node.end_mark.index :]


def comment_out(text: str, *keys: str) -> str:
    """Return the text with a block mapping's key and lines made comments. Raises KeyError when it is not there."""
    lines, first, last, indent = _block_at(text, keys)
    changed = [line[:indent] + "# " + line[indent:] for line in lines[first:last]]
    return "".join([*lines[:first], *changed, *lines[last:]])


def replace_block(text: str, new: Sequence[str], *keys: str) -> str:
    """Return the text with a block mapping's key and lines replaced by other lines, indented as the key was.

    Raises KeyError when it is not there.
    """
    lines, first, last, indent = _block_at(text, keys)
    ending = "\r\n" if lines[first].endswith("\r\n") else "\n"
    changed = [" " * indent + line + ending for line in new]
    return "".join([*lines[:first], *changed, *lines[last:]])


def insert(text: str, key: str, value: str, *keys: str) -> str:
    """Return the text with a new last entry in the mapping at `keys`, in the mapping's own style.

    Raises KeyError when there is no such mapping, or it is empty.
    """
    node = node_at(text, *keys)
    if node is None or not node.value or not isinstance(node.value[0], tuple):
        raise KeyError(".".join(keys))
    if node.flow_style:
        end = node.value[-1][1].end_mark.index
        return f"{text[:end]}, {key}: {value}{text[end:]}"
    last = node.value[-1][1]
    while last.value and not isinstance(last.value, str) and not last.flow_style:
        last = last.value[-1][1] if isinstance(last.value[-1], tuple) else last.value[-1]
    ending = "\r\n" if "\r\n" in text else "\n"
    at = last.end_mark.index
    if text[:at].endswith("\n"):  # A text block: its mark is behind it.
        before = text[:at]
    else:
        line_end = text.find("\n", at)
        at = len(text) if line_end < 0 else line_end + 1
        before = text[:at] if line_end >= 0 else text + ending
    return f"{before}{' ' * node.start_mark.column}{key}: {value}{ending}{text[at:]}"


def _block_at(text: str, keys: tuple[str, ...]) -> tuple[list[str], int, int, int]:
    """Return all lines, the first and the one after the last of a block mapping with its key, and its indentation."""
    node = node_at(text, *keys)
    if node is None:
        raise KeyError(".".join(keys))
    lines = text.splitlines(keepends=True)
    first = node.start_mark.line - 1
    while first >= 0 and not lines[first].lstrip().startswith(f"{keys[-1]}:"):
        first -= 1
    if first < 0:  # In braces, or on the line of its key.
        raise KeyError(".".join(keys))
    indent = len(lines[first]) - len(lines[first].lstrip())
    last = first + 1
    while last < len(lines) and len(lines[last]) - len(lines[last].lstrip()) > indent:
        last += 1
    return lines, first, last, indent


def quoted(text: str) -> str:
    """Return a YAML scalar for text, in double quotes unless every YAML reader takes it for text without them."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
