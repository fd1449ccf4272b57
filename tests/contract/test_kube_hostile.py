"""API servers that are broken, hostile or somebody else: each ends soon, in a clear message, never in a traceback."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubenode.errors import HostError, KubenodeError, TryLater
from kubenode.host.kube import apiservers, drain, nodes
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Malformed,
    NotFound,
    ServerFailed,
    Throttled,
    Unauthorised,
)
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.names import LEASES, NODES
from kubenode.host.kube.requests import pending
from kubenode.host.kube.tokens import Tokens
from kubenode.model.kubernetes import Answer, KubernetesVersion
from tests.contract.kube_world import NOW, World
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer, Handler

SLOT = "slot-pool-workers-0"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeApiServer]:
    fake = FakeApiServer(Authority(), tmp_path)
    yield fake
    fake.rude = None
    fake.close()


@pytest.fixture
def world(fake: FakeApiServer) -> Iterator[World]:
    world = World(fake)
    world.namespace()
    yield world
    fake.rude = None
    world.close()


def answers(status: int, body: bytes, **headers: str) -> Callable[[Handler], bool]:
    def rude(handler: Handler) -> bool:
        handler.reply(status, body, **headers)
        handler.close_connection = True
        return True

    return rude


def says(status: int, message: str, reason: str = "") -> Callable[[Handler], bool]:
    return answers(status, json.dumps({"kind": "Status", "message": message, "reason": reason}).encode())


@pytest.mark.parametrize(
    ("status", "kind", "later"),
    [
        (400, Invalid, False),
        (401, Unauthorised, False),
        (403, Forbidden, False),
        (404, NotFound, False),
        (409, Conflict, False),
        (410, Gone, False),
        (418, HostError, False),
        (422, Invalid, False),
        (429, Throttled, True),
        (500, ServerFailed, True),
        (502, ServerFailed, True),
        (503, ServerFailed, True),
        (504, ServerFailed, True),
    ],
)
def test_every_refusal_says_who_what_and_why(fake: FakeApiServer, world: World, status: int, kind: type, later: bool):
    fake.rude = says(status, "because of the moon")
    with pytest.raises(kind) as refused:
        world.admin.get(f"{NODES}/w1")
    said = str(refused.value)
    assert f"GET {fake.url}/api/v1/nodes/w1: " in said
    assert "because of the moon" in said
    assert isinstance(refused.value, TryLater) is later
    assert later or f"({status})" in said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no reason was given"),
        (b"<html>\n<h1>Bad\x1b[31m Gateway", "<html> <h1>Bad\\x1b[31m Gateway"),
        (b"[" * 100_000, "[[["),
        (b'{"message": 7}', '{"message": 7}'),
        (b'{"message": "x", "details": {"causes": "no list"}}', '"causes": "no list"'),
        ("Ünïcode\u202e".encode(), "\\xdcn\\xefcode\\u202e"),
    ],
)
def test_a_refusal_in_any_form_is_shown_short_and_printable(fake: FakeApiServer, world: World, body: bytes, said: str):
    fake.rude = answers(503, body)
    with pytest.raises(ServerFailed) as refused:
        world.admin.get(NODES)
    message = str(refused.value)
    assert len(message) < 600
    assert message.isprintable() and message.isascii()
    assert said in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "did not send JSON: b'<html>'"),
        (b'{"items": [', "did not send JSON"),
        (b"\xff\xfe", "did not send JSON"),
        (b"[" * 200_000, "did not send JSON"),
        (b'{"x": ' + b"9" * 10_000 + b"}", "did not send JSON"),
        (b"[1]", "sent list, not an object"),
        (b'{"items": {"a": 1}}', "items should be a list, the server sent dict"),
        (b'{"items": ["text"]}', "sent a list of str"),
        (b'{"items": [], "metadata": {"continue": 7}}', "metadata.continue should be text, the server sent int '7'"),
        (b'{"items": [], "metadata": []}', "'continue' was expected in an object, the server sent list"),
    ],
)
def test_answers_that_are_none_are_malformed(fake: FakeApiServer, world: World, body: bytes, said: str):
    fake.rude = answers(200, body)
    with pytest.raises(Malformed) as refused:
        list(world.admin.list(NODES))
    assert said in str(refused.value)


def wrong(**fields: Any) -> bytes:
    return json.dumps({"items": [{"metadata": {"name": "x"}, **fields}], "metadata": {}}).encode()


@pytest.mark.parametrize(
    ("use", "body"),
    [
        (lambda api: Leases(api).all(), wrong(spec="text")),
        (lambda api: Leases(api).all(), wrong(spec={"holderIdentity": 7})),
        (lambda api: Leases(api).all(), wrong(spec={"acquireTime": "yesterday"})),
        (lambda api: Leases(api).all(), wrong(metadata={"name": None})),
        (lambda api: Leases(api).all(), wrong(metadata={"name": "x", "annotations": {"a": 1}})),
        (lambda api: drain.left_on(api, "w1"), wrong(metadata={"name": "x", "namespace": 1})),
        (lambda api: drain.left_on(api, "w1"), wrong(status={"phase": []})),
        (lambda api: Tokens(api).present(), wrong(metadata={"name": "x", "labels": []})),
        (apiservers.places, b'{"subsets": [{"ports": [], "addresses": [{"ip": "192.0.2.1"}]}]}'),
        (apiservers.places, b'{"subsets": [{"ports": [{"port": "x"}], "addresses": []}]}'),
        (apiservers.places, b'{"subsets": [{"ports": [{"port": 1}], "addresses": [{"ip": 7}]}]}'),
    ],
)
def test_fields_of_another_type_are_malformed(fake: FakeApiServer, world: World, use: Any, body: bytes):
    fake.rude = answers(200, body)
    with pytest.raises(Malformed):
        use(world.admin)


def test_a_request_that_cannot_be_read_keeps_no_other_waiting(fake: FakeApiServer, world: World):
    fake.rude = answers(200, wrong(spec={"signerName": 7}))
    assert pending(world.admin) == {}


def test_an_answer_that_never_ends_is_cut_off(fake: FakeApiServer, world: World):
    def endless(handler: Handler) -> bool:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(b" " * 65_536)
        return True

    fake.rude = endless
    with Api(world.admin.access, max_bytes=1 << 20) as api, pytest.raises(Malformed, match="more than 1048576 bytes"):
        api.get(NODES)


def test_pages_that_never_end_are_cut_off(fake: FakeApiServer, world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kubenode.host.kube.client.MAX_PAGES", 5)
    fake.rude = lambda handler: handler.reply(200, b'{"items": [], "metadata": {"continue": "x"}}') is None
    with pytest.raises(Malformed, match="more than 5 pages"):
        list(world.admin.list(NODES))


def test_a_list_that_expires_half_way_is_tried_later(
    fake: FakeApiServer, world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("kubenode.host.kube.client.PAGE", 1)
    world.node("w1")
    world.node("w2")
    found = world.admin.list(NODES)
    assert next(found)["metadata"]["name"] == "w1"
    fake.store.compact()
    with pytest.raises(TryLater, match="expired while it was read"):
        next(found)


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_server_that_drips_is_cut_off(fake: FakeApiServer, world: World, where: str):
    """Each byte comes in time for a socket's timeout; the whole does not."""

    def drip(handler: Handler) -> bool:
        if where == "body":
            handler.send_response(200)
            handler.end_headers()
        try:
            for _ in range(200):
                handler.connection.sendall(b" " if where == "body" else b"H")
                time.sleep(0.05)
        except OSError:
            pass
        handler.close_connection = True
        return True

    fake.rude = drip
    start = time.monotonic()
    with Api(world.admin.access, seconds=0.5) as api, pytest.raises(TryLater, match=r"did not finish within 0\.5 s"):
        api.get(NODES)
    assert time.monotonic() - start < 5


