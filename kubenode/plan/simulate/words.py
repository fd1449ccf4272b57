"""Actions in a few words, for people who read a timeline. What is done to other nodes names them."""

from kubenode.model.decision import (
    AcquireLease,
    Action,
    ActivateSlot,
    ApproveRequests,
    Cordon,
    CreateLeases,
    DeleteNode,
    Drain,
    FetchRelease,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PoisonRelease,
    PrepareKubelet,
    PruneKubeadm,
    PruneStaging,
    PublishReport,
    PullImages,
    Reboot,
    Reconfigure,
    ReleaseLease,
    RemoveEtcdMember,
    RenewCertificates,
    RestartStaticPods,
    RestoreEntry,
    RetireEntry,
    SetTokens,
    SnapshotEtcd,
    Uncordon,
    WriteSlot,
)


def words(action: Action, node: str) -> str:
    """Return what an action of `node` does."""
    match action:
        case FetchRelease(release):
            return f"download release {release.version}"
        case WriteSlot(release):
            return f"write release {release.version}"
        case ActivateSlot(release):
            return f"activate release {release.version}"
        case Reboot(release):
            return f"restart into release {release.version}"
        case PullImages(_, version):
            return f"pull the images of {version}"
        case PrepareKubelet(release):
            return f"prepare kubelet for release {release.version}"
        case SnapshotEtcd(release):
            return f"save etcd before release {release.version}"
        case KubeadmUpgrade(_, version, first):
            return f"kubeadm upgrade {'apply' if first else 'node'} to {version}"
        case KubeadmInit(version):
            return f"kubeadm init {version}"
        case KubeadmJoin(role):
            return f"kubeadm join as a {role}"
        case Reconfigure(configuration):
            return f"apply configuration {configuration[:12]}"
        case RenewCertificates():
            return "renew the certificates"
    return _small(action, node)


def _small(action: Action, node: str) -> str:
    match action:
        case Cordon(name):
            return _for("cordon", name, node)
        case Drain(name, force):
            return _for("drain by force" if force else "drain", name, node)
        case Uncordon(name):
            return _for("uncordon", name, node)
        case AcquireLease(name):
            return f"take {name}"
        case ReleaseLease(name):
            return f"give back {name}"
        case RetireEntry(entry):
            return f"remove the boot entry of release {entry.version}"
        case RestoreEntry(entry):
            return f"make the boot entry of release {entry.version} good again"
        case PoisonRelease(version):
            return f"remember that release {version} failed"
        case PruneStaging():
            return "delete downloads"
        case RestartStaticPods(names):
            return f"have the kubelet make {', '.join(sorted(names))} anew"
        case PruneKubeadm():
            return "delete kubeadm's leftovers"
        case CreateLeases():
            return "create leases"
        case PublishReport():
            return "report"
        case RemoveEtcdMember(name, member):
            return f"remove the etcd member {name or member}"
        case DeleteNode(name):
            return f"delete the Node {name}"
        case SetTokens():
            return "publish bootstrap tokens"
        case ApproveRequests():
            return "approve certificate requests"
    raise TypeError(type(action).__name__)


def _for(what: str, name: str, node: str) -> str:
    return what if name == node else f"{what} {name}"
