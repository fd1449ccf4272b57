"""How long things are assumed to take. Not measured on your machines; docs/simulate.md says where each comes from.

What is measured was measured in virtual machines without KVM, so most of it is slower than hardware; a server's
firmware, a slow line and pods that take long to end are slower than this.
"""

from datetime import timedelta

from kubenode.model.decision import (
    Action,
    ActivateSlot,
    Drain,
    FetchRelease,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PrepareKubelet,
    PullImages,
    Reboot,
    Reconfigure,
    RenewCertificates,
    SnapshotEtcd,
    WriteSlot,
)

LOOK_EVERY = timedelta(minutes=5)
"""A node that waits looks again so often (kubenode-reconcile.timer)."""

TRIAL = timedelta(seconds=60)
"""What is left of a trial boot that was seen running."""

SECONDS: dict[type[Action], int] = {
    FetchRelease: 60,
    WriteSlot: 20,
    ActivateSlot: 5,
    Reboot: 100,
    PullImages: 90,
    PrepareKubelet: 10,
    SnapshotEtcd: 10,
    KubeadmUpgrade: 180,
    KubeadmInit: 356,
    KubeadmJoin: 120,
    Reconfigure: 120,
    RenewCertificates: 60,
    Drain: 60,
}
"""By action; what is not named (leases, marks, reports, tidying up) takes no time worth showing."""


def lasts(action: Action) -> timedelta:
    """Return how long an action is assumed to take."""
    return timedelta(seconds=SECONDS.get(type(action), 0))
