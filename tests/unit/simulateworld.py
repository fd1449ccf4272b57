"""The example fleet as a git repo, with a healthy cluster that runs its oldest release, for stories about rollouts."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cliworld import Done, kubenode

from kubenode.fleet.load import load_fleet
from kubenode.host.clock import SystemClock
from kubenode.host.tree import read_folder
from kubenode.model.documents import FleetDocuments, Role
from kubenode.model.kubernetes import (
    COMPONENTS,
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
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot
from kubenode.model.plain import plain
from kubenode.model.state import NodeStatus
from kubenode.model.version import Version

EXAMPLE = Path(__file__).parents[2] / "fleet-example"
MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
"""In the window of the control planes; the workers' opens on Saturday."""
OLD, NEW = "2026.10.4", "2026.11.1"
PLANES = ("cp-1", "cp-2", "cp-3")


@dataclass
class Lab:
    """The fleet in `folder`, and what its nodes would report (by name)."""

    folder: Path
    statuses: dict[str, Any] = field(default_factory=dict)

    def git(self, *words: str) -> None:
        subprocess.run(["git", "-C", self.folder, *words], check=True, capture_output=True)

    def write(self, path: str, change: Callable[[str], str]) -> None:
        """Change a file of the fleet, and commit it."""
        file = self.folder / path
        before = file.read_text() if file.exists() else ""
        after = change(before)
        assert after != before
        file.write_text(after)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--no-gpg-sign", "--message", f"Change {path}")

    @property
    def documents(self) -> FleetDocuments:
        return load_fleet(dict(read_folder(self.folder).files))

    def observe(self) -> None:
        """Let every node report that it runs the oldest release in a healthy cluster."""
        documents = self.documents
        roles = {name: documents.pools[node.pool].role for name, node in documents.nodes.items()}
        for name, role in roles.items():
            status = NodeStatus(name, MONDAY, "0" * 40, "Up to date", "", observed=_observed(name, documents, roles))
            self.statuses[name] = plain(status)
            assert role in Role

    def plan(self, *words: str) -> Done:
        """Run `kubenode plan --simulate` about what is reported."""
        path = self.folder.parent / "statuses.json"
        path.write_text(json.dumps(list(self.statuses.values())))
        return kubenode("plan", "--simulate", "--observed", path, "-C", self.folder, *words)


def _observed(me: str, documents: FleetDocuments, roles: dict[str, Role]) -> Observed:
    release = documents.releases[Version(OLD)]
    assert release.kubernetes is not None
    version = KubernetesVersion(release.kubernetes)
    see = Observed(
        "boot-1",
        BootedSlot(Slot.A, release.version, release.root_hash),
        entries=(BootEntry(release.version, release.root_hash),),
        kubernetes=LocalKubernetes(version),
    )
    if roles[me] is Role.STANDALONE:
        return replace(see, kubernetes=None)
    plane = roles[me] is Role.CONTROL_PLANE
    report = NodeReport(release.version, release.root_hash, MONDAY - timedelta(days=9), configuration=documents.kubeadm)
    members = {name: role for name, role in roles.items() if role is not Role.STANDALONE}
    view = ClusterView(
        me=me,
        version=version,
        nodes=tuple(ClusterNode(name, True, version, "boot-1", role, report=report) for name, role in members.items()),
        apiservers=dict.fromkeys(PLANES, version),
        configuration=documents.kubeadm,
        etcd=EtcdView(tuple(EtcdMember(it, it, True, version=Version("3.5.26")) for it in PLANES)) if plane else None,
        leases=(Lease("slot-control-plane-0"), Lease("slot-pool-workers-0")),
        pods={me: (EvictablePod("default", f"web-{me}"),)},
    )
    here = LocalKubernetes(
        version,
        roles[me],
        manifests=dict.fromkeys(COMPONENTS, version) if plane else {},
        configuration=documents.kubeadm,
        certificates_until=MONDAY + timedelta(days=300) if plane else None,
    )
    return replace(see, kubernetes=here, cluster=view)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The example fleet on a Monday; its stable channel offers a release with the next minor."""
    monkeypatch.setattr(SystemClock, "now", lambda _self: MONDAY)
    found = Lab(tmp_path / "fleet")
    shutil.copytree(EXAMPLE, found.folder)
    found.git("init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "A Test"), ("user.email", "test@example.net"), ("commit.gpgsign", "false")):
        found.git("config", key, value)
    found.git("add", "--all")
    found.git("commit", "--quiet", "--message", "The fleet")
    found.observe()
    return found
