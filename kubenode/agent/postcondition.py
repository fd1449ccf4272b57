"""When an action counts as done: what the next look at the machine has to show."""

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
from kubenode.model.documents import Role
from kubenode.model.journal import Journal
from kubenode.model.kubernetes import ClusterView, LocalKubernetes
from kubenode.model.observed import BootEntry, Observed


def holds(action: Action, observed: Observed, journal: Journal) -> bool:
    """Say whether an action's postcondition shows."""
    match action:
        case FetchRelease(release):
            return release.manifest in observed.fetched
        case RetireEntry(entry):
            return not _entries(observed, entry.root_hash)
        case RestoreEntry(entry):
            entries = _entries(observed, entry.root_hash)
            return bool(entries) and all(found.tries_left is None for found in entries)
        case WriteSlot(release, slot):
            staged = observed.staged
            return (
                slot is observed.booted.slot.other
                and observed.spare == release.root_hash
                and staged is not None
                and staged.root_hash == release.root_hash
            )
        case ActivateSlot(release, supersede):
            counted = any((entry.tries_left or 0) > 0 for entry in _entries(observed, release.root_hash))
            return counted and (
                supersede is None or all(entry.tries_left == 0 for entry in _entries(observed, supersede.root_hash))
            )
        case Reboot(release):
            return observed.booted.root_hash == release.root_hash
        case PoisonRelease(_, root_hash):
            return any(bad.root_hash == root_hash for bad in journal.poisoned)
        case PruneStaging(downloads, staged_too):
            left = downloads & (observed.fetched | observed.partial)
            return not left and not (staged_too and observed.staged is not None)
    here, cluster = observed.kubernetes, observed.cluster
    return (here is not None and _holds_here(action, here, cluster)) or (
        # What cannot be seen has not happened: the next look decides.
        cluster is not None and _holds_in_cluster(action, cluster)
    )


def _holds_here(action: Action, here: LocalKubernetes, cluster: ClusterView | None) -> bool:
    match action:
        case KubeadmInit():
            return here.joined is Role.CONTROL_PLANE
        case KubeadmJoin(role):
            return here.joined is role
        case PullImages(_, version):
            return version in here.pulled
        case PrepareKubelet(release, configuration):
            return here.kubelet_sets.get(release.root_hash) == configuration
        case SnapshotEtcd(release):
            return release.manifest in here.snapshots
        case KubeadmUpgrade(_, version, first):
            moved = bool(here.manifests) and all(found >= version for found in here.manifests.values())
            # The first one brings git's documents to the cluster, perhaps nothing else.
            there = cluster is not None and cluster.version >= version and cluster.configuration == here.configuration
            return moved and (not first or there)
        case Reconfigure(configuration, first):
            written = not first or (cluster is not None and cluster.configuration == configuration)
            return here.configuration == configuration and written
        case RenewCertificates(until):
            return here.certificates_until is not None and here.certificates_until >= until
        case RestartStaticPods(names):
            return not names & here.rejected
        case PruneKubeadm():
            return not here.leftovers
    return False


def _holds_in_cluster(action: Action, cluster: ClusterView) -> bool:
    match action:
        case CreateLeases(names):
            return names <= {lease.name for lease in cluster.leases}
        case ReleaseLease(name):
            return all(lease.holder != cluster.me for lease in cluster.leases if lease.name == name)
        case AcquireLease(name):
            return any(lease.name == name and lease.holder == cluster.me for lease in cluster.leases)
        case Cordon(node):
            return node in cluster.by_name and cluster.by_name[node].cordoned_by_us
        case Drain(node):
            return cluster.pods.get(node) == ()
        case Uncordon(node):
            return node not in cluster.by_name or not cluster.by_name[node].cordoned_by_us
        case PublishReport(report):
            own = cluster.by_name.get(cluster.me)
            return own is not None and own.report == report
        case RemoveEtcdMember(_, member):
            return cluster.etcd is not None and all(it.id != member for it in cluster.etcd.members)
        case DeleteNode(name):
            return name not in cluster.by_name
        case SetTokens(nodes):
            return cluster.tokens == nodes
        case ApproveRequests(names):
            return not names & {request.name for request in cluster.requests}
    return False


def _entries(observed: Observed, root_hash: str) -> list[BootEntry]:
    return [entry for entry in observed.entries if entry.root_hash == root_hash]
