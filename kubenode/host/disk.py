"""Finds the disk that this machine was booted from, its two slots and the one that runs.

Sources: sysfs (Documentation/ABI/stable/sysfs-block, testing/sysfs-block-dm) and the disk's partition table.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from kubenode.errors import HostError
from kubenode.host.gpt import GptPartition, read_gpt
from kubenode.host.paths import Paths
from kubenode.model.observed import Slot

_LAYOUT = (
    "The disk is not laid out as a kubenode image lays it out (docs/host.md): see lsblk -o NAME,PARTLABEL,PARTUUID. "
    "Was a second disk with a kubenode image attached? Take it away and restart."
)

MAPPED_ROOT = "root"
"""The device mapper name that systemd-veritysetup-generator gives the root file system."""
NEUTRAL = "6b756265-6e6f-6465-"
"""How the partition UUIDs of a slot begin that holds nothing whole ("kubenode" in ASCII; the rest is random)."""

_VERITY_SIGNATURE = b"verity\0\0"
"""How a dm-verity superblock begins (cryptsetup, dm-verity on-disk format)."""


@dataclass(frozen=True)
class Partition:
    """A partition: its entry in the table and the device (or the file that stands for it)."""

    entry: GptPartition
    node: Path


@dataclass(frozen=True)
class SlotPartitions:
    """The two partitions of a slot."""

    root: Partition
    verity: Partition

    def root_hash(self) -> str | None:
        """Return the root hash (64 hex digits) that the partition UUIDs spell, None when the slot holds nothing whole.

        Source: the Discoverable Partitions Specification: the UUIDs are the first and the last 128 bits of the hash.
        Raises HostError.
        """
        uuids = (self.root.entry.uuid, self.verity.entry.uuid)
        if any(str(uuid).startswith(NEUTRAL) for uuid in uuids):
            return None
        try:
            with self.verity.node.open("rb") as file:
                # A slot that was never written has random UUIDs too, but no hash tree.
                if file.read(len(_VERITY_SIGNATURE)) != _VERITY_SIGNATURE:
                    return None
        except OSError as error:
            raise HostError(f"{self.verity.node} cannot be read: {error.strerror}", hint=_LAYOUT) from error
        return uuids[0].hex + uuids[1].hex


def slot_uuids(root_hash: str) -> tuple[UUID, UUID]:
    """Return the partition UUIDs (root, verity) of a slot with this root hash."""
    return UUID(root_hash[:32]), UUID(root_hash[32:])


class Disk:
    """The disk that this machine was booted from. Another disk with the same labels is never touched."""

    def __init__(self, paths: Paths) -> None:
        """Find the disk below the root file system. Raises HostError when root is not the mapped device `root`."""
        self._block = paths.sys / "class/block"
        self._dev = paths.dev
        slaves = self._slaves()
        disks = {self._link(slave).parent.name for slave in slaves}
        if len(disks) != 1:
            raise HostError(
                f"the root file system is on {len(disks)} disks ({', '.join(sorted(disks))}), not on one", hint=_LAYOUT
            )
        self.name = disks.pop()
        self.device = self._dev / self.name
        self._sector = self._number(self._block / self.name / "queue/logical_block_size", 512)
        self.booted = self._booted({self._label(slave) for slave in slaves})

    def slot(self, slot: Slot) -> SlotPartitions:
        """Return a slot's partitions as the table on the disk has them now.

        Raises HostError when one is missing, ambiguous, or not what the kernel knows.
        """
        table = read_gpt(self.device, self._sector)
        return SlotPartitions(self._partition(table, f"root-{slot}"), self._partition(table, f"root-{slot}-verity"))

    def _partition(self, table: tuple[GptPartition, ...], label: str) -> Partition:
        entries = [entry for entry in table if entry.label == label]
        if len(entries) != 1:
            raise HostError(
                f"disk {self.device} has {len(entries)} partitions with the label {label}, not one", hint=_LAYOUT
            )
        entry = entries[0]
        for folder in (self._block / self.name).resolve().iterdir():
            if (folder / "partition").exists() and self._number(folder / "partition") == entry.number:
                # sysfs counts in units of 512 bytes, whatever the disk's sectors are.
                known = (self._number(folder / "start") * 512, self._number(folder / "size") * 512)
                if known != (entry.start, entry.size):
                    raise HostError(
                        f"the kernel knows {folder.name} with other borders than the partition table of {self.device}",
                        hint="the disk was partitioned again while it was in use: restart the machine",
                    )
                return Partition(entry, self._dev / folder.name)
        raise HostError(f"the kernel does not know partition {entry.number} ({label}) of {self.device}", hint=_LAYOUT)

    def _slaves(self) -> list[str]:
        for folder in sorted(self._block.glob("dm-*")):
            if self._text(folder / "dm/name") == MAPPED_ROOT:
                slaves = sorted(link.name for link in (folder / "slaves").iterdir())
                if len(slaves) == 2:
                    return slaves
                raise HostError(
                    f"the mapped device `{MAPPED_ROOT}` is made of {len(slaves)} devices, not of two", hint=_LAYOUT
                )
        raise HostError(
            f"there is no mapped device `{MAPPED_ROOT}`: this machine does not run a kubenode image",
            hint="this command works on nodes only",
        )

    def _booted(self, labels: set[str]) -> Slot:
        for slot in Slot:
            if labels == {f"root-{slot}", f"root-{slot}-verity"}:
                return slot
        raise HostError(
            f"the root file system is on the partitions {', '.join(sorted(labels))}, which are not a slot", hint=_LAYOUT
        )

    def _label(self, name: str) -> str:
        for line in self._text(self._block / name / "uevent").splitlines():
            if line.startswith("PARTNAME="):
                return line.removeprefix("PARTNAME=")
        raise HostError(f"{name} is not a partition with a label", hint=_LAYOUT)

    def _link(self, name: str) -> Path:
        try:
            return (self._block / name).resolve(strict=True)
        except OSError as error:
            raise HostError(f"the device {name} cannot be found in sysfs: {error.strerror}", hint=_LAYOUT) from error

    def _number(self, path: Path, default: int | None = None) -> int:
        if default is not None and not path.exists():
            return default
        with suppress(ValueError):
            return int(self._text(path))
        raise HostError(f"{path} does not hold a number", hint=_LAYOUT)

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise HostError(f"{path} cannot be read: {error.strerror}", hint=_LAYOUT) from error
