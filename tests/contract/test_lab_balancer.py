"""The lab's load balancer: a real haproxy before servers that are ready, not ready, and gone."""

import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kubenode.host.process import run
from kubenode.lab.kubernetes.balancer import balancer, endpoint, port_of

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin") is None, reason="needs haproxy (Debian: haproxy)"
)


@contextmanager
def server(folder: Path, name: str, ready: bool) -> Iterator[int]:
    """Serve TLS: every path answers with the server's name, /readyz with 200 or 500. Yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if ready or self.path != "/readyz" else 500)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    key, certificate = folder / "key.pem", folder / "certificate.pem"
    if not key.exists():
        words = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=lab"]
        run([*words, "-keyout", key, "-out", certificate], timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        yield made.server_port
    finally:
        made.shutdown()
        made.server_close()


def asked(folder: Path) -> str:
    connection = HTTPSConnection("127.0.0.1", port_of(folder), timeout=10, context=ssl._create_unverified_context())
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def until(folder: Path, wanted: set[str], seconds: float = 40) -> bool:
    """Ask until the last twelve answers are just these."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if {asked(folder) for _ in range(12)} == wanted:
            return True
        time.sleep(0.5)
    return False


def test_only_ready_servers_are_asked(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(server(tmp_path, name, ready)) for name, ready in (("one", True), ("two", False))
        }
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            ports["gone"] = unused.getsockname()[1]
        leaves = stack.enter_context(ExitStack())
        ports["three"] = leaves.enter_context(server(tmp_path, "three", True))
        stack.enter_context(balancer(tmp_path, ports))
        assert until(tmp_path, {"one", "three"})
        leaves.close()
        assert until(tmp_path, {"one"})


def test_unready_servers_are_better_than_none(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with ExitStack() as stack:
        ports = {name: stack.enter_context(server(tmp_path, name, ready=False)) for name in ("one", "two")}
        stack.enter_context(balancer(tmp_path, ports))
        assert until(tmp_path, {"one", "two"})


def test_every_folder_has_its_port(tmp_path: Path) -> None:
    assert port_of(tmp_path) == port_of(tmp_path / "x" / "..")
    assert 20000 <= port_of(tmp_path) < 30000
    assert endpoint(tmp_path) == f"10.0.2.2:{port_of(tmp_path)}"
