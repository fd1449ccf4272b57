"""Makes a fleet repo of many nodes and commits, and what its nodes would tell, for the benches of `kubenode plan`."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kubenode.fleet.load import load_fleet
from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import (
    ClusterNode,
    ClusterView,
    EtcdMember,
    EtcdView,
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
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
NODE = "apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{pool: {pool}}}\n"
OLD, NEW = "2026.10.4", "2026.11.1"
PLANES = ("cp-1", "cp-2", "cp-3")


def make(folder: Path, nodes: int, commits: int) -> None:
    """Make a repo with this many nodes in the cluster and commits; the newest moves `stable` from OLD to NEW."""
    files = {it.relative_to(EXAMPLE).as_posix(): it.read_bytes() for it in EXAMPLE.rglob("*") if it.is_file()}
    files = {path: data for path, data in files.items() if not path.startswith(("nodes/", "secrets/"))}
    # No windows: what a plan says must not depend on the day of the week.
    files = {path: re.sub(rb"    windows:\n( {6}.*\n)+", b"", data) for path, data in files.items()}
    names = [*PLANES, *(f"w-{number:05}" for number in range(nodes - len(PLANES)))]
    for name in names:
        pool = "control-plane" if name in PLANES else "workers"
        files[f"nodes/{name}.yaml"] = NODE.format(name=name, pool=pool).encode()
    stable = files["channels/stable.yaml"]
    files["channels/stable.yaml"] = stable.replace(f"[{NEW}, {OLD}]".encode(), f"[{OLD}]".encode())
    stream = [_commit(1, files, first=True)]
    for number in range(2, commits):
        name = names[number % len(names)]
        text = files[f"nodes/{name}.yaml"] + b"# " + str(number).encode() + b"\n"
        stream.append(_commit(number, {f"nodes/{name}.yaml": text}))
    stream.append(_commit(commits, {"channels/stable.yaml": stable}))
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", folder], check=True)
    subprocess.run(["git", "-C", folder, "fast-import", "--quiet"], input=b"".join(stream), check=True)
    subprocess.run(["git", "-C", folder, "reset", "--quiet", "--hard"], check=True)


def _commit(number: int, files: dict[str, bytes], *, first: bool = False) -> bytes:
    who = f"bench <bench@example.net> {1_700_000_000 + number} +0000"
    text = f"change {number}".encode()
    head = f"commit refs/heads/main\nmark :{number}\nauthor {who}\ncommitter {who}\ndata {len(text)}\n".encode() + text
    parent = b"\n" if first else f"\nfrom :{number - 1}\n".encode()
    changes = (f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n" for path, data in files.items())
    return head + parent + b"".join(changes) + b"\n"


def told(folder: Path, at: datetime = AT, version: str = OLD) -> tuple[ClusterView, list[NodeStatus]]:
    """Return a healthy cluster that runs a release, and what each of its nodes would write."""
    files = {it.relative_to(folder).as_posix(): it.read_bytes() for it in folder.rglob("*.yaml")}
    fleet = load_fleet(files)
    release = fleet.releases[Version(version)]
    kubernetes = KubernetesVersion(release.kubernetes or "v1.34.2")
    report = NodeReport(release.version, release.root_hash, at - timedelta(days=1), configuration=fleet.kubeadm)
    nodes = tuple(
        ClusterNode(
            name, True, kubernetes, f"boot-{name}", Role.CONTROL_PLANE if name in PLANES else Role.WORKER, report=report
        )
        for name in sorted(fleet.nodes)
    )
    workers = sum(it.role is Role.WORKER for it in nodes)
    leases = ("slot-control-plane-0", *(f"slot-pool-workers-{number}" for number in range(max(1, workers // 10))))
    view = ClusterView(
        "",
        kubernetes,
        nodes,
        dict.fromkeys(PLANES, kubernetes),
        fleet.kubeadm,
        leases=tuple(Lease(it) for it in leases),
        pods={it.name: () for it in nodes},
    )
    etcd = EtcdView(tuple(EtcdMember(it, it, True, version=Version("3.5.26")) for it in PLANES))
    return view, [_status(view, it, etcd, release, at) for it in nodes]


def _status(view: ClusterView, node: ClusterNode, etcd: EtcdView, runs: Release, at: datetime) -> NodeStatus:
    plane = node.role is Role.CONTROL_PLANE
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler") if plane else ()
    here = LocalKubernetes(
        node.kubelet,
        node.role,
        manifests=dict.fromkeys(names, node.kubelet),
        configuration=view.configuration,
        certificates_until=at + timedelta(days=300) if plane else None,
    )
    observed = Observed(
        node.boot_id,
        BootedSlot(Slot.A, runs.version, runs.root_hash),
        (BootEntry(runs.version, runs.root_hash),),
        kubernetes=here,
        cluster=view.seen_by(node.name, etcd if plane else None),
    )
    return NodeStatus(node.name, at, "c" * 40, "Up to date", "This node is up to date.", observed=observed)


def write_statuses(statuses: list[NodeStatus], path: Path) -> None:
    """Write recorded observations; each with the whole cluster, as nodes write them."""
    path.write_text(json.dumps([plain(it) for it in statuses]))
