"""Reads the header of an age file, which is not encrypted: how many recipients of which kind can open it.

Source: https://c2sp.org/age ("Header", "ASCII armor").
"""

import base64
import binascii
import re
from collections.abc import Iterator

ARMOR_BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----"
BINARY_BEGIN = b"age-encryption.org/v1\n"
GREASE = "-grease"
"""Ending of stanzas that some implementations add so that readers learn to pass over what they do not know."""

_ARMOR_END = b"-----END AGE ENCRYPTED FILE-----"
_LEAST_PAYLOAD = 16 + 16
"""Bytes: a nonce and the authentication tag of an empty last chunk."""
_ARGUMENT = re.compile(rb"[\x21-\x7e]+")
_BODY = re.compile(rb"[A-Za-z0-9+/]{0,64}")
_MAC = re.compile(rb"--- [A-Za-z0-9+/]{43}")
_COLUMNS = 64


def is_age(data: bytes) -> bool:
    """Say whether a file begins as age files do."""
    return data.startswith((ARMOR_BEGIN, BINARY_BEGIN))


def stanzas(data: bytes) -> list[tuple[str, ...]]:
    """Return type and arguments of every recipient stanza of an age file, armored or not, in their order.

    Grease is left out. Raises ValueError, with words for people, when this is not a whole age file.
    """
    binary = _dearmor(data) if data.startswith(ARMOR_BEGIN) else data
    if not binary.startswith(BINARY_BEGIN):
        raise ValueError("it does not begin as age files of version 1 do")
    lines = _lines(binary)
    next(lines)
    found: list[tuple[str, ...]] = []
    used = len(BINARY_BEGIN)
    for line in lines:
        used += len(line) + 1
        if line.startswith(b"---"):
            if not _MAC.fullmatch(line):
                raise ValueError("the last line of its header is damaged")
            if len(binary) - used < _LEAST_PAYLOAD:
                raise ValueError("it is cut off after the header")
            return [stanza for stanza in found if not stanza[0].endswith(GREASE)]
        arrow, *arguments = line.split(b" ")
        if arrow != b"->" or not arguments or not all(_ARGUMENT.fullmatch(it) for it in arguments):
            raise ValueError("its header has a line that is no recipient")
        found.append(tuple(it.decode("ascii") for it in arguments))
        used += _skip_body(lines)
    raise ValueError("its header is cut off")


def _skip_body(lines: Iterator[bytes]) -> int:
    """Pass over the body of a stanza, which ends with a line that is not full; return its bytes."""
    size = 0
    for line in lines:
        if not _BODY.fullmatch(line):
            raise ValueError("its header has a recipient with a damaged key")
        size += len(line) + 1
        if len(line) < _COLUMNS:
            return size
    raise ValueError("its header is cut off")


def _lines(binary: bytes) -> Iterator[bytes]:
    """Yield the lines that end with a line break."""
    start = 0
    while (end := binary.find(b"\n", start)) >= 0:
        yield binary[start:end]
        start = end + 1


def _dearmor(data: bytes) -> bytes:
    lines = data.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    if len(lines) < 2 or lines[0] != ARMOR_BEGIN or lines[-1] != _ARMOR_END:
        raise ValueError(f"its last line is not {_ARMOR_END.decode()}: was it cut off?")
    body = lines[1:-1]
    if any(len(line) != _COLUMNS for line in body[:-1]) or (body and not 0 < len(body[-1]) <= _COLUMNS):
        raise ValueError("a line between BEGIN and END is not as long as it must be")
    try:
        return base64.b64decode(b"".join(body), validate=True)
    except binascii.Error as error:
        raise ValueError("what stands between BEGIN and END is not base64") from error
