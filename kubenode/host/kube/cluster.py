"""The cluster as this node's agent reaches it, with the least rights that each step needs.

The node's own pods and its own Node: as the kubelet (kubelet.conf), whom the node authorizer confines to them.
Everything else: on workers with the agent's own certificate, on control planes with kubeadm's admin.conf, whose machine
holds the cluster's CA anyway. etcd: with the API server's client certificate. docs/cluster.md has the table.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from kubenode.errors import KubenodeError, TryLater
from kubenode.host.kube import drain, nodes, rbac, view
from kubenode.host.kube.approval import Judged, approve_requests
from kubenode.host.kube.client import Api
from kubenode.host.kube.etcd import LOCAL_ETCD, Etcd, etcd_access
from kubenode.host.kube.identity import AgentIdentity
from kubenode.host.kube.kubeconfig import Access, load_kubeconfig
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.requests import Declared
from kubenode.host.kube.seen import ClusterView, EvictablePod
from kubenode.host.kube.tokens import Tokens
from kubenode.host.paths import Paths
from kubenode.model.plain import Plain
from kubenode.ports import Clock


class KubeCluster:
    """The cluster that this machine has joined; also a context manager that closes its connections.

    Every method ends in bounded time and is safe to be killed and repeated. They raise TryLater when a server cannot
    be reached or cannot answer now, and HostError when it refuses or this machine's files are not usable.
    """

    def __init__(self, paths: Paths, clock: Clock, node: str, pool: str, *, etcd_server: str = LOCAL_ETCD) -> None:
        self._paths = paths
        self._etcd_server = etcd_server
        self._clock = clock
        self._node = node
        self._identity = AgentIdentity(paths.state / "identity", node, pool)
        self._stack = ExitStack()
        self._kubelet_api: Api | None = None
        self._agent_api: Api | None = None

    def __enter__(self) -> "KubeCluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones, with the certificates of that moment."""
        self._kubelet_api = self._agent_api = None
        self._stack.close()

    # Looking.

    def view(self) -> ClusterView:
        """Look at the cluster. Raises TryLater also while this agent waits for its certificate."""
        seen = replace(view.look(self._agent()), evictable=drain.left_on(self._kubelet(), self._node))
        return replace(seen, etcd=self._etcd().view()) if self._is_control_plane() else seen

    # This node.

    def cordon(self) -> None:
        """Let nothing new be scheduled here."""
        nodes.cordon(self._kubelet(), self._node)

    def uncordon(self) -> None:
        """Let pods be scheduled here again."""
        nodes.cordon(self._kubelet(), self._node, cordoned=False)

    def evict_some(self, *, force: bool = False) -> tuple[EvictablePod, ...]:
        """Ask once for the eviction of everything a drain has to move; return what is left and what keeps it."""
        return drain.evict_some(self._kubelet(), self._node, force=force)

    def report(self, status: Plain) -> None:
        """Write this node's report into its Node's annotation."""
        nodes.report(self._kubelet(), self._node, status)

    # Slots.

    def acquire(self, lease: str, why: str) -> bool:
        """Take a slot; True when this node has it afterwards."""
        return Leases(self._agent()).acquire(lease, self._node, why, self._clock.now())

    def release(self, lease: str) -> None:
        """Give a slot back; nothing happens when this node does not have it."""
        Leases(self._agent()).release(lease, self._node)

    # What control planes do for all.

    def install(self, slots: Mapping[str, frozenset[str]]) -> int:
        """Have the namespace, the access rules and the leases of each pool in the cluster; return what was changed."""
        changed = rbac.install(self._agent(), slots)
        return changed + Leases(self._agent()).ensure(frozenset().union(*slots.values()))

    def approve(self, declared: Mapping[str, Declared]) -> tuple[Judged, ...]:
        """Approve the certificate requests that the trusted fleet allows; return what was looked at."""
        return approve_requests(self._agent(), declared, self._clock.now())

    def keep_tokens(self, tokens: Mapping[str, str]) -> int:
        """Have exactly these bootstrap tokens ("id.secret", by node) in the cluster; return how many were changed."""
        return Tokens(self._agent()).keep(tokens, self._clock.now())

    def delete_node(self, node: str) -> bool:
        """Remove a Node object; False when it was gone."""
        return nodes.delete(self._agent(), node)

    def remove_member(self, name: str) -> bool:
        """Remove an etcd member; False when it was gone. Raises HostError when that would cost the quorum."""
        return self._etcd().remove(name)

    def snapshot_etcd(self, target: Path) -> int:
        """Write a verified snapshot of etcd; return its size in bytes."""
        return self._etcd().snapshot(target)

    # Identities.

    def _is_control_plane(self) -> bool:
        return (self._paths.kubernetes / "manifests/kube-apiserver.yaml").exists()

    def _kubelet(self) -> Api:
        if self._kubelet_api is None:
            access = load_kubeconfig(self._paths.kubernetes / "kubelet.conf")
            self._kubelet_api = self._stack.enter_context(Api(access))
        return self._kubelet_api

    def _agent(self) -> Api:
        if self._agent_api is None:
            admin = self._paths.kubernetes / "admin.conf"
            access = load_kubeconfig(admin) if self._is_control_plane() else self._own_access()
            self._agent_api = self._stack.enter_context(Api(access))
        return self._agent_api

    def _own_access(self) -> Access:
        """Return access by the agent's own certificate, which is asked for or renewed when it is time."""
        now = self._clock.now()
        waits = ""
        try:
            waits = self._identity.advance(self._kubelet(), now) or ""
        except KubenodeError:
            # A renewal that does not come through stops nothing while the old certificate is in force.
            if self._identity.current(now) is None:
                raise
        mine = self._identity.current(now)
        if mine is None:
            raise TryLater(
                f"this node's agent has no certificate yet: {waits}",
                hint="`kubectl get csr` shows it; agents on control planes approve requests of the fleet's nodes",
            )
        kubelet = self._kubelet().access
        return replace(kubelet, certificate=mine.certificate, key=mine.key, token=None, source="agent.pem")

    def _etcd(self) -> Etcd:
        return Etcd(etcd_access(self._paths.kubernetes / "pki", self._etcd_server))
