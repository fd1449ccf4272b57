"""Image stores over loopback: an honest server, and one for each way to be broken or hostile."""

import contextlib
import gzip
import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubenode.errors import HostError, TryLater
from kubenode.host.stores import MAX_EVIDENCE, HttpStores
from tests.contract.store_suite import ARTIFACT, FILES, NAME, StoreSuite, V

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append((self.path, dict(self.headers)))
        mode, _, rest = self.path.lstrip("/").partition("/")
        self.name = rest.rpartition("/")[2].replace("%2B", "+")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answers[mode](self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def content(self) -> bytes | None:
        return FILES.get(self.name) if "/1.0/" in self.path else None

    @property
    def offset(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        fields = {"Content-Length": str(len(data)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        for name, value in fields.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


def honest(h: Handler) -> None:
    if h.content is None:
        h.send(404, b"no")
    elif h.offset >= len(h.content) and h.offset:
        h.send(416, b"", Content_Range=f"bytes */{len(h.content)}")
    elif "Range" in h.headers:
        part = h.content[h.offset :]
        h.send(206, part, Content_Range=f"bytes {h.offset}-{len(h.content) - 1}/{len(h.content)}")
    else:
        h.send(200, h.content)


def ignores_range(h: Handler) -> None:
    h.send(200 if h.content is not None else 404, h.content or b"")


def truncates(h: Handler) -> None:
    content = (h.content or b"")[h.offset :]
    size = len(h.content or b"")
    h.send_response(206 if h.offset else 200)
    h.send_header("Content-Length", str(len(content)))
    if h.offset:
        h.send_header("Content-Range", f"bytes {h.offset}-{size - 1}/{size}")
    h.end_headers()
    h.wfile.write(content[: len(content) // 2])
    h.wfile.flush()


def nothing(h: Handler) -> None:
    """Announces everything and sends nothing."""
    h.send_response(200)
    h.send_header("Content-Length", str(len(ARTIFACT)))
    h.end_headers()


def endless(h: Handler) -> None:
    h.send_response(200)
    h.end_headers()
    for _ in range(64):
        h.wfile.write(bytes(1 << 20))


def slow(h: Handler) -> None:
    """Never idle for long, and never done."""
    h.send_response(200)
    h.send_header("Content-Length", "1000000")
    h.end_headers()
    for _ in range(300):
        h.wfile.write(b"x")
        h.wfile.flush()
        time.sleep(0.02)


def hangs(h: Handler) -> None:
    h.server.gate.wait(10)


def raw(data: bytes) -> Answer:
    def answer(h: Handler) -> None:
        h.wfile.write(data)
        h.wfile.flush()

    return answer


def status(code: int, data: bytes = b"x", **headers: str) -> Answer:
    return lambda h: h.send(code, data, **headers)


def packed(h: Handler) -> None:
    h.send(200, gzip.compress(h.content or b""), Content_Encoding="gzip")


def redirect(h: Handler) -> None:
    h.send(302, b"", Location=h.path.replace("/redirect/", "/honest/"))


WRONG_RANGES = {
    "other-part": "bytes 0-9/10",
    "no-part": "",
    "nonsense": "bytes zero-nine/ten",
    "negative": "bytes 5--1/10",
    "cut": f"bytes 5-9/{len(ARTIFACT)}",
    "multi": "multipart/byteranges",
}
ANSWERS: dict[str, Answer] = {
    "honest": honest,
    "ignores": ignores_range,
    "truncates": truncates,
    "nothing": nothing,
    "endless": endless,
    "slow": slow,
    "hangs": hangs,
    "redirect": redirect,
    "packed": packed,
    "garbage": raw(b"\x00\xffgarbage\r\n\r\n" * 10),
    "silent": raw(b""),
    "huge-header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n"),
    "bad-length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxx"),
    "two-lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx"),
    "bad-chunks": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n"),
    "500": status(500),
    "403": status(403),
    "204": status(204, b""),
    "206": status(206, Content_Range="bytes 0-0/1"),
    "999": raw(b"HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\nx"),
    "304": status(304, b""),
    "to-file": status(302, b"", Location="file:///etc/passwd"),
    "to-ftp": status(302, b"", Location="ftp://127.0.0.1/x"),
    "to-nowhere": status(302, b"", Location="http://[bad"),
    "to-itself": lambda h: h.send(302, b"", Location=h.path),
    "416": status(416, b""),
    "416-other": status(416, b"", Content_Range="bytes */3"),
    **{f"range-{name}": status(206, b"x" * 5, Content_Range=value) for name, value in WRONG_RANGES.items()},
}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = dict(ANSWERS)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.gate = threading.Event()

    def url(self, mode: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{mode}"


@pytest.fixture(scope="module")
def module_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(module_server: Server) -> Server:
    module_server.asked.clear()
    return module_server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def stores(*urls: str, **options: float) -> HttpStores:
    return HttpStores(urls, **{"read_seconds": 2, "stall_seconds": 60, **options})  # type: ignore[arg-type]


class TestHttpStore(StoreSuite):
    @pytest.fixture(params=["honest", "ignores", "redirect"])
    def store(self, server: Server, request: pytest.FixtureRequest) -> Iterator[HttpStores]:
        with stores(server.url(request.param)) as store:
            yield store


class TestFileStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> HttpStores:
        folder = tmp_path / "a store" / "1.0"
        folder.mkdir(parents=True)
        for name, data in FILES.items():
            (folder / name).write_bytes(data)
        return stores(folder.parent.as_uri() + "/")


BROKEN = sorted(set(ANSWERS) - {"honest", "ignores", "redirect", "truncates", "slow", "hangs", "endless", "packed"})


@pytest.mark.parametrize("mode", [*BROKEN, "packed"])
def test_a_broken_store_is_passed_over(server: Server, mode: str):
    with stores(server.url(mode), server.url("honest"), read_seconds=1) as both:
        assert b"".join(both.artifact(V, NAME, 0)) == ARTIFACT
        assert b"".join(both.artifact(V, NAME, 5)) == ARTIFACT[5:]
        assert both.manifest(V) == (FILES["manifest.json"], FILES["manifest.sigstore.json"])


@pytest.mark.parametrize("mode", BROKEN)
def test_a_broken_store_alone_means_later(server: Server, mode: str):
    with stores(server.url(mode), read_seconds=1) as one:
        with pytest.raises(TryLater, match=r"no image store|broke off"):
            list(one.artifact(V, NAME, 5))
        with pytest.raises(TryLater):
            one.manifest(V)


def test_a_truncated_transfer_is_resumed(server: Server):
    received = b""
    with stores(server.url("truncates")) as one:
        attempts = 0
        while len(received) < len(ARTIFACT) - 1:
            attempts += 1
            with pytest.raises(TryLater, match="broke off"):
                for chunk in one.artifact(V, NAME, len(received)):
                    received += chunk
        assert 10 < attempts < 30
    assert ARTIFACT.startswith(received)


def test_too_large_evidence_is_not_read(server: Server):
    with stores(server.url("endless"), server.url("honest")) as both:
        assert both.manifest(V)[0] == FILES["manifest.json"]
        assert len(FILES["manifest.json"]) < MAX_EVIDENCE
        # An artifact has no size here: who reads it knows how much it may be, and stops.
        chunks = both.artifact(V, NAME, 0)
        assert len(next(chunks)) <= 1 << 20


def test_a_store_that_drips_is_given_up(server: Server):
    with stores(server.url("slow"), stall_seconds=0.3) as one:
        begun = time.monotonic()
        with pytest.raises(TryLater, match="too slow"):
            list(one.artifact(V, NAME, 0))
        assert time.monotonic() - begun < 3


def test_a_store_that_hangs_is_given_up(server: Server):
    with stores(server.url("hangs"), server.url("honest"), read_seconds=0.3) as both:
        assert both.manifest(V)[0] == FILES["manifest.json"]


def test_refused_stores_are_not_asked_until_all_are(server: Server):
    with stores(server.url("honest") + "/a", server.url("honest") + "/b") as both:

        def asked() -> set[str]:
            server.asked.clear()
            both.manifest(V)
            return {path.split("/")[2] for path, _ in server.asked}

        assert asked() == {"a"}
        assert both.refuse(V)
        assert asked() == {"b"}
        assert not both.refuse(V)
        assert asked() == {"a"}


def test_a_refusal_without_an_answer_forgets(server: Server):
    with stores(server.url("500"), server.url("404x")) as both:
        with pytest.raises(TryLater):
            both.manifest(V)
        assert not both.refuse(V)


def test_manifest_and_bundle_never_come_from_two_stores(server: Server, tmp_path: Path):
    half = tmp_path / "1.0"
    half.mkdir()
    (half / "manifest.json").write_bytes(b"another")
    with stores(tmp_path.as_uri(), server.url("honest")) as both:
        assert both.manifest(V)[0] == FILES["manifest.json"]


def test_nothing_packed_is_asked_for(server: Server):
    with stores(server.url("honest")) as one:
        one.manifest(V)
    assert {headers["Accept-Encoding"] for _, headers in server.asked} == {"identity"}
    assert all(path.startswith("/honest/1.0/") for path, _ in server.asked)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "nonsense", "file://host/x", "http:///x", "http://[bad", "file:relative", ""]
)
def test_odd_addresses_are_passed_over(server: Server, url: str):
    with stores(url, server.url("honest")) as both:
        assert both.manifest(V)[0] == FILES["manifest.json"]
    with pytest.raises(TryLater):
        stores(url).manifest(V)


def test_a_store_nobody_listens_at_means_later():
    with stores("http://127.0.0.1:9") as one, pytest.raises(TryLater, match=r"127\.0\.0\.1:9"):
        one.manifest(V)
    with pytest.raises(TryLater, match="names none"):
        stores().manifest(V)


def test_credentials_in_an_address_are_not_shown():
    with stores("http://user:secret@127.0.0.1:9/x") as one, pytest.raises(TryLater) as raised:
        one.manifest(V)
    assert "secret" not in raised.value.message and "127.0.0.1:9" in raised.value.message


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/etc/passwd", ".x", "a?b", "a#b", "a%2fb"])
def test_names_that_mean_something_to_a_path_are_refused(tmp_path: Path, name: str):
    with pytest.raises(HostError):
        list(stores(tmp_path.as_uri()).artifact(V, name, 0))
    with pytest.raises(HostError):
        list(stores(tmp_path.as_uri()).artifact(V, "a", -1))


def test_a_pipe_or_a_folder_in_a_file_store_does_not_hang(tmp_path: Path):
    (tmp_path / "1.0").mkdir()
    os.mkfifo(tmp_path / "1.0/a")
    (tmp_path / "1.0/b").mkdir()
    for name in ("a", "b"):
        with pytest.raises(TryLater, match=r"not a file|Is a directory"):
            list(stores(tmp_path.as_uri()).artifact(V, name, 0))


def test_a_bad_proxy_is_a_host_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "nonsense://x")
    with pytest.raises(HostError, match="proxy"):
        stores("http://example.invalid").manifest(V)
