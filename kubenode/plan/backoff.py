"""How long to wait after failures, and when to stop trying."""

from datetime import UTC, datetime, timedelta

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
    Stuck,
    Uncordon,
    Wait,
    WriteSlot,
)
from kubenode.model.journal import Attempt, Journal

FIRST_DELAY = timedelta(minutes=1)
LONGEST_DELAY = timedelta(hours=1)

BUDGETS = {
    "write": 5,
    "activate": 5,
    "retire": 5,
    "restore": 5,
    "reboot": 3,
    "prepare": 5,
    "snapshot": 5,
    "upgrade": 5,
    "configure": 5,
}
"""Failures in a row after which a step is given up for a release (or a configuration).

What depends on the network or on other machines, or only tidies up, is tried for ever: it harms nothing and nobody need
look at it.
"""

_SOON = frozenset(("drain", "acquire", "release", "cordon", "uncordon", "report"))
"""Steps that are tried again every minute: others wait for what this node holds, or they fail only in a race."""


def _named(action: Action) -> tuple[str, str, str]:
    """Return the step of an action, what it is done to, and both in words."""
    match action:
        case FetchRelease(release):
            return "fetch", release.manifest, f"Fetching release {release.version}"
        case WriteSlot(release):
            return "write", release.manifest, f"Writing release {release.version}"
        case ActivateSlot(release):
            return "activate", release.manifest, f"Activating release {release.version}"
        case Reboot(release):
            return "reboot", release.manifest, f"Restarting into release {release.version}"
        case RetireEntry(entry):
            return "retire", entry.root_hash, f"Removing the boot entry of release {entry.version}"
        case RestoreEntry(entry):
            return "restore", entry.root_hash, f"Making good again the boot entry of release {entry.version}"
        case PoisonRelease(version, root_hash):
            return "poison", root_hash, f"Recording the failed trial of release {version}"
        case PruneStaging():
            return "prune", "staging", "Deleting downloads that are not needed"
        case KubeadmInit(version):
            return "init", str(version), f"kubeadm init {version}"
        case KubeadmJoin(role):
            return "join", role, f"kubeadm join as a {role}"
        case PullImages(release):
            return "pull", release.manifest, f"Pulling the control plane images of release {release.version}"
        case PrepareKubelet(release):
            return "prepare", release.manifest, f"Preparing kubelet for release {release.version}"
        case SnapshotEtcd(release):
            return "snapshot", release.manifest, f"Saving etcd before release {release.version}"
        case KubeadmUpgrade(release, version):
            return "upgrade", release.manifest, f"Moving the control plane to {version} of release {release.version}"
        case Reconfigure(configuration):
            return "configure", configuration, f"Applying the kubeadm configuration {configuration[:12]}"
        case RenewCertificates():
            return "renew", "certificates", "Renewing the certificates"
        case RestartStaticPods(names):
            return "revive", ",".join(sorted(names)), f"Having the kubelet make {', '.join(sorted(names))} anew"
        case PruneKubeadm():
            return "prune", "kubeadm", "Deleting kubeadm's leftovers"
    return _named_in_cluster(action)


def _named_in_cluster(action: Action) -> tuple[str, str, str]:
    match action:
        case CreateLeases():
            return "leases", "all", "Creating leases"
        case AcquireLease(name):
            return "acquire", name, f"Taking the lease {name}"
        case ReleaseLease(name):
            return "release", name, f"Giving back the lease {name}"
        case Cordon(node):
            return "cordon", node, f"Cordoning {node}"
        case Drain(node):
            return "drain", node, f"Draining {node}"
        case Uncordon(node):
            return "uncordon", node, f"Uncordoning {node}"
        case PublishReport():
            return "report", "node", "Publishing this node's report"
        case RemoveEtcdMember(name, member):
            return "member", member, f"Removing the etcd member {name or member}"
        case DeleteNode(name):
            return "delete", name, f"Deleting the Node {name}"
        case SetTokens():
            return "tokens", "nodes", "Publishing bootstrap tokens"
        case ApproveRequests():
            return "approve", "requests", "Approving certificate requests"
    raise TypeError(type(action).__name__)


def step_of(action: Action) -> str:
    """Return the step of an action, as in its key."""
    return _named(action)[0]


def step_key(action: Action) -> str:
    """Return the key of an action in `Journal.attempts`: "<step>:<manifest digest>", or what else it is done to."""
    step, subject, _ = _named(action)
    return f"{step}:{subject}"


def in_words(action: Action) -> str:
    """Return what an action does, for people: "Fetching release 2.0"."""
    return _named(action)[2]


def delay(failures: int) -> timedelta:
    """Return how long to wait after so many failures in a row: a minute, doubled each time, at most an hour."""
    return min(FIRST_DELAY * 2 ** min(failures - 1, 10), LONGEST_DELAY) if failures > 0 else timedelta(0)


def held_back(action: Action, journal: Journal, now: datetime) -> Wait | Stuck | None:
    """Return why this action may not be tried now, None when it may."""
    step, subject, what = _named(action)
    attempt = journal.attempts.get(f"{step}:{subject}")
    if attempt is None:
        return None
    if attempt.failures >= BUDGETS.get(step, attempt.failures + 1):
        return Stuck(
            f"{step.capitalize()}Budget",
            f"{what} has failed {_times(attempt)}, so it is not tried again{_last_error(attempt)}.",
            "Find the cause in the machine's journal (journalctl -u kubenode-reconcile). Then publish another release, "
            "or delete the agent's journal.json on the node: it counts anew from there.",
        )
    span = min(delay(attempt.failures), FIRST_DELAY) if step in _SOON else delay(attempt.failures)
    return backing_off(what, attempt, span, now)


def backing_off(what: str, attempt: Attempt, span: timedelta, now: datetime) -> Wait | None:
    """Return the wait for `span` after an attempt, None when it is over."""
    since = now - attempt.last
    # A time of failure in the future means that the clock was set back: waiting for it could take years.
    if timedelta(0) <= since < span:
        until = later(now, span - since)
        return Wait(
            "Backoff",
            f"{what} has failed {_times(attempt)}; the next try is at {until:%H:%M:%S} UTC{_last_error(attempt)}.",
            until,
        )
    return None


def _times(attempt: Attempt) -> str:
    return "once" if attempt.failures == 1 else f"{attempt.failures} times"


def _last_error(attempt: Attempt) -> str:
    return f" (last: {attempt.error.rstrip('.')})" if attempt.error else ""


def later(now: datetime, span: timedelta) -> datetime:
    """Return `now + span`, or the last moment there is: times come from clocks that may be wrong, and from others."""
    try:
        return now + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
