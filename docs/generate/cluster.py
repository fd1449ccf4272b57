"""The made-up cluster that the pictures show: nine nodes on the day before, in and after a rollout.

Machines are moved here; what they say of it comes from the planner and the agent themselves.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from docs.generate.example import begin, commit, copy_fleet, git
from kubenode.agent.report import phase, sentence
from kubenode.cli.clone import commit_of, committed
from kubenode.fleet.desired import desired_state
from kubenode.fleet.load import load_fleet
from kubenode.model.documents import FleetDocuments, Release
from kubenode.model.journal import Poisoned
from kubenode.model.kubernetes import EvictablePod, KubernetesVersion
from kubenode.model.observed import BootedSlot, BootEntry, Slot, StagedImage
from kubenode.model.plain import plain
from kubenode.model.version import Version
from kubenode.plan import observations
from kubenode.plan.decide import decide
from tests.planworld import PlanWorld

OLD, NEW = "2026.10.4", "2026.11.1"
MONDAY = datetime(2026, 11, 23, 15, 10, tzinfo=UTC)
"""The afternoon before; windows open at 02:00."""
NIGHT = datetime(2026, 11, 24, 2, 5, tzinfo=UTC)
PLANES = ("cp-1", "cp-2", "cp-3")
WORKERS = tuple(f"worker-{number}" for number in range(1, 7))
_WINDOWS = re.compile(r"    windows:\n(?: {6}.*\n)+")
_NIGHTS = '    windows:\n      - {days: [Tue, Wed, Thu], start: "02:00", duration: 4h, timezone: UTC}\n'


def make_cluster(folder: Path) -> None:
    """Make `homelab`, whose newest commit moves `stable` to NEW, and `origin.git`, which lacks that commit."""
    fleet = folder / "homelab"
    copy_fleet(fleet)
    for path in (fleet / "nodes").glob("edge-*.yaml"):
        path.unlink()
    for name in WORKERS:
        (fleet / "nodes" / f"{name}.yaml").write_text(
            f"apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{pool: workers}}\n"
        )
    # Sealed secrets would need an identity of each worker.
    shutil.rmtree(fleet / "secrets")
    for pool in ("control-plane", "workers"):
        path = fleet / "pools" / f"{pool}.yaml"
        path.write_text(_WINDOWS.sub(_NIGHTS, path.read_text()))
    stable = fleet / "channels" / "stable.yaml"
    wanted = stable.read_text()
    stable.write_text(wanted.replace(f"[{NEW}, {OLD}]", f"[{OLD}]"))
    begin(fleet, folder / "alice")
    git(fleet, "clone", "--quiet", "--bare", ".", "../origin.git")
    git(fleet, "remote", "add", "origin", "../origin.git")
    git(fleet, "fetch", "--quiet", "origin")
    stable.write_text(wanted)
    commit(fleet, f"Promote {NEW} to stable")


@dataclass
class Stage:
    """What a command sees: the cluster of `world` at a time, whose nodes follow a commit.

    `steps` happen one before each look.
    """

    world: PlanWorld
    commit: str
    now: datetime = MONDAY
    steps: tuple[Callable[[], None], ...] = ()

    @property
    def documents(self) -> FleetDocuments:
        """The fleet at the commit."""
        return load_fleet(committed(self.world.fleet, self.commit))

    @property
    def release(self) -> Release:
        """The release that nodes are to arrive at."""
        return self.documents.releases[Version(NEW)]

    def tell(self, ago: Mapping[str, int]) -> None:
        """Let nodes tell at the end of a tick, so many minutes ago, what they decide at the stage's commit."""
        documents = self.documents
        for name, minutes in ago.items():
            status, node = self.world.statuses[name], self.world.view.by_name[name]
            observed, report = status.observed, node.report
            assert observed is not None and report is not None
            etcd = observed.cluster.etcd if observed.cluster is not None else None
            observed = replace(observed, cluster=self.world.view.seen_by(name, etcd))
            self.world.status(name, observed=observed)
            at, desired = self.now - timedelta(minutes=minutes), desired_state(documents, self.commit, name)
            known = observations.read(plain(self.world.statuses[name]))
            decision = decide(desired, known.observed, known.journal, at)
            said, message = phase(decision, desired, observed), sentence(decision)[0]
            self.world.status(name, phase=said, message=message, commit=self.commit, at=at)
            written = observations.account(self.world.statuses[name])
            told = {"commit": self.commit, "phase": said, "account": observations.digest(written), "at": at}
            self.world.node(name, report=replace(report, **told))  # type: ignore[arg-type]
        self.world.serve()

    def upgrade(self, *names: str) -> None:
        """Let control planes and workers run the new release and its Kubernetes, blessed an hour ago."""
        new, kubernetes = self.release, KubernetesVersion(self.release.kubernetes or "")
        for name in names:
            seen, node = self.world.statuses[name].observed, self.world.view.by_name[name]
            assert seen is not None and seen.kubernetes is not None and node.report is not None
            here = replace(
                seen.kubernetes, kubelet=kubernetes, manifests=dict.fromkeys(seen.kubernetes.manifests, kubernetes)
            )
            entries = (BootEntry(new.version, new.root_hash),)
            booted = BootedSlot(Slot.B, new.version, new.root_hash)
            self.world.observed(name, booted=booted, entries=entries, kubernetes=here, spare=None, staged=None)
            since = self.now - timedelta(hours=1)
            report = replace(node.report, release=new.version, root_hash=new.root_hash, since=since)
            self.world.node(name, kubelet=kubernetes, report=report, cordoned=False, cordoned_by_us=False)

    def api_servers(self) -> None:
        """Let every API server be at the new Kubernetes."""
        kubernetes = KubernetesVersion(self.release.kubernetes or "")
        world = self.world
        world.view = replace(world.view, version=kubernetes, apiservers=dict.fromkeys(PLANES, kubernetes))
        world.server.version = str(kubernetes)
        config = world.server.store.objects["", "configmaps", "kube-system", "kubeadm-config"]
        config["data"]["ClusterConfiguration"] = f"kubernetesVersion: {kubernetes}\n"

    def stage(self, *names: str) -> None:
        """Let workers have written the new release to their spare slot, and all that can be done without their turn."""
        new = self.release
        for name in names:
            seen = self.world.statuses[name].observed
            assert seen is not None and seen.kubernetes is not None
            here = replace(seen.kubernetes, kubelet_sets={new.root_hash: seen.kubernetes.configuration or ""})
            staged, fetched = StagedImage(new.version, new.root_hash), frozenset({new.manifest})
            self.world.observed(name, spare=new.root_hash, staged=staged, fetched=fetched, kubernetes=here)

    def lease(self, lease: str, holder: str | None) -> None:
        """Hand a lease to a node, or take it back."""
        leases = tuple(replace(it, holder=holder) if it.name == lease else it for it in self.world.view.leases)
        self.world.view = replace(self.world.view, leases=leases)


