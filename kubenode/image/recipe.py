"""What an image is made of."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class StorageMount:
    """A writable folder of the node and the partition that keeps it."""

    path: str
    partition: Literal["state", "data"]


@dataclass(frozen=True)
class Slots:
    """Partition sizes in MiB; `data` is the least size, the partition grows to the end of the disk."""

    esp: int = 512
    root: int = 512
    verity: int = 16
    state: int = 512
    data: int = 1024


DEFAULT_STORAGE = (
    StorageMount("/var/lib/kubenode", "state"),
    StorageMount("/etc/kubernetes", "state"),
    StorageMount("/var/lib/etcd", "state"),
    StorageMount("/var/lib/kubelet/pki", "state"),
)


@dataclass(frozen=True)
class Recipe:
    """The content of an image: distribution, kernel profile, extra packages, writable folders, partition sizes."""

    distribution: str = "debian"
    release: str = "trixie"
    modules_profile: Literal["virt", "metal"] = "virt"
    packages: tuple[str, ...] = ()
    storage: tuple[StorageMount, ...] = DEFAULT_STORAGE
    slots: Slots = field(default_factory=Slots)
    kernel_command_line: tuple[str, ...] = ()
