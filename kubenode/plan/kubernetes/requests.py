"""Which certificate requests a control plane approves: those whose every field follows from the trusted fleet.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/ (signers and what they
allow). Requests for kubelets' client certificates are approved by kubeadm's own bindings.
"""

from kubenode.model.desired import DesiredCluster, Peer
from kubenode.model.kubernetes import CertificateRequest

SERVING = "kubernetes.io/kubelet-serving"
CLIENT = "kubernetes.io/kube-apiserver-client"
AGENT = "kubenode:node:"
POOL = "kubenode:pool:"
_KEY_USAGES = frozenset(("digital signature", "key encipherment"))


def approvable(requests: tuple[CertificateRequest, ...], cluster: DesiredCluster) -> frozenset[str]:
    """Return the names of the requests that may be approved; the others are left for a person."""
    return frozenset(request.name for request in requests if _matches(request, cluster))


def _matches(request: CertificateRequest, cluster: DesiredCluster) -> bool:
    node = request.requestor.removeprefix("system:node:").removeprefix(AGENT)
    peer = cluster.by_name.get(node)
    if peer is None:
        return False
    if request.signer == SERVING:
        return _serving(request, peer)
    return request.signer == CLIENT and _agent(request, peer)


def _serving(request: CertificateRequest, peer: Peer) -> bool:
    own = {peer.name, peer.address} - {None}
    return (
        request.requestor == request.common_name == f"system:node:{peer.name}"
        and request.organizations == {"system:nodes"} <= request.requestor_groups
        and "server auth" in request.usages <= _KEY_USAGES | {"server auth"}
        and bool(request.names)
        and request.names <= own
    )


def _agent(request: CertificateRequest, peer: Peer) -> bool:
    """Match an agent's first request, made as its kubelet, and later ones, made as itself."""
    as_kubelet = request.requestor == f"system:node:{peer.name}" and "system:nodes" in request.requestor_groups
    as_itself = request.requestor == f"{AGENT}{peer.name}"
    return (
        (as_kubelet or as_itself)
        and request.common_name == f"{AGENT}{peer.name}"
        and request.organizations == {f"{POOL}{peer.pool}"}
        and "client auth" in request.usages <= _KEY_USAGES | {"client auth"}
        and not request.names
    )
