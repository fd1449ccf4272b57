"""What the planner decides: one action, or a reason for none. Plain values: plans are printed, compared and stored."""

from dataclasses import dataclass
from datetime import datetime

from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import KubernetesVersion, NodeReport
from kubenode.model.observed import BootEntry, Slot
from kubenode.model.version import Version


@dataclass(frozen=True)
class FetchRelease:
    """Download and verify a release into the staging area. Done when its manifest digest is in `fetched`."""

    release: Release


@dataclass(frozen=True)
class RetireEntry:
    """Remove a UKI from the ESP. Done when no entry has this root hash."""

    entry: BootEntry


@dataclass(frozen=True)
class RestoreEntry:
    """Make the booted UKI good again after a downgrade was given up. Done when its entry has no counter.

    This takes back our own mark (`ActivateSlot.supersede`); a trial is blessed by systemd only.
    """

    entry: BootEntry


@dataclass(frozen=True)
class WriteSlot:
    """Write a fetched release to the spare slot and stage its UKI. Done when `spare` and `staged` show it."""

    release: Release
    slot: Slot


@dataclass(frozen=True)
class ActivateSlot:
    """Give the staged UKI to the boot loader with three tries. Done when `entries` show it.

    `supersede` is the booted entry when it is newer than the release: it sorts first and must be marked bad to let
    the older release be tried; it stays as the fallback.
    """

    release: Release
    supersede: BootEntry | None = None


@dataclass(frozen=True)
class Reboot:
    """Restart the machine into the activated release. Done when the boot id has changed."""

    release: Release


@dataclass(frozen=True)
class PoisonRelease:
    """Remember that a release failed its trial here. Done when the journal lists it."""

    version: Version
    root_hash: str
    manifest: str | None


@dataclass(frozen=True)
class PruneStaging:
    """Delete downloads (manifest digests) and, with `staged`, the staged UKI. Done when they are gone."""

    downloads: frozenset[str]
    staged: bool


@dataclass(frozen=True)
class KubeadmInit:
    """Found the cluster with the booted slot's kubeadm. Done when this machine has joined as a control plane."""

    version: KubernetesVersion


@dataclass(frozen=True)
class KubeadmJoin:
    """Join the cluster with the booted slot's kubeadm. Done when this machine has joined in this role."""

    role: Role


@dataclass(frozen=True)
class PullImages:
    """Pull a staged release's control plane images with its own kubeadm. Done when `pulled` has their version."""

    release: Release
    version: KubernetesVersion


@dataclass(frozen=True)
class PrepareKubelet:
    """Render the kubelet set of the staged slot with its own kubeadm. Done when `kubelet_sets` has its root hash.

    `configuration` is the digest of the fleet's kubeadm documents that it is rendered from.
    """

    release: Release
    configuration: str


@dataclass(frozen=True)
class SnapshotEtcd:
    """Save etcd's data before the control plane moves to a release. Done when `snapshots` has its manifest digest."""

    release: Release


@dataclass(frozen=True)
class KubeadmUpgrade:
    """Move this control plane to a staged release's version with that slot's kubeadm, under the running kubelet.

    `first`: `kubeadm upgrade apply`, which also writes the cluster's documents (as git has them now); otherwise
    `kubeadm upgrade node`. Done when every static pod's manifest has the version (and with `first` the ConfigMap too).
    """

    release: Release
    version: KubernetesVersion
    first: bool


@dataclass(frozen=True)
class Reconfigure:
    """Render static pods and kubelet configuration anew from git, at the version that runs.

    `first` also writes the cluster's documents. Done when `configuration` here (and with `first` there) is this digest.
    """

    configuration: str
    first: bool


@dataclass(frozen=True)
class RenewCertificates:
    """Renew every certificate of this control plane and restart its static pods. Done when none ends before `until`."""

    until: datetime


@dataclass(frozen=True)
class RestartStaticPods:
    """Have the kubelet make these static pods anew. Done when none of them is `rejected`."""

    names: frozenset[str]


@dataclass(frozen=True)
class PruneKubeadm:
    """Delete the copies that kubeadm upgrades leave behind. Done when there are no `leftovers`."""


@dataclass(frozen=True)
class CreateLeases:
    """Create these leases, free. Done when they all exist."""

    names: frozenset[str]


@dataclass(frozen=True)
class AcquireLease:
    """Take a lease by compare-and-swap from `previous` (None: it is free). Done when this node is its holder."""

    name: str
    why: str
    previous: str | None = None


@dataclass(frozen=True)
class ReleaseLease:
    """Give a lease back. Done when this node is not its holder."""

    name: str


@dataclass(frozen=True)
class Cordon:
    """Let no new pods come to a node, and leave our mark. Done when its Node shows both."""

    node: str


@dataclass(frozen=True)
class Drain:
    """Evict a node's pods, one round; with `force`, delete what a budget keeps. Done when none is left.

    A round that leaves pods behind is a failure to be tried again soon; its error names the pods and their budgets.
    """

    node: str
    force: bool = False


@dataclass(frozen=True)
class Uncordon:
    """Take back our own Cordon. Done when the Node is neither cordoned nor marked."""

    node: str


@dataclass(frozen=True)
class PublishReport:
    """Write this node's report to its Node object. Done when it shows there."""

    report: NodeReport


@dataclass(frozen=True)
class RemoveEtcdMember:
    """Remove a member from etcd. Done when no member has this id."""

    name: str
    id: str


@dataclass(frozen=True)
class DeleteNode:
    """Delete a Node object. Done when it is gone."""

    name: str


@dataclass(frozen=True)
class SetTokens:
    """Publish the bootstrap tokens of exactly these nodes. Done when `tokens` is this set."""

    nodes: frozenset[str]


@dataclass(frozen=True)
class ApproveRequests:
    """Approve these pending certificate requests by name. Done when none of them is pending."""

    names: frozenset[str]


Action = (
    FetchRelease
    | RetireEntry
    | RestoreEntry
    | WriteSlot
    | ActivateSlot
    | Reboot
    | PoisonRelease
    | PruneStaging
    | KubeadmInit
    | KubeadmJoin
    | PullImages
    | PrepareKubelet
    | SnapshotEtcd
    | KubeadmUpgrade
    | Reconfigure
    | RenewCertificates
    | RestartStaticPods
    | PruneKubeadm
    | CreateLeases
    | AcquireLease
    | ReleaseLease
    | Cordon
    | Drain
    | Uncordon
    | PublishReport
    | RemoveEtcdMember
    | DeleteNode
    | SetTokens
    | ApproveRequests
)


@dataclass(frozen=True)
class Act:
    """Do this one action now. `then` names the steps expected after it, for people; it is never executed."""

    action: Action
    why: str
    then: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Nothing may be done now; `reason` is a stable code, `message` a sentence, `until` a UTC time if one is known."""

    reason: str
    message: str
    until: datetime | None = None


@dataclass(frozen=True)
class Converged:
    """The node is what git says."""

    message: str


@dataclass(frozen=True)
class Stuck:
    """Only a person can help; `reason` is a stable code, `hint` says what to do."""

    reason: str
    message: str
    hint: str


Decision = Act | Wait | Converged | Stuck
