"""The folder mkosi works in: the package's own mkosi files with the request's values filled in."""

import json
import re
import shutil
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kubenode.errors import UsageError
from kubenode.host import apt
from kubenode.image import kubernetes
from kubenode.model.documents import Partition, StorageMount

if TYPE_CHECKING:
    from kubenode.image.build import BuildRequest

KERNELS = {"virt": "linux-image-cloud-amd64", "metal": "linux-image-amd64"}
"""Debian's cloud kernel has the drivers of virtual machines only and a tenth of the modules."""
COMMAND_LINE = (
    "ro",
    "panic=10",
    # Use the backup partition table when a power cut tore the primary one.
    "gpt",
    "systemd.firstboot=no",
    "systemd.condition-needs-update=0",
    "systemd.gpt_auto=0",
    "rd.systemd.gpt_auto=0",
    "console=tty0",
    "console=ttyS0",
    "quiet",
)
AGENT_STATE = StorageMount("/var/lib/kubenode", Partition.STATE)
"""Every image has it: the agent's memory outlives the data partition."""
EXECUTABLE = ("usr/bin/kubenode", "scripts/compile.chroot", "scripts/finalize.py")


def prepare(request: "BuildRequest", work: Path, cache: Path) -> None:
    """Write everything mkosi reads into `work`; the agent's tree is already in `work/agent`."""
    recipe = request.recipe
    own = recipe.storage if recipe.kubernetes is None else kubernetes.storage(recipe.storage)
    storage = tuple({*own, AGENT_STATE})
    source = resources.files("kubenode.image") / "mkosi"
    values = fill_values(request, work, cache)
    copy_filled(source, work, values, without=frozenset() if recipe.kubernetes else frozenset({"kubernetes"}))
    if recipe.kubernetes is not None:
        kubernetes.install(recipe.kubernetes, work / "kubernetes/usr/bin", cache / "binaries")
        (work / "kubernetes/usr/libexec/kubenode-kubelet-config").chmod(0o755)
    shutil.copytree(work / "initrd", work / "scripts/initrd")
    mirror = apt.mirrors()
    sources = work / "sandbox/etc/apt/sources.list.d/mkosi.sources"
    sources.parent.mkdir(parents=True)
    sources.write_text(apt.sources(mirror, recipe.suite))
    tree = work / "tree"
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/fstab").write_text(fstab(storage))
    settings = {
        "epoch": request.source_date_epoch,
        "kubernetes": recipe.kubernetes is not None,
        "mount_points": ["/efi", "/state", "/var", *(m.path for m in storage if not m.path.startswith("/var/"))],
    }
    (work / "scripts/settings.json").write_text(json.dumps(settings))
    for name in EXECUTABLE:
        file = work / name if name.startswith("scripts/") else tree / name
        file.chmod(0o755)


def fill_values(request: "BuildRequest", work: Path, cache: Path) -> dict[str, str]:
    """Return the values of the placeholders in the mkosi files."""
    recipe = request.recipe
    base = (resources.files("kubenode.image") / "mkosi" / "packages.list").read_text().split()
    extra = kubernetes.PACKAGES if recipe.kubernetes else ()
    packages = sorted({*base, KERNELS[recipe.modules], *recipe.packages, *extra})
    trees = [f"{work}/tree:/", f"{work}/agent:/"]
    if recipe.kubernetes is not None:
        trees.append(f"{work}/kubernetes:/")
    if request.overlay is not None:
        trees.append(f"{request.overlay.resolve()}:/")
    command_line = [*COMMAND_LINE, *recipe.kernel_command_line]
    return {
        "DISTRIBUTION": recipe.distribution,
        "RELEASE": recipe.suite,
        "MIRROR": apt.mirrors().main,
        "NAME": "kubenode",
        "VERSION": request.version,
        "WORK": str(work),
        "CACHE": str(cache),
        "EPOCH": str(request.source_date_epoch),
        "CMDLINE": " ".join(command_line),
        "PACKAGES": "\n".join(f"        {name}" for name in packages),
        "EXTRA_TREES": "\n".join(f"        {tree}" for tree in trees),
        "ESP_MIB": str(recipe.slots.esp),
        "ROOT_MIB": str(recipe.slots.root),
        "VERITY_MIB": str(recipe.slots.verity),
        "STATE_MIB": str(recipe.slots.state),
        "DATA_MIB": str(recipe.slots.data),
        "KUBERNETES": recipe.kubernetes.version if recipe.kubernetes else "",
        "SANDBOX_IMAGE": kubernetes.sandbox_image(recipe.kubernetes) if recipe.kubernetes else "",
    }


def fill(text: str, values: dict[str, str]) -> str:
    """Replace every `@NAME@`; raises KeyError for a name that has no value."""
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], text)


def copy_filled(
    source: Traversable, target: Path, values: dict[str, str], *, without: frozenset[str] = frozenset()
) -> None:
    """Copy a folder of package data, except what is named at its top, filling in placeholders."""
    target.mkdir(parents=True, exist_ok=True)
    for item in source.iterdir():
        if item.name == "__pycache__" or item.name in without:
            continue
        if item.is_dir():
            copy_filled(item, target / item.name, values)
        else:
            (target / item.name).write_text(fill(item.read_text(), values))


def fstab(storage: tuple[StorageMount, ...]) -> str:
    """Return the image's fstab: state, data at /var, and one bind mount for each writable folder."""
    options = "rw,nosuid,nodev,noatime"
    lines = [
        f"/dev/disk/by-partlabel/state /state ext4 {options} 0 2",
        f"/dev/disk/by-partlabel/data /var ext4 {options.replace('nosuid,nodev,', '')} 0 2",
    ]
    for mount in sorted(storage, key=lambda m: m.path):
        path = PurePosixPath(mount.path)
        if not path.is_absolute() or ".." in path.parts or re.search(r"\s", mount.path):
            raise UsageError(
                f"storage path {mount.path!r} must be absolute, without spaces or `..`",
                hint="Correct spec.storage in images/NAME.yaml.",
            )
        if mount.partition is Partition.STATE:
            lines.append(f"/state{path} {path} none bind 0 0")
        elif not path.is_relative_to("/var"):
            lines.append(f"/var/lib/kubenode-storage{path} {path} none bind 0 0")
    return "\n".join(lines) + "\n"
