"""What a simulation assumed, and what nobody had observed, in sentences."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from kubenode.model.decision import Action, KubeadmUpgrade
from kubenode.plan.kubernetes.gates import names
from kubenode.plan.simulate.cluster import Cluster
from kubenode.plan.simulate.durations import LOOK_EVERY
from kubenode.plan.simulate.machine import Machine

_ETCD_36_SINCE = (1, 34)


def notes(machines: Mapping[str, Machine], cluster: Cluster, actions: Iterable[Action]) -> tuple[str, ...]:
    """Return what a reader has to know before trusting a timeline."""
    found = [
        "Durations are assumptions, not measurements of these machines, and everything is assumed to succeed: every "
        f"download, drain and health gate. Nodes that wait look again every {LOOK_EVERY // timedelta(minutes=1)} "
        "minutes."
    ]
    members = {name: it for name, it in machines.items() if it.desired.cluster is not None}
    blind = [name for name, it in members.items() if not it.sees_api]
    if members and cluster.version is None:
        found.append("Nobody observed the cluster itself: members begin nothing that disturbs it.")
    elif blind:
        found.append(f"Not observed: the cluster as {names(blind)} sees it; without the API a member begins nothing.")
    foreign = cluster.nodes.keys() - machines.keys()
    if foreign:
        found.append(
            f"In the cluster, but not observed themselves, so they stay as the others see them: {names(foreign)}."
        )
    unknown = [name for name in members if name in cluster.nodes and name not in cluster.pods and name not in blind]
    if unknown:
        found.append(f"Not observed: the pods of {names(unknown)}; a node whose pods cannot be seen is not drained.")
    moves = {action.version.minor for action in actions if isinstance(action, KubeadmUpgrade)}
    if any(minor >= _ETCD_36_SINCE for minor in moves):
        found.append("Which etcd a release brings is not in git: 3.5.26 or newer is assumed before Kubernetes 1.34.")
    return tuple(found)
