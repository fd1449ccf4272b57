"""One identity at one API server, over plain httpx: every request is bounded in time and size.

Rules: the Kubernetes API concepts page (list chunking, resource versions, patch types) and RFC 9110. Redirects are not
followed and proxies are not used: a node talks to its own control planes. Only reads are tried again, once, when a
kept connection turns out to be closed. After a write that broke off nobody knows whether it happened: that is TryLater,
and the next look at the cluster tells.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from kubenode.errors import HostError, TryLater
from kubenode.host.kube.errors import (
    ApiRefused,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Malformed,
    NotFound,
    NotOurs,
    ServerFailed,
    Throttled,
    Unauthorised,
    Unreachable,
)
from kubenode.host.kube.kubeconfig import Access
from kubenode.host.kube.reading import Object, items, shown, text
from kubenode.host.kube.tls import client_context

PAGE = 250
"""Objects asked for at a time; a Node is some 10 to 20 kB."""
MAX_BYTES = 32 << 20
"""Of one answer."""
MAX_PAGES = 400
MERGE = "application/merge-patch+json"
_REFUSALS: dict[int, type[ApiRefused]] = {
    400: Invalid, 401: Unauthorised, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone, 422: Invalid,
}  # fmt: skip
_HINTS = {
    401: "the certificate may have expired, or belong to another cluster: `kubeadm certs check-expiration`",
    403: "docs/cluster.md lists which identity may do what; control planes install these rules",
}


class Api:
    """An API server as one identity. Not for several threads at once; also a context manager.

    `connect_seconds` bounds connecting, `seconds` a whole request with its answer.
    """

    def __init__(
        self, access: Access, *, connect_seconds: float = 15, seconds: float = 60, max_bytes: int = MAX_BYTES
    ) -> None:
        self.access = access
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._socket: socket.socket | None = None
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "kubenode"}
        if access.token is not None:
            headers["Authorization"] = f"Bearer {access.token}"
        context = client_context(access.ca, access.certificate, access.key, access.source)
        try:
            self._client = httpx.Client(
                base_url=access.server,
                timeout=httpx.Timeout(seconds, connect=connect_seconds),
                headers=headers,
                verify=context,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                trust_env=False,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise HostError(
                f"{access.source}: {access.server[:80]!r} is no usable address: {shown(error)}",
                hint="Correct the `server` there: https://HOST:PORT.",
            ) from error

    def __enter__(self) -> "Api":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def get(self, path: str, **query: str) -> Object:
        """Return one object. Raises NotFound and the other errors of `kubenode.host.kube.errors`."""
        return self.send("GET", path, query=query)

    def list(self, path: str, **query: str) -> Iterator[Object]:
        """Yield the objects of a list, page by page. Raises TryLater when the list changed its version half way."""
        going_on = ""
        for _ in range(MAX_PAGES):
            asked = {**query, "limit": str(PAGE), **({"continue": going_on} if going_on else {})}
            try:
                page = self.send("GET", path, query=asked)
            except Gone as error:
                raise TryLater(f"the list {path} expired while it was read; the next look starts anew") from error
            found = items(page, "items")
            for item in found:
                if not isinstance(item, dict):
                    raise Malformed(f"{self._where(path)} sent a list of {type(item).__name__}")
                yield item
            going_on = text(page, "metadata", "continue", default="")
            if not going_on:
                return
        raise Malformed(f"{self._where(path)} sends more than {MAX_PAGES} pages")

    def create(self, path: str, body: Object, **query: str) -> Object:
        """Create an object. Raises Conflict when it exists."""
        return self.send("POST", path, body, query=query)

    def replace(self, path: str, body: Object) -> Object:
        """Replace an object; with `metadata.resourceVersion` this is a compare-and-swap. Raises Conflict."""
        return self.send("PUT", path, body)

    def patch(self, path: str, body: Object) -> Object:
        """Change an object by a merge patch (RFC 7396)."""
        return self.send("PATCH", path, body, content_type=MERGE)

    def delete(self, path: str, body: Object | None = None) -> bool:
        """Delete an object; `body` are DeleteOptions. Returns False when it was gone already."""
        try:
            self.send("DELETE", path, body)
        except NotFound:
            return False
        return True

    def send(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send a request and return the object in the answer (empty when there is none)."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if content is not None else {}
        request = self._client.build_request(method, path, params=query or None, content=content, headers=headers)
        data = bytearray()

        def take(_: int, chunk: bytes) -> None:
            data.extend(chunk)
            if len(data) > self._max_bytes:
                raise Malformed(f"{self._where(path)} sends more than {self._max_bytes} bytes")

        try:
            status = self._exchange(request, take)
        except _Closed:
            # The server closed a kept connection; nothing of a read is lost by asking again.
            data.clear()
            status = self._exchange(request, take, again=True)
        return self._judge(method, path, status, bytes(data))

    def each_line(self, path: str, body: Object, most: int, use: Callable[[Object], None]) -> None:
        """POST, and hand on the answer's lines, each an object of at most `most` bytes, as they arrive."""
        rest = bytearray()

        def take(status: int, chunk: bytes) -> None:
            rest.extend(chunk)
            while status == 200 and (end := rest.find(b"\n")) >= 0:
                use(self._object(path, bytes(rest[:end])))
                del rest[: end + 1]
            if len(rest) > most:
                raise Malformed(f"{self._where(path)} sends a line of more than {most} bytes")

        headers = {"Content-Type": "application/json"}
        request = self._client.build_request("POST", path, content=json.dumps(body).encode(), headers=headers)
        status = self._exchange(request, take)
        last = self._judge("POST", path, status, bytes(rest))
        if last:
            use(last)

    def _exchange(self, request: httpx.Request, take: Callable[[int, bytes], None], *, again: bool = False) -> int:
        """Send a request, hand on its answer's bytes, and return its status."""
        kept = self._socket
        late = threading.Event()
        watchdog = threading.Timer(self._seconds, self._cut, (late,))
        watchdog.daemon = True
        request.extensions["trace"] = self._trace
        if self.access.name is not None:
            request.extensions["sni_hostname"] = self.access.name
        watchdog.start()
        try:
            response = self._client.send(request, stream=True)
            try:
                for chunk in response.iter_raw():
                    take(response.status_code, chunk)
            finally:
                response.close()
            if late.is_set():
                # A body without a length just ends where it is cut.
                raise httpx.ReadTimeout("")
            return response.status_code
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise NotOurs(
                    f"{self.access.server} is no server of this cluster: {shown(error)}",
                    hint="its certificate must come from the cluster's CA and name this address; check the clock, too",
                ) from error
            raise Unreachable(f"{self.access.server} cannot be reached: {shown(error)}") from error
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as error:
            if late.is_set() or isinstance(error, httpx.TimeoutException):
                said = f"did not finish within {self._seconds:g} s"
            elif request.method == "GET" and kept is not None and kept is self._socket and not again:
                self._socket = None
                raise _Closed from error
            else:
                said = f"broke off: {shown(error) or type(error).__name__}"
            unknown = "" if request.method == "GET" else "; it is not known whether it was done"
            raise TryLater(f"{request.method} {self._where(request.url.path)} {said}{unknown}") from error
        finally:
            watchdog.cancel()

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the connection's socket (httpx, "trace" request extension)."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")

    def _cut(self, late: threading.Event) -> None:
        """End a request that takes too long: timeouts of sockets begin anew with every byte that drips in."""
        late.set()
        if self._socket is not None:
            try:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                return

    def _judge(self, method: str, path: str, status: int, data: bytes) -> Object:
        """Return the object of a good answer, or raise what a bad one means."""
        if status in (200, 201, 202):
            return self._object(path, data)
        where = f"{method} {self._where(path)}"
        said, reason, causes = _status(data)
        if status == 429:
            raise Throttled(f"{where}: {said or 'too many requests'}", causes=causes)
        if status >= 500:
            raise ServerFailed(f"{where}: the server failed ({status}): {said}")
        if 300 <= status < 400:
            raise Malformed(f"{where}: the server redirects ({status}), which an API server never does")
        kind = _REFUSALS.get(status, ApiRefused)
        raise kind(f"{where}: {said} ({status})", status=status, reason=reason, hint=_HINTS.get(status, ""))

    def _object(self, path: str, data: bytes) -> Object:
        try:
            value = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{self._where(path)} did not send JSON: {shown(data[:60])}") from error
        if not isinstance(value, dict):
            raise Malformed(f"{self._where(path)} sent {type(value).__name__}, not an object")
        return value

    def _where(self, path: str) -> str:
        return f"{self.access.server}{path}"


class _Closed(Exception):
    """A kept connection was closed before the answer; only for reads."""


def _status(data: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Return message, reason and causes of a Status object; anything else is shown as it is."""
    try:
        value = json.loads(data)
        causes = tuple(shown(text(cause, "message", default="")) for cause in items(value, "details", "causes"))
        return shown(text(value, "message")), text(value, "reason", default="")[:80], causes
    except (ValueError, RecursionError, Malformed):
        return shown(data[:200].decode(errors="replace")) or "no reason was given", "", ()


def path_of(*words: str) -> str:
    """Return a request path of literal and foreign words: `path_of("/api/v1/nodes", name)`."""
    return "/".join([words[0], *(quote(word, safe="") for word in words[1:])])
