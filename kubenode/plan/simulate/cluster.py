"""The cluster as far as decisions see it: one for all nodes, put together from what each of them saw."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto

from kubenode.model.decision import (
    AcquireLease,
    Action,
    ApproveRequests,
    Cordon,
    CreateLeases,
    DeleteNode,
    Drain,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PublishReport,
    Reboot,
    Reconfigure,
    ReleaseLease,
    RemoveEtcdMember,
    SetTokens,
    Uncordon,
)
from kubenode.model.documents import Role
from kubenode.model.kubernetes import (
    Answer,
    CertificateRequest,
    ClusterNode,
    ClusterView,
    EtcdMember,
    EtcdView,
    EvictablePod,
    KubernetesVersion,
    Lease,
)
from kubenode.model.observed import Observed

SOME_POD = EvictablePod("assumed", "pods")
"""What a worker has to be drained of when nothing was seen there: that was before it was cordoned, or from afar."""


class Change(Enum):
    """What has changed in the cluster, as coarse as waiting nodes need it."""

    LEASE = auto()
    """A lease is free now."""
    BACK = auto()
    """A node takes pods again, has come, or is gone for good: nobody waits for it any more."""
    AWAY = auto()
    REPORT = auto()
    PLANE = auto()
    """Anything about control planes, etcd, versions or configuration."""
    TOKENS = auto()


@dataclass
class Cluster:
    """The cluster; `version` is None before there is one. `declared`: the nodes that git knows."""

    declared: frozenset[str]
    version: KubernetesVersion | None = None
    configuration: str | None = None
    nodes: dict[str, ClusterNode] = field(default_factory=dict)
    apiservers: dict[str, KubernetesVersion | None] = field(default_factory=dict)
    etcd: EtcdView | None = None
    leases: dict[str, Lease] = field(default_factory=dict)
    pods: dict[str, tuple[EvictablePod, ...]] = field(default_factory=dict)
    tokens: frozenset[str] = frozenset()
    requests: tuple[CertificateRequest, ...] = ()
    changes: set[Change] = field(default_factory=set)
    """What has changed since somebody last emptied this."""
    _found: dict[str, object] = field(default_factory=dict)
    """What was found in leases and reports since they have changed."""

    @classmethod
    def seen_by(cls, declared: frozenset[str], views: Sequence[ClusterView]) -> "Cluster":
        """Put views together: of itself each node knows best, of everything else the first that sees most."""
        if not views:
            return cls(declared)
        base = min(views, key=lambda view: (view.etcd is None, view.me))
        cluster = cls(
            declared,
            base.version,
            base.configuration,
            dict(base.by_name),
            dict(base.apiservers),
            base.etcd,
            {lease.name: lease for lease in base.leases},
            dict(base.pods),
            base.tokens,
            base.requests,
        )
        for view in views:
            cluster._believe(view)
        return cluster

    def _believe(self, view: ClusterView) -> None:
        me = view.me
        if me in view.by_name:
            self.nodes[me] = view.by_name[me]
        if me in view.apiservers:
            self.apiservers[me] = view.apiservers[me]
        if me in view.pods:
            self.pods[me] = view.pods[me]
        for lease in view.leases:
            known = self.leases.get(lease.name)
            if lease.holder == me or (known is not None and known.holder == me):
                self.leases[lease.name] = lease

    # What a node sees.

    def answering(self) -> bool:
        """Say whether the API answers: an API server, and etcd's quorum behind it."""
        members = self.etcd.members if self.etcd is not None else ()
        quorum = not members or sum(it.healthy for it in members) > len(members) // 2
        return self.version is not None and quorum and any(it is not None for it in self.apiservers.values())

    def answers(self) -> tuple[Answer, ...]:
        """Return who answers a machine that is no member yet."""
        if not self.answering():
            return ()
        return tuple(Answer(name, version) for name, version in self.apiservers.items() if version is not None)

    def view(self, me: str, role: Role, *, joined: bool) -> ClusterView | None:
        """Return the cluster as a node sees it now: good for one decision, since it shares what changes.

        Control planes see it before they have joined, too: they hold its CA.
        """
        plane = role is Role.CONTROL_PLANE
        if self.version is None or not (joined or plane) or not self.answering():
            return None
        watched = {me} | (self.nodes.keys() - self.declared if plane else set())
        view = ClusterView(
            me=me,
            version=self.version,
            nodes=tuple(self.nodes.values()),
            apiservers=self.apiservers,
            configuration=self.configuration,
            etcd=self.etcd if plane else None,
            leases=tuple(self.leases.values()),
            pods={name: self.pods[name] for name in watched if name in self.pods},
            tokens=self.tokens if plane else frozenset(),
            requests=self.requests if plane else (),
        )
        # What the cached properties would find anew for every decision, by a look at every node.
        for name in ("by_holder", "poisoned"):
            if name not in self._found:
                self._found[name] = getattr(view, name)
        vars(view).update(self._found, by_name=self.nodes)
        return view

    # What changes.

    def begin(self, action: Action, me: str) -> None:
        """Show what an action disturbs while it runs."""
        if isinstance(action, Reboot) and me in self.nodes:
            self._node(me, ready=False)
            if me in self.apiservers:
                self.apiservers[me] = None
                self._member(me, healthy=False)
                self.changes.add(Change.PLANE)

    def refusal(self, action: Action) -> str:
        """Return why an action fails now although it was decided: another node was faster."""
        if not isinstance(action, AcquireLease):
            return ""
        lease = self.leases.get(action.name)
        return "" if lease is not None and lease.holder == action.previous else "another node was faster"

    def apply(self, action: Action, me: str, machine: Observed, now: datetime, documents: str) -> None:
        """Show the result of an action; `machine` is what it has made of the node, `documents` git's configuration."""
        match action:
            case KubeadmInit(version):
                self.version, self.configuration, self.etcd = version, documents, EtcdView(())
                self.settle(me, machine)
            case KubeadmJoin() if self.version is not None:
                self.settle(me, machine)
            case KubeadmUpgrade(_, version, first):
                if first:
                    self.version, self.configuration = version, documents
                # Which etcd a release brings is not in git.
                self._member(me, version=None)
                self.settle(me, machine)
            case Reboot():
                if self.version is not None and machine.kubernetes is not None and machine.kubernetes.joined:
                    self.settle(me, machine)
            case Reconfigure(configuration, first) if first:
                self.configuration = configuration
                self.changes.add(Change.PLANE)
            case _:
                self._asked(action, me, now)

    def _asked(self, action: Action, me: str, now: datetime) -> None:
        match action:
            case CreateLeases(names):
                for name in sorted(names - self.leases.keys()):
                    self._lease(Lease(name))
            case AcquireLease(name, why):
                self._lease(Lease(name, me, now, why))
            case ReleaseLease(name):
                self._lease(Lease(name))
            case Cordon(node):
                self._node(node, cordoned=True, cordoned_by_us=True)
                if self.pods.get(node) == () and node in self.nodes and self.nodes[node].role is Role.WORKER:
                    self.pods[node] = (SOME_POD,)
            case Uncordon(node):
                self._node(node, cordoned=False, cordoned_by_us=False)
            case Drain(node):
                self.pods[node] = ()
            case PublishReport(report):
                self._node(me, report=report)
            case RemoveEtcdMember(_, gone) if self.etcd is not None:
                left = tuple(it for it in self.etcd.members if it.id != gone)
                self.etcd = replace(self.etcd, members=left)
                self.changes.add(Change.PLANE)
            case DeleteNode(name):
                self.nodes.pop(name, None)
                self.apiservers.pop(name, None)
                self._found.pop("poisoned", None)
                self.changes |= {Change.BACK, Change.PLANE}
            case SetTokens(nodes):
                self.tokens = nodes
                self.changes.add(Change.TOKENS)
            case ApproveRequests(names):
                self.requests = tuple(it for it in self.requests if it.name not in names)

    def settle(self, me: str, machine: Observed) -> None:
        """Show a member that is up: kubelet registers it, and on a control plane API server and etcd come back."""
        here = machine.kubernetes
        assert here is not None and here.joined is not None
        if me not in self.nodes:
            self.nodes[me] = ClusterNode(me, False, here.kubelet)
            self.pods[me] = ()
        self._node(me, ready=True, kubelet=here.kubelet, boot_id=machine.boot_id, role=here.joined)
        if here.joined is Role.CONTROL_PLANE:
            self.apiservers[me] = here.manifests.get("kube-apiserver")
            if self.etcd is not None and me not in {it.name for it in self.etcd.members}:
                self.etcd = replace(self.etcd, members=(*self.etcd.members, EtcdMember(me, f"member-{me}", True)))
            self._member(me, healthy=True)
            self.changes.add(Change.PLANE)

    def _node(self, name: str, **fields: object) -> None:
        before = self.nodes.get(name)
        if before is None:
            return
        after = self.nodes[name] = replace(before, **fields)  # type: ignore[arg-type]
        was, there = (it.ready and not it.cordoned for it in (before, after))
        if was != there:
            self.changes.add(Change.BACK if there else Change.AWAY)
            if after.role is Role.CONTROL_PLANE:
                self.changes.add(Change.PLANE)
        if before.report != after.report:
            self.changes.add(Change.REPORT)
            self._found.pop("poisoned", None)

    def _lease(self, lease: Lease) -> None:
        self.leases[lease.name] = lease
        self._found.pop("by_holder", None)
        if lease.holder is None:
            self.changes.add(Change.LEASE)

    def _member(self, name: str, **fields: object) -> None:
        if self.etcd is not None:
            members = (replace(it, **fields) if it.name == name else it for it in self.etcd.members)  # type: ignore[arg-type]
            self.etcd = replace(self.etcd, members=tuple(members))
