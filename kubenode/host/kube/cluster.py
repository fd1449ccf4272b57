"""The cluster as this node's agent reaches it: `kubenode.ports.Cluster`, put together from the modules beside this one.

Who asks is chosen for each call, with the least rights that it needs (`access.py`).
"""

from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from kubenode.errors import HostError, TryLater
from kubenode.host.kube import apiservers, drain, nodes, rbac, view
from kubenode.host.kube.access import Identities, Secrets
from kubenode.host.kube.approval import approve
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.etcd import Etcd
from kubenode.host.kube.kubeconfig import Access
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.mint import LIFETIME
from kubenode.host.kube.names import CONFIGURATION_ANNOTATION, KUBEADM_CONFIG, NODES
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

    `desired` is the cluster as the trusted commit has it, `secrets` what that commit has for this node's eyes only.

    Every method ends in bounded time and is safe to be killed and repeated.
    """

    def __init__(
        self,
        paths: Paths,
        clock: Clock,
        node: str,
        desired: DesiredCluster,
        *,
        secrets: Secrets | None = None,
    ) -> None:
        self._clock = clock
        self._node = node
        self._desired = desired
        self._secrets = secrets
        self._access = Identities(paths, clock, node, desired, secrets)
        self._leads = desired.by_name[node].role is Role.CONTROL_PLANE
        self._stack = ExitStack()
        self._kubelet_api: Api | None = None
        self._agent_api: Api | None = None
        self._agent_since = clock.now()
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
        if not self._leads and not self._access.has_joined():
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
        ca = self._access.ca()
        places = {"endpoint": self._access.endpoint}
        for peer in self._desired.peers:
            if peer.role is Role.CONTROL_PLANE and peer.address and peer.name != self._node:
                places[peer.name] = apiservers.place(peer.address, API_PORT)
        return apiservers.answers({name: Access(server, ca, source=name) for name, server in places.items()})

    def invited(self) -> bool | None:
        """Say whether the endpoint's cluster knows this node's bootstrap token; None when that cannot be told.

        Also without a token in the fleet: the join itself says what is wrong with that.
        """
        try:
            token = self._secrets.tokens_of(frozenset({self._node})).get(self._node) if self._secrets else None
        except HostError:
            return None
        if token is None:
            return None
        return apiservers.invited(Access(self._access.endpoint, self._access.ca(), source="endpoint"), token)

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

    def report(self, report: NodeReport, account: str | None = None) -> None:
        """Write this node's report, and its account when it is given, into annotations of its Node."""
        nodes.report(self._kubelet(), self._node, plain(report), account)

    def is_ready(self) -> bool:
        """Return whether this machine's own Node is Ready, False when its kubelet may not ask. Raises TryLater."""
        try:
            # Not the one that is kept: a join that follows gives the kubelet other credentials.
            with Api(self._access.kubelet()) as api:
                return nodes.is_ready(api.get(path_of(NODES, self._node)))
        except HostError:
            return False

    def mark_socket(self, socket: str) -> None:
        """Note this machine's CRI socket at its Node, as kubeadm does."""
        nodes.mark_socket(self._kubelet(), self._node, socket)

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

    def create_leases(self, names: frozenset[str]) -> None:
        """Create leases without a holder, with the namespace and the access rules that let the pools take them."""
        leases = Leases(self._agent())
        rbac.install(self._agent(), rbac.slots(names | {it.name for it in leases.all()}, self._desired.pools))
        leases.ensure(names)

    def approve(self, requests: frozenset[str]) -> None:
        """Approve pending certificate requests by name, if the trusted fleet allows them; others raise HostError."""
        approve(self._agent(), requests, self._desired.by_name, self._clock.now())

    def set_tokens(self, nodes: frozenset[str]) -> None:
        """Publish the bootstrap tokens of exactly these nodes. Raises HostError when a node has none in the fleet."""
        known: dict[str, str] = {}
        damaged: HostError | None = None
        for node in sorted(nodes):
            try:
                known |= self._secrets.tokens_of(frozenset({node})) if self._secrets is not None else {}
            except HostError as error:
                damaged = damaged or error
        Tokens(self._agent()).keep(known, self._clock.now())
        # Said when the others have theirs: one node without a token keeps nobody else out.
        if damaged is not None:
            raise damaged
        if missing := sorted(nodes - set(known)):
            raise HostError(
                f"the fleet has no bootstrap token for {', '.join(missing)}",
                hint="Each node joins with its own. On a laptop: kubenode seal --bootstrap-tokens, commit, push.",
            )

    def withdraw_token(self, token: str) -> None:
        """Remove a bootstrap token ("id.secret") that kubeadm made; one that is gone is no error."""
        Tokens(self._agent()).withdraw(token)

    def mark_configuration(self, digest: str) -> None:
        """Note at kubeadm's ConfigMap from which documents of the fleet (digest) the cluster was configured."""
        change = {"metadata": {"annotations": {CONFIGURATION_ANNOTATION: digest}}}
        self._agent().patch(KUBEADM_CONFIG, change)

    def configuration(self) -> str | None:
        """Return what is noted there, asked as this machine's kubelet, which may read it."""
        return view.kubeadm_config(self._kubelet())[1]

    def etcd(self) -> Etcd:
        """Return etcd, as a control plane reaches it. Raises TryLater, HostError."""
        return Etcd(self._access.etcd())

    def remove_etcd_member(self, member: str) -> None:
        """Remove the member with this id. Raises HostError when that would cost the quorum."""
        self.etcd().remove(member)

    def _look(self) -> ClusterView:
        seen = view.look(self._agent(), self._node)
        pods = {self._node: drain.left_on(self._kubelet(), self._node)} if self._access.has_joined() else {}
        if not self._leads:
            return replace(seen, pods=pods)
        # Access rules that somebody changed, or that belong to a pool which git has no more, are repaired in passing.
        slots = rbac.slots({lease.name for lease in seen.leases}, self._desired.pools)
        if slots and rbac.allowed(self._agent()) != slots:
            rbac.install(self._agent(), slots)
        strangers = [it.name for it in seen.nodes if it.name not in self._desired.by_name]
        return replace(
            seen,
            pods=pods | {node: drain.left_on(self._agent(), node) for node in strangers},
            etcd=self.etcd().view(),
            tokens=Tokens(self._agent()).nodes(self._clock.now()),
            requests=tuple(request for _, (_, request) in sorted(pending(self._agent()).items())),
        )

    # Identities.

    def _of(self, node: str) -> Api:
        """Return who may change a node and its pods: its kubelet, or for others a control plane."""
        return self._kubelet() if node == self._node else self._agent()

    def _kubelet(self) -> Api:
        if self._kubelet_api is None:
            self._kubelet_api = self._stack.enter_context(Api(self._access.kubelet()))
        return self._kubelet_api

    def _agent(self) -> Api:
        now = self._clock.now()
        if self._agent_api is None or (self._leads and now - self._agent_since >= LIFETIME / 2):
            # A control plane makes its certificate itself, for an hour; a tick may take longer.
            access = self._access.control_plane() if self._leads else self._access.worker(self._kubelet())
            self._agent_api, self._agent_since = self._stack.enter_context(Api(access)), now
        return self._agent_api