def test_a_server_that_says_nothing_is_given_up(fake: FakeApiServer, world: World):
    def silent(handler: Handler) -> bool:
        handler.rfile.read(1)
        return True

    fake.rude = silent
    with Api(world.admin.access, seconds=0.3) as api, pytest.raises(TryLater, match=r"did not finish within 0\.3 s"):
        api.get(NODES)


def test_a_redirect_is_not_followed(fake: FakeApiServer, world: World):
    fake.rude = answers(302, b"", Location="https://example.net/")
    with pytest.raises(Malformed, match=r"the server redirects \(302\)"):
        world.admin.get(NODES)


# A server that dies.


def test_a_read_on_a_connection_that_was_closed_is_asked_again(fake: FakeApiServer, world: World):
    world.node("w1")
    deaths = []

    def dies_once(handler: Handler) -> bool:
        if handler.command == "GET" and not deaths:
            deaths.append(1)
            handler.close_connection = True
            return True
        return False

    fake.rude = dies_once
    assert world.admin.get(f"{NODES}/w1")["metadata"]["name"] == "w1"
    assert deaths == [1]


def test_a_read_that_always_breaks_is_tried_twice_and_no_more(fake: FakeApiServer, world: World):
    world.node("w1")
    tries = []

    def dies(handler: Handler) -> bool:
        tries.append(1)
        handler.close_connection = True
        return True

    fake.rude = dies
    with pytest.raises(TryLater, match="broke off"):
        world.admin.get(f"{NODES}/w1")
    assert len(tries) == 2


@pytest.mark.parametrize("done", [False, True])
def test_a_write_that_breaks_is_never_repeated_and_the_next_look_tells(fake: FakeApiServer, world: World, done: bool):
    """The server dies before or after it took the lease; the next acquire finds out and is right either way."""
    leases = Leases(world.admin)
    leases.ensure(frozenset({SLOT}))
    world.node("w1")
    writes = []

    def dies_at_put(handler: Handler) -> bool:
        if handler.command != "PUT":
            return False
        writes.append(1)
        if done:
            body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
            fake.answer("PUT", handler.path, handler.user(), body, "application/json")
        handler.close_connection = True
        return True

    fake.rude = dies_at_put
    with pytest.raises(TryLater, match="it is not known whether it was done"):
        leases.acquire(SLOT, "w1", "", None, NOW)
    assert len(writes) == 1
    fake.rude = None
    assert leases.all()[0].holder == ("w1" if done else None)
    leases.acquire(SLOT, "w1", "", None, NOW)
    assert leases.all()[0].holder == "w1"


