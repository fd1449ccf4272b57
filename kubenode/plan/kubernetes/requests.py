"""Who may get a certificate of the cluster's CA: the rule by which control planes approve requests. Pure.

Two kinds: the certificate of an agent (signer kube-apiserver-client) and the serving certificate of a kubelet (signer
kubelet-serving). Both name a node of the trusted fleet and must come from that very node's kubelet. The API server
itself writes who asks; the rest is the asker's word and is compared. Nothing is ever denied: what is not approved stays
pending and expires. Source: Kubernetes, "Certificates and Certificate Signing Requests", "Kubernetes signers".
"""

import ipaddress
from collections.abc import Mapping

from kubenode.model.desired import DesiredCluster, Peer
from kubenode.model.kubernetes import CertificateRequest

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
AGENTS = "kubenode:agents"
"""The group of every agent's certificate."""
_KUBELETS = "system:nodes"
_USAGES = {CLIENT_SIGNER: {"digital signature", "client auth"}, SERVING_SIGNER: {"digital signature", "server auth"}}
_ALSO = {"key encipherment"}


def agent_user(node: str) -> str:
    """Return the user name in the certificate of a node's agent."""
    return f"kubenode:agent:{node}"


def pool_group(pool: str) -> str:
    """Return the group in the certificates of a pool's agents: it may take the pool's slots."""
    return f"kubenode:pool:{pool}"


def kubelet_user(node: str) -> str:
    """Return the user name of a node's kubelet (Kubernetes, "Using Node Authorization")."""
    return f"system:node:{node}"


def approvable(requests: tuple[CertificateRequest, ...], cluster: DesiredCluster) -> frozenset[str]:
    """Return the names of the requests that may be approved; the others are left for a person."""
    return frozenset(request.name for request in requests if refusal(request, cluster.by_name) is None)


def is_ours(request: CertificateRequest) -> bool:
    """Return whether kubenode has to do with a request at all: others ask for certificates, too."""
    if request.signer == CLIENT_SIGNER:
        return request.common_name.startswith(agent_user(""))
    return request.signer == SERVING_SIGNER


def refusal(request: CertificateRequest, peers: Mapping[str, Peer]) -> str | None:
    """Return why a request is not approved, None when it may be. `peers` are the nodes of the trusted fleet by name."""
    if not is_ours(request):
        return f"{request.common_name[:80]!r} at the signer {request.signer[:80]!r} is not ours to approve"
    user = agent_user if request.signer == CLIENT_SIGNER else kubelet_user
    if not request.common_name.startswith(user("")):
        return f"the common name {request.common_name[:80]!r} is no kubelet's"
    node = request.common_name.removeprefix(user(""))
    if request.requestor != kubelet_user(node):
        return f"{request.requestor[:80]!r} asks for a certificate of the node {node[:80]!r}"
    if _KUBELETS not in request.requestor_groups:
        return f"{request.requestor[:80]!r} is not in the group {_KUBELETS}"
    peer = peers.get(node)
    if peer is None:
        return f"the trusted fleet has no node {node[:80]!r}"
    groups = {AGENTS, pool_group(peer.pool)} if request.signer == CLIENT_SIGNER else {_KUBELETS}
    return (
        _unlike("groups", request.organizations, groups)
        or _unlike("usages", request.usages - _ALSO, _USAGES[request.signer], said=request.usages)
        or (_named(request) if request.signer == CLIENT_SIGNER else _undeclared(request, peer))
    )


def _unlike(what: str, found: frozenset[str], due: set[str], *, said: frozenset[str] | None = None) -> str | None:
    if found == due:
        return None
    listed = ", ".join(sorted(found if said is None else said))[:200] or "none"
    return f"the {what} are {listed}; {', '.join(sorted(due))} are due"


def _named(request: CertificateRequest) -> str | None:
    return f"an agent's certificate names no address, {min(request.names)} is asked for" if request.names else None


def _undeclared(request: CertificateRequest, peer: Peer) -> str | None:
    """Return what a kubelet may not serve as: anything but its node's name and its declared address."""
    if not request.names:
        return "it names no address"
    declared = {peer.name, _normal(peer.address)} if peer.address else {peer.name}
    foreign = sorted(request.names - declared)
    if foreign:
        return (
            f"{foreign[0][:80]} is not declared for {peer.name} in the fleet (spec.address of nodes/{peer.name}.yaml)"
        )
    return None


def _normal(address: str) -> str:
    """Return an address in its one spelling; a name stays as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
