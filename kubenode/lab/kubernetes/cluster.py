"""Everything the lab needs of Kubernetes, made once and kept in the user's cache."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubenode.host.files import locked
from kubenode.lab.kubernetes import compile, images, toolchain

OLD, PATCHED, NEW = VERSIONS = ("v1.20.2", "v1.20.3", "v1.21.0")
"""The version that Debian's source is, and two further stamps on the same source: a patch and a minor later."""
ON_NODES = ("kubeadm", "kubelet", "crictl")


@dataclass(frozen=True)
class Kubernetes:
    """One version: a folder with its binaries, and the archives of its images (those of etcd and pause included)."""

    version: str
    binaries: Path
    archives: tuple[Path, ...]

    def digests(self) -> dict[str, str]:
        """Return the sha256 of what goes into an image, by name, as a recipe pins it."""
        found = {}
        for name in ON_NODES:
            with (self.binaries / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found


def provide(folder: Path, versions: tuple[str, ...], show: Callable[[str], None]) -> tuple[Kubernetes, ...]:
    """Return the versions, building below `folder` what is not there yet. Raises HostError."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        # All else comes from a package that does not change.
        made_with = hashlib.sha256(compile.stand_in()).hexdigest()
        missing = [it for it in versions if _made_with(folder / it) != made_with]
        if missing:
            show("fetching Debian's source package of Kubernetes and its compiler")
            tools = toolchain.prepare(folder / "build")
            show("generating code")
            compile.generate(tools)
        for version in missing:
            binaries = folder / version
            (binaries / "crictl").unlink(missing_ok=True)
            compile.compile_version(tools, version, binaries, show)
            show(f"packing the images of {version}")
            shutil.copy(toolchain.etcd(tools, folder / "build/etcd"), binaries / "etcd")
            images.pack(tools, version, binaries, folder / "images" / version)
            (binaries / "complete").write_text(made_with)
    return tuple(Kubernetes(it, folder / it, tuple(sorted((folder / "images" / it).glob("*.tar")))) for it in versions)


def _made_with(binaries: Path) -> str | None:
    """Return the digest of the stand-in that a complete folder was made with, None for one that is not complete."""
    complete = binaries / "complete"
    return complete.read_text() if complete.exists() else None
