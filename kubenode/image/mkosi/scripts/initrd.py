"""The initrd: a handful of files of the image itself, found from a list through their ELF dependencies."""

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

PROGRAMS = """
usr/lib/systemd/systemd usr/lib/systemd/systemd-executor usr/lib/systemd/systemd-shutdown
usr/lib/systemd/systemd-journald usr/lib/systemd/systemd-udevd usr/lib/systemd/systemd-modules-load
usr/lib/systemd/systemd-veritysetup usr/lib/systemd/systemd-sysroot-fstab-check usr/lib/systemd/systemd-fsck
usr/lib/systemd/system-generators/systemd-fstab-generator
usr/lib/systemd/system-generators/systemd-veritysetup-generator
usr/bin/systemctl usr/bin/udevadm usr/bin/systemd-tmpfiles usr/bin/mkdir usr/bin/sleep usr/bin/mount usr/bin/umount
usr/bin/kmod usr/sbin/modprobe usr/sbin/dmsetup
""".split()
# Opened by name at run time (dlopen), so no NEEDED entry names them.
LIBRARIES = """
libkmod.so.2 libcryptsetup.so.12 liblzma.so.5 libzstd.so.1 libmount.so.1 libblkid.so.1 libnss_files.so.2
""".split()
UNITS = """
initrd.target initrd-root-fs.target initrd-root-device.target initrd-fs.target initrd-usr-fs.target
initrd-switch-root.target initrd-switch-root.service initrd-parse-etc.service initrd-cleanup.service
initrd-udevadm-cleanup-db.service sysinit.target basic.target local-fs.target local-fs-pre.target sockets.target
paths.target slices.target timers.target shutdown.target umount.target swap.target remote-fs.target
emergency.target emergency.service rescue.target rescue.service reboot.target systemd-reboot.service final.target
poweroff.target systemd-poweroff.service halt.target
systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service
systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service kmod-static-nodes.service
modprobe@.service systemd-modules-load.service cryptsetup-pre.target cryptsetup.target
veritysetup.target veritysetup-pre.target remote-veritysetup.target -.slice system.slice
""".split()
WANTS = {
    "sysinit.target.wants": "systemd-journald.service systemd-udevd.service systemd-udev-trigger.service "
    "systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service kmod-static-nodes.service "
    "systemd-modules-load.service veritysetup.target",
    "sockets.target.wants": "systemd-journald.socket systemd-journald-dev-log.socket systemd-udevd-control.socket "
    "systemd-udevd-kernel.socket",
    "initrd-root-fs.target.requires": "sysroot-etc.mount",
}
RULES = """
50-udev-default.rules 55-dm.rules 60-persistent-storage-dm.rules 60-persistent-storage.rules 60-block.rules
80-drivers.rules 95-dm-notify.rules 99-systemd.rules
""".split()
FILES = "usr/lib64/ld-linux-x86-64.so.2 etc/passwd etc/group usr/lib/os-release etc/ld.so.cache usr/lib/tmpfiles.d/static-nodes-permissions.conf".split()
LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd", "usr/lib/systemd", "usr/lib64")


def needed(path: Path) -> list[str]:
    """NEEDED entries and the interpreter's name of a 64 bit ELF file."""
    data = path.read_bytes()
    if data[:5] != b"\x7fELF\x02":
        return []
    offset, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    size = struct.unpack_from("<H", data, 54)[0]
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + i * size) for i in range(count)]
    loads = [(s[3], s[2], s[5]) for s in segments if s[0] == 1]

    def where(address: int) -> int:
        return next(int(off + address - va) for va, off, length in loads if va <= address < va + length)

    def text(at: int) -> str:
        return data[at : data.index(b"\0", at)].decode()

    found = [Path(text(s[2])).name for s in segments if s[0] == 3]
    names, strings = [], 0
    for kind, _, start, _, _, length, _, _ in segments:
        if kind != 2:
            continue
        for tag, value in struct.iter_unpack("<QQ", data[start : start + length]):
            if tag == 0:
                break
            if tag == 1:
                names.append(value)
            elif tag == 5:
                strings = where(value)
    return found + [text(strings + name) for name in names]


