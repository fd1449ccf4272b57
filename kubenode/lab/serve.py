"""Servers on loopback for the lab: a static HTTP store with byte ranges, and the fleet repo by git's own daemon."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from kubenode.errors import HostError
from kubenode.host.process import spawn

_CHUNK = 1 << 16


@dataclass
class Faults:
    """What a hostile or broken store does. `truncate`: bytes after which bodies end; `garbage`: serve noise instead.

    `bytes_per_second` slows bodies down, so that a story can act in the middle of a transfer.
    """

    truncate: int | None = None
    garbage: bool = False
    bytes_per_second: int | None = None
    requests: list[str] = field(default_factory=list)


@contextmanager
def http_store(directory: Path, port: int) -> Iterator[Faults]:
    """Serve a directory on a loopback port for as long as the context lives; yields the faults it should show."""
    faults = Faults()
    handler = type("Handler", (_StoreHandler,), {"root": directory.resolve(), "faults": faults})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="http-store", daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _StoreHandler(BaseHTTPRequestHandler):
    """GET and HEAD of files below `root`, with single byte ranges (RFC 9110, section 14)."""

    protocol_version = "HTTP/1.1"
    root: Path
    faults: Faults

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests for the stories instead of printing them."""
        self.faults.requests.append(format % args)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = (self.root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_relative_to(self.root) or not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        size = path.stat().st_size
        start = self._range_start(size)
        if start is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(start)
                self._send(file, size - start)

    def _range_start(self, size: int) -> int | None:
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes=") or not wanted.endswith("-"):
            return 0
        start = int(wanted[len("bytes=") : -1])
        return start if start < size else None

    def _send(self, file: BinaryIO, length: int) -> None:
        limit = self.faults.truncate
        pause = threading.Event()
        sent = 0
        while sent < length:
            chunk = file.read(_CHUNK)
            if self.faults.garbage:
                chunk = b"\xa5" * len(chunk)
            if limit is not None and sent + len(chunk) > limit:
                self.wfile.write(chunk[: limit - sent])
                self.close_connection = True
                return
            self.wfile.write(chunk)
            sent += len(chunk)
            if self.faults.bytes_per_second:
                pause.wait(len(chunk) / self.faults.bytes_per_second)


@contextmanager
def git_daemon(base: Path, port: int, log: Path) -> Iterator[None]:
    """Serve the bare repositories below `base` on loopback by git daemon for as long as the context lives.

    Transport security is left out on purpose: nodes trust signatures, not the transport.
    """
    process = spawn(
        [
            "git",
            "daemon",
            "--listen=127.0.0.1",
            f"--port={port}",
            f"--base-path={base}",
            "--export-all",
            "--reuseaddr",
            "--informative-errors",
            base,
        ],
        log=log,
    )
    try:
        if process.poll() is not None:
            raise HostError("git daemon did not start", hint=f"see {log}")
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)
