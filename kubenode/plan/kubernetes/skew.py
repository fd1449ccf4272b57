"""Which versions of Kubernetes may live together.

Source: https://kubernetes.io/releases/version-skew-policy/, kubeadm's upgrade and join pages, and the etcd 3.6 upgrade
notes (https://etcd.io/blog/2025/upgrade_from_3.5_to_3.6_issue/).
"""

from collections.abc import Sequence

from kubenode.model.documents import Role
from kubenode.model.kubernetes import Answer, KubernetesVersion
from kubenode.model.version import Version

_WIDE_SKEW_SINCE = (1, 25)
_ETCD_36_SINCE = (1, 34)
_ETCD_36_FROM = Version("3.5.26")


def kubelet_fits(kubelet: KubernetesVersion, apiserver: KubernetesVersion) -> bool:
    """Say whether an API server accepts a kubelet: never a newer one, and at most three (below 1.25: two) minors older.

    "Newer" counts patches too, which is stricter than the policy and costs nothing: control planes move first anyway.
    """
    return kubelet <= apiserver and within_reach(kubelet, apiserver.minor)


def within_reach(kubelet: KubernetesVersion, minor: tuple[int, int]) -> bool:
    """Say whether a kubelet is not too old for API servers of a minor."""
    allowed = 3 if kubelet.minor >= _WIDE_SKEW_SINCE else 2
    return kubelet.minor[0] == minor[0] and minor[1] - kubelet.minor[1] <= allowed


def may_follow(
    role: Role, kubelet: KubernetesVersion | None, plane: KubernetesVersion | None, new: KubernetesVersion | None
) -> bool:
    """Say whether a member of a cluster may go from a kubelet (and static pods of `plane`) to a release with `new`.

    Kubernetes goes up by minors and never back by one. A control plane moves one minor at a time; a worker may pass
    over as many as API servers of the new minor would accept its old kubelet.
    """
    if kubelet is None or plane is None or new is None:
        return False
    if new.minor < kubelet.minor or not within_reach(kubelet, new.minor):
        return False
    return role is Role.WORKER or (new.minor[0] == plane.minor[0] and new.minor[1] - plane.minor[1] <= 1)


def may_join(role: Role, kubelet: KubernetesVersion | None, answers: Sequence[Answer]) -> bool:
    """Say whether a machine with this kubelet may join the cluster that answers; nobody answering means no.

    kubeadm joins a control plane only at the cluster's own minor, and never while that is changing.
    """
    versions = [answer.version for answer in answers if answer.version is not None]
    # One that answers and does not say its version may be of any.
    if kubelet is None or not versions or len(versions) < len(answers):
        return False
    if not all(kubelet_fits(kubelet, version) for version in versions):
        return False
    return role is Role.WORKER or {version.minor for version in versions} == {kubelet.minor}


def etcd_too_old(etcd: Version, new: KubernetesVersion) -> bool:
    """Say whether a member must be updated before a control plane of `new`: 3.6 is entered from 3.5.26 on only."""
    return new.minor >= _ETCD_36_SINCE and etcd < _ETCD_36_FROM
