"""Reads files over HTTP from servers that may be broken or hostile: no surprise may become more than StoreFailed.

Rules: RFC 9110, chapters 13 to 15 (range requests, status codes).
"""

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from kubenode.errors import HostError
from kubenode.host.storefailed import StoreFailed

_MAX_REDIRECTS = 5
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_VALIDATOR = re.compile(r"[ -~]{0,300}")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})")


@dataclass(frozen=True)
class Validators:
    """What a server said of a file, to be told again: its ETag and Last-Modified, empty when it said none."""

    etag: str = ""
    modified: str = ""


class HttpReader:
    """Reads files over HTTP; proxy settings come from the environment (HTTPS_PROXY, NO_PROXY, ...).

    Raises HostError when these cannot be used.
    """

    def __init__(self, connect_seconds: float, read_seconds: float, stall_seconds: float, least_bytes: int) -> None:
        self._stall_seconds = stall_seconds
        self._least_bytes = least_bytes
        timeout = httpx.Timeout(read_seconds, connect=connect_seconds)
        # Content is compared byte by byte and resumed at byte offsets: it must not be packed on the way.
        headers = {"Accept-Encoding": "identity", "User-Agent": "kubenode"}
        try:
            # A release has five files: a new connection for each costs nothing, while one that is kept may be closed by
            # the server just as it is used again, which looks like a broken store.
            fresh = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.Client(timeout=timeout, headers=headers, verify=_certificates(), limits=fresh)
        except (ValueError, OSError, ImportError, httpx.InvalidURL) as error:
            raise HostError(
                f"the proxy or the CA certificates of this machine are not usable: {_said(error)}",
                hint="check HTTPS_PROXY, HTTP_PROXY, NO_PROXY and SSL_CERT_FILE",
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, url: str, offset: int) -> Iterator[bytes]:
        """Yield the bytes of a file from `offset` on. Raises StoreFailed, at the first byte or later."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            response = self._get(self._client.build_request("GET", url, headers=headers))
            with closing(response):
                yield from self._body(response, offset)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            raise StoreFailed(_said(error)) from error

    def changed(self, url: str, known: Validators, limit: int) -> tuple[bytes, Validators] | None:
        """Return a file of at most `limit` bytes with its validators, None when `known` says that it is the same.

        One conditional request (RFC 9110, section 13). Raises StoreFailed.
        """
        headers = {"If-None-Match": known.etag, "If-Modified-Since": known.modified}
        asked = {name: value for name, value in headers.items() if value}
        try:
            response = self._get(self._client.build_request("GET", url, headers=asked))
            with closing(response):
                if asked and response.status_code == httpx.codes.NOT_MODIFIED:
                    return None
                data = bytearray()
                for chunk in self._body(response, 0):
                    data += chunk
                    if len(data) > limit:
                        raise StoreFailed(f"it sends more than {limit} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            raise StoreFailed(_said(error)) from error
        etag, modified = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
        return bytes(data), Validators(etag, modified) if _VALIDATOR.fullmatch(etag + modified) else Validators()

    def _get(self, request: httpx.Request) -> httpx.Response:
        """Send a request and follow redirects, but never from https to anything else."""
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._client.send(request, stream=True)
            following = response.next_request
            if following is None:
                return response
            response.close()
            if following.url.scheme not in ("https", request.url.scheme):
                raise StoreFailed(f"it redirects from {request.url.scheme} to {following.url.scheme}")
            request = following
        raise StoreFailed(f"it redirects more than {_MAX_REDIRECTS} times")

    def _body(self, response: httpx.Response, offset: int) -> Iterator[bytes]:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise StoreFailed(f"it sends the content packed ({encoding[:40]!r}) although that was not accepted")
        if offset and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing follows: fine when all is there already, else this store has a shorter, different file.
            match = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", "").strip())
            if match is None or int(match[1]) != offset:
                raise StoreFailed(f"it has fewer bytes than the {offset} that are there already")
            return
        if offset and response.status_code == httpx.codes.PARTIAL_CONTENT:
            skip, expected = 0, _range(response, offset)
        elif response.status_code == httpx.codes.OK:
            # A server may ignore the range and send everything.
            skip, expected = offset, None
        else:
            raise StoreFailed(f"it answers with status {response.status_code}")
        seen = 0
        for chunk in self._paced(response):
            rest = chunk[max(0, skip - seen) :]
            seen += len(chunk)
            if rest:
                yield rest
        if seen < skip or (expected is not None and seen != expected):
            raise StoreFailed(f"it sent {seen} bytes, {skip if expected is None else expected} were announced")

    def _paced(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield what arrives, as long as it arrives fast enough."""
        began, arrived = time.monotonic(), 0
        for chunk in response.iter_raw():
            now = time.monotonic()
            arrived += len(chunk)
            if arrived >= self._least_bytes:
                began, arrived = now, 0
            elif now - began > self._stall_seconds:
                raise StoreFailed(f"it is too slow: {arrived} bytes in {now - began:.0f} s")
            yield chunk


def _range(response: httpx.Response, offset: int) -> int:
    """Return how many bytes follow in a partial answer, up to the end of the file."""
    value = response.headers.get("Content-Range", "").strip()
    match = _RANGE.fullmatch(value)
    if match is None:
        raise StoreFailed(f"it sends a part without saying which ({value[:60]!r})")
    first, last, total = int(match[1]), int(match[2]), match[3]
    if first != offset or last < first or (total != "*" and int(total) != last + 1):
        raise StoreFailed(f"it sends another part ({value[:60]!r}) than was asked for")
    return last - first + 1


def _certificates() -> ssl.SSLContext | bool:
    """Return the system's CA certificates (SSL_CERT_FILE and SSL_CERT_DIR count), else those that httpx brings."""
    found = ssl.get_default_verify_paths()
    if any(path and Path(path).exists() for path in (found.cafile, found.capath)):
        return ssl.create_default_context()
    return True


def _said(error: Exception) -> str:
    """Return an error for a message: servers can put anything into it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200].encode("ascii", "backslashreplace").decode()
