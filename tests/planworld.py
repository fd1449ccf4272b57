"""A fleet repo and the cluster that it describes, behind the fake API server, for tests and benches of `plan`."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubenode.fleet.load import load_fleet
from kubenode.host.kube.names import ACCOUNT_ANNOTATION, CONFIGURATION_ANNOTATION, CORDON_ANNOTATION, STATUS_ANNOTATION
from kubenode.host.kube.nodes import MAX_REPORT
from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import ClusterNode, ClusterView, KubernetesVersion
from kubenode.model.observed import BootedSlot, BootEntry, Slot, StagedImage
from kubenode.model.plain import plain
from kubenode.model.state import NodeStatus
from kubenode.model.version import Version
from kubenode.plan.observations import account, digest
from tests.bench.plan_fleet import NEW, OLD, make, told
from tests.contract.kube_world import write_kubeconfig
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer
from tests.fakes.kubeapi.store import KINDS

ADDRESSES = {"cp-1": "127.0.0.1", "cp-2": "127.0.0.2", "cp-3": "127.0.0.3"}


@dataclass
class PlanWorld:
    """The fleet repo `fleet`, the cluster of `view` and what its nodes told; `serve` shows both to the API server."""

    fleet: Path
    kubeconfig: Path
    server: FakeApiServer
    view: ClusterView
    statuses: dict[str, NodeStatus]

    def status(self, name: str, **fields: Any) -> None:
        """Change what a node has told."""
        self.statuses[name] = replace(self.statuses[name], **fields)

    def observed(self, name: str, **fields: Any) -> None:
        """Change what a node has seen of itself."""
        observed = self.statuses[name].observed
        assert observed is not None
        self.status(name, observed=replace(observed, **fields))

    def node(self, name: str, **fields: Any) -> None:
        """Change a Node object."""
        nodes = tuple(replace(it, **fields) if it.name == name else it for it in self.view.nodes)
        self.view = replace(self.view, nodes=nodes)

    def add(self, node: ClusterNode) -> None:
        """Add a Node object that nobody told of."""
        self.view = replace(self.view, nodes=(*self.view.nodes, node))

    def serve(self, accounts: dict[str, str] | None = None, at: datetime | None = None) -> None:
        """Put everything into the API server anew; `accounts` replaces what a node's annotation says."""
        store, kind = self.server.store, KINDS["", "nodes"]
        for key in [key for key in store.objects if key[1] in ("nodes", "leases")]:
            del store.objects[key]
        for node in self.view.nodes:
            status = self.statuses.get(node.name)
            written = account(status) if status is not None else None
            shown = node.report
            if shown is not None and written is not None and shown.at is None:
                shown = replace(shown, account=digest(written), at=at or datetime.now(UTC))
            written = (accounts or {}).get(node.name, written)
            store.create(kind, "", node_object(replace(node, report=shown), written))
        for lease in self.view.leases:
            spec = {"holderIdentity": lease.holder} if lease.holder else {}
            body = {"metadata": {"name": lease.name}, "spec": spec}
            store.create(KINDS["coordination.k8s.io", "leases"], "kubenode-system", body)


def node_object(node: ClusterNode, written: str | None) -> dict[str, Any]:
    """A Node as the API server has it."""
    annotations = {}
    if node.report is not None:
        annotations[STATUS_ANNOTATION] = json.dumps(plain(node.report))
        assert len(annotations[STATUS_ANNOTATION]) < MAX_REPORT
    if written is not None:
        annotations[ACCOUNT_ANNOTATION] = written
    if node.cordoned_by_us:
        annotations[CORDON_ANNOTATION] = "true"
    plane = node.role is Role.CONTROL_PLANE
    labels = {"node-role.kubernetes.io/control-plane": ""} if plane else {}
    address = ADDRESSES.get(node.name, f"192.0.2.{sum(node.name.encode()) % 250}")
    return {
        "metadata": {"name": node.name, "labels": labels, "annotations": annotations},
        "spec": {"unschedulable": True} if node.cordoned else {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if node.ready else "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": address}],
            "nodeInfo": {"kubeletVersion": str(node.kubelet), "bootID": node.boot_id},
        },
    }


@contextmanager
def planworld(folder: Path, nodes: int = 8, commits: int = 3, runs: str = OLD) -> Iterator[PlanWorld]:
    """Make a fleet of `nodes` nodes that run a release, and serve its cluster."""
    fleet = folder / "fleet"
    make(fleet, nodes, commits)
    with serving(fleet, folder, datetime.now(UTC), runs) as world:
        yield world


