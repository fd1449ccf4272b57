"""A fleet with a cluster: a git repo with a remote, and a fake API server whose nodes say what a test lets them say.

Releases and keys are those of cliworld. `Cluster.tell` does what an agent does at the end of a tick.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cliworld import NEW, OLD, ROOT_HASHES, Done, World

from kubenode.fleet.load import load_fleet
from kubenode.host.kube import nodes as kube_nodes
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.names import KUBEADM_CONFIG, NODES
from kubenode.host.tree import read_folder
from kubenode.model.documents import Role
from kubenode.model.journal import Poisoned
from kubenode.model.kubernetes import KubernetesVersion, LocalKubernetes, NodeReport
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.plain import plain
from kubenode.model.state import NodeStatus
from kubenode.model.version import Version
from kubenode.plan import observations
from tests.contract.kube_world import World as KubeWorld
from tests.contract.kube_world import write_kubeconfig
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer

KUBERNETES = "v1.34.2"
POOLS = {"control-plane": ("cp-1",), "workers": ("worker-1", "worker-2", "worker-3")}
CLUSTER = "cluster: {endpoint: 'k8s.example.net:6443', bootstrapNode: cp-1, initBefore: 2026-12-01T00:00:00Z}"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Cluster:
    """The operator's clone (`world`), the bare repository that nodes read (`origin`), and the API of the cluster."""

    world: World
    origin: Path
    server: FakeApiServer
    kube: KubeWorld

    @property
    def configuration(self) -> str:
        return load_fleet(read_folder(self.world.fleet).files).kubeadm

    def run(self, *words: str | Path) -> Done:
        return self.world.run(*words)

    @property
    def pushed(self) -> str:
        """The commit that nodes can know."""
        return self.world.git("rev-parse", "main", cwd=self.origin)

    def promote(self, version: str = NEW) -> None:
        """Commit, and do not push, a new target for every pool."""
        for channel in ("nightly", "beta"):
            done = self.run("promote", version, channel)
            assert done.code == 0, done.err

    def push(self) -> str:
        self.world.git("push", "--quiet", "origin", "main")
        return self.world.head

    def join(self, node: str, *, ready: bool = True) -> None:
        """Let a machine become a node."""
        role = {"node-role.kubernetes.io/control-plane": ""} if node.startswith("cp-") else {}
        self.kube.node(node, ready=ready, labels=role, version=KUBERNETES)

    def tell(
        self, node: str, version: str = OLD, phase: str = "Up to date", message: str = "", *, commit: str = "",
        ago: timedelta = timedelta(0), staged: str = "", poisoned: tuple[str, ...] = (), slot: Slot = Slot.A,
    ) -> None:  # fmt: skip
        """Do what the node's agent does at the end of a tick: write its report and its account."""
        root, at = ROOT_HASHES[version], now() - ago
        plane = node.startswith("cp-")
        here = LocalKubernetes(
            KubernetesVersion(KUBERNETES),
            Role.CONTROL_PLANE if plane else Role.WORKER,
            manifests={name: KubernetesVersion(KUBERNETES) for name in ("kube-apiserver",)} if plane else {},
            configuration=self.configuration,
        )
        observed = Observed(
            f"boot-{node}", BootedSlot(slot, Version(version), root), (BootEntry(Version(version), root),),
            spare=ROOT_HASHES[staged] if staged else None,
            staged=StagedImage(Version(staged), ROOT_HASHES[staged]) if staged else None, kubernetes=here,
        )  # fmt: skip
        bad = tuple(Poisoned(Version(it), ROOT_HASHES[it], None, "its gate failed") for it in poisoned)
        status = NodeStatus(node, at, commit or self.pushed, phase, message, observed=observed, poisoned=bad)
        account = observations.account(status)
        report = NodeReport(
            Version(version), root, at - timedelta(hours=1), frozenset(it.root_hash for it in bad), self.configuration,
            status.commit or "", phase, observations.digest(account), at,
        )  # fmt: skip
        kube_nodes.report(self.kube.admin, node, plain(report), account)

    def tell_all(self, version: str = OLD) -> None:
        """Let every declared node be done with a release at the commit that was pushed."""
        for node in (it for members in POOLS.values() for it in members):
            self.tell(node, version, message=f"This node runs release {version}.")

    def hold(self, node: str, lease: str, why: str, *, ago: timedelta = timedelta(0)) -> None:
        leases = Leases(self.kube.admin)
        leases.ensure(frozenset({lease}))
        leases.acquire(lease, node, why, None, now() - ago)

    def ready(self, node: str, ready: bool) -> None:
        it = self.kube.admin.get(f"{NODES}/{node}")
        it["status"]["conditions"] = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
        self.kube.admin.replace(f"{NODES}/{node}/status", it)

    def cordon(self, node: str) -> None:
        """What a person does with kubectl."""
        self.kube.admin.patch(f"{NODES}/{node}", {"spec": {"unschedulable": True}})

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let the API server fail for a while."""

        def fail(handler: Any) -> bool:
            handler.reply(503, b"{}")
            return True

        self.server.rude = fail
        try:
            yield
        finally:
            self.server.rude = None


def declare(world: World, pools: dict[str, tuple[str, ...]] = POOLS) -> None:
    """Commit a cluster of these nodes that follow the channel beta, without the standalone machine."""
    fleet = world.fleet / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace("spec:\n", f"spec:\n  {CLUSTER}\n", 1))
    (world.fleet / "nodes" / "edge-1.yaml").unlink()
    for pool, members in pools.items():
        path = world.fleet / "pools" / f"{pool}.yaml"
        text = path.read_text().replace("channel: stable", "channel: beta")
        path.write_text(text[: text.index("    windows:")] + text[text.index("    drain:") :])
        for node in members:
            (world.fleet / "nodes" / f"{node}.yaml").write_text(
                f"apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {{name: {node}}}\nspec: {{pool: {pool}}}\n"
            )
    for version in (OLD, NEW):
        path = world.fleet / "releases" / f"{version}.yaml"
        path.write_text(path.read_text().rstrip("\n") + f"\n  kubernetes: {KUBERNETES}\n")
    world.git("add", "--all")
    world.git("commit", "--quiet", "--message", "A cluster")


@pytest.fixture(scope="session")
def declared(prepared: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The prepared fleet with a cluster, made once."""
    copy = World(tmp_path_factory.mktemp("cluster") / "with space")
    shutil.copytree(prepared.top, copy.top, symlinks=True)
    declare(copy)
    return copy


