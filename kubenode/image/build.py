"""Build the artifacts of one release with mkosi, and check that they fit their slots."""

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError, NoSpace, UsageError
from kubenode.host.disk import slot_uuids
from kubenode.host.files import require_free
from kubenode.host.process import ProcessFailed, run
from kubenode.image import agent_tree, gpt, mkosi_tool, work_folder
from kubenode.model.documents import Image

_MKOSI = "The last lines of the build's log say why; the same command again starts from a clean work folder."

IMAGE_ID = "kubenode"
"""IMAGE_ID in os-release, and how UKIs in the ESP begin (`kubenode.host.bootentries` looks for it)."""
BUILD_TIMEOUT = 3600.0
BUILD_SPACE = 2560 << 20
"""What a build takes at its peak in the cache (bytes): tree, its copy, images twice. Measured: 2.2 GiB and growing."""
FILL_LIMIT_PERCENT = 80
"""An artifact may use this much of its slot: later releases grow, slots cannot."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build: the recipe, under which version, with which agent, and where to put it.

    `overlay` is the folder that the recipe names, copied over the tree last.
    """

    version: str
    recipe: Image
    output: Path
    agent_source: Path
    source_date_epoch: int
    progress: Callable[[str], None]
    overlay: Path | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Artifact:
    """One file of a release; `size` is in bytes. Roles: root, verity, uki, disk, packages."""

    role: str
    path: Path
    size: int


@dataclass(frozen=True)
class Package:
    """A Debian or Python package in the image."""

    kind: str
    name: str
    version: str


@dataclass(frozen=True)
class BuiltImage:
    """The result of a build; `root_hash` is the verity root hash, 64 hexadecimal digits."""

    version: str
    root_hash: str
    artifacts: tuple[Artifact, ...]
    packages: tuple[Package, ...]


def build(request: BuildRequest) -> BuiltImage:
    """Build the release into `<output>/<version>/`.

    Raises UsageError when that folder exists or a name cannot be used, HostError when a tool is missing or fails or
    when an artifact takes more than 80 % of its slot, NoSpace when the cache's disk is too full or becomes so.
    """
    final = request.output / request.version
    if final.exists():
        raise UsageError(f"{final} exists already", hint="a release is built once: choose another version")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+){1,3}", request.version):
        raise UsageError(f"{request.version!r} cannot be the version of an image", hint="use one such as 2026.11.2")
    cache = request.cache or mkosi_tool.cache_folder()
    for folder in ("build", "packages", "workspace", "work"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    require_free(cache, BUILD_SPACE)
    request.output.mkdir(parents=True, exist_ok=True)
    mkosi = mkosi_tool.find_mkosi(cache)
    staging = request.output / f".{request.version}.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    work = Path(tempfile.mkdtemp(prefix=f"{request.version}-", dir=cache / "work"))
    try:
        request.progress(f"laying out the agent and the recipe of {request.version}")
        pins = agent_tree.dependencies()
        agent_tree.make_tree(request.agent_source, pins, cache, work / "agent")
        work_folder.prepare(request, work, cache)
        request.progress("mkosi builds the root file system, its verity data and the UKI")
        log = request.output / f".{request.version}.log"
        log.unlink(missing_ok=True)
        _mkosi(mkosi, work, log)
        built = _collect(request, work / "out", staging, pins)
        log.rename(request.output / f"{request.version}.log")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    staging.rename(final)
    return BuiltImage(
        built.version,
        built.root_hash,
        tuple(Artifact(a.role, final / a.path.name, a.size) for a in built.artifacts),
        built.packages,
    )


def _mkosi(mkosi: mkosi_tool.Mkosi, work: Path, log: Path) -> None:
    (work / "out").mkdir()
    command: list[str | Path] = [*mkosi.command, "--directory", work, "--force", "build"]
    try:
        run(command, timeout=BUILD_TIMEOUT, cwd=work, env={**os.environ, **mkosi.environment}, log=log)
    except ProcessFailed as error:
        if log.exists() and "No space left on device" in log.read_text(errors="replace"):
            raise NoSpace(
                f"the image build failed: the disk of {work} or of /var/tmp became full; the whole log is in {log}",
                hint=f"a build takes {BUILD_SPACE >> 20} MiB there: free that, or set XDG_CACHE_HOME to a larger disk",
            ) from error
        raise HostError(f"the image build failed: {error.message}", hint=f"the whole log is in {log}") from error


def _collect(request: BuildRequest, out: Path, staging: Path, pins: tuple[agent_tree.Pin, ...]) -> BuiltImage:
    stem = f"{IMAGE_ID}_{request.version}"
    recipe, slots = request.recipe, request.recipe.slots
    root, verity = _move(out / f"{stem}.root.raw", staging), _move(out / f"{stem}.verity.raw", staging)
    uki = _move(out / f"{stem}.efi", staging)
    root_hash = uki_root_hash(uki)
    check_fit("root", root.stat().st_size, slots.root)
    check_fit("verity", verity.stat().st_size, slots.verity)
    # Two UKIs and one being written share the ESP with the boot loader.
    check_fit("uki", 3 * uki.stat().st_size, slots.esp)
    request.progress("assembling the disk image")
    disk = staging / f"{stem}.disk.raw"
    data_id, hash_id = slot_uuids(root_hash)
    gpt.write_disk(
        disk,
        uuid.uuid5(uuid.NAMESPACE_URL, f"kubenode:disk:{root_hash}"),
        [
            gpt.Partition("esp", "esp", uuid.uuid5(uuid.NAMESPACE_URL, f"kubenode:esp:{root_hash}"), slots.esp,
                          out / f"{stem}.esp.raw"),
            gpt.Partition("root-x86-64", "root-a", data_id, slots.root, root),
            gpt.Partition("root-x86-64-verity", "root-a-verity", hash_id, slots.verity, verity),
        ],
    )  # fmt: skip
    manifest = json.loads((out / f"{stem}.manifest").read_text())
    packages = tuple(
        [Package(recipe.distribution, p["name"], p["version"]) for p in manifest["packages"]]
        + [Package("python", pin.name, pin.version) for pin in pins]
    )
    listing = staging / "packages.json"
    listing.write_text(json.dumps([vars(package) for package in packages], indent=1) + "\n")
    roles = {"root": root, "verity": verity, "uki": uki, "disk": disk, "packages": listing}
    artifacts = tuple(Artifact(role, path, path.stat().st_size) for role, path in roles.items())
    return BuiltImage(request.version, root_hash, artifacts, packages)


def _move(source: Path, folder: Path) -> Path:
    if not source.exists():
        raise HostError(f"mkosi made no {source.name}", hint=_MKOSI)
    return Path(shutil.move(source, folder / source.name))


def check_fit(what: str, size: int, slot_mib: int) -> None:
    """Raise HostError when `size` bytes are more than 80 % of a slot of `slot_mib` MiB."""
    limit = slot_mib * 1024 * 1024 * FILL_LIMIT_PERCENT // 100
    if size > limit:
        raise HostError(
            f"{what} takes {size / 1048576:.1f} MiB, more than {FILL_LIMIT_PERCENT} % of its {slot_mib} MiB",
            hint="slots of installed nodes cannot grow: make the image smaller, or use larger slots on new nodes",
        )


def uki_root_hash(uki: Path) -> str:
    """Return the verity root hash in the command line of a UKI."""
    match = re.search(rb"\broothash=([0-9a-f]{64})\b", uki.read_bytes())
    if match is None:
        raise HostError(f"{uki.name} names no root hash", hint=_MKOSI)
    return match[1].decode()
