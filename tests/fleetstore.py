"""A static fleet store behind a real HTTP server that counts, keeps validators, and can be told to misbehave."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Answer = Callable[["Handler", bytes | None], None]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "StoreServer"

    def do_GET(self) -> None:
        self.close_connection = True
        path = self.server.folder / self.path.lstrip("/")
        data = path.read_bytes() if path.is_file() else None
        kind = self.path.lstrip("/").partition("/")[0]
        self.server.asked.append(self.path.lstrip("/"))
        self.server.received += len(self.raw_requestline) + len(bytes(self.headers))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answers.get(kind, self.server.answers.get("*", honest))(self, data)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.server.sent += len(b"".join(self._headers_buffer)) + 2 + len(data)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(data)


class StoreServer(http.server.ThreadingHTTPServer):
    """Serves a folder; `answers` replaces the honest answer by kind: "head.json", "index", "bundles" or "*"."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.sent = self.received = 0

    @property
    def address(self) -> str:
        return f"static+http://127.0.0.1:{self.server_address[1]}"

    def seen(self) -> list[str]:
        """Return the kinds of files that were asked for since the last call."""
        kinds = [path.partition("/")[0] for path in self.asked]
        self.asked.clear()
        return kinds


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[StoreServer]:
    server = StoreServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def honest(h: Handler, data: bytes | None) -> None:
    if data is None:
        return h.send(404)
    etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    if h.headers.get("If-None-Match") == etag:
        return h.send(304, ETag=etag)
    offset = int(h.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    if offset:
        return h.send(206, data[offset:], Content_Range=f"bytes {offset}-{len(data) - 1}/{len(data)}")
    return h.send(200, data, ETag=etag)


def by_time(h: Handler, data: bytes | None) -> None:
    """Knows no ETag, only times."""
    when = "Mon, 23 Nov 2026 12:00:00 GMT"
    if h.headers.get("If-Modified-Since") == when:
        return h.send(304)
    return h.send(200, data or b"", Last_Modified=when)


def status(code: int) -> Answer:
    return lambda h, data: h.send(code)


def loops(h: Handler, data: bytes | None) -> None:
    h.send(302, Location=h.path)


def garbage(h: Handler, data: bytes | None) -> None:
    h.send(200, b"\x00\xff not what was asked for")


def flipped(h: Handler, data: bytes | None) -> None:
    assert data is not None
    h.send(200, data[:-40] + bytes(byte ^ 1 for byte in data[-40:]))


def longer(h: Handler, data: bytes | None) -> None:
    h.send(200, (data or b"") + b"more")


def half(h: Handler, data: bytes | None) -> None:
    """Announces everything, sends the first half, closes."""
    assert data is not None
    h.send_response_only(200)
    h.send_header("Content-Length", str(len(data)))
    h.end_headers()
    h.wfile.write(data[: len(data) // 2])


def endless(h: Handler, data: bytes | None) -> None:
    h.send_response_only(200)
    h.end_headers()
    for _ in range(256):
        h.wfile.write(b" " * (1 << 16))


def unasked(h: Handler, data: bytes | None) -> None:
    """Says "not modified" to everybody."""
    h.send(304)
