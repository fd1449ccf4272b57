"""One address of a static fleet store: `static+https://host/path`, also `static+http` and `static+file`.

Whatever is wrong with an address becomes StoreFailed, and the next one is asked.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kubenode.errors import UsageError
from kubenode.host.files import host_errors
from kubenode.host.fleetindex import MAX_INDEX, Bundle, Index, decode, index_name
from kubenode.host.git_run import shown
from kubenode.host.storefailed import StoreFailed
from kubenode.host.stores import read_file
from kubenode.trust.headfile import HEAD_NAME, MAX_BYTES

if TYPE_CHECKING:
    from kubenode.host.http import HttpReader

PREFIX = "static+"
MAX_MIRRORS = 8
LIMITS = (10.0, 30.0, 60.0, 256 << 10)
"""Seconds to connect, to wait for a read, and in which at least so many bytes must arrive."""
_CHUNK = 1 << 20


def addresses(fleet_url: str) -> tuple[str, ...]:
    """Return the addresses of a static store that a seed's fleetUrl names, separated by spaces; none for a git URL.

    Raises UsageError for an address that is none, for more than 8, and for a mixture of both kinds.
    """
    words = fleet_url.split()
    if not any(word.startswith(PREFIX) for word in words):
        return ()
    for word in words:
        try:
            parts = urlsplit(word.removeprefix(PREFIX))
            good = word.startswith(PREFIX) and parts.scheme in ("https", "http", "file")
            good = good and (bool(parts.netloc) if parts.scheme != "file" else parts.netloc in ("", "localhost"))
        except ValueError:
            good = False
        if not good:
            raise UsageError(
                f"`{shown(word)}` is not the address of a static fleet store",
                hint="Write static+https://host/path, static+http://host/path or static+file:///path; "
                "several are separated by spaces.",
            )
    if len(words) > MAX_MIRRORS:
        raise UsageError(
            f"the fleet URL names {len(words)} addresses; at most {MAX_MIRRORS} are read",
            hint="Keep the nearest of them in fleetUrl of the seed.",
        )
    return tuple(word.rstrip("/") for word in words)


class Mirror:
    """Reads the files of one address. `limits` are those of `LIMITS`."""

    def __init__(self, address: str, limits: tuple[float, float, float, int] = LIMITS) -> None:
        self.address = address
        self._base = address.removeprefix(PREFIX)
        self._limits = limits
        self._http: HttpReader | None = None

    def __str__(self) -> str:
        return shown(self._base)

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def head(self, mark: Mapping[str, str]) -> tuple[bytes, dict[str, str]] | None:
        """Return head.json and what marks this version of it, None when `mark` says that it has not changed."""
        if self._folder is not None:
            data = b"".join(islice(read_file(self._folder / HEAD_NAME, 0), 2))
            if len(data) > MAX_BYTES:
                raise StoreFailed(f"{HEAD_NAME} is larger than {MAX_BYTES} bytes")
            digest = {"sha256": hashlib.sha256(data).hexdigest()}
            return None if digest == mark else (data, digest)
        from kubenode.host.http import Validators

        known = Validators(mark.get("etag", ""), mark.get("modified", ""))
        found = self._reader().changed(f"{self._base}/{HEAD_NAME}", known, MAX_BYTES)
        if found is None:
            return None
        data, said = found
        return data, {name: it for name, it in (("etag", said.etag), ("modified", said.modified)) if it}

    def index(self, head: str) -> Index:
        """Return the index of the bundles that lead to a commit."""
        name = index_name(head)
        data = bytearray()
        for chunk in self._open(name, 0):
            data += chunk
            if len(data) > MAX_INDEX:
                raise StoreFailed(f"{name} is larger than {MAX_INDEX} bytes")
        try:
            return decode(bytes(data), head)
        except ValueError as error:
            raise StoreFailed(f"{name} cannot be used: {error}") from error

    def download(self, bundle: Bundle, path: Path, deadline: float) -> None:
        """Complete the download of a bundle at `path`, compared with its size and digest; what is there is continued.

        `deadline` is in seconds of the monotonic clock. After a broken transfer the part stays, wrong bytes do not.
        Raises StoreFailed, NoSpace, HostError.
        """
        digest, size = hashlib.sha256(), 0
        with host_errors(f"{path} cannot be written", path.parent, bundle.size), path.open("a+b") as file:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
            if size < bundle.size:
                for chunk in self._open(bundle.name, size):
                    size += len(chunk)
                    if size > bundle.size:
                        break
                    digest.update(chunk)
                    file.write(chunk)
                    if time.monotonic() > deadline:
                        raise StoreFailed(f"{bundle.name} takes too long: {size} of {bundle.size} bytes are here")
            if size < bundle.size:
                raise StoreFailed(f"{bundle.name} ended at {size} of {bundle.size} bytes")
        if size != bundle.size or digest.hexdigest() != bundle.sha256:
            with suppress(OSError):
                path.unlink()
            raise StoreFailed(f"{bundle.name} is not what the index says: size or sha256 differ")

    @property
    def _folder(self) -> Path | None:
        parts = urlsplit(self._base)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def _open(self, name: str, offset: int) -> Iterator[bytes]:
        if self._folder is not None:
            return read_file(self._folder / name, offset)
        return self._reader().read(f"{self._base}/{name}", offset)

    def _reader(self) -> "HttpReader":
        if self._http is None:
            # Costs about 0.2 s: it is not needed to read a folder.
            from kubenode.host.http import HttpReader

            self._http = HttpReader(*self._limits)
        return self._http
