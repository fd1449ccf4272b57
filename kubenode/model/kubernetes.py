"""What Kubernetes shows: one node's own files, and the cluster as its API tells it. Facts only, nothing remembered."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property, total_ordering
from urllib.parse import urlsplit

from kubenode.model.documents import Role
from kubenode.model.version import Version

COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""The static pods of a control plane that have the version of Kubernetes; etcd has versions of its own."""
_PATTERN = re.compile(r"v(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")


@total_ordering
@dataclass(frozen=True)
class KubernetesVersion:
    """A version of Kubernetes, "v1.34.2"; the v may be left out when one is made."""

    text: str

    def __post_init__(self) -> None:
        """Raise ValueError when `text` is no version; whoever reads one strips suffixes such as +build first."""
        object.__setattr__(self, "text", "v" + self.text.removeprefix("v"))
        if not _PATTERN.fullmatch(self.text):
            raise ValueError(f"{self.text[:80]!r} is not a Kubernetes version such as v1.34.2")

    @cached_property
    def numbers(self) -> tuple[int, int, int]:
        """Major, minor and patch."""
        major, minor, patch = self.text[1:].split(".")
        return int(major), int(minor), int(patch)

    @property
    def minor(self) -> tuple[int, int]:
        """Major and minor."""
        return self.numbers[:2]

    def __lt__(self, other: "KubernetesVersion") -> bool:
        return self.numbers < other.numbers

    def __str__(self) -> str:
        return self.text


class Entry(StrEnum):
    """How a machine becomes part of a cluster."""

    INIT = "init"
    JOIN = "join"


@dataclass(frozen=True)
class LocalKubernetes:
    """What this machine's own files say; such a machine has a kubelet in its booted slot.

    `kubelet`: version in the booted slot. `joined`: as what it has joined a cluster, None before. `entering`: an init
    or join that has begun and not ended, which leaves it no member whatever files are there. `manifests`: image
    versions of the static pods kube-apiserver, kube-controller-manager and kube-scheduler (control planes only; etcd
    has versions of its own). `configuration`: digest of the fleet's kubeadm documents that manifests and kubelet were
    last rendered from. `kubelet_sets`: root hash of a slot to the digest its kubelet set was rendered from. `pulled`:
    versions whose control plane images are all here. `snapshots`: manifest digests of releases before which etcd was
    saved here. `certificates_until`: the earliest end of a certificate of this control plane, aware, in UTC.
    `leftovers`: whether copies that kubeadm upgrades leave behind are there. `rejected`: static pods, by the
    names of their components, of which the kubelet has made nothing for so long that it never will.
    """

    kubelet: KubernetesVersion
    joined: Role | None = None
    entering: Entry | None = None
    manifests: Mapping[str, KubernetesVersion] = field(default_factory=dict)
    configuration: str | None = None
    kubelet_sets: Mapping[str, str] = field(default_factory=dict)
    pulled: frozenset[KubernetesVersion] = frozenset()
    snapshots: frozenset[str] = frozenset()
    certificates_until: datetime | None = None
    leftovers: bool = False
    rejected: frozenset[str] = frozenset()

    @property
    def is_ahead(self) -> bool:
        """Whether static pods are newer than the booted slot's kubelet and kubeadm, which cannot render them then."""
        return any(it > self.kubelet for it in self.manifests.values())


@dataclass(frozen=True)
class Answer:
    """A declared control plane, or the endpoint, that answered with a certificate of the cluster's CA.

    `version` is None when it would not say: refused, failing, or not readable. It has answered nevertheless.
    """

    name: str
    version: KubernetesVersion | None


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself in the annotation kubenode.dev/status of its Node.

    `release` and `root_hash`: what it runs and has blessed, since `since`. `poisoned`: root hashes of releases that
    failed there. `configuration`: as in LocalKubernetes. `commit`: of the fleet repo that it follows. `phase`: for
    people only. `account`: digest of the node's account (`kubenode.plan.observations`), which lies in an annotation of
    its own and is for laptops only; `at`: when it was written (aware, UTC).
    """

    release: Version
    root_hash: str
    since: datetime
    poisoned: frozenset[str] = frozenset()
    configuration: str | None = None
    commit: str = ""
    phase: str = ""
    account: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class ClusterNode:
    """A Node object. `boot_id` and `kubelet` are what its kubelet reported; `cordoned_by_us`: our annotation is there.

    What a person has cordoned is not uncordoned by kubenode. `report` is None for a node without kubenode, or before
    its first report.
    """

    name: str
    ready: bool
    kubelet: KubernetesVersion
    boot_id: str = ""
    role: Role = Role.WORKER
    cordoned: bool = False
    cordoned_by_us: bool = False
    report: NodeReport | None = None


@dataclass(frozen=True)
class EtcdMember:
    """A member of etcd; `name` is its node's, empty for one that was added and has not started."""

    name: str
    id: str
    healthy: bool
    learner: bool = False
    version: Version | None = None
    peers: tuple[str, ...] = ()

    def never_started_at(self, address: str | None) -> bool:
        """Say whether it was added for the machine at this address, by kubeadm, and has not started."""
        return not self.name and address is not None and any(urlsplit(it).hostname == address for it in self.peers)


