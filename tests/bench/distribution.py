"""What a tick without news costs: a static store against `git ls-remote` and `git fetch`, in one run on loopback.

Usage: python -m tests.bench.distribution [COMMITS]. Both are served over HTTP by this process: the store as files, git
by `git http-backend`. Prints requests, bytes and time of each; exit 1 when the store is not the cheaper one.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kubenode.host.git import FleetRepository
from kubenode.host.remote import RemoteFleet
from kubenode.host.static import StaticFleet
from kubenode.image.publish_fleet import publish_fleet
from tests.bench.authenticate import build
from tests.fleetstore import serving
from tests.stamps import stamp

ROUNDS = 20


class GitHandler(BaseHTTPRequestHandler):
    """Git's smart HTTP protocol by git's own CGI program; counts what goes over the wire."""

    protocol_version = "HTTP/1.1"
    root = ""
    requests = bytes_out = bytes_in = 0

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes) -> None:
        kind = type(self)
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": kind.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response_only(int(fields.pop("Status", "200").split()[0]))
        for name, value in {**fields, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        kind.requests += 1
        kind.bytes_in += len(self.raw_requestline) + len(bytes(self.headers)) + len(body)
        kind.bytes_out += len(b"".join(self._headers_buffer)) + 2 + len(data)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repo, alice, _, head = build(folder, count)
        data = stamp(head, 1, alice)
        publish_fleet(repo.path / ".git", folder / "store", "main", head, lambda old: old or data)
        with serving(folder / "store") as store:
            static = StaticFleet(FleetRepository(folder / "static" / "fleet.git"), [store.address])
            static.fetch()
            store.seen()
            store.sent = store.received = 0
            start = time.perf_counter()
            for _ in range(ROUNDS):
                static.fetch()
            rows.append(("static store", len(store.seen()), store.received, store.sent, time.perf_counter() - start))
        GitHandler.root = str(folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), GitHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/remote/.git"
        copy = FleetRepository(folder / "git" / "fleet.git")
        remote = RemoteFleet(copy, url)
        remote.fetch()
        for what, ask in (("git ls-remote", remote.fetch), ("git fetch", lambda: copy.fetch(url))):
            GitHandler.requests = GitHandler.bytes_in = GitHandler.bytes_out = 0
            start = time.perf_counter()
            for _ in range(ROUNDS):
                ask()
            spent = time.perf_counter() - start
            rows.append((what, GitHandler.requests, GitHandler.bytes_in, GitHandler.bytes_out, spent))
        server.shutdown()
    print(f"{count} commits; per tick without news, mean of {ROUNDS}:")
    for what, requests, received, sent, spent in rows:
        print(
            f"{what:<14} {requests / ROUNDS:4.1f} requests  {received / ROUNDS:6.0f} B up  {sent / ROUNDS:6.0f} B down"
            f"  {1000 * spent / ROUNDS:6.1f} ms"
        )
    static_row, listing = rows[0], rows[1]
    ratio = (listing[2] + listing[3]) / (static_row[2] + static_row[3])
    print(f"ratio          {listing[1] / static_row[1]:.1f} times the requests, {ratio:.1f} times the bytes by git")
    return 0 if static_row[1] == ROUNDS and ratio > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
