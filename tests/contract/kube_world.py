"""What contract tests need around an API server: an administrator, identities, and the other controllers' part."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from kubenode.errors import HostError, TryLater
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.cluster import KubeCluster
from kubenode.host.kube.names import LEASES, NODES, PODS, RBAC, REQUESTS
from kubenode.host.kube.reading import name_of
from kubenode.host.paths import Paths
from kubenode.model.desired import DesiredCluster, Peer
from kubenode.model.documents import Release, Role
from kubenode.model.version import Version
from kubenode.plan.kubernetes.requests import AGENTS, CLIENT_SIGNER, agent_user, kubelet_user, pool_group
from tests.fakes.kubeapi.pki import Authority, Pair

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
BUDGETS = "/apis/policy/v1beta1"
RELEASE = Release(Version("2026.11.1"), "0" * 64, "1" * 64, kubernetes="v1.20.2")


def peers(**pools: str) -> dict[str, Peer]:
    """Return nodes of the fleet: name (underscores for dashes) and pool."""
    found = {}
    for name, pool in pools.items():
        role = Role.CONTROL_PLANE if pool == "control-plane" else Role.WORKER
        found[name.replace("_", "-")] = Peer(name.replace("_", "-"), role, pool, RELEASE)
    return found


class Server(Protocol):
    """A fake or a real API server."""

    url: str
    authority: Authority


@dataclass(frozen=True)
class KnownSecrets:
    """What a test knows of the fleet's sealed secrets."""

    tokens: dict[str, str] = field(default_factory=dict)
    ca_certificate: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()

    def ca_set(self) -> dict[str, bytes]:
        return self.files

    def tokens_of(self, nodes: frozenset[str]) -> dict[str, str]:
        if wrong := nodes & self.damaged:
            raise HostError(f"the token of {min(wrong)} is damaged")
        return {node: token for node, token in self.tokens.items() if node in nodes}


