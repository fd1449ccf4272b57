"""The kubelet's configuration, one set for each release: a fallback boots the old kubelet, which needs the old set.

`/usr/libexec/kubenode-kubelet-config` of the image installs the running release's set before every start of the
kubelet. kubeadm knows only the live files, so what it renders for a staged release is taken from there and put back.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from kubenode.errors import HostError
from kubenode.host.files import host_errors, make_folder, sync_folder, write_atomically
from kubenode.host.paths import Paths
from kubenode.model.version import Version

REQUIRED = ("config.yaml", "kubeadm-flags.env")
OPTIONAL = ("instance-config.yaml",)
"""Written by kubeadm 1.34 and newer (feature gate NodeLocalCRISocket, kubeadm#3042)."""


_ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """What a set was rendered for and from: a release with its root hash, and the digest of the kubeadm documents."""

    release: Version
    root_hash: str
    configuration: str


class KubeletConfig:
    """The sets below /var/lib/kubenode/kubelet and the live files in /var/lib/kubelet."""

    def __init__(self, paths: Paths = Paths()) -> None:  # noqa: B008 - frozen
        self._live = paths.kubelet
        self._sets = paths.kubelet_sets

    def has(self, release: Version) -> bool:
        """Say whether a release has a set of its own."""
        return (self._sets / str(release)).is_dir()

    def origins(self) -> dict[str, str]:
        """Return of which documents (digest) each release's set was rendered, by the release's root hash."""
        found = {}
        for path in self._sets.glob(f"[!.]*/{_ORIGIN}"):
            # One that cannot be read is rendered again.
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(path.read_bytes())
                found[str(said["root_hash"])] = str(said["configuration"])
        return found

    def keep(self, origin: Origin) -> None:
        """Make the live files the set of a release. Raises HostError when they are missing or empty."""
        release = origin.release
        files = {name: self._read(name) for name in REQUIRED}
        files |= {name: self._read(name) for name in OPTIONAL if (self._live / name).exists()}
        files[_ORIGIN] = json.dumps({**asdict(origin), "release": str(release)}).encode()
        final = self._sets / str(release)
        unfinished, old = self._sets / f".{release}.new", self._sets / f".{release}.old"
        with host_errors(f"the kubelet's configuration cannot be kept in {final}", self._sets):
            make_folder(self._sets)
            for leftover in (unfinished, old):
                shutil.rmtree(leftover, ignore_errors=True)
            unfinished.mkdir()
            for name, data in files.items():
                write_atomically(unfinished / name, data)
            sync_folder(unfinished)
            if final.exists():
                final.rename(old)
            unfinished.rename(final)
            sync_folder(self._sets)
            shutil.rmtree(old, ignore_errors=True)

    def install(self, release: Version) -> None:
        """Make a release's set the live files, as the image does before the kubelet starts. Raises HostError."""
        kept = self._sets / str(release)
        if not kept.is_dir():
            raise HostError(
                f"release {release} has no kubelet configuration of its own in {self._sets}",
                hint="The staged release makes it before it is activated; the next tick does that again.",
            )
        with host_errors(f"the kubelet's configuration cannot be written to {self._live}", self._live):
            for name in (*REQUIRED, *OPTIONAL):
                if (kept / name).exists():
                    write_atomically(self._live / name, (kept / name).read_bytes(), 0o644)
                else:
                    (self._live / name).unlink(missing_ok=True)

    @contextmanager
    def rendering(self, staged: Origin, running: Origin) -> Iterator[None]:
        """Keep what kubeadm writes inside the block as the set of `staged`; `running` gets its own files back.

        Killed at any instant, the running kubelet still starts with its own set, and the block is simply run again.
        """
        if not self.has(running.release):
            self.keep(running)
        try:
            yield
            self.keep(staged)
        finally:
            self.install(running.release)

    def prune(self, wanted: frozenset[Version]) -> None:
        """Delete the sets of all other releases. Raises HostError."""
        names = {str(release) for release in wanted}
        with host_errors(f"{self._sets} cannot be tidied", self._sets):
            for folder in self._sets.iterdir() if self._sets.is_dir() else ():
                if folder.name not in names:
                    shutil.rmtree(folder)

    def _read(self, name: str) -> bytes:
        path = self._live / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise HostError(f"{path} cannot be read: {error.strerror}", hint="kubeadm writes it.") from error
        if not data.strip():
            # kubeadm does not flush what it writes, so a power cut leaves it empty (kubernetes#136127).
            raise HostError(f"{path} is empty", hint="Run the kubeadm step again: it writes the file anew.")
        return data
