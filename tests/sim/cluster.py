"""A Kubernetes cluster in memory: API servers, etcd's quorum, leases by compare-and-swap, pods with budgets, kubelets.

`ClusterPort` and `KubeadmPort` are one node's hands on it, the same for the real agent and for the fast simulation.
What may never happen is asserted where it would happen, and every partial effect passes `step`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from kubenode.errors import HostError, TryLater
from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import (
    Answer,
    ClusterNode,
    ClusterView,
    EtcdMember,
    EtcdView,
    EvictablePod,
    KubernetesVersion,
    Lease,
    LocalKubernetes,
    NodeReport,
)
from kubenode.model.version import Version
from kubenode.plan.kubernetes.skew import within_reach

CERTIFICATES_LAST = timedelta(days=365)
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass
class Host:
    """One machine as far as Kubernetes sees it."""

    name: str
    role: Role
    kubelet: KubernetesVersion
    root_hash: str
    up: bool = True
    cut_off: bool = False
    boot_id: str = "boot-0"
    joined: Role | None = None
    manifests: dict[str, KubernetesVersion] = field(default_factory=dict)
    configuration: str | None = None
    kubelet_sets: dict[str, str] = field(default_factory=dict)
    pulled: set[KubernetesVersion] = field(default_factory=set)
    snapshots: set[str] = field(default_factory=set)
    certificates_until: datetime | None = None
    leftovers: bool = False
    rejected: frozenset[str] = frozenset()
    registered: bool = False
    """Whether its kubelet has registered its Node since it started: it does that once."""
    step: Callable[[str], None] = lambda _: None

    def local(self) -> LocalKubernetes:
        return LocalKubernetes(
            kubelet=self.kubelet,
            joined=self.joined,
            manifests=dict(self.manifests),
            configuration=self.configuration,
            kubelet_sets=dict(self.kubelet_sets),
            pulled=frozenset(self.pulled),
            snapshots=frozenset(self.snapshots),
            certificates_until=self.certificates_until,
            leftovers=self.leftovers,
            rejected=self.rejected,
        )


@dataclass
class Cluster:
    """The cluster; `hosts` are all machines, in it or not."""

    configuration: str | None = None
    wanted_configuration: str = "config-1"
    version: KubernetesVersion | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    objects: dict[str, ClusterNode] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    pods: dict[str, str] = field(default_factory=dict)
    """Pod to node; "app/3" is one replica of app."""
    at_least: dict[str, int] = field(default_factory=dict)
    """The budget of an app: replicas that must run."""
    starting: set[str] = field(default_factory=set)
    """Pods that have moved and do not run yet."""
    tokens: frozenset[str] = frozenset()
    inits: int = 0
    allowed_away: Callable[[str], int] = lambda _group: 1
    now: datetime = datetime(2026, 11, 23, 12, tzinfo=UTC)
    revision: int = 0
    watch_quorum: bool = False
    excused: bool = False
    """Whether a power cut, and not the planner, has cost the quorum that is missing now."""
    _view: tuple[int, tuple[ClusterNode, ...], dict[str, KubernetesVersion | None]] | None = None
    _by_name: dict[str, ClusterNode] = field(default_factory=dict)
    _views: dict[str, tuple[int, ClusterView]] = field(default_factory=dict)

    # What runs.

    def planes(self) -> list[Host]:
        hosts = (self.hosts[name] for name in self.members if name in self.hosts)
        return [host for host in hosts if host.joined is Role.CONTROL_PLANE]

    def serving(self, host: Host) -> bool:
        return host.up and host.joined is Role.CONTROL_PLANE and "kube-apiserver" in host.manifests and self.quorum()

    def healthy(self, name: str) -> bool:
        host = self.hosts.get(name)
        return host is not None and host.up and host.joined is Role.CONTROL_PLANE and "etcd" not in host.rejected

    def quorum(self) -> bool:
        return sum(map(self.healthy, self.members)) > len(self.members) // 2

    def answering(self) -> bool:
        """Whether the endpoint answers. Certificates that ended stop everything."""
        return any(
            self.serving(host) and (host.certificates_until is None or host.certificates_until > self.now)
            for host in self.planes()
        )

    def changed(self) -> None:
        self.revision += 1
        self.check()

    def check(self) -> None:
        """Assert what may never be, whatever fails."""
        if not self.members:
            return
        quorum = self.quorum()
        self.excused = self.excused and not quorum
        assert quorum or self.excused or not self.watch_quorum, "etcd lost its quorum"
        serving = [host.manifests["kube-apiserver"] for host in self.planes() if "kube-apiserver" in host.manifests]
        if serving:
            oldest, newest = min(serving), max(serving)
            assert newest.minor[1] - oldest.minor[1] <= 1, f"API servers {oldest} and {newest}"

    def settle(self, *names: str) -> None:
        """Let kubelets and controllers do their part: the Nodes (of these machines, or all) follow the machines."""
        if not self.answering():
            return
        for name in names or self.hosts:
            host = self.hosts[name]
            if host.joined is None:
                continue
            known = self.objects.get(name)
            ready = host.up and not host.cut_off
            if known is None:
                if ready and not host.registered:
                    host.registered = True
                    self.objects[name] = ClusterNode(name, True, host.kubelet, host.boot_id, host.joined)
                    self.changed()
                continue
            told = (host.kubelet, host.boot_id, host.joined)
            if ready and (known.ready, known.kubelet, known.boot_id, known.role) != (True, *told):
                kubelet, boot_id, role = told
                self.objects[name] = replace(known, ready=True, kubelet=kubelet, boot_id=boot_id, role=role)
                self.changed()
            elif not ready and known.ready:
                self.objects[name] = replace(known, ready=False)
                self.changed()

    def starts(self, host: Host) -> None:
        """Assert that a kubelet of a member may start now."""
        if host.joined is None:
            return
        for plane in self.planes():
            version = plane.manifests.get("kube-apiserver")
            assert version is None or host.kubelet <= version, f"kubelet {host.kubelet} at an API server {version}"
            assert version is None or within_reach(host.kubelet, version.minor), f"{host.kubelet} is too old: {version}"
        assert host.root_hash in host.kubelet_sets, "the slot has no kubelet configuration of its own"

    # Pods.

    def pods_on(self, name: str) -> list[str]:
        return [pod for pod, node in self.pods.items() if node == name]

    def running(self, app: str) -> int:
        """How many replicas of an app run."""
        found = (pod for pod in self.pods if pod.partition("/")[0] == app and pod not in self.starting)
        return sum(self.hosts[self.pods[pod]].up for pod in found)

    def evict(self, name: str, *, force: bool) -> list[EvictablePod]:
        left: list[EvictablePod] = []
        places = [it.name for it in self.objects.values() if it.ready and not it.cordoned and it.role is Role.WORKER]
        for pod in self.pods_on(name):
            app = pod.partition("/")[0]
            others = [it for it in places if it != name]
            # As the Eviction API: the budget must hold without this replica, which runs again some time later.
            if app in self.at_least and not force and (not others or self.running(app) <= self.at_least[app]):
                left.append(EvictablePod("default", pod, budget=app))
                continue
            self.starting.add(pod)
            if others:
                self.pods[pod] = (
                    min(others, key=lambda it: (len(self.pods_on(it)), it)) if len(others) < 20 else others[0]
                )
            else:
                del self.pods[pod]
        self.changed()
        return left

    # The API.

    def view(self, me: str) -> ClusterView | None:
        host = self.hosts[me]
        may = host.joined is not None or host.role is Role.CONTROL_PLANE
        if not may or host.cut_off or not self.answering() or self.version is None:
            return None
        kept = self._views.get(me)
        if kept is not None and kept[0] == self.revision:
            return kept[1]
        if self._view is None or self._view[0] != self.revision:
            servers = {
                it.name: it.manifests["kube-apiserver"] if self.serving(it) and not it.cut_off else None
                for it in self.hosts.values()
                if it.role is Role.CONTROL_PLANE and (it.joined is Role.CONTROL_PLANE or it.name in self.objects)
            }
            self._view = (self.revision, tuple(self.objects.values()), servers)
            self._by_name = dict(self.objects)
        _, nodes, servers = self._view
        etcd = None
        if host.role is Role.CONTROL_PLANE:
            etcd = EtcdView(
                tuple(
                    EtcdMember(name, number, self.healthy(name), version=Version("3.5.26"))
                    for name, number in self.members.items()
                )
            )
        watched = {me} | (self.objects.keys() - self.declared if host.role is Role.CONTROL_PLANE else set())
        view = ClusterView(
            me=me,
            version=self.version,
            nodes=nodes,
            apiservers=servers,
            configuration=self.configuration,
            etcd=etcd,
            leases=tuple(self.leases.values()),
            pods={
                name: tuple(EvictablePod("default", pod) for pod in self.pods_on(name))
                for name in watched
                if name in self.objects
            },
            tokens=self.tokens,
        )
        vars(view)["by_name"] = self._by_name  # What the cached property would compute for every node anew.
        self._views[me] = (self.revision, view)
        return view

    declared: frozenset[str] = frozenset()

    def answers(self) -> tuple[Answer, ...]:
        return tuple(
            Answer(host.name, host.manifests["kube-apiserver"]) for host in self.planes() if self.serving(host)
        )


@dataclass
class ClusterPort:
    """`kubenode.ports.Cluster` of one node."""

    cluster: Cluster
    me: str

    def _ask(self, what: str) -> None:
        host = self.cluster.hosts[self.me]
        host.step(what)
        if host.cut_off or not self.cluster.answering():
            raise TryLater("the Kubernetes API does not answer")

    def _done(self, what: str) -> None:
        self.cluster.changed()
        self.cluster.hosts[self.me].step(what)

    def view(self) -> ClusterView | None:
        return self.cluster.view(self.me)

    def invited(self) -> bool | None:
        return self.me in self.cluster.tokens

    def answers(self) -> tuple[Answer, ...]:
        return () if self.cluster.hosts[self.me].cut_off else self.cluster.answers()

    def create_leases(self, names: frozenset[str]) -> None:
        self._ask("api.leases")
        for name in sorted(names):
            self.cluster.leases.setdefault(name, Lease(name))
        self._done("api.leases made")

    def acquire_lease(self, name: str, why: str, previous: str | None) -> None:
        self._ask("api.acquire")
        lease = self.cluster.leases[name]
        if lease.holder != previous:
            raise TryLater(f"{lease.holder} was faster with {name}")
        self.cluster.leases[name] = Lease(name, self.me, self.cluster.now, why)
        self._done("api.acquired")

    def release_lease(self, name: str) -> None:
        self._ask("api.release")
        if self.cluster.leases[name].holder == self.me:
            self.cluster.leases[name] = Lease(name)
        self._done("api.released")

    def cordon(self, node: str) -> None:
        self._ask("api.cordon")
        self._change(node, cordoned=True, cordoned_by_us=True)
        self._done("api.cordoned")

    def uncordon(self, node: str) -> None:
        self._ask("api.uncordon")
        if self.cluster.objects[node].cordoned_by_us:
            self._change(node, cordoned=False, cordoned_by_us=False)
        self._done("api.uncordoned")

    def evict_some(self, node: str, *, force: bool) -> tuple[EvictablePod, ...]:
        self._ask("api.evict")
        left = self.cluster.evict(node, force=force)
        self._done("api.evicted")
        return tuple(left)

    def report(self, report: NodeReport, account: str | None = None) -> None:
        self._ask("api.report")
        self._change(self.me, report=report)
        self._done("api.reported")

    def remove_etcd_member(self, member: str) -> None:
        self._ask("etcd.remove")
        self.cluster.members = {name: number for name, number in self.cluster.members.items() if number != member}
        assert self.cluster.quorum(), "the removal cost the quorum"
        self._done("etcd.removed")

    def delete_node(self, node: str) -> None:
        self._ask("api.delete")
        self.cluster.objects.pop(node, None)
        self._done("api.deleted")

    def set_tokens(self, nodes: frozenset[str]) -> None:
        self._ask("api.tokens")
        self.cluster.tokens = nodes
        self._done("api.tokens set")

    def approve(self, requests: frozenset[str]) -> None:
        raise AssertionError("no request is pending here")

    def _change(self, node: str, **fields: object) -> None:
        if node not in self.cluster.objects:
            raise HostError(f"there is no Node {node}")
        self.cluster.objects[node] = replace(self.cluster.objects[node], **fields)  # type: ignore[arg-type]


@dataclass
class KubeadmPort:
    """`kubenode.ports.Kubeadm` of one node; `staged` is the version in the spare slot, by root hash."""

    cluster: Cluster
    me: str
    staged: Callable[[], str | None]

    @property
    def host(self) -> Host:
        return self.cluster.hosts[self.me]

    def init(self, version: KubernetesVersion) -> None:
        assert not self.cluster.answers(), "a second init beside a cluster that answers"
        self.host.step("kubeadm.init")
        self.cluster.inits += 1
        self.cluster.version = version
        self.cluster.configuration = self.cluster.wanted_configuration
        self.cluster.members = {self.me: f"m-{self.me}-{self.cluster.inits}"}
        self._become(Role.CONTROL_PLANE)
        self.host.manifests = dict.fromkeys(COMPONENTS, version)
        self.cluster.settle(self.me)
        self.cluster.changed()
        self.host.step("kubeadm.inited")

    def join(self, role: Role) -> None:
        self.host.step("kubeadm.join")
        if not self.cluster.answering() or self.cluster.version is None:
            raise HostError("kubeadm join failed: no API server answers")
        assert self.me in self.cluster.tokens or self.me in self.cluster.objects
        if role is Role.CONTROL_PLANE:
            self._alone()
            assert self.me not in self.cluster.members, "a stale member of this name is still there"
            assert self.cluster.version.minor == self.host.kubelet.minor
            self.cluster.members[self.me] = f"m-{self.me}-{self.cluster.revision}"
            self.host.manifests = dict.fromkeys(COMPONENTS, self.cluster.version)
        self._become(role)
        self.cluster.starts(self.host)
        self.cluster.settle(self.me)
        self.cluster.changed()
        self.host.step("kubeadm.joined")

    def _become(self, role: Role) -> None:
        host = self.host
        host.joined, host.configuration = role, self.cluster.configuration
        host.kubelet_sets[host.root_hash] = str(self.cluster.configuration)
        if role is Role.CONTROL_PLANE:
            host.certificates_until = self.cluster.now + CERTIFICATES_LAST

    def pull(self, release: Release) -> None:
        self._is_staged(release)
        self.host.step("kubeadm.pull")
        self.host.pulled.add(_version(release))
        self.host.step("kubeadm.pulled")

    def prepare_kubelet(self, release: Release, configuration: str) -> None:
        self._is_staged(release)
        self.host.step("kubeadm.prepare")
        if not self.cluster.answering():
            raise HostError("kubeadm cannot read the kubelet-config ConfigMap")
        assert configuration == self.cluster.configuration
        self.host.kubelet_sets[release.root_hash] = configuration
        self.host.step("kubeadm.prepared")

    def snapshot_etcd(self, release: Release) -> None:
        self.host.step("etcd.snapshot")
        assert self.cluster.quorum()
        self.host.snapshots.add(release.manifest)
        self.host.step("etcd.saved")

    def upgrade(self, release: Release, *, first: bool) -> None:
        self._is_staged(release)
        self._alone()
        host, version = self.host, _version(release)
        self.host.step("kubeadm.upgrade")
        if not self.cluster.answering():
            raise HostError("kubeadm upgrade failed: no API server answers")
        assert self.cluster.version is not None
        assert version in host.pulled and release.manifest in host.snapshots
        assert version.minor[1] - self.cluster.version.minor[1] <= 1, "one minor at a time"
        assert first == (
            self.cluster.version < version or self.cluster.configuration != self.cluster.wanted_configuration
        )
        for component in COMPONENTS:
            host.manifests[component] = version
            for other in self.cluster.objects.values():
                assert within_reach(other.kubelet, version.minor), f"{other.name} is too old for {version}"
            self.cluster.changed()
            self.host.step(f"kubeadm.upgrade {component}")
        if first:
            self.cluster.version = version
            self.cluster.changed()
            # kubeadm has ended; what it wrote is marked only now.
            self.host.step("kubeadm.upgrade unmarked")
            self.cluster.configuration = self.cluster.wanted_configuration
        host.configuration = self.cluster.configuration
        host.certificates_until = self.cluster.now + CERTIFICATES_LAST
        host.leftovers = True
        self.cluster.changed()
        self.host.step("kubeadm.upgraded")

    def reconfigure(self, configuration: str, *, first: bool) -> None:
        host = self.host
        host.step("kubeadm.reconfigure")
        if not self.cluster.answering():
            raise HostError("kubeadm cannot read the cluster's documents")
        if first:
            self.cluster.configuration = configuration
        if host.joined is Role.CONTROL_PLANE:
            self._alone()
        host.configuration = configuration
        host.kubelet_sets[host.root_hash] = configuration
        self.cluster.changed()
        host.step("kubeadm.reconfigured")

    def renew_certificates(self) -> None:
        self.host.step("kubeadm.renew")
        if self.cluster.answering():
            self._alone()
        self.host.certificates_until = self.cluster.now + CERTIFICATES_LAST
        self.cluster.changed()
        self.host.step("kubeadm.renewed")

    def restart_static_pods(self, names: frozenset[str]) -> None:
        self.host.step("kubeadm.revive")
        self.host.rejected -= names
        self.cluster.changed()
        self.host.step("kubeadm.revived")

    def prune(self) -> None:
        self.host.step("kubeadm.prune")
        self.host.leftovers = False

    def _alone(self) -> None:
        """Assert that no other control plane works, and that etcd is as it should be."""
        assert self.cluster.leases["slot-control-plane-0"].holder == self.me, "without the lease"
        for name in self.cluster.members:
            assert name == self.me or self.cluster.healthy(name), f"beside the unhealthy member {name}"

    def _is_staged(self, release: Release) -> None:
        if self.staged() != release.root_hash:
            raise HostError("the release is not staged")


def _version(release: Release) -> KubernetesVersion:
    assert release.kubernetes is not None
    return KubernetesVersion(release.kubernetes)