@dataclass(frozen=True)
class EtcdView:
    """The members of etcd and its alarms (such as NOSPACE), as a control plane sees them."""

    members: tuple[EtcdMember, ...]
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lease:
    """A Lease of the namespace kubenode-system; `holder` is a node's name, None when it is free.

    `since` (aware, UTC) is when it was taken, `why` what for, in a few words for people.
    """

    name: str
    holder: str | None = None
    since: datetime | None = None
    why: str = ""


@dataclass(frozen=True)
class EvictablePod:
    """A pod that a drain still has to see gone; `budget` is the PodDisruptionBudget that keeps it, None for none."""

    namespace: str
    name: str
    ending: bool = False
    budget: str | None = None
    why: str = ""


@dataclass(frozen=True)
class CertificateRequest:
    """A pending CertificateSigningRequest, as its parsed PKCS #10 and the API server's own fields say."""

    name: str
    signer: str
    requestor: str
    requestor_groups: frozenset[str]
    common_name: str
    organizations: frozenset[str]
    usages: frozenset[str]
    names: frozenset[str] = frozenset()
    """Subject alternative names: DNS names and IP addresses in their shortest form."""


@dataclass(frozen=True)
class ClusterView:
    """One look at the cluster through its API by the node `me`.

    `version` and `configuration` are those of the kubeadm-config ConfigMap (`configuration`: our annotation there).
    `apiservers`: every control plane with the version its API server answered itself, None when it did not answer.
    `etcd` is None where it cannot be seen: on workers. `pods`: what a drain of a node still waits for; only of this
    node and, on control planes, of nodes that git does not know. `tokens`: nodes whose bootstrap token is published.
    Workers see neither `tokens` nor `requests`.
    """

    me: str
    version: KubernetesVersion
    nodes: tuple[ClusterNode, ...]
    apiservers: Mapping[str, KubernetesVersion | None]
    configuration: str | None = None
    etcd: EtcdView | None = None
    leases: tuple[Lease, ...] = ()
    pods: Mapping[str, tuple[EvictablePod, ...]] = field(default_factory=dict)
    tokens: frozenset[str] = frozenset()
    requests: tuple[CertificateRequest, ...] = ()

    def seen_by(self, me: str, etcd: EtcdView | None) -> "ClusterView":
        """Return the same look as another node's, with what that node sees of etcd."""
        other = replace(self, me=me, etcd=etcd)
        # What follows from anything but these two is worked out once for all nodes.
        for name in ("by_name", "poisoned", "by_holder", "oldest_apiserver", "memo"):
            other.__dict__[name] = getattr(self, name)
        return other

    @cached_property
    def memo(self) -> dict[tuple[object, ...], tuple[object, object]]:
        """What a rule has worked out from this look, apart from `me` and `etcd`, and may be asked again."""
        return {}

    @cached_property
    def by_name(self) -> dict[str, ClusterNode]:
        """The Node objects by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def poisoned(self) -> dict[str, NodeReport]:
        """The reports that name a release which failed, by node."""
        reports = ((node.name, node.report) for node in self.nodes)
        return {name: report for name, report in reports if report is not None and report.poisoned}

    @cached_property
    def by_holder(self) -> dict[str, tuple[Lease, ...]]:
        """The leases that are held, by their holder's name."""
        found: dict[str, list[Lease]] = {}
        for lease in self.leases:
            if lease.holder is not None:
                found.setdefault(lease.holder, []).append(lease)
        return {holder: tuple(leases) for holder, leases in found.items()}

    @cached_property
    def oldest_apiserver(self) -> KubernetesVersion | None:
        """The oldest API server's version, None when one of them (or all) did not answer."""
        known = [version for version in self.apiservers.values() if version is not None]
        return min(known) if known and len(known) == len(self.apiservers) else None
