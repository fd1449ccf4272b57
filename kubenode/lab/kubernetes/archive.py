"""Writes container images as archives that `ctr images import` reads, from plain files and without any daemon.

Format: the archive of `docker save` (https://github.com/moby/docker-image-spec, v1.2, combined image JSON and
filesystem changeset format). The layer is not compressed: the importing machine would only have to undo it.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class ContainerImage:
    """What goes into an image: files by their place in it, whole folders copied to its root, and what it runs.

    Links inside `trees` stay links. `name` is as a pod names it, such as k8s.gcr.io/pause:3.2.
    """

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    trees: tuple[Path, ...] = ()
    entrypoint: tuple[str, ...] = ()


def write_archive(image: ContainerImage, target: Path) -> None:
    """Write the image to `target`, the same bytes for the same content; it appears whole, by a rename."""
    unfinished, layer = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.layer")
    with layer.open("wb") as out:
        _write_layer(image, out)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [SEARCH_PATH], "Entrypoint": list(image.entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layers = [f"{digest}/layer.tar"]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [image.name], "Layers": layers}]).encode()
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
        with layer.open("rb") as file:
            archive.addfile(_member(layers[0], layer.stat().st_size), file)
        for name, content in ((config_name, config), ("manifest.json", manifest)):
            archive.addfile(_member(name, len(content)), io.BytesIO(content))
    layer.unlink()
    unfinished.rename(target)


def _write_layer(image: ContainerImage, out: IO[bytes]) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        folders: set[str] = set()
        for tree in image.trees:
            for path in sorted(tree.rglob("*")):
                name = path.relative_to(tree).as_posix()
                if path.is_symlink():
                    link = _member(name, 0, 0o777)
                    link.type, link.linkname = tarfile.SYMTYPE, str(path.readlink())
                    archive.addfile(link)
                elif path.is_dir():
                    _add_folder(archive, name, folders)
                else:
                    _add_file(archive, name, path)
        for name, path in sorted(image.files.items()):
            parts = Path(name).parts[:-1]
            for count in range(1, len(parts) + 1):
                _add_folder(archive, "/".join(parts[:count]), folders)
            _add_file(archive, name, path)


def _add_folder(archive: tarfile.TarFile, name: str, known: set[str]) -> None:
    if name not in known:
        known.add(name)
        folder = _member(name, 0, 0o755)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
    with path.open("rb") as file:
        archive.addfile(_member(name, path.stat().st_size, mode), file)


def _member(name: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    """Return an entry that is the same on every machine: owned by root, without a time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member
