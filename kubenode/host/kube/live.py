"""The cluster as a laptop sees it: one look by the operator's kubeconfig, and what every node says of itself.

A laptop sees less than a control plane: no etcd, no bootstrap tokens, no certificate requests, and perhaps not every
API server. `Live.unseen` says so in words; nothing that is not seen is taken as healthy. It changes nothing.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from json import loads
from pathlib import Path

from kubenode.host.clock import SystemClock
from kubenode.host.kube import apiservers, drain
from kubenode.host.kube.client import Api
from kubenode.host.kube.kubeconfig import load_kubeconfig
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.names import ACCOUNT_ANNOTATION, NODES
from kubenode.host.kube.reading import Object, name_of, shown, texts
from kubenode.host.kube.view import kubeadm_config, node_of, owned
from kubenode.model.kubernetes import Answer, ClusterNode, ClusterView, EvictablePod, KubernetesVersion
from kubenode.plan.observations import MAX_ACCOUNT, Report, digest, read

SILENT_AFTER = timedelta(hours=6)
"""A tick of a member may take four hours, and a node says something at the end of each."""
_SECONDS = 5
"""For each API server: not all of them need be reachable from a laptop, and they are asked at once."""
_MOST_CORDONED = 50
"""Nodes whose pods are listed, one request each."""


@dataclass(frozen=True)
class Live:
    """What can be seen of a cluster from a laptop.

    `view`: by the operator's kubeconfig, `me` is nobody. `reports`: one for each node with a readable account, by name,
    with this very view (seen as that node) in `observed.cluster`. `messages`: each node's own last sentence, empty when
    there is none. `silent`: why a node has no usable report. `told`: when each report was written, aware, in UTC.
    `unseen`: what of the cluster cannot be seen from here, in words.
    """

    view: ClusterView
    reports: tuple[Report, ...]
    messages: Mapping[str, str]
    silent: Mapping[str, str]
    told: Mapping[str, datetime] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()


def look(kubeconfig: Path, context: str | None = None) -> Live:
    """Look once. Raises TryLater when the API does not answer, HostError when it refuses or the kubeconfig is none."""
    with Api(load_kubeconfig(kubeconfig, context)) as api:
        objects = sorted(api.list(NODES), key=name_of)
        version, configuration = kubeadm_config(api)
        nodes = tuple(node_of(it) for it in objects)
        accounts = {name_of(it): texts(it, "metadata", "annotations").get(ACCOUNT_ANNOTATION, "") for it in objects}
        serving = _serving(api, objects)
        view = ClusterView(
            me="",
            version=version,
            nodes=nodes,
            apiservers=serving,
            configuration=configuration,
            leases=Leases(api).all(),
            pods=_pods(api, nodes),
        )
    return live(view, accounts, SystemClock().now())


def live(view: ClusterView, accounts: Mapping[str, str], now: datetime) -> Live:
    """Put together one look: `accounts` are the annotations by node. Raises nothing."""
    found: list[Report] = []
    messages: dict[str, str] = {}
    silent: dict[str, str] = {}
    for node in view.nodes:
        messages[node.name] = ""
        try:
            report = _report(node, accounts.get(node.name, ""), now)
        except ValueError as error:
            silent[node.name] = shown(error)
            continue
        found.append(report)
        messages[node.name] = shown(report.message, 500)
    answering = view.apiservers
    view = replace(view, apiservers=_as_told(view, found))
    answers = tuple(Answer(name, version) for name, version in view.apiservers.items() if version is not None)
    reports = tuple(
        replace(it, observed=replace(it.observed, cluster=view.seen_by(it.node, it.etcd), answers=answers))
        for it in found
    )
    told = {it.name: it.report.at for it in view.nodes if it.report is not None and it.report.at is not None}
    return Live(view, reports, messages, silent, told, tuple(_unseen(answering, reports)))


def _report(node: ClusterNode, written: str, now: datetime) -> Report:
    """Read a node's account. Raises ValueError saying why it is of no use."""
    if node.report is None:
        raise ValueError(
            "no agent has reported there yet (or not readably): is kubenode-reconcile.timer running on it?"
        )
    if not node.report.account or node.report.at is None:
        # Also that of an older agent which runs again after a fallback: what a newer one told is not true any more.
        raise ValueError(f"the agent of release {node.report.release} does not tell what it sees; a newer release does")
    if len(written) > MAX_ACCOUNT or digest(written) != node.report.account:
        raise ValueError("its account is not the one that its report names; its agent writes it anew at its next tick")
    if now - node.report.at > SILENT_AFTER:
        raise ValueError(f"its agent has said nothing since {node.report.at:%Y-%m-%d %H:%M} UTC")
    try:
        report = read(loads(written))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its account cannot be used: {error}") from error
    if report.node != node.name:
        raise ValueError(f"its account is that of {report.node}")
    if node.boot_id and report.observed.boot_id != node.boot_id:
        raise ValueError("it has restarted since its agent told last; the next tick tells what became of it")
    return report


def _serving(api: Api, objects: list[Object]) -> dict[str, KubernetesVersion | None]:
    """Return the version of each API server by node; None where none answers from here."""
    places = apiservers.places(api)
    with ThreadPoolExecutor(max_workers=max(1, len(places))) as pool:
        asked = pool.map(lambda place: apiservers.versions(api, (place,), _SECONDS), places)
        return owned({place: version for one in asked for place, version in one.items()}, objects)


def _as_told(view: ClusterView, reports: Iterable[Report]) -> dict[str, KubernetesVersion | None]:
    """Fill in for API servers that cannot be reached from here what a Ready control plane's own manifest says."""
    own = {it.node: it.observed.kubernetes.manifests.get("kube-apiserver") for it in reports if it.observed.kubernetes}
    ready = {it.name for it in view.nodes if it.ready}
    return {name: version or (own.get(name) if name in ready else None) for name, version in view.apiservers.items()}


def _pods(api: Api, nodes: tuple[ClusterNode, ...]) -> dict[str, tuple[EvictablePod, ...]]:
    """Return what a drain still has to move from nodes that are cordoned, whoever did that.

    What runs on the others decides nothing: a node is cordoned before anybody looks at its pods. Of very many cordoned
    nodes the rest is left out, which says that their pods are not known.
    """
    cordoned = [it.name for it in nodes if it.cordoned]
    found: dict[str, tuple[EvictablePod, ...]] = {it.name: () for it in nodes if not it.cordoned}
    return found | {name: drain.left_on(api, name) for name in cordoned[:_MOST_CORDONED]}


def _unseen(answering: Mapping[str, KubernetesVersion | None], reports: tuple[Report, ...]) -> Iterable[str]:
    told = sorted(it.node for it in reports if it.etcd is not None)
    yield "etcd" + (f" (taken from what {', '.join(told)} told of it)" if told else "")
    yield "bootstrap tokens and certificate requests"
    away = sorted(name for name, version in answering.items() if version is None)
    if len(away) == 1:
        yield f"the API server of {away[0]}, which does not answer from here"
    elif away:
        yield f"the API servers of {', '.join(away)}, which do not answer from here"
