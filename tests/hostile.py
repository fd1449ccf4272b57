"""What a hostile forge can send: packs made by hand, bundles around them, and a git server that says anything.

The formats are those of git's Documentation/gitformat-pack.txt, gitformat-bundle.txt and gitprotocol-pack.txt.
"""

import hashlib
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.gitrepo import pack_header

COMMIT, TREE, BLOB, REF_DELTA = 1, 2, 3, 7


def raw_pack(entries: list[bytes], claimed: int | None = None) -> bytes:
    """Return a pack of entries that are encoded already; `claimed` is the number its header states."""
    body = b"PACK" + (2).to_bytes(4, "big") + (len(entries) if claimed is None else claimed).to_bytes(4, "big")
    body += b"".join(entries)
    return body + hashlib.sha1(body).digest()


def entry(kind: int, content: bytes) -> bytes:
    return pack_header(kind, len(content)) + zlib.compress(content, 9)


def zeros(kind: int, size: int) -> tuple[bytes, str]:
    """Return the entry and the id of an object of `size` zero bytes, which takes a thousandth of that."""
    squeeze = zlib.compressobj(9)
    digest = hashlib.sha1(f"{ {COMMIT: 'commit', TREE: 'tree', BLOB: 'blob'}[kind] } {size}\0".encode())
    parts, block = [], bytes(1 << 20)
    for _ in range(size >> 20):
        digest.update(block)
        parts.append(squeeze.compress(block))
    return pack_header(kind, size) + b"".join(parts) + squeeze.flush(), digest.hexdigest()


def delta_bomb(base: str, size: int) -> bytes:
    """Return a delta that repeats the first 64 KiB of `base` (a blob of 64 KiB) until there are `size` bytes."""
    delta = varint(1 << 16) + varint(size) + b"\x80" * (size >> 16)
    return pack_header(REF_DELTA, len(delta)) + bytes.fromhex(base) + zlib.compress(delta, 9)


def varint(number: int) -> bytes:
    digits = []
    while number >> 7:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def bundle(path: Path, head: str, pack: bytes, *needs: str) -> Path:
    lines = ["# v2 git bundle", *(f"-{oid} needed" for oid in needs), f"{head} refs/heads/main", "", ""]
    path.write_bytes("\n".join(lines).encode() + pack)
    return path


def line(content: bytes) -> bytes:
    """Return a line of git's protocol: four hex digits of its length, and itself."""
    return f"{len(content) + 4:04x}".encode() + content


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve git:// on the loopback device: `answer` is given each connection, after the client's request was read."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    length = int(connection.recv(4, socket.MSG_WAITALL), 16)
                    connection.recv(length - 4, socket.MSG_WAITALL)
                    answer(connection)
                except (OSError, ValueError):
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"git://127.0.0.1:{listener.getsockname()[1]}/fleet"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