def test_half_an_answer_is_no_answer(fake: FakeApiServer, world: World):
    def half(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"items": []}')
        handler.close_connection = True
        return True

    fake.rude = half
    with pytest.raises(TryLater, match="broke off"):
        list(world.admin.list(NODES))


def test_a_lease_that_changes_between_look_and_swap_is_lost(fake: FakeApiServer, world: World):
    leases = Leases(world.admin)
    leases.ensure(frozenset({SLOT}))
    world.node("w2")

    def faster(handler: Handler) -> bool:
        if handler.command == "PUT":
            with World(fake).admin as other:
                fake.rude = None
                Leases(other).acquire(SLOT, "w2", "", None, NOW)
        return False

    fake.rude = faster
    with pytest.raises(TryLater, match="another one was faster to take the lease slot-pool-workers-0"):
        leases.acquire(SLOT, "w1", "", None, NOW)
    assert leases.all()[0].holder == "w2"


def test_a_lease_that_is_deleted_between_look_and_swap_is_not_made_anew(fake: FakeApiServer, world: World):
    leases = Leases(world.admin)
    leases.ensure(frozenset({SLOT}))

    def deletes(handler: Handler) -> bool:
        if handler.command == "PUT":
            fake.rude = None
            with World(fake).admin as other:
                other.delete(f"{LEASES}/{SLOT}")
        return False

    fake.rude = deletes
    with pytest.raises(HostError):
        leases.acquire(SLOT, "w1", "", None, NOW)
    assert leases.all() == ()


# Who is at the other end.


def test_nobody_is_there(fake: FakeApiServer, world: World):
    api = Api(replace(world.admin.access, server="https://127.0.0.1:1"))
    with api, pytest.raises(TryLater, match=r"https://127.0.0.1:1 cannot be reached"):
        api.get(NODES)


def test_another_cluster_is_there(fake: FakeApiServer):
    stranger = Authority()
    access = stranger.access(fake.url, stranger.issue("admin", ("system:masters",)))
    with Api(access) as api, pytest.raises(HostError, match="is no server of this cluster") as refused:
        api.get(NODES)
    assert "check the clock, too" in refused.value.hint
    assert not isinstance(refused.value, TryLater)


def test_the_certificate_must_name_the_address(fake: FakeApiServer, world: World):
    """127.0.0.1 and localhost are in it."""
    with Api(replace(world.admin.access, name="localhost")) as api:
        assert api.get("/version")
    api = Api(replace(world.admin.access, name="k8s.example.net"))
    with api, pytest.raises(HostError, match="is no server of this cluster") as refused:
        api.get(NODES)
    assert "k8s.example.net" in str(refused.value)


def test_plain_http_is_no_server(tmp_path: Path, fake: FakeApiServer, world: World):
    import http.server
    import threading

    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as plain:
        thread = threading.Thread(target=plain.handle_request, daemon=True)
        thread.start()
        api = Api(replace(world.admin.access, server=f"https://127.0.0.1:{plain.server_port}"))
        with api, pytest.raises(TryLater, match="cannot be reached"):
            api.get(NODES)
        thread.join(10)


def test_paths_cannot_be_led_astray(fake: FakeApiServer, world: World):
    """A name from outside stays one segment of the path."""
    seen = []
    fake.rude = lambda handler: seen.append(handler.path) or False
    for name in ("../secrets", "a/b", "x?y=1", "x#y", "ä"):
        with pytest.raises(KubenodeError):
            nodes.cordon(world.admin, name)
    assert seen == [f"/api/v1/nodes/{it}" for it in ("..%2Fsecrets", "a%2Fb", "x%3Fy%3D1", "x%23y", "%C3%A4")]


def test_an_api_server_that_refuses_has_answered(fake: FakeApiServer) -> None:
    """Whoever shows a certificate of the CA is a control plane: no second cluster is founded beside it."""
    places = {"cp-1": fake.authority.access(fake.url), "gone": fake.authority.access("https://127.0.0.1:1")}
    for body, status in ((b"{}", 401), (b"{}", 403), (b"", 500), (b"<html>", 200), (b'{"gitVersion": "x"}', 200)):
        fake.rude = answers(status, body)
        assert apiservers.answers(places) == (Answer("cp-1", None),)
    fake.rude = None
    assert apiservers.answers(places) == (Answer("cp-1", KubernetesVersion("v1.20.2")),)
    assert apiservers.answers({"cp-1": replace(places["cp-1"], ca=Authority().pair.certificate)}) == ()
