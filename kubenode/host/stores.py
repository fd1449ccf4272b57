"""Reads releases from image stores: `<store>/<version>/<file>`, over http, https or from a folder (file://).

No store is trusted: whatever is wrong with one, the next is asked, and what arrives is verified by others. Addresses
are shown without what stands before an `@` in them.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote, urlsplit

from kubenode.errors import HostError, TryLater
from kubenode.host.storefailed import StoreFailed
from kubenode.model.version import Version
from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME

if TYPE_CHECKING:
    from kubenode.host.http import HttpReader

MAX_EVIDENCE = 1 << 20
"""Bytes of a manifest or a bundle; larger ones are not read."""
_CHUNK = 1 << 20
_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class HttpStores:
    """Implements `kubenode.ports.ReleaseStore`; also a context manager that closes its connections.

    `connect_seconds` and `read_seconds` bound each step of a transfer; a transfer that brings fewer than
    `least_bytes` in `stall_seconds` is given up, so that no server can hold the agent.
    """

    def __init__(
        self,
        stores: Sequence[str],
        *,
        connect_seconds: float = 10,
        read_seconds: float = 30,
        stall_seconds: float = 60,
        least_bytes: int = 256 << 10,
    ) -> None:
        self._stores = tuple(store.rstrip("/") for store in stores)
        self._limits = (connect_seconds, read_seconds, stall_seconds, least_bytes)
        self._http: HttpReader | None = None
        self._last: int | None = None
        self._refused: dict[Version, set[int]] = {}

    def __enter__(self) -> "HttpStores":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def manifest(self, version: Version) -> tuple[bytes, bytes]:
        """Return a release's manifest and bundle, both from one store. Raises TryLater when no store has both."""

        def both(store: str) -> tuple[bytes, bytes]:
            return self._whole(store, version, MANIFEST_NAME), self._whole(store, version, BUNDLE_NAME)

        return self._first(version, both)

    def artifact(self, version: Version, name: str, offset: int) -> Iterator[bytes]:
        """Yield an artifact's bytes from `offset` on, from the first store that gives any.

        Raises TryLater when no store answers, or when a transfer breaks: the caller goes on from what it has then.
        HostError for a name or an offset that is none.
        """
        if not _NAME.fullmatch(name) or offset < 0:
            raise HostError(
                f"{name[:80]!r} from byte {offset} cannot be asked for",
                hint="This is a mistake in kubenode, or a manifest that no build made: please report it.",
            )

        def begin(store: str) -> tuple[str, bytes, Iterator[bytes]]:
            chunks = self._open(store, version, name, offset)
            # Only a store that gives bytes has answered: one that always breaks at once must not keep others away.
            return store, next(chunks, b""), chunks

        store, first, rest = self._first(version, begin)
        try:
            if first:
                yield first
            yield from rest
        except StoreFailed as error:
            raise TryLater(
                f"the transfer of {name} from {_shown(store)} broke off: {error}",
                hint="Nothing to do: the download goes on where it ended, from the next store if there is one.",
            ) from error

    def refuse(self, version: Version) -> bool:
        """Ask the store that answered last no more for this release. Return True when another one is left.

        When none is left, or none has answered, all refusals of this release are forgotten.
        """
        if self._last is None:
            self._refused.pop(version, None)
            return False
        refused = self._refused.setdefault(version, set())
        refused.add(self._last)
        self._last = None
        if len(refused) < len(self._stores):
            return True
        del self._refused[version]
        return False

    def _first(self, version: Version, ask: Callable[[str], _T]) -> _T:
        """Return what the first store answers that was not refused."""
        self._last = None
        problems = []
        for index, store in enumerate(self._stores):
            if index in self._refused.get(version, ()):
                problems.append(f"{_shown(store)}: refused before")
                continue
            try:
                answer = ask(store)
            except StoreFailed as error:
                problems.append(f"{_shown(store)}: {error}")
                continue
            self._last = index
            return answer
        raise TryLater(
            f"no image store can give release {version}: {'; '.join(problems) or 'the fleet names none'}",
            hint="check the stores in fleet.yaml, and this machine's network, DNS, proxy and CA certificates",
        )

    def _whole(self, store: str, version: Version, name: str) -> bytes:
        data = bytearray()
        for chunk in self._open(store, version, name, 0):
            data += chunk
            if len(data) > MAX_EVIDENCE:
                raise StoreFailed(f"{name} is larger than {MAX_EVIDENCE} bytes")
        return bytes(data)

    def _open(self, store: str, version: Version, name: str, offset: int) -> Iterator[bytes]:
        """Yield a file's bytes from `offset` on. Raises StoreFailed, at once or later."""
        try:
            parts = urlsplit(store)
        except ValueError as error:
            raise StoreFailed("it is no address") from error
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return read_file(Path(unquote(parts.path)) / str(version) / name, offset)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise StoreFailed("it is no http://, https:// or file:// address")
        if self._http is None:
            # Costs about 0.2 s: most ticks need no store.
            from kubenode.host.http import HttpReader

            self._http = HttpReader(*self._limits)
        return self._http.read(f"{store}/{version}/{quote(name)}", offset)


def read_file(path: Path, offset: int) -> Iterator[bytes]:
    """Yield the bytes of a plain file from `offset` on. Raises StoreFailed, at the first byte or later."""
    try:
        # O_NONBLOCK: a pipe with that name must not hang the agent.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StoreFailed(f"{path.name} is not a file")
            if offset > status.st_size:
                raise StoreFailed(f"{path.name} has {status.st_size} bytes, fewer than are there already")
            file.seek(offset)
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise StoreFailed(f"{path.name} cannot be read: {error.strerror}") from error


def _shown(store: str) -> str:
    """Return an address without credentials, short and printable."""
    return _CREDENTIALS.sub("", store)[:200].encode("ascii", "backslashreplace").decode()
