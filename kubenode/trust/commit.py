"""Raw git commit objects, parsed strictly: what is signed, by which signature, and whose children they are.

The format is the one git writes (git's Documentation/gitformat-signature.txt and fsck.c). Anything two readers could
understand differently is refused.
"""

import hashlib
import re
from dataclasses import dataclass

from kubenode.errors import Untrusted
from kubenode.trust.reasons import Reason

MAX_COMMIT = 1 << 20
MAX_PARENTS = 64

_OID = re.compile(r"[0-9a-f]{40}")
_OID_BYTES = re.compile(rb"[0-9a-f]{40}")
_SHA256_OID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9:._-]{0,63}")
# fsck.c, fsck_ident: name, address in angle brackets, seconds without leading zeros, zone.
_IDENT = re.compile(rb"[^<>\n]*<[^<>\n]*> (?:0|[1-9][0-9]{0,18}) [+-][0-9]{4}")
_FIXED = frozenset({b"tree", b"parent", b"author", b"committer"})


@dataclass(frozen=True)
class Commit:
    """A commit whose bytes match its id: `payload` is what `signature` must cover; nothing is trusted yet.

    `author` and `subject` are for messages: without control characters, cut to 72 characters.
    """

    oid: str
    tree: str
    parents: tuple[str, ...]
    author: str
    subject: str
    message: bytes
    payload: bytes
    signature: bytes | None

    @property
    def short(self) -> str:
        """The first 12 digits of the id, for messages."""
        return self.oid[:12]

    def __str__(self) -> str:
        return f"commit {self.short} (“{self.subject}”, by {self.author})"


def check_oid(oid: str, what: str = "commit") -> str:
    """Return the object id when it is 40 lower-case hex digits.

    Raises Untrusted: UnsupportedObjectFormat for SHA-256 ids, CommitMalformed for everything else.
    """
    if _OID.fullmatch(oid):
        return oid
    if _SHA256_OID.fullmatch(oid):
        raise Untrusted(
            Reason.UNSUPPORTED_OBJECT_FORMAT,
            f"{what} {oid[:12]} has a SHA-256 id; fleet repos use git's SHA-1 object format for now",
            subject=oid,
            hint="Create the fleet repo with `git init --object-format=sha1`.",
        )
    raise Untrusted(Reason.COMMIT_MALFORMED, f"{oid[:80]!r} is not the id of a {what}", subject=oid[:80])


def object_id(kind: str, content: bytes) -> str:
    """Return git's SHA-1 id of an object (`commit`, `tree` or `blob`).

    SHA-1 alone does not withstand chosen collisions: git's collision-detecting SHA-1 ran when the object was fetched.
    """
    head = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def parse_commit(oid: str, raw: bytes) -> Commit:
    """Parse a raw commit object and check that it is the one named `oid`.

    Raises Untrusted: ObjectMismatch when the bytes hash to another id, CommitMalformed, TooMuchEvidence (over 1 MiB),
    UnsupportedObjectFormat.
    """
    check_oid(oid)
    if len(raw) > MAX_COMMIT:
        raise Untrusted(
            Reason.TOO_MUCH_EVIDENCE,
            f"commit {oid[:12]} has {len(raw):,} bytes; at most {MAX_COMMIT:,} are read",
            subject=oid,
        )
    actual = object_id("commit", raw)
    if actual != oid:
        raise Untrusted(
            Reason.OBJECT_MISMATCH,
            f"the bytes given for commit {oid[:12]} are those of {actual[:12]}",
            subject=oid,
            hint="The local copy of the fleet repo is damaged; remove it, and it is fetched again.",
        )
    try:
        return _parse(oid, raw)
    except _MalformedError as error:
        raise Untrusted(
            Reason.COMMIT_MALFORMED,
            f"commit {oid[:12]} is not well-formed: {error}",
            subject=oid,
            hint="Make the commit again with git itself, and push it instead.",
        ) from error


class _MalformedError(ValueError):
    pass


def _parse(oid: str, raw: bytes) -> Commit:
    if b"\0" in raw:
        raise _MalformedError("it contains a NUL byte")
    head, separator, message = raw.partition(b"\n\n")
    if not separator:
        # A commit with an empty message ends right after the blank line; one without blank line has no message part.
        raise _MalformedError("no blank line ends the headers")
    headers = _headers(head)
    tree, parents, author = _fixed(headers)
    extra = headers[len(parents) + 3 :]
    signature = _check_extra(extra)
    kept = [entry for entry in headers if entry[0] != b"gpgsig"]
    payload = b"".join(name + b" " + b"\n ".join(lines) + b"\n" for name, lines in kept) + b"\n" + message
    title = message.decode("utf-8", "replace").strip().partition("\n")[0]
    return Commit(oid, tree, parents, _shown(author), _shown(title), message, payload, signature)


def _shown(text: str) -> str:
    """Return text of a stranger for a terminal: no escape sequences, no line breaks, not too long."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:72])


def _headers(head: bytes) -> list[tuple[bytes, list[bytes]]]:
    headers: list[tuple[bytes, list[bytes]]] = []
    for line in head.split(b"\n"):
        if line.startswith(b" "):
            if not headers or headers[-1][0] in _FIXED:
                raise _MalformedError("a continuation line stands where none is allowed")
            headers[-1][1].append(line[1:])
            continue
        name, space, value = line.partition(b" ")
        if not space or not _NAME.fullmatch(name):
            raise _MalformedError(f"the header line {line[:60]!r} is not `name value`")
        headers.append((name, [value]))
    return headers


def _fixed(headers: list[tuple[bytes, list[bytes]]]) -> tuple[str, tuple[str, ...], str]:
    """Read the headers that git demands, in the order git demands: tree, parents, author, committer."""
    names = [name for name, _ in headers]
    count = 1
    while names[count : count + 1] == [b"parent"]:
        count += 1
    if names[:1] != [b"tree"] or names[count : count + 2] != [b"author", b"committer"]:
        raise _MalformedError("the headers are not tree, parent, author, committer in this order")
    oids = [lines[0] for _, lines in headers[:count]]
    if not all(_OID_BYTES.fullmatch(value) for value in oids):
        raise _MalformedError("a tree or parent is not 40 lower-case hex digits")
    idents = [lines[0] for _, lines in headers[count : count + 2]]
    if not all(_IDENT.fullmatch(ident) for ident in idents):
        raise _MalformedError("the author or committer line is not `name <address> seconds zone`")
    parents = tuple(value.decode() for value in oids[1:])
    if len(set(parents)) != len(parents):
        raise _MalformedError("a parent is named twice")
    if len(parents) > MAX_PARENTS:
        raise _MalformedError(f"it has more than {MAX_PARENTS} parents")
    author = idents[0].partition(b">")[0].decode("utf-8", "replace") + ">"
    return oids[0].decode(), parents, author


def _check_extra(extra: list[tuple[bytes, list[bytes]]]) -> bytes | None:
    """Return the signature; refuse headers that stand twice or where git would not look for them."""
    signature: bytes | None = None
    seen: set[bytes] = set()
    for name, lines in extra:
        if name in _FIXED:
            raise _MalformedError(f"the header {name.decode()} is repeated or out of order")
        if name in seen and name != b"mergetag":
            raise _MalformedError(f"the header {name.decode()} stands twice")
        seen.add(name)
        if name == b"gpgsig":
            signature = b"\n".join(lines) + b"\n"
        elif name.startswith(b"gpgsig"):
            # git leaves every `gpgsig*` header out of the signed payload, so nobody would vouch for this one.
            raise _MalformedError(f"the header {name.decode()} belongs to another object format")
    return signature