@contextmanager
def serving(
    fleet: Path, folder: Path, at: datetime, runs: str = OLD, answering: Sequence[str] = ("cp-1",)
) -> Iterator[PlanWorld]:
    """Serve the cluster of a fleet whose nodes run a release, and told so at `at`; `folder` gets the kubeconfig.

    `answering`: control planes whose API server can be reached.
    """
    authority = Authority()
    view, statuses = told(fleet, at, runs)
    hosts = [ADDRESSES[it] for it in answering]
    server = FakeApiServer(authority, folder, str(view.version), hosts)
    try:
        store = server.store
        store.create(KINDS["", "namespaces"], "", {"metadata": {"name": "kubenode-system"}})
        document = f"apiVersion: kubeadm.k8s.io/v1beta4\nkubernetesVersion: {view.version}\n"
        metadata = {"name": "kubeadm-config", "annotations": {CONFIGURATION_ANNOTATION: view.configuration}}
        body: dict[str, Any] = {"metadata": metadata, "data": {"ClusterConfiguration": document}}
        store.create(KINDS["", "configmaps"], "kube-system", body)
        port = int(server.url.rpartition(":")[2])
        subset = {"addresses": [{"ip": it} for it in hosts], "ports": [{"port": port}]}
        body = {"metadata": {"name": "kubernetes"}, "subsets": [subset]}
        store.create(KINDS["", "endpoints"], "default", body)
        admin = authority.issue("kubernetes-admin", ("system:masters",))
        write_kubeconfig(folder / "kubeconfig", server.url, authority, admin)
        world = PlanWorld(fleet, folder / "kubeconfig", server, view, {it.node: it for it in statuses})
        world.serve(at=at)
        yield world
    finally:
        server.close()


def half_way(world: PlanWorld, new: Release) -> None:
    """Let control planes run a release already and every worker have it staged: every rule is asked about each."""
    kubernetes = KubernetesVersion(new.kubernetes or "v1.34.1")
    for name, status in list(world.statuses.items()):
        seen = status.observed
        assert seen is not None and seen.kubernetes is not None
        here, node = seen.kubernetes, world.view.by_name[name]
        assert node.report is not None
        if here.joined is Role.CONTROL_PLANE:
            manifests = dict.fromkeys(here.manifests, kubernetes)
            world.observed(
                name,
                booted=BootedSlot(Slot.B, new.version, new.root_hash),
                entries=(BootEntry(new.version, new.root_hash),),
                kubernetes=replace(here, kubelet=kubernetes, manifests=manifests),
            )
            report = replace(node.report, release=new.version, root_hash=new.root_hash)
            world.node(name, kubelet=kubernetes, report=report)
        else:
            staged = StagedImage(new.version, new.root_hash)
            sets = {new.root_hash: here.configuration or ""}
            kept = replace(here, kubelet_sets=sets)
            world.observed(name, spare=new.root_hash, staged=staged, fetched=frozenset({new.manifest}), kubernetes=kept)
    world.view = replace(world.view, version=kubernetes, apiservers=dict.fromkeys(world.view.apiservers, kubernetes))
    world.server.version = str(kubernetes)
    config = world.server.store.objects["", "configmaps", "kube-system", "kubeadm-config"]
    config["data"]["ClusterConfiguration"] = f"kubernetesVersion: {kubernetes}\n"


def documented(folder: Path, kubenode: Callable[..., Any]) -> dict[str, str]:
    """Return the output that docs/plan.md shows, by name; commit ids are made the same. `kubenode` runs a command."""
    with planworld(folder, nodes=12, commits=4) as world:
        files = {it.relative_to(world.fleet).as_posix(): it.read_bytes() for it in world.fleet.rglob("*.yaml")}
        here = ("-C", world.fleet)
        found = {
            "plan": kubenode("plan", *here, "--kubeconfig", world.kubeconfig),
            "since": kubenode("plan", *here, "--since", "HEAD~1"),
        }
        half_way(world, load_fleet(files).releases[Version(NEW)])
        world.node("w-00004", cordoned=True)
        world.node("w-00007", report=None)
        world.serve()
        found["half way"] = kubenode("plan", *here, "--kubeconfig", world.kubeconfig)
        return {name: re.sub("[0-9a-f]{12}", "3f9d0c2ab417", done.out + done.err) for name, done in found.items()}
