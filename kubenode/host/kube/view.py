"""One look at a cluster: Node objects, the version of every API server, kubeadm's own record, leases."""

import json

from kubenode.errors import FleetInvalid, TryLater
from kubenode.host.kube import apiservers, nodes
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed, NotFound
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.names import NODES, STATUS_ANNOTATION
from kubenode.host.kube.reading import Object, find, name_of, text
from kubenode.host.kube.seen import ClusterNode, ClusterView
from kubenode.model.plain import Plain
from kubenode.trust import strictyaml

_KUBEADM_CONFIG = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"


def look(api: Api) -> ClusterView:
    """Return what this identity sees; pods and etcd are others' to add. Raises TryLater, HostError: never a part."""
    seen = tuple(sorted((node_of(it) for it in api.list(NODES)), key=lambda node: node.name))
    return ClusterView(kubeadm_version(api), seen, _apiservers(api, seen), Leases(api).all())


def node_of(it: Object) -> ClusterNode:
    """Return a Node object's facts."""
    return ClusterNode(
        name_of(it),
        nodes.is_ready(it),
        nodes.is_cordoned(it),
        nodes.is_control_plane(it),
        text(it, "status", "nodeInfo", "kubeletVersion", default=""),
        text(it, "status", "nodeInfo", "bootID", default=""),
        nodes.addresses(it),
        _report(it),
    )


def kubeadm_version(api: Api) -> str:
    """Return kubernetesVersion of the ClusterConfiguration, which kubeadm keeps in the cluster ("v1.34.2")."""
    try:
        config = text(api.get(_KUBEADM_CONFIG), "data", "ClusterConfiguration")
        return text(strictyaml.load(config.encode(), "kubeadm-config").value, "kubernetesVersion")
    except NotFound as error:
        raise TryLater("the cluster has no kubeadm-config yet: `kubeadm init` has not finished") from error
    except FleetInvalid as error:
        raise Malformed(f"the ClusterConfiguration in kube-system/kubeadm-config cannot be read: {error}") from error


def _apiservers(api: Api, seen: tuple[ClusterNode, ...]) -> tuple[tuple[str, str | None], ...]:
    """Return the version of each API server by node; a control plane that none of them belongs to has None."""
    places = apiservers.places(api)
    versions = apiservers.versions(api, places)
    owners = {address: node.name for node in seen for address in node.addresses}
    found = {owners.get(place[0], place[0]): version for place, version in versions.items()}
    missing: dict[str, str | None] = {node.name: None for node in seen if node.control_plane and node.name not in found}
    return tuple(sorted({**found, **missing}.items()))


def _report(it: Object) -> Plain:
    """Return the report in a Node's annotation: its agent's word about itself, and only an object of a bounded size."""
    value = find(it, "metadata", "annotations", STATUS_ANNOTATION)
    if not isinstance(value, str) or len(value) > nodes.MAX_REPORT:
        return None
    try:
        found: Plain = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
