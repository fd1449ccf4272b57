#!/usr/bin/python3
"""Last step of an image build, run by mkosi beside the tree: takes away what a node never opens, makes the initrd."""

import json
import os
import shutil
import sys
from pathlib import Path

SOURCES = Path(os.environ["SRCDIR"])
sys.path.insert(0, str(SOURCES))
import initrd  # type: ignore[import-not-found]  # noqa: E402

ROOT = Path(os.environ["BUILDROOT"])
ARTIFACTS = Path(os.environ["ARTIFACTDIR"])


def remove(pattern: str) -> None:
    for path in ROOT.glob(pattern.lstrip("/")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def lines(name: str) -> list[str]:
    text = (SOURCES / name).read_text()
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def kernel_aside() -> None:
    """mkosi wants vmlinuz below /usr/lib/modules when it makes the UKI; the root file system does not need it."""
    (ROOT / ".kernel").mkdir()
    for kernel in ROOT.glob("usr/lib/modules/*/vmlinuz"):
        kernel.rename(ROOT / ".kernel" / kernel.parent.name)
        kernel.symlink_to(f"../../../../.kernel/{kernel.parent.name}")


def etc() -> None:
    (ROOT / "etc/machine-id").write_text("")
    (ROOT / "etc/resolv.conf").unlink(missing_ok=True)
    (ROOT / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (ROOT / "etc/mtab").unlink(missing_ok=True)
    (ROOT / "etc/mtab").symlink_to("../proc/self/mounts")
    (ROOT / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    for unit in ("debug-shell.service", "getty.target", "systemd-firstboot.service"):
        link = ROOT / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    # A shadow file without usable passwords: nobody logs in.
    for name in ("shadow", "shadow-", "passwd-", "group-", "gshadow-", "subuid-", "subgid-"):
        if name.endswith("-"):
            (ROOT / "etc" / name).unlink(missing_ok=True)


def kernel_configuration() -> None:
    """Keep the kernel's configuration where kubeadm's preflight checks look for it."""
    for config in ROOT.glob("boot/config-*"):
        config.rename(ROOT / "usr/lib/modules" / config.name.removeprefix("config-") / "config")


def loader() -> None:
    shutil.rmtree(ROOT / "boot", ignore_errors=True)
    (ROOT / "boot").mkdir()
    target = ROOT / "efi/loader"
    target.mkdir(parents=True, exist_ok=True)
    (target / "loader.conf").write_text("timeout 0\neditor no\n")


def main() -> None:
    settings = json.loads((SOURCES / "settings.json").read_text())
    kernel_aside()
    etc()
    if settings["kubernetes"]:
        kernel_configuration()
    loader()
    out = ARTIFACTS / "io.mkosi.initrd"
    out.mkdir(parents=True, exist_ok=True)
    # systemd moves a clock that is behind up to this file's time (systemd(1)), and the health gate checks it.
    epoch = ROOT / "usr/lib/clock-epoch"
    epoch.touch()
    os.utime(epoch, (settings["epoch"], settings["epoch"]))
    initrd.build(ROOT, SOURCES / "initrd", out / "initrd.cpio.zst", lines("initrd.modules"), settings["epoch"])
    for pattern in lines("remove.list") + (lines("remove-kubernetes.list") if settings["kubernetes"] else []):
        remove(pattern)
    for folder in settings["mount_points"]:
        (ROOT / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)


main()
