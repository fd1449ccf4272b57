"""Trailers of a commit message, read and added as git does (git-interpret-trailers(1)), from the last block alone.

Where git's own reading depends on configuration or on comment lines, fewer trailers are found here, never more: what
counts is always what `git interpret-trailers --parse --no-divider` prints too.
"""

import re
from dataclasses import dataclass

# A token of letters, digits and hyphens, perhaps blanks, then a colon.
_TRAILER = re.compile(rb"([A-Za-z0-9-]+)[ \t]*:")
_GENERATED = (b"Signed-off-by: ", b"(cherry picked from commit ")
"""What git itself writes; a block that holds one of these may be mixed with other lines, one trailer in four."""
_BLANK = b" \t\r"
_SPACE = _BLANK + b"\n"
# git leaves out a list of conflicts at the end and reads carriage returns in ways of its own: such blocks are not read.
_ODD = re.compile(rb"\r|^Conflicts:", re.MULTILINE)


@dataclass(frozen=True)
class Trailer:
    """One trailer: its name as written, its value without surrounding blanks; `folded` over several lines."""

    name: str
    value: bytes
    folded: bool


def trailers(message: bytes) -> tuple[Trailer, ...]:
    """Return the trailers of a message's last block, in order; none when that block is not one of trailers."""
    _, block = _split(message)
    found: list[tuple[str, list[bytes]]] = []
    inside = False
    for line in block:
        match = _TRAILER.match(line)
        if match is not None:
            found.append((match[1].decode(), [line[match.end() :].strip(_BLANK)]))
        elif line[:1] in (b" ", b"\t") and inside:
            found[-1][1].append(line.strip(_BLANK))
            continue
        # Other lines of a mixed block, and what is folded below them, are nobody's trailers.
        inside = match is not None
    return tuple(Trailer(name, b" ".join(parts).strip(_BLANK), len(parts) > 1) for name, parts in found)


def with_trailer(message: bytes, name: str, value: str) -> bytes:
    """Return the message with one more trailer at the end of its last block, in a new block if there is none."""
    body = message.rstrip(_SPACE)
    ending = b"" if trailers(body) else b"\n"
    return body + (b"\n" if body else b"") + ending + f"{name}: {value}\n".encode()


def without_trailers(message: bytes, name: str, values: frozenset[bytes]) -> bytes:
    """Return the message without the trailers of this name that have one of these values (unfolded ones only)."""
    before, block = _split(message)
    kept = []
    for line in block:
        match = _TRAILER.match(line)
        named = match is not None and match[1].decode().lower() == name.lower()
        if not (named and match is not None and line[match.end() :].strip(_BLANK) in values):
            kept.append(line)
    if len(kept) == len(block):
        return message
    return b"\n".join(before + kept).rstrip(_SPACE) + b"\n"


def _split(message: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the lines before the last block of trailers, and those of the block (empty when it is none)."""
    lines = message.rstrip(_SPACE).split(b"\n")
    # The first paragraph is the title and cannot be trailers, whatever it looks like.
    title = next((index for index, line in enumerate(lines) if not line.strip(_BLANK)), None)
    if title is None:
        return lines, []
    start = max(index for index, line in enumerate(lines) if not line.strip(_BLANK)) + 1
    block = lines[start:]
    return (lines[:start], block) if _is_block(block) and not _ODD.search(b"\n".join(block)) else (lines, [])


def _is_block(block: list[bytes]) -> bool:
    count = others = folded = 0
    generated = False
    for line in reversed(block):
        # git counts from the end: lines that start with a blank belong to what stands above them.
        if line.startswith(_GENERATED):
            generated = True
            count, folded = count + 1, 0
        elif _TRAILER.match(line):
            count, folded = count + 1, 0
        elif line[:1] in (b" ", b"\t"):
            folded += 1
        else:
            others, folded = others + 1 + folded, 0
    others += folded
    return (generated and 3 * count >= others) or (count > 0 and others == 0)
