"""How each identity of a node reaches the API and etcd, with the least rights that are possible.

| what | as whom |
|---|---|
| the node's own pods and its own Node | the kubelet (kubelet.conf), whom the node authorizer confines to them |
| everything else on a worker | the agent's own certificate |
| everything else on a control plane | a short-lived certificate made with the cluster's CA, which lies there anyway |
| etcd, from a control plane | the same, made with etcd's CA |

Where there is no CA key (an external CA), kubeadm's own admin.conf and etcd client certificate are used instead.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kubenode.errors import HostError, KubenodeError, TryLater
from kubenode.host.kube.apiservers import place
from kubenode.host.kube.client import Api
from kubenode.host.kube.identity import AgentIdentity
from kubenode.host.kube.kubeconfig import Access, load_kubeconfig
from kubenode.host.kube.mint import Signer, mint, signer_of
from kubenode.host.paths import Paths
from kubenode.model.desired import DesiredCluster
from kubenode.model.documents import Role
from kubenode.plan.kubernetes.requests import agent_user
from kubenode.ports import Clock

ETCD_PORT = 2379
_MASTERS = ("system:masters",)


class Secrets(Protocol):
    """What of the cluster the fleet's sealed secrets say to this node; see `kubenode.host.membersecrets`."""

    @property
    def ca_certificate(self) -> bytes:
        """The cluster's CA certificate (PEM), which is public. Raises HostError when the fleet has none."""
        ...

    def ca_set(self) -> Mapping[str, bytes]:
        """Return the CA set by path below /etc/kubernetes/pki; on control planes only. Raises HostError."""
        ...

    def tokens_of(self, nodes: frozenset[str]) -> Mapping[str, str]:
        """Return the bootstrap tokens ("id.secret") of these nodes, as far as the fleet has them. Raises HostError."""
        ...


class Identities:
    """The identities of one node. What kubeadm has not put here yet comes from the fleet's `secrets`."""

    def __init__(self, paths: Paths, clock: Clock, node: str, desired: DesiredCluster, secrets: Secrets | None) -> None:
        self._folder = paths.kubernetes
        self._clock = clock
        self._node = node
        self._desired = desired
        self._secrets = secrets
        self._own = AgentIdentity(paths.state / "identity", node, desired.by_name[node].pool)
        self.endpoint = _endpoint(desired)

    def has_joined(self) -> bool:
        """Return whether this machine's kubelet is part of the cluster."""
        return (self._folder / "kubelet.conf").exists()

    def kubelet(self) -> Access:
        """Return the kubelet's access. Raises HostError before this machine has joined."""
        return load_kubeconfig(self._folder / "kubelet.conf")

    def worker(self, kubelet: Api) -> Access:
        """Return access by the agent's own certificate, which is asked for or renewed when it is time."""
        now = self._clock.now()
        waits = ""
        try:
            waits = self._own.advance(kubelet, now) or ""
        except KubenodeError:
            # A renewal that does not come through stops nothing while the old certificate is in force.
            if self._own.current(now) is None:
                raise
        mine = self._own.current(now)
        if mine is None:
            raise TryLater(
                f"this node's agent has no certificate yet: {waits}",
                hint="`kubectl get csr` shows it; agents on control planes approve requests of the fleet's nodes",
            )
        return replace(kubelet.access, certificate=mine.certificate, key=mine.key, token=None, source="agent.pem")

    def control_plane(self) -> Access:
        """Return a control plane's access, also before it has joined. Raises HostError without its CA or admin.conf."""
        signer = self._signer("ca")
        if signer is None:
            return load_kubeconfig(self._folder / "admin.conf")
        shown = mint(signer, agent_user(self._node), _MASTERS, self._clock.now())
        return Access(self.endpoint, *shown, source=signer.source)

    def etcd(self) -> tuple[Access, ...]:
        """Return access to the etcd of this machine, if it has one, and of the other control planes."""
        signer, source = self._signer("etcd/ca"), str(self._folder / "pki/etcd")
        if signer is not None:
            shown, source = mint(signer, agent_user(self._node), (), self._clock.now()), signer.source
        else:
            names = ("etcd/ca.crt", "apiserver-etcd-client.crt", "apiserver-etcd-client.key")
            first, second, third = (_read(self._folder / "pki" / name) for name in names)
            shown = first, second, third
        others = [it.address for it in self._desired.peers if it.role is Role.CONTROL_PLANE and it.name != self._node]
        here = ["127.0.0.1"] if (self._folder / "manifests/etcd.yaml").exists() else []
        found = tuple(
            Access(place(host, ETCD_PORT), *shown, source=source) for host in [*here, *others] if host is not None
        )
        if not found:
            raise TryLater(
                "no etcd is known: it does not run here yet, and the fleet has no address of another one",
                hint="Wait for the first control plane, or give the control planes an `address` in nodes/NAME.yaml.",
            )
        return found

    def ca(self) -> bytes:
        """Return the cluster's CA certificate (PEM). Raises HostError."""
        if self._secrets is not None:
            return self._secrets.ca_certificate
        return _read(self._folder / "pki/ca.crt")

    def _signer(self, name: str) -> Signer | None:
        found = signer_of(self._folder / "pki" / name)
        if found is not None or self._secrets is None or self.has_joined():
            return found
        # A control plane that is still to join looks before it leaps.
        opened = self._secrets.ca_set()
        return Signer(opened[f"{name}.crt"], opened[f"{name}.key"], f"{name} of the fleet's sealed CA set")


def _endpoint(desired: DesiredCluster) -> str:
    host, _, port = desired.endpoint.rpartition(":")
    try:
        return place(host.strip("[]"), int(port))
    except ValueError as error:
        raise HostError(
            f"the endpoint {desired.endpoint!r} has no port", hint="fleet.yaml: spec.cluster.endpoint: HOST:PORT"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostError(
            f"{path} cannot be read: {error.strerror}",
            hint="kubeadm writes it, or it comes from the fleet's sealed secrets; a stacked etcd is expected",
        ) from error
