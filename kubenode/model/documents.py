"""What the fleet repo says, one dataclass per document kind (`schemas/` is the contract, see docs/fleet.md)."""

from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum

from kubenode.model.version import Version


class Role(StrEnum):
    """What a pool's nodes are in the cluster; `standalone` is a machine without Kubernetes."""

    CONTROL_PLANE = "control-plane"
    WORKER = "worker"
    STANDALONE = "standalone"


class Partition(StrEnum):
    """Where a writable folder is kept: `state` is precious, `data` can be reformatted."""

    STATE = "state"
    DATA = "data"


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes cluster that the fleet is."""

    endpoint: str
    bootstrap_node: str
    init_before: datetime


@dataclass(frozen=True)
class Fleet:
    """`fleet.yaml`: the identity of the fleet, its image stores (URLs), its cluster, its halt switch.

    `rollout_order`: pool names; pools that are not named follow, control planes first.
    """

    name: str
    id: str
    stores: tuple[str, ...]
    cluster: Cluster | None = None
    rollout_order: tuple[str, ...] = ()
    halted: bool = False


@dataclass(frozen=True)
class Channel:
    """`channels/<name>.yaml`: release versions, newest first; older ones serve hop planning."""

    name: str
    releases: tuple[Version, ...]


@dataclass(frozen=True)
class Release:
    """`releases/<version>.yaml`: one immutable image.

    `manifest` is the sha256 (64 hex digits) of the signed manifest, `root_hash` the dm-verity root hash (64 hex
    digits) by which a running or written slot is recognised, `floor` the oldest version that may update to it.
    """

    version: Version
    manifest: str
    root_hash: str
    kubernetes: str | None = None
    floor: Version | None = None


@dataclass(frozen=True)
class Window:
    """A weekly maintenance window: days (0 = Monday), local start time, length and IANA time zone."""

    days: frozenset[int]
    start: time
    duration: timedelta
    timezone: str = "UTC"


@dataclass(frozen=True)
class Rollout:
    """How a pool takes disruptive changes. Amounts are kept as written ("1" or "25%")."""

    max_unavailable: str = "1"
    waves: tuple[str, ...] = ("100%",)
    soak: timedelta = timedelta(0)
    max_failures: int = 0
    windows: tuple[Window, ...] = ()
    drain_timeout: timedelta = timedelta(minutes=10)
    drain_force: bool = False


@dataclass(frozen=True)
class File:
    """A file that the agent renders below /etc; `source` is a path in the fleet repo."""

    path: str
    source: str
    mode: int = 0o644


@dataclass(frozen=True)
class Pool:
    """`pools/<name>.yaml`: nodes with one role, one channel (or pinned release) and one rollout policy."""

    name: str
    role: Role
    image: str
    channel: str | None = None
    release: Version | None = None
    extensions: tuple[str, ...] = ()
    rollout: Rollout = Rollout()
    sysctls: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Node:
    """`nodes/<name>.yaml`: one machine, in exactly one pool."""

    name: str
    pool: str
    address: str | None = None
    disk: str | None = None
    age_recipient: str | None = None
    ssh_key: str | None = None


@dataclass(frozen=True)
class StorageMount:
    """A writable folder of the image and the partition that backs it."""

    path: str
    partition: Partition


@dataclass(frozen=True)
class SlotSizes:
    """Partition sizes in MiB. Slots can't grow later: an image may fill 80 % of a slot at most."""

    esp: int = 512
    root: int = 640
    verity: int = 32
    state: int = 1024
    data: int = 1024


@dataclass(frozen=True)
class BinarySource:
    """Where kubelet and kubeadm come from: the URL of a folder (https or file) and each file's sha256 (64 hex digits).

    `crictl` is there for a kubeadm that calls it, which ended with 1.30.
    """

    url: str
    kubeadm: str
    kubelet: str
    crictl: str | None = None


@dataclass(frozen=True)
class KubernetesRecipe:
    """The Kubernetes in an image: a version such as v1.34.2; `sandbox_image` None means the one that kubeadm wants."""

    version: str
    source: BinarySource
    sandbox_image: str | None = None


@dataclass(frozen=True)
class Image:
    """`images/<name>.yaml`: the recipe of an image; `overlay` is a folder of the fleet repo copied over its tree."""

    name: str
    distribution: str = "debian"
    suite: str = "trixie"
    modules: str = "virt"
    packages: tuple[str, ...] = ()
    kubernetes: KubernetesRecipe | None = None
    overlay: str | None = None
    kernel_command_line: tuple[str, ...] = ()
    storage: tuple[StorageMount, ...] = ()
    slots: SlotSizes = SlotSizes()


@dataclass(frozen=True)
class SecretFile:
    """Where a node puts an opened secret: an absolute path, permissions, and the owner's name (user or user:group)."""

    path: str
    mode: int = 0o600
    owner: str = "root"


@dataclass(frozen=True)
class ClusterCA:
    """The public half of the cluster's CA set: its certificate (PEM) and what joining nodes pin.

    `ca_cert_hash` is "sha256:" and 64 hex digits over the certificate's SubjectPublicKeyInfo, as kubeadm's
    discovery-token-ca-cert-hash.
    """

    certificate: str
    ca_cert_hash: str


@dataclass(frozen=True)
class Sealed:
    """What `secrets/<name>.age` is: its sha256 (64 hex digits) and the age recipients it was sealed to, by owner."""

    sha256: str
    nodes: tuple[tuple[str, str], ...] = ()
    operators: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class SealedSecret:
    """`secrets/<name>.yaml`: who needs the sealed file beside it, and where nodes put what is in it.

    Nodes need it by name, by pool or by role; `operators` are names of people of the trust policy. Without `file` it
    is for kubenode itself. `cluster_ca` stands in the one secret that holds the cluster's CA set, `bootstrap_token_of`
    in the secret with the token by which that node joins.
    """

    name: str
    sealed: Sealed
    nodes: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()
    operators: tuple[str, ...] = ()
    file: SecretFile | None = None
    cluster_ca: ClusterCA | None = None
    bootstrap_token_of: str | None = None


@dataclass(frozen=True)
class FleetDocuments:
    """Every document of one fleet repo, by name. `kubeadm`: sha256 (hex) of all files below kubeadm/."""

    fleet: Fleet
    channels: dict[str, Channel] = field(default_factory=dict)
    releases: dict[Version, Release] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    kubeadm: str = ""
