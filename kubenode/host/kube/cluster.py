"""The cluster as this node's agent reaches it, with the least rights that each step needs.

The node's own pods and its own Node: as the kubelet (kubelet.conf), whom the node authorizer confines to them.
Everything else: on workers with the agent's own certificate, on control planes with kubeadm's admin.conf, whose machine
holds the cluster's CA anyway. etcd: with the API server's client certificate. docs/cluster.md has the table.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from kubenode.errors import HostError, KubenodeError, TryLater
from kubenode.host.kube import apiservers, drain, nodes, rbac, view
from kubenode.host.kube.approval import approve
from kubenode.host.kube.client import Api
from kubenode.host.kube.etcd import LOCAL_ETCD, Etcd, etcd_access
from kubenode.host.kube.identity import AgentIdentity
from kubenode.host.kube.kubeconfig import Access, load_kubeconfig
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.requests import pending
from kubenode.host.kube.tokens import Tokens
from kubenode.host.paths import Paths
from kubenode.model.desired import DesiredCluster
from kubenode.model.documents import Role
from kubenode.model.kubernetes import Answer, ClusterView, EvictablePod, NodeReport
from kubenode.model.plain import plain
from kubenode.ports import Clock

API_PORT = 6443
"""kubeadm's bindPort, where nothing else is configured."""


class KubeCluster:
    """Implements `kubenode.ports.Cluster`; also a context manager that closes its connections.

    `desired` is the cluster as the trusted commit has it, `tokens` are the bootstrap tokens ("id.secret") by node, `ca`
    the cluster's CA certificate (PEM) for a machine that has not joined yet.

    Every method ends in bounded time and is safe to be killed and repeated.
    """

    def __init__(
        self,
        paths: Paths,
        clock: Clock,
        node: str,
        desired: DesiredCluster,
        *,
        tokens: Mapping[str, str] | None = None,
        ca: bytes | None = None,
        etcd_server: str = LOCAL_ETCD,
    ) -> None:
        self._paths = paths
        self._clock = clock
        self._node = node
        self._desired = desired
        self._tokens = tokens or {}
        self._ca = ca
        self._etcd_server = etcd_server
        self._identity = AgentIdentity(paths.state / "identity", node, desired.by_name[node].pool)
        self._stack = ExitStack()
        self._kubelet_api: Api | None = None
        self._agent_api: Api | None = None
        self.unseen = ""
        """Why the last `view` returned None, for people."""

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

    def view(self) -> ClusterView | None:
        """Look at the cluster. Returns None when the API does not answer, or when this machine cannot ask (yet).

        Raises HostError when the API refuses, or answers what it must not: that will not pass by itself.
        """
        if not (self._paths.kubernetes / "kubelet.conf").exists():
            self.unseen = "this machine has not joined the cluster"
            return None
        try:
            self.unseen = ""
            return self._look()
        except TryLater as error:
            self.unseen = error.message
            return None

    def answers(self) -> tuple[Answer, ...]:
        """Ask the endpoint and every declared control plane; return those that show a certificate of the CA."""
        ca = self._ca_certificate()
        host, _, port = self._desired.endpoint.rpartition(":")
        places = {"endpoint": apiservers.place(host.strip("[]"), int(port))}
        for peer in self._desired.peers:
            if peer.role is Role.CONTROL_PLANE and peer.address and peer.name != self._node:
                places[peer.name] = apiservers.place(peer.address, API_PORT)
        return apiservers.answers({name: Access(server, ca, source=name) for name, server in places.items()})

    # Nodes.

    def cordon(self, node: str) -> None:
        """Let nothing new be scheduled on a node, and leave our mark. Control planes may do it for others."""
        nodes.cordon(self._of(node), node)

    def uncordon(self, node: str) -> None:
        """Take back `cordon`; a node without our mark stays as it is."""
        nodes.uncordon(self._of(node), node)

    def evict_some(self, node: str, *, force: bool) -> tuple[EvictablePod, ...]:
        """Ask once for the eviction of everything a drain has to move; return what is left and what keeps it."""
        return drain.evict_some(self._of(node), node, force=force)

    def report(self, report: NodeReport) -> None:
        """Write this node's report into its Node's annotation."""
        nodes.report(self._kubelet(), self._node, plain(report))

    def delete_node(self, node: str) -> None:
        """Remove a Node object; one that is gone is no error."""
        nodes.delete(self._agent(), node)

    # Slots.

    def acquire_lease(self, name: str, why: str, previous: str | None) -> None:
        """Take a slot from `previous` (None: it is free). Raises TryLater when that is not so."""
        Leases(self._agent()).acquire(name, self._node, why, previous, self._clock.now())

    def release_lease(self, name: str) -> None:
        """Give a slot back; nothing happens when this node does not have it."""
        Leases(self._agent()).release(name, self._node)

    # What control planes do for all.

    def install(self, slots: Mapping[str, frozenset[str]]) -> None:
        """Have the namespace, the access rules and the leases of each pool in the cluster."""
        rbac.install(self._agent(), slots)
        Leases(self._agent()).ensure(frozenset().union(*slots.values()))

    def approve(self, requests: frozenset[str]) -> None:
        """Approve pending certificate requests by name, if the trusted fleet allows them; others raise HostError."""
        approve(self._agent(), requests, self._desired.by_name, self._clock.now())

    def set_tokens(self, nodes: frozenset[str]) -> None:
        """Publish the bootstrap tokens of exactly these nodes. Raises HostError when a node has none in the fleet."""
        missing = sorted(nodes - set(self._tokens))
        if missing:
            raise HostError(
                f"the fleet has no bootstrap token for {', '.join(missing)}",
                hint="each node that joins needs its own, sealed for the control planes",
            )
        Tokens(self._agent()).keep({node: self._tokens[node] for node in nodes}, self._clock.now())

    def remove_etcd_member(self, member: str) -> None:
        """Remove the member with this id. Raises HostError when that would cost the quorum."""
        self._etcd().remove(member)

    def _look(self) -> ClusterView:
        seen = view.look(self._agent(), self._node)
        pods = {self._node: drain.left_on(self._kubelet(), self._node)}
        if not self._is_control_plane():
            return replace(seen, pods=pods)
        strangers = [it.name for it in seen.nodes if it.name not in self._desired.by_name]
        return replace(
            seen,
            pods=pods | {node: drain.left_on(self._agent(), node) for node in strangers},
            etcd=self._etcd().view(),
            tokens=Tokens(self._agent()).nodes(self._clock.now()),
            requests=tuple(request for _, (_, request) in sorted(pending(self._agent()).items())),
            slots=rbac.allowed(self._agent()),
        )

    # Identities.

    def _is_control_plane(self) -> bool:
        return (self._paths.kubernetes / "manifests/kube-apiserver.yaml").exists()

    def _of(self, node: str) -> Api:
        """Return who may change a node and its pods: its kubelet, or for others a control plane."""
        return self._kubelet() if node == self._node else self._agent()

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

    def _ca_certificate(self) -> bytes:
        path = self._paths.kubernetes / "pki/ca.crt"
        try:
            return self._ca or path.read_bytes()
        except OSError as error:
            raise HostError(
                f"the cluster's CA certificate {path} cannot be read: {error.strerror}",
                hint="without it nobody can tell whether this cluster exists already",
            ) from error

    def _etcd(self) -> Etcd:
        return Etcd(etcd_access(self._paths.kubernetes / "pki", self._etcd_server))