class Tree:
    def __init__(self, root: Path, target: Path) -> None:
        self.root, self.target = root, target
        self.seen: set[str] = set()

    def add(self, name: str, *, required: bool = True) -> None:
        """Copy a file, the links that lead to it and the libraries it needs."""
        name = name.lstrip("/")
        if name in self.seen:
            return
        self.seen.add(name)
        source = self.root / name
        if not source.exists() and not source.is_symlink():
            if required:
                raise SystemExit(f"initrd: /{name} is not in the image")
            return
        copy = self.target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            link = os.readlink(source)
            copy.symlink_to(link)
            to = link if link.startswith("/") else os.path.normpath(f"/{Path(name).parent}/{link}")
            if not to.startswith("/dev/"):
                self.add(merged(to))
            return
        shutil.copy2(source, copy)
        for library in needed(source):
            self.library(library)

    def library(self, name: str) -> None:
        for folder in LIBRARY_FOLDERS:
            if (self.root / folder / name).exists():
                self.add(f"{folder}/{name}")
                return
        raise SystemExit(f"initrd: library {name} is not in the image")


def merged(path: str) -> str:
    return re.sub(r"^/?(bin|sbin|lib|lib64)/", r"usr/\1/", path)


def modules(tree: Tree, wanted: list[str]) -> None:
    base = next(p for p in (tree.root / "usr/lib/modules").iterdir() if (p / "modules.dep").exists())
    relative = base.relative_to(tree.root)
    dependencies = {}
    for line in (base / "modules.dep").read_text().splitlines():
        module, _, rest = line.partition(":")
        dependencies[module] = rest.split()
    by_name = {re.sub(r"\.ko.*$", "", Path(m).name).replace("-", "_"): m for m in dependencies}
    for name in wanted:
        if (found := by_name.get(name.replace("-", "_"))) is None:
            continue  # built in, or of another profile
        for file in (found, *dependencies[found]):
            tree.add(f"{relative}/{file}")
    for file in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        tree.add(f"{relative}/{file}")
    subprocess.run(["depmod", "--basedir", str(tree.target), base.name], check=True)


def build(root: Path, extra: Path, output: Path, module_names: list[str], epoch: int) -> None:
    target = Path("/tmp/kubenode-initrd")
    shutil.rmtree(target, ignore_errors=True)
    for folder in "usr/bin usr/sbin usr/lib usr/lib64 proc sys dev run tmp sysroot etc var".split():
        (target / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (target / folder).symlink_to(f"usr/{folder}")
    tree = Tree(root, target)
    for name in PROGRAMS + FILES:
        tree.add(name)
    for name in LIBRARIES:
        tree.library(name)
    for name in UNITS:
        tree.add(f"usr/lib/systemd/system/{name}", required=False)
    for name in RULES:
        tree.add(f"usr/lib/udev/rules.d/{name}", required=False)
    modules(tree, module_names)
    system = target / "usr/lib/systemd/system"
    for file in extra.iterdir():
        shutil.copyfile(file, system / file.name)
    for folder, units in WANTS.items():
        (system / folder).mkdir(exist_ok=True)
        for unit in units.split():
            (system / folder / unit).symlink_to(f"../{unit}")
    (target / "init").symlink_to("usr/lib/systemd/systemd")
    (target / "etc/initrd-release").symlink_to("../usr/lib/os-release")
    (system / "default.target").symlink_to("initrd.target")
    # Devices of the verity root must keep their udev properties over the switch to the real root.
    rule = target / "usr/lib/udev/rules.d/10-initrd-dm.rules"
    rule.write_text('SUBSYSTEM=="block", KERNEL=="dm-[0-9]*", ACTION=="add|change", OPTIONS+="db_persist"\n')
    for path in [target, *target.rglob("*")]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    names = sorted(str(p.relative_to(target)) for p in target.rglob("*"))
    cpio = subprocess.run(
        ["cpio", "--create", "--reproducible", "--renumber-inodes", "--null", "--format=newc", "--quiet",
         "--owner=0:0", "--directory", str(target)],
        input="\0".join(names).encode(), stdout=subprocess.PIPE, check=True,
    )
    with output.open("wb") as out:
        subprocess.run(["zstd", "-q", "-12", "-T2", "--stdout", "-"], input=cpio.stdout, stdout=out, check=True)
    print(f"initrd: {len(names)} entries, {len(cpio.stdout)} bytes unpacked, {output.stat().st_size} packed")
