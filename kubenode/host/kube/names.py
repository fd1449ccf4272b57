"""The names kubenode uses inside a cluster, in one place: docs/cluster.md lists them for people."""

NAMESPACE = "kubenode-system"
"""Everything kubenode keeps in a cluster lies here, but for annotations, bootstrap tokens and access rules."""
STATUS_ANNOTATION = "kubenode.dev/status"
"""On each Node: what its agent reports, JSON."""
WHY_ANNOTATION = "kubenode.dev/why"
"""On a lease: what its holder does."""
AGENTS = "kubenode:agents"
"""The group of every agent's certificate."""

NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def agent(node: str) -> str:
    """Return the user name in the certificate of a node's agent."""
    return f"kubenode:agent:{node}"


def pool_group(pool: str) -> str:
    """Return the group in the certificates of a pool's agents: it may take the pool's slots."""
    return f"kubenode:pool:{pool}"


def kubelet(node: str) -> str:
    """Return the user name of a node's kubelet (Kubernetes, "Using Node Authorization")."""
    return f"system:node:{node}"
