"""One node of a healthy cluster, somewhere on the way from 1.0 (v1.31.4) to 2.0 (v1.32.3), to be changed by tests."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from kubenode.model.decision import Decision
from kubenode.model.desired import DesiredCluster, DesiredState, Peer
from kubenode.model.documents import Release, Role, Rollout
from kubenode.model.journal import Journal
from kubenode.model.kubernetes import (
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
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.version import Version
from kubenode.plan.decide import decide
from tests.sim.facts import NOW

PLANES, WORKERS = ("cp-1", "cp-2", "cp-3"), ("w-1", "w-2", "w-3", "w-4")
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
OLD, NEW = KubernetesVersion("v1.31.4"), KubernetesVersion("v1.32.3")
STAGES = ("running", "staged", "pulled", "prepared", "leased", "saved", "cordoned", "drained", "activated")
POD = EvictablePod("default", "web-1", budget="web")


def release(version: str, kubernetes: str | None, floor: str | None = None) -> Release:
    known = Version(floor) if floor else None
    return Release(Version(version), f"m-{version}", f"r-{version}", kubernetes, known)


R1, R2 = release("1.0", "v1.31.4"), release("2.0", "v1.32.3")


def cluster(*releases: Release, workers: Rollout = Rollout(), planes: Rollout = Rollout()) -> DesiredCluster:  # noqa: B008 - frozen
    peers = [Peer(name, Role.CONTROL_PLANE, "planes", releases[0], f"10.0.0.{name[-1]}") for name in PLANES]
    peers += [Peer(name, Role.WORKER, "workers", releases[0], f"10.0.1.{name[-1]}") for name in WORKERS]
    return DesiredCluster(
        endpoint="k8s.example.net:6443",
        bootstrap_node="cp-1",
        init_before=NOW + timedelta(days=1),
        configuration="conf",
        peers=tuple(peers),
        order=("planes", "workers"),
        rollouts={"planes": planes, "workers": workers},
    )


@dataclass(frozen=True)
class Situation:
    """The four inputs of a decision; every method returns a changed copy."""

    want: DesiredState
    see: Observed
    journal: Journal = Journal()  # noqa: RUF009 - frozen

    @property
    def view(self) -> ClusterView:
        assert self.see.cluster is not None
        return self.see.cluster

    def decide(self) -> Decision:
        return decide(self.want, self.see, self.journal, NOW)

    def wants(self, **fields: Any) -> "Situation":
        return replace(self, want=replace(self.want, **fields))

    def rollout(self, pool: str, **fields: Any) -> "Situation":
        assert self.want.cluster is not None
        rollouts = {**self.want.cluster.rollouts, pool: replace(self.want.cluster.rollouts[pool], **fields)}
        return self.wants(cluster=replace(self.want.cluster, rollouts=rollouts))

    def sees(self, **fields: Any) -> "Situation":
        return replace(self, see=replace(self.see, **fields))

    def here(self, **fields: Any) -> "Situation":
        assert self.see.kubernetes is not None
        return self.sees(kubernetes=replace(self.see.kubernetes, **fields))

    def cluster(self, **fields: Any) -> "Situation":
        view = replace(self.view, **fields)
        if "tokens" not in fields:
            # As a control plane keeps them.
            there = {it.name for it in view.nodes if it.ready} | {view.me}
            view = replace(view, tokens=frozenset({*PLANES, *WORKERS} - there))
        return self.sees(cluster=view)

    def node(self, name: str, **fields: Any) -> "Situation":
        return self.cluster(nodes=tuple(replace(it, **fields) if it.name == name else it for it in self.view.nodes))

    def report(self, name: str, **fields: Any) -> "Situation":
        return self.node(name, report=replace(self.view.by_name[name].report, **fields))  # type: ignore[type-var]

    def without(self, name: str) -> "Situation":
        return self.cluster(nodes=tuple(it for it in self.view.nodes if it.name != name))

    def lease(self, name: str, holder: str | None, since: timedelta = timedelta(minutes=1)) -> "Situation":
        others = tuple(it for it in self.view.leases if it.name != name)
        return self.cluster(leases=(*others, Lease(name, holder, NOW - since if holder else None, "a test")))

    def member(self, who: str, **fields: Any) -> "Situation":
        assert self.view.etcd is not None
        members = tuple(replace(it, **fields) if it.name == who else it for it in self.view.etcd.members)
        return self.cluster(etcd=replace(self.view.etcd, members=members))


def plane(stage: str, *, passed: bool = False, name: str = "cp-1") -> Situation:
    """A control plane; `passed`: every API server is at the new version already."""
    return _situation(name, Role.CONTROL_PLANE, stage, passed=passed, planes_run=R1)


def worker(stage: str, name: str = "w-1") -> Situation:
    """A worker whose control planes have done both passes."""
    return _situation(name, Role.WORKER, stage, passed=True, planes_run=R2)


def _situation(me: str, role: Role, stage: str, *, passed: bool, planes_run: Release) -> Situation:
    at = STAGES.index
    reached = at(stage)
    serving = NEW if passed else OLD
    plane = role is Role.CONTROL_PLANE
    want = DesiredState(
        fleet_id="fleet",
        commit="c0ffee" * 6 + "abcd",
        node=me,
        pool="planes" if plane else "workers",
        role=role,
        channel="stable",
        releases=(R2, R1),
        stores=(),
        cluster=cluster(R2, R1),
    )
    here = LocalKubernetes(
        kubelet=OLD,
        joined=role,
        manifests=dict.fromkeys(COMPONENTS, serving) if plane else {},
        configuration="conf",
        kubelet_sets={R2.root_hash: "conf"} if reached >= at("prepared") else {},
        pulled=frozenset({NEW}) if reached >= at("pulled") else frozenset(),
        snapshots=frozenset({R2.manifest}) if reached >= at("saved") else frozenset(),
        certificates_until=NOW + timedelta(days=200) if plane else None,
    )
    nodes = tuple(
        ClusterNode(
            name,
            ready=True,
            kubelet=NEW if name in PLANES and planes_run is R2 else OLD,
            boot_id="boot" if name == me else "other",
            role=Role.CONTROL_PLANE if name in PLANES else Role.WORKER,
            cordoned=name == me and reached >= at("cordoned"),
            cordoned_by_us=name == me and reached >= at("cordoned"),
            report=_report(planes_run if name in PLANES else R1),
        )
        for name in (*PLANES, *WORKERS)
    )
    lease = "slot-control-plane-0" if plane else "slot-pool-workers-0"
    leases = tuple(
        Lease(it, me if it == lease and reached >= at("leased") else None, NOW - timedelta(minutes=1))
        for it in ("slot-control-plane-0", "slot-pool-workers-0")
    )
    members = tuple(EtcdMember(it, f"id-{it}", True, False, Version("3.5.26")) for it in PLANES)
    view = ClusterView(
        me=me,
        version=serving,
        nodes=nodes,
        apiservers=dict.fromkeys(PLANES, serving),
        configuration="conf",
        etcd=EtcdView(members) if plane else None,
        leases=leases,
        pods={me: () if reached >= at("drained") else (POD,)},
    )
    staged, activated = reached >= at("staged"), stage == "activated"
    see = Observed(
        boot_id="boot",
        booted=BootedSlot(Slot.A, R1.version, R1.root_hash),
        entries=(
            BootEntry(R1.version, R1.root_hash),
            *((BootEntry(R2.version, R2.root_hash, 3),) if activated else ()),
        ),
        spare=R2.root_hash if staged else None,
        staged=StagedImage(R2.version, R2.root_hash) if staged and not activated else None,
        fetched=frozenset({R2.manifest}) if staged else frozenset(),
        kubernetes=here,
        cluster=view,
    )
    return Situation(want, see)


def _report(runs: Release) -> NodeReport:
    return NodeReport(runs.version, runs.root_hash, NOW - timedelta(hours=1), configuration="conf")