def before(stage: Stage) -> None:
    """The night's work lies ahead; somebody has cordoned worker-4, and worker-6 is not heard of."""
    stage.world.node("worker-4", cordoned=True)
    stage.tell(dict.fromkeys((*PLANES, *WORKERS), 3))
    stage.tell({"worker-6": 9 * 60})


def middle(stage: Stage) -> None:
    """Control planes are done; one worker, too, another failed, a third is emptied, and one is not heard of."""
    stage.now = NIGHT + timedelta(hours=2, minutes=20)
    git(stage.world.fleet, "push", "--quiet", "origin", "main")
    stage.commit = commit_of(stage.world.fleet, "HEAD")
    stage.api_servers()
    stage.upgrade(*PLANES, "worker-1")
    stage.stage(*WORKERS[2:])
    new = stage.release
    stage.world.status("worker-2", poisoned=(Poisoned(new.version, new.root_hash, new.manifest, "its gate failed"),))
    failed = stage.world.view.by_name["worker-2"].report
    assert failed is not None
    stage.world.node("worker-2", report=replace(failed, poisoned=frozenset({new.root_hash})))
    empty(stage, "worker-3")
    ago = {"cp-1": 2, "cp-2": 11, "cp-3": 5, "worker-1": 8, "worker-2": 4, "worker-3": 1, "worker-4": 3, "worker-5": 1}
    stage.tell(ago | {"worker-6": 9 * 60})


def empty(stage: Stage, name: str) -> None:
    """Let a worker drain: it holds the pool's lease, and one pod is left."""
    stage.lease("slot-pool-workers-0", name)
    stage.world.node(name, cordoned=True, cordoned_by_us=True)
    pods = {**stage.world.view.pods, name: (EvictablePod("shop", "cart-0"),)}
    stage.world.view = replace(stage.world.view, pods=pods)


def following(stage: Stage) -> None:
    """Nothing has moved yet; while it is looked on, control planes arrive, a worker is emptied, and all are there."""
    stage.now = NIGHT
    stage.tell(dict.fromkeys((*PLANES, *WORKERS), 3))
    stage.commit = commit_of(stage.world.fleet, "HEAD")

    def planes() -> None:
        stage.now += timedelta(minutes=31)
        stage.api_servers()
        stage.upgrade(*PLANES)
        stage.stage(*WORKERS)
        stage.tell(dict.fromkeys((*PLANES, *WORKERS), 1))

    def worker() -> None:
        stage.now += timedelta(minutes=12)
        empty(stage, "worker-1")
        stage.tell(dict.fromkeys((*PLANES, *WORKERS), 1))

    def everyone() -> None:
        stage.now += timedelta(hours=2)
        stage.lease("slot-pool-workers-0", None)
        stage.upgrade(*WORKERS)
        stage.tell({name: 1 + number % 4 for number, name in enumerate((*PLANES, *WORKERS))})

    def nothing() -> None:
        """The first look is the plan's, and at the second no node has seen the commit yet."""

    stage.steps = (nothing, nothing, planes, worker, everyone)
