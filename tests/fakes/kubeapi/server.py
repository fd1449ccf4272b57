"""A fake kube-apiserver: real HTTPS on loopback, client certificates, the rules of `store.py` and `rbac.py`."""

import copy
import json
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.rbac import Attempt, User, require
from tests.fakes.kubeapi.store import KINDS, Kind, Object, Refusal, Store

Rude = Callable[["Handler"], bool]
"""Called before each request; answers in its own way and returns True, or leaves it to the server."""
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class FakeApiServer:
    """Runs in threads of this process until it is closed, on addresses of loopback. `rude` makes it misbehave."""

    def __init__(
        self, authority: Authority, folder: Path, version: str = "v1.20.2", hosts: Sequence[str] = ("127.0.0.1",)
    ) -> None:
        self.store = Store()
        self.authority = authority
        self.version = version
        self.rude: Rude | None = None
        pair = authority.issue("kube-apiserver", hosts=(*hosts, "localhost"))
        pair.write(folder, "fake-apiserver")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "fake-apiserver.crt", folder / "fake-apiserver.key")
        context.load_verify_locations(cadata=authority.pair.certificate.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        self._http = _Server((hosts[0] if len(hosts) == 1 else "", 0), Handler)
        self._http.fake = self
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(
        self, method: str, target: str, user: User, body: Object | None, content_type: str
    ) -> tuple[int, Object]:
        """Answer one request."""
        parts = urlsplit(target)
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        query = dict(parse_qsl(parts.query))
        with self.store.lock:
            # A copy: what is sent must not change while it is sent.
            return copy.deepcopy(self._answer(method, words, query, user, body, content_type))

    def _answer(
        self, method: str, words: list[str], query: dict[str, str], user: User, body: Object | None, content_type: str
    ) -> tuple[int, Object]:
        if method == "GET" and words == ["version"]:
            return 200, {"major": "1", "minor": self.version.split(".")[1], "gitVersion": self.version}
        if method == "GET" and words == ["api", "v1"]:
            group = {"group": "policy", "version": self.policy}
            return 200, {"kind": "APIResourceList", "resources": [{"name": "pods"}, {"name": "pods/eviction", **group}]}
        group, rest = ("", words[2:]) if words[:2] == ["api", "v1"] else (words[1] if len(words) > 2 else "", words[3:])
        if words[0] not in ("api", "apis") or not rest:
            raise Refusal(404, "the server could not find the requested resource")
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and (group, rest[2]) in KINDS:
            namespace, rest = rest[1], rest[2:]
        kind = KINDS.get((group, rest[0]))
        if kind is None or len(rest) > 3 or (group and words[2] not in kind.versions):
            raise Refusal(404, "the server could not find the requested resource")
        name, part = [*rest, "", ""][1:3]
        if method == "POST" and part != "eviction":
            name = ""
        verb = ("get" if name else "list") if method == "GET" else _VERBS[method]
        resource = f"{kind.plural}/{part}" if part else kind.plural
        require(self.store, user, Attempt(verb, group, resource, namespace, name))
        return self._do(kind, verb, namespace, name, part, query, user, body, content_type)

    @property
    def policy(self) -> str:
        """The version of evictions: v1 since Kubernetes 1.22."""
        return "v1" if int(self.version.split(".")[1]) >= 22 else "v1beta1"

    def _do(
        self, kind: Kind, verb: str, namespace: str, name: str, part: str, query: dict[str, str], user: User,
        body: Object | None, content_type: str,
    ) -> tuple[int, Object]:  # fmt: skip
        store, body = self.store, {} if body is None else body
        match verb, part:
            case "get", "":
                return 200, store.get(kind, namespace, name)
            case "list", "":
                found = [it for it in store.all(kind, namespace) if _selected(it, query)]
                found, more = store.page(found, int(query.get("limit", "0")), query.get("continue", ""))
                return 200, {"kind": f"{kind.kind}List", "metadata": {"continue": more}, "items": found}
            case "create", "":
                if kind.plural == "certificatesigningrequests":
                    body["spec"] = {
                        **body["spec"],
                        "username": user.name,
                        "groups": [*user.groups, "system:authenticated"],
                    }
                return 201, store.create(kind, namespace, body)
            case "create", "eviction":
                if body.get("apiVersion") != f"policy/{self.policy}":
                    raise Refusal(400, f'no kind "Eviction" is registered for version "{body.get("apiVersion")}"')
                return 201, store.evict(namespace, name, body.get("deleteOptions", {}))
            case "update", "" | "status" | "approval":
                return 200, store.replace(kind, namespace, name, body, part)
            case "patch", "" | "status":
                if content_type != "application/merge-patch+json":
                    raise Refusal(400, f"the fake server knows merge patches only, not {content_type}")
                return 200, store.patch(kind, namespace, name, body)
            case "delete", "":
                return 200, store.delete(kind, namespace, name, body)
        raise Refusal(405, "the server does not allow this method on the requested resource")


class Handler(BaseHTTPRequestHandler):
    """Reads a request, writes an answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def handle_one_request(self) -> None:
        with suppress(ssl.SSLError, ConnectionError, OSError):
            super().handle_one_request()
            return
        self.close_connection = True

    def do_GET(self) -> None:
        fake = self.server.fake
        if fake.rude is not None and fake.rude(self):
            return
        size = int(self.headers.get("Content-Length", "0"))
        data = self.rfile.read(size)
        try:
            body = json.loads(data) if data else None
            if body is not None and not isinstance(body, dict):
                raise ValueError
            status, answer = fake.answer(
                self.command, self.path, self.user(), body, self.headers.get("Content-Type", "")
            )
        except Refusal as refusal:
            status, answer = refusal.code, refusal.status
        except ValueError:
            refusal = Refusal(400, "the body of the request is no JSON object")
            status, answer = refusal.code, refusal.status
        self.reply(status, json.dumps(answer).encode())

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def user(self) -> User:
        certificate: Any = self.connection.getpeercert()  # type: ignore[attr-defined]
        if not certificate and "Authorization" in self.headers:
            raise Refusal(401, "Unauthorized")
        if not certificate:
            return User("system:anonymous", ("system:unauthenticated",))
        parts = [pair for part in certificate["subject"] for pair in part]
        name = next((value for key, value in parts if key == "commonName"), "")
        return User(name, tuple(value for key, value in parts if key == "organizationName"))

    def reply(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    fake: FakeApiServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


def _selected(it: Object, query: dict[str, str]) -> bool:
    """Apply `fieldSelector` and `labelSelector` (equality, existence)."""
    for condition in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = condition.partition("=")
        found: Any = it
        for word in key.split("."):
            found = (found or {}).get(word)
        if (found or "") != value:
            return False
    labels = it["metadata"].get("labels", {})
    for condition in filter(None, query.get("labelSelector", "").split(",")):
        key, equals, value = condition.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