@pytest.fixture
def cluster(declared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Four nodes that run the old release, as the pushed commit says; $KUBECONFIG leads there."""
    world = World(tmp_path / "with space")
    shutil.copytree(declared.top, world.top, symlinks=True)
    origin = world.top / "origin.git"
    world.git("clone", "--quiet", "--bare", ".", origin)
    world.git("remote", "add", "origin", f"file://{origin}")
    world.git("fetch", "--quiet", "origin")
    server = FakeApiServer(Authority(), tmp_path, KUBERNETES)
    kube = KubeWorld(server)
    kube.namespace()
    kube.founded("127.0.0.1")
    config = f"apiVersion: kubeadm.k8s.io/v1beta4\nkubernetesVersion: {KUBERNETES}\n"
    kube.admin.patch(KUBEADM_CONFIG, {"data": {"ClusterConfiguration": config}})
    admin = server.authority.issue("kubernetes-admin", ("system:masters",))
    write_kubeconfig(tmp_path / "admin.conf", server.url, server.authority, admin)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "admin.conf"))
    monkeypatch.setattr("kubenode.cli.statuswatch.LOOK_SECONDS", 0.01)
    it = Cluster(world, origin, server, kube)
    for node in (it for members in POOLS.values() for it in members):
        it.join(node)
    it.tell_all()
    yield it
    server.rude = None
    kube.close()
    server.close()
