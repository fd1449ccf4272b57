"""A machine in a folder: a real partition table in an image file, written by the real sfdisk, plain files that stand
for partitions, real UKIs (PE files), and the few sysfs and procfs files that the host adapters read. `boot` does what
firmware, systemd-boot and systemd do."""

import hashlib
import json
import os
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubenode.host.bootentries import parse_name
from kubenode.host.machine import HostMachine
from kubenode.host.paths import Paths
from kubenode.host.slots import HostSlots
from kubenode.host.staging import Downloads
from kubenode.host.uki import read_uki
from kubenode.model.observed import Slot
from kubenode.model.version import Version
from kubenode.trust import bundle
from kubenode.trust.bundle import VerifiedRelease
from kubenode.trust.manifest import Artifact, Manifest
from kubenode.trust.policy import Builder

MIB = 1 << 20
PARTITIONS = (
    ("esp", 4, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
    ("root-a", 4, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
    ("root-a-verity", 1, "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5"),
    ("root-b", 4, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
    ("root-b-verity", 1, "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5"),
    ("state", 1, "0FC63DAF-8483-4772-8E79-3D69D8477DE4"),
    ("data", 1, "0FC63DAF-8483-4772-8E79-3D69D8477DE4"),
)
SFDISK = ("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel")


def pe(sections: Sequence[tuple[str, bytes]], *, machine: int = 0x8664) -> bytes:
    """A PE file with these sections; the smallest that a reader of the specification accepts."""
    header = 0x80
    table = header + 24 + 240
    data_at = -(-(table + 40 * len(sections)) // 512) * 512
    head = bytearray(data_at)
    head[0:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, header)
    struct.pack_into("<4sHHIIIHH", head, header, b"PE\0\0", machine, len(sections), 0, 0, 0, 240, 0x22E)
    struct.pack_into("<H", head, header + 24, 0x20B)
    body = b""
    for index, (name, content) in enumerate(sections):
        raw = -(-len(content) // 512) * 512
        struct.pack_into(
            "<8sIIII", head, table + 40 * index, name.encode(), len(content), 0x1000 * (index + 1), raw,
            data_at + len(body),
        )  # fmt: skip
        body += content.ljust(raw, b"\0")
    return bytes(head) + body


def uki(version: str, root_hash: str, *, padding: int = 0) -> bytes:
    osrel = f'ID=debian\nIMAGE_ID=kubenode\nIMAGE_VERSION="{version}"\n'.encode()
    cmdline = f"quiet roothash={root_hash} panic=10".encode()
    return pe([(".osrel", osrel), (".cmdline", cmdline), (".linux", os.urandom(256) + bytes(padding))])


def root_hash_of(version: str) -> str:
    return hashlib.sha256(b"root hash of " + version.encode()).hexdigest()


@dataclass(frozen=True)
class Content:
    """A release and its bytes."""

    release: VerifiedRelease
    files: dict[str, bytes]

    @property
    def version(self) -> str:
        return str(self.release.manifest.version)

    @property
    def root_hash(self) -> str:
        return self.release.manifest.root_hash

    @property
    def digest(self) -> str:
        return self.release.manifest_sha256


def make_release(version: str, *, root_size: int = 600_000, uki_version: str | None = None) -> Content:
    root_hash = root_hash_of(version)
    files = {
        f"root_{version}.raw": (version.encode() + b" root ") * (root_size // (len(version) + 6)),
        f"verity_{version}.raw": b"verity\0\0" + hashlib.sha512(version.encode()).digest() * 200,
        f"kubenode_{version}.efi": uki(uki_version or version, root_hash),
    }
    artifacts = tuple(
        Artifact(name, role, hashlib.sha256(data).hexdigest(), len(data))
        for (name, data), role in zip(files.items(), ("root", "verity", "uki"), strict=True)
    )
    manifest = Manifest("kubenode", Version(version), None, None, (), root_hash, artifacts)
    digest = hashlib.sha256(b"manifest of " + version.encode()).hexdigest()
    return Content(VerifiedRelease(manifest, digest, Builder("issuer", "builder"), proof=bundle._PROOF), files)


class FolderMachine:
    """The machine. `booted` is what runs, `boots` how often it was started."""

    def __init__(self, folder: Path, root_hash: str = "") -> None:
        self.paths = Paths(folder)
        self.disk = self.paths.dev / "vda"
        self.boots = 0
        self.running: Content | None = None
        self.contents: dict[str, Content] = {}
        self._partition(root_hash)
        for path in (self.paths.entries, self.paths.state, self.paths.boot_count.parent, self.paths.boot_id.parent,
                     self.paths.os_release.parent):  # fmt: skip
            path.mkdir(parents=True)

        self.paths.loader_info.write_bytes(b"\x06\0\0\0" + "systemd-boot 257\0".encode("utf-16-le"))

    @classmethod
    def installed(cls, folder: Path, version: str) -> "FolderMachine":
        """A machine whose slot A holds a release, as an installer leaves it, started for the first time."""
        content = make_release(version)
        machine = cls(folder, content.root_hash)
        machine.know(content)
        root, verity, image = content.files.values()
        machine.fill("root-a", root)
        machine.fill("root-a-verity", verity)
        (machine.paths.entries / f"kubenode_{version}.efi").write_bytes(image)
        machine.boot()
        return machine

    # The adapters under test.

    @property
    def machine(self) -> HostMachine:
        return HostMachine(self.paths, self.dm_table)

    @property
    def slots(self) -> HostSlots:
        return HostSlots(self.paths, self.dm_table)

    @property
    def downloads(self) -> Downloads:
        return Downloads(self.paths.downloads)

    def fetch(self, content: Content) -> None:
        """Put a release where a download puts it."""
        self.know(content)
        self.downloads.put_evidence(content.digest, b"manifest", b"bundle")
        for name, data in content.files.items():
            self.downloads.discard(content.digest, name)
            self.downloads.append(content.digest, name, iter([data]))
        self.downloads.complete(content.digest)

    def know(self, content: Content) -> None:
        self.contents[content.root_hash] = content

    # Firmware, boot loader, kernel, systemd.

    def boot(self) -> None:
        """Start as systemd-boot and systemd do; raises AssertionError when the machine would not come up."""
        self.boots += 1
        chosen = min(self._loadable(), key=lambda item: (item[1].left == 0, [-n for n in item[1].version.numbers]))
        path, name = chosen
        self.paths.boot_count.unlink(missing_ok=True)
        if name.left is not None:
            counted = path.with_name(f"kubenode_{name.version}+{max(0, name.left - 1)}-{name.done + 1}.efi")
            path.rename(counted)
            value = f"\\EFI\\Linux\\{counted.name}\0".encode("utf-16-le")
            self.paths.boot_count.write_bytes(b"\x06\0\0\0" + value)
            path = counted
        image = read_uki(path)
        slot = self.find_slot(image.root_hash)
        assert slot is not None, f"{path.name} is started, and no slot has its root hash"
        content = self.contents[image.root_hash]
        root, verity, _ = content.files.values()
        assert self.read(f"root-{slot}", len(root)) == root, "a slot was started that does not hold its release"
        assert self.read(f"root-{slot}-verity", len(verity)) == verity
        self.running = content
        self._map(slot)
        self.paths.cmdline.write_text(f"quiet roothash={image.root_hash} panic=10\n")
        self.paths.boot_id.write_text(f"00000000-0000-4000-8000-{self.boots:012}\n")
        self.paths.os_release.write_text(f'ID=debian\nIMAGE_ID=kubenode\nIMAGE_VERSION="{image.version}"\n')

    def bless(self, verdict: str = "good") -> None:
        """What systemd-bless-boot does (systemd 257, src/bless-boot/bless-boot.c)."""
        booted = self.paths.boot_count.read_bytes()[4:].decode("utf-16-le").rstrip("\0").rpartition("\\")[2]
        name = parse_name(booted)
        assert name is not None
        target = f"kubenode_{name.version}" + ("" if verdict == "good" else f"+0-{name.done}") + ".efi"
        assert target == booted or not (self.paths.entries / target).exists(), "nothing would be renamed"
        (self.paths.entries / booted).rename(self.paths.entries / target)

    def dm_table(self) -> str:
        assert self.running is not None
        return f"0 8192 verity 1 254:2 254:3 4096 4096 1024 1 sha256 {self.running.root_hash} {'ab' * 32} 1 x\n"

    # The disk.

    def find_slot(self, root_hash: str) -> Slot | None:
        uuids = self.uuids()
        for slot in Slot:
            if uuids[f"root-{slot}"] + uuids[f"root-{slot}-verity"] == root_hash:
                return slot
        return None

    def uuids(self) -> dict[str, str]:
        """The partition UUIDs, in hex digits, by label, as sfdisk reads them."""
        dump = json.loads(subprocess.run(["sfdisk", "--json", self.disk], check=True, capture_output=True).stdout)
        return {item["name"]: item["uuid"].replace("-", "").lower() for item in dump["partitiontable"]["partitions"]}

    def set_uuid(self, label: str, digits: str) -> None:
        number = [name for name, _, _ in PARTITIONS].index(label) + 1
        words = ["--part-uuid", self.disk, str(number), _dashed(digits)]
        subprocess.run([*SFDISK, *words], check=True, capture_output=True)

    def node(self, label: str) -> Path:
        return self.paths.dev / f"vda{[name for name, _, _ in PARTITIONS].index(label) + 1}"

    def fill(self, label: str, data: bytes) -> None:
        with self.node(label).open("r+b") as file:
            file.write(data)

    def read(self, label: str, size: int) -> bytes:
        with self.node(label).open("rb") as file:
            return file.read(size)

    def entry_names(self) -> list[str]:
        return sorted(path.name for path in self.paths.entries.iterdir())

    def _loadable(self) -> list[tuple[Path, object]]:
        files = [path for path in self.paths.entries.iterdir() if path.name.lower().endswith(".efi")]
        found = [(path, parse_name(path.name)) for path in files]
        assert found and all(name is not None for _, name in found), f"the machine has nothing to start: {files}"
        return found

    def _partition(self, root_hash: str) -> None:
        self.paths.dev.mkdir(parents=True)
        with self.disk.open("wb") as file:
            file.truncate(20 * MIB)
        halves = {"root-a": root_hash[:32], "root-a-verity": root_hash[32:]} if root_hash else {}
        lines = [
            f"name={n}, size={s}MiB, type={t}" + (f", uuid={_dashed(halves[n])}" if n in halves else "")
            for n, s, t in PARTITIONS
        ]
        script = "\n".join(("label: gpt", *lines)) + "\n"
        subprocess.run([*SFDISK, self.disk], input=script.encode(), check=True, capture_output=True)
        dump = json.loads(subprocess.run(["sfdisk", "--json", self.disk], check=True, capture_output=True).stdout)
        block = self.paths.sys / "class/block"
        home = self.paths.sys / "devices/pci0000:00/virtio0/block/vda"
        block.mkdir(parents=True)
        (home / "queue").mkdir(parents=True)
        (home / "queue/logical_block_size").write_text("512\n")
        (block / "vda").symlink_to(home)
        for number, item in enumerate(dump["partitiontable"]["partitions"], 1):
            folder = home / f"vda{number}"
            folder.mkdir()
            (folder / "partition").write_text(f"{number}\n")
            (folder / "start").write_text(f"{item['start']}\n")
            (folder / "size").write_text(f"{item['size']}\n")
            (folder / "uevent").write_text(f"DEVTYPE=partition\nPARTN={number}\nPARTNAME={item['name']}\n")
            (block / f"vda{number}").symlink_to(folder)
            with (self.paths.dev / f"vda{number}").open("wb") as file:
                file.truncate(item["size"] * 512)

    def _map(self, slot: Slot) -> None:
        folder = self.paths.sys / "class/block/dm-0"
        (folder / "dm").mkdir(parents=True, exist_ok=True)
        (folder / "dm/name").write_text("root\n")
        slaves = folder / "slaves"
        slaves.mkdir(exist_ok=True)
        for link in slaves.iterdir():
            link.unlink()
        for label in (f"root-{slot}", f"root-{slot}-verity"):
            name = self.node(label).name
            (slaves / name).symlink_to(self.paths.sys / "class/block" / name)


def _dashed(digits: str) -> str:
    return re.sub(r"(.{8})(.{4})(.{4})(.{4})", r"\1-\2-\3-\4-", digits, count=1)
