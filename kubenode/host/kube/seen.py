"""What is seen of a cluster: plain values, never a guess. What a server does not tell is None."""

from dataclasses import dataclass, field
from datetime import datetime

from kubenode.model.plain import Plain


@dataclass(frozen=True)
class Lease:
    """A slot: who holds it, since when (UTC) and for what; free when `holder` is None."""

    name: str
    holder: str | None
    since: datetime | None = None
    why: str = ""


@dataclass(frozen=True)
class EvictablePod:
    """A pod that a drain still has to move.

    `ending`: it was told to go and is still there. `budget`: the PodDisruptionBudget that keeps it now. `why`: what the
    API server said when it may not go.
    """

    namespace: str
    name: str
    ending: bool = False
    budget: str | None = None
    why: str = ""


@dataclass(frozen=True)
class EtcdMember:
    """A member of etcd; `healthy` when it answers itself, with a leader. A member that never started has no name."""

    name: str
    id: str
    healthy: bool
    learner: bool
    peers: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()


@dataclass(frozen=True)
class EtcdView:
    """Every member of etcd, and its alarms as "NOSPACE on cp-1"."""

    members: tuple[EtcdMember, ...]
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterNode:
    """A Node object. `report` is what its agent wrote about itself, None when there is none or it cannot be read."""

    name: str
    ready: bool
    cordoned: bool
    control_plane: bool
    kubelet: str
    boot_id: str
    addresses: tuple[str, ...] = ()
    report: Plain = None


@dataclass(frozen=True)
class ClusterView:
    """One look at a cluster from one node.

    `version`: kubernetesVersion of kubeadm's ClusterConfiguration. `apiservers`: (node, git version) of every API
    server, None when it does not answer; one that belongs to no Node is called by its address. `etcd`: None on workers.
    `evictable`: what a drain of this node has to move.
    """

    version: str
    nodes: tuple[ClusterNode, ...]
    apiservers: tuple[tuple[str, str | None], ...]
    leases: tuple[Lease, ...]
    evictable: tuple[EvictablePod, ...] = ()
    etcd: EtcdView | None = field(default=None)