class World:
    """One API server and its administrator; `close` removes what a test made."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = ExitStack()
        self.admin = self.api("admin", ("system:masters",))

    def api(self, name: str, groups: tuple[str, ...] = ()) -> Api:
        """Return the API as an identity."""
        return self.as_pair(self.server.authority.issue(name, groups))

    def as_pair(self, pair: Pair) -> Api:
        return self._stack.enter_context(
            Api(self.server.authority.access(self.server.url, pair), connect_seconds=120, seconds=120)
        )

    def kubelet(self, node: str) -> Api:
        return self.api(kubelet_user(node), ("system:nodes",))

    def agent(self, node: str, pool: str) -> Api:
        return self.api(agent_user(node), (AGENTS, pool_group(pool)))

    def close(self) -> None:
        self.clean()
        self._stack.close()

    def clean(self) -> None:
        """Remove what tests make; the API server's own objects stay. A real server may be too busy now and then."""
        for left in range(4, -1, -1):
            try:
                return self._clean()
            except TryLater:
                if not left:
                    raise
        return None

    def _clean(self) -> None:
        admin = self.admin
        now = {"gracePeriodSeconds": 0}
        for pod in list(admin.list(PODS)):
            admin.delete(path_of("/api/v1/namespaces", pod["metadata"]["namespace"], "pods", name_of(pod)), now)
        for budget in list(admin.list(f"{BUDGETS}/poddisruptionbudgets")):
            admin.delete(f"{BUDGETS}/namespaces/default/poddisruptionbudgets/{name_of(budget)}")
        for folder in (NODES, LEASES, REQUESTS, "/api/v1/namespaces/kube-system/secrets"):
            for it in list(admin.list(folder)):
                admin.delete(path_of(folder, name_of(it)))
        spaces = ("kubenode-system", "kube-system", "default")
        folders = [f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"]
        folders += [f"{RBAC}/namespaces/{space}/{kind}" for space in spaces for kind in ("roles", "rolebindings")]
        for folder in folders:
            for it in list(admin.list(folder)):
                if name_of(it).startswith("kubenode:"):
                    admin.delete(path_of(folder, name_of(it)))

    def machine(
        self, folder: Path, node: str, fleet: dict[str, Peer], at: "datetime | FixedClock", **options: Any
    ) -> KubeCluster:
        """Return the cluster as a machine sees it that has joined, with the files of kubeadm below `folder`."""
        authority, url = self.server.authority, self.server.url
        clock = at if isinstance(at, FixedClock) else FixedClock(at)
        kubernetes = folder / "etc/kubernetes"
        own = authority.issue(kubelet_user(node), ("system:nodes",))
        write_kubeconfig(kubernetes / "kubelet.conf", url, authority, own, embedded=False)
        if fleet[node].role is Role.CONTROL_PLANE:
            (kubernetes / "pki").mkdir()
            authority.pair.write(kubernetes / "pki", "ca")
        pools = tuple(dict.fromkeys(peer.pool for peer in fleet.values()))
        desired = DesiredCluster(
            url.removeprefix("https://"), "cp-1", clock.at, "c" * 64, tuple(fleet.values()), pools, rollouts={}
        )
        return self._stack.enter_context(KubeCluster(Paths(folder), clock, node, desired, **options))

    def founded(self, *addresses: str) -> None:
        """Do what `kubeadm init` and the API servers do: the ClusterConfiguration and the list of API servers."""
        group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}
        document = "apiVersion: kubeadm.k8s.io/v1beta2\nkubernetesVersion: v1.20.2\n"
        self._shared("kube-system", "kubeadm-config", {"ClusterConfiguration": document}, "nodes-kubeadm-config", group)
        subset = {"addresses": [{"ip": it} for it in addresses], "ports": [{"name": "https", "port": 6443}]}
        self._put("/api/v1/namespaces/default/endpoints", {
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes"}, "subsets": [subset],
        })  # fmt: skip

    def signs(self, *tokens: str) -> None:
        """Do what `kubeadm init` and the controller manager do: cluster-info for everybody, signed with these ids."""
        user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:anonymous"}
        data = {"kubeconfig": "{}"} | {f"jws-kubeconfig-{it}": "header..signature" for it in tokens}
        self._shared("kube-public", "cluster-info", data, "bootstrap-signer-clusterinfo", user)

    def _shared(self, namespace: str, name: str, data: dict[str, str], role: str, reader: dict[str, str]) -> None:
        """Make a ConfigMap and, as `kubeadm init` does, the role by which `reader` may read it."""
        group = "rbac.authorization.k8s.io"
        place = {"name": f"kubeadm:{role}", "namespace": namespace}
        self._put(f"/api/v1/namespaces/{namespace}/configmaps", {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data,
        })  # fmt: skip
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": [name]}
        self._put(f"{RBAC}/namespaces/{namespace}/roles", {
            "apiVersion": f"{group}/v1", "kind": "Role", "metadata": place, "rules": [rule],
        })  # fmt: skip
        ref = {"apiGroup": group, "kind": "Role", "name": place["name"]}
        self._put(f"{RBAC}/namespaces/{namespace}/rolebindings", {
            "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": place, "roleRef": ref, "subjects": [reader],
        })  # fmt: skip

    def _put(self, folder: str, body: Any) -> None:
        self.admin.delete(path_of(folder, name_of(body)))
        self.admin.create(folder, body)

    # What other parts of a cluster make.

    def namespace(self, name: str = "kubenode-system") -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        if name not in {name_of(it) for it in self.admin.list("/api/v1/namespaces")}:
            self.admin.create("/api/v1/namespaces", body)

    def node(
        self, name: str, *, ready: bool = True, labels: dict[str, str] | None = None, version: str = "v1.20.2"
    ) -> Any:
        node = self.admin.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}}
        )
        node["status"] = {
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.11"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {
                "kubeletVersion": version, "bootID": f"boot-{name}", "machineID": "", "systemUUID": "",
                "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        }  # fmt: skip
        return self.admin.replace(f"{NODES}/{name}/status", node)

    def pod(self, name: str, node: str, *, owner: str = "", mirror: bool = False, labels: dict[str, str] | None = None,
            phase: str = "Running", namespace: str = "default") -> Any:  # fmt: skip
        metadata: dict[str, Any] = {"name": name, "labels": labels or {}}
        if owner:
            reference = {"apiVersion": "apps/v1", "kind": owner, "name": "owner", "uid": "1", "controller": True}
            metadata["ownerReferences"] = [reference]
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "example.net/pause"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        api = self.admin
        if mirror:
            # Only a kubelet makes these, and for itself (NodeRestriction).
            hash_ = {"kubernetes.io/config.mirror": "abc", "kubernetes.io/config.hash": "abc"}
            uid = self.admin.get(f"{NODES}/{node}")["metadata"]["uid"]
            reference = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
            metadata |= {"annotations": hash_, "ownerReferences": [reference]}
        pod = api.create(f"/api/v1/namespaces/{namespace}/pods", body)
        pod["status"] = {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}
        return api.replace(f"/api/v1/namespaces/{namespace}/pods/{name}/status", pod)

    def end_pod(self, name: str, namespace: str = "default") -> None:
        """Do what a kubelet does when a pod's processes have ended."""
        self.admin.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", {"gracePeriodSeconds": 0})

    def budget(self, name: str, labels: dict[str, str], allowed: int) -> None:
        """Make a budget, with the status that the controller manager would give it."""
        folder = f"{BUDGETS}/namespaces/default/poddisruptionbudgets"
        spec = {"minAvailable": 1, "selector": {"matchLabels": labels}}
        kind = {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget"}
        made = self.admin.create(folder, {**kind, "metadata": {"name": name}, "spec": spec})
        made["status"] = {
            "disruptionsAllowed": allowed, "currentHealthy": 1 + allowed, "desiredHealthy": 1,
            "expectedPods": 1 + allowed, "observedGeneration": 1,
        }  # fmt: skip
        self.admin.replace(f"{folder}/{name}/status", made)

    def sign_approved(self) -> int:
        """Do what the controller manager's signer does with approved requests for clients."""
        signed = 0
        for request in list(self.admin.list(REQUESTS)):
            status = request.get("status", {})
            approved = any(it["type"] == "Approved" for it in status.get("conditions", []))
            if approved and not status.get("certificate") and request["spec"]["signerName"] == CLIENT_SIGNER:
                pem = self.server.authority.sign(base64.b64decode(request["spec"]["request"]))
                request["status"]["certificate"] = base64.b64encode(pem).decode()
                self.admin.replace(f"{REQUESTS}/{name_of(request)}/status", request)
                signed += 1
        return signed


def write_kubeconfig(path: Path, server: str, authority: Authority, pair: Pair, *, embedded: bool = True) -> None:
    """Write a kubeconfig as kubeadm (`embedded`) or as kubelet does, with certificate and key in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    user = {
        "client-certificate-data": base64.b64encode(pair.certificate).decode(),
        "client-key-data": base64.b64encode(pair.key).decode(),
    }
    if not embedded:
        current = path.with_name("kubelet-client-current.pem")
        current.write_bytes(pair.certificate + pair.key)
        user = {"client-certificate": str(current), "client-key": str(current)}
    ca = base64.b64encode(authority.pair.certificate).decode()
    lines = [
        "apiVersion: v1", "clusters:", "- cluster:", f"    certificate-authority-data: {ca}", f"    server: {server}",
        "  name: kubernetes", "contexts:", "- context:", "    cluster: kubernetes", "    user: someone", "  name: here",
        "current-context: here", "kind: Config", "preferences: {}", "users:", "- name: someone", "  user:",
        *(f"    {key}: {value}" for key, value in user.items()),
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


@dataclass
class FixedClock:
    at: datetime

    def now(self) -> datetime:
        return self.at


@contextmanager
def world_of(server: Server) -> Iterator[World]:
    """Yield a world without leftovers."""
    world = World(server)
    try:
        world.clean()
        yield world
    finally:
        world.close()
