"""Does the actions that concern Kubernetes: through its API, and through kubeadm."""

from kubenode.errors import TryLater
from kubenode.model.decision import (
    AcquireLease,
    Action,
    ApproveRequests,
    Cordon,
    CreateLeases,
    DeleteNode,
    Drain,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PrepareKubelet,
    PruneKubeadm,
    PublishReport,
    PullImages,
    Reconfigure,
    ReleaseLease,
    RemoveEtcdMember,
    RenewCertificates,
    RestartStaticPods,
    SetTokens,
    SnapshotEtcd,
    Uncordon,
)
from kubenode.model.kubernetes import EvictablePod
from kubenode.ports import Cluster, Kubeadm

_SHOWN = 3


def execute_in_cluster(action: Action, cluster: Cluster, kubeadm: Kubeadm) -> None:
    """Do the action. Raise TryLater or HostError."""
    match action:
        case KubeadmInit(version):
            kubeadm.init(version)
        case KubeadmJoin(role):
            kubeadm.join(role)
        case PullImages(release):
            kubeadm.pull(release)
        case PrepareKubelet(release, configuration):
            kubeadm.prepare_kubelet(release, configuration)
        case SnapshotEtcd(release):
            kubeadm.snapshot_etcd(release)
        case KubeadmUpgrade(release, _, first):
            kubeadm.upgrade(release, first=first)
        case Reconfigure(configuration, first):
            kubeadm.reconfigure(configuration, first=first)
        case RenewCertificates():
            kubeadm.renew_certificates()
        case RestartStaticPods(names):
            kubeadm.restart_static_pods(names)
        case PruneKubeadm():
            kubeadm.prune()
        case _:
            _through_the_api(action, cluster)


def _through_the_api(action: Action, cluster: Cluster) -> None:
    match action:
        case CreateLeases(names):
            cluster.create_leases(names)
        case AcquireLease(name, why, previous):
            cluster.acquire_lease(name, why, previous)
        case ReleaseLease(name):
            cluster.release_lease(name)
        case Cordon(node):
            cluster.cordon(node)
        case Drain(node, force):
            _drain(node, cluster, force=force)
        case Uncordon(node):
            cluster.uncordon(node)
        case PublishReport(report):
            cluster.report(report)
        case RemoveEtcdMember(_, member):
            cluster.remove_etcd_member(member)
        case DeleteNode(name):
            cluster.delete_node(name)
        case SetTokens(nodes):
            cluster.set_tokens(nodes)
        case ApproveRequests(names):
            cluster.approve(names)


def _drain(node: str, cluster: Cluster, *, force: bool) -> None:
    left = cluster.evict_some(node, force=force)
    if not left:
        return
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    pods = "1 pod is" if len(left) == 1 else f"{len(left)} pods are"
    raise TryLater(
        f"{pods} left on {node}: {', '.join(map(_told, left[:_SHOWN]))}{more}",
        hint="See why: kubectl get poddisruptionbudgets -A; spec.rollout.drain of the pool says how long to wait.",
    )


def _told(pod: EvictablePod) -> str:
    why = f" (kept by {pod.budget})" if pod.budget else " (ending)" if pod.ending else ""
    return f"{pod.namespace}/{pod.name}{why}"
