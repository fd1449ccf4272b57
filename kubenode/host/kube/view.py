"""One look at a cluster: Node objects, the version of every API server, kubeadm's own record, leases."""

import json
from collections.abc import Mapping, Sequence

from kubenode.errors import FleetInvalid, TryLater
from kubenode.host.kube import apiservers, nodes
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed, NotFound
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.names import CONFIGURATION_ANNOTATION, KUBEADM_CONFIG, NODES, STATUS_ANNOTATION
from kubenode.host.kube.reading import Object, name_of, shown, text, texts
from kubenode.model.documents import Role
from kubenode.model.kubernetes import ClusterNode, ClusterView, KubernetesVersion, NodeReport
from kubenode.model.restore import restore
from kubenode.model.texts import harmless
from kubenode.trust import strictyaml


def look(api: Api, me: str) -> ClusterView:
    """Return what every agent may see; what only some may is for others to add.

    Raises TryLater, HostError: what cannot be seen whole is not seen.
    """
    objects = sorted(api.list(NODES), key=name_of)
    version, configuration = kubeadm_config(api)
    return ClusterView(
        me=me,
        version=version,
        nodes=tuple(node_of(it) for it in objects),
        apiservers=owned(apiservers.versions(api, apiservers.places(api)), objects),
        configuration=configuration,
        leases=Leases(api).all(),
    )


def node_of(it: Object) -> ClusterNode:
    """Return a Node object's facts. Raises Malformed when its kubelet reported no version that is one."""
    return ClusterNode(
        name=name_of(it),
        ready=nodes.is_ready(it),
        kubelet=_version(text(it, "status", "nodeInfo", "kubeletVersion", default=""), f"the kubelet of {name_of(it)}"),
        boot_id=text(it, "status", "nodeInfo", "bootID", default=""),
        role=Role.CONTROL_PLANE if nodes.is_control_plane(it) else Role.WORKER,
        cordoned=nodes.is_cordoned(it),
        cordoned_by_us=nodes.is_ours(it),
        report=_report(it),
    )


def kubeadm_config(api: Api) -> tuple[KubernetesVersion, str | None]:
    """Return kubernetesVersion of kubeadm's ClusterConfiguration, and our annotation at its ConfigMap."""
    try:
        found = api.get(KUBEADM_CONFIG)
        config = strictyaml.load(text(found, "data", "ClusterConfiguration").encode(), "kubeadm-config").value
        version = _version(text(config, "kubernetesVersion"), "kubeadm-config")
        return version, texts(found, "metadata", "annotations").get(CONFIGURATION_ANNOTATION)
    except NotFound as error:
        raise TryLater(
            "the cluster has no kubeadm-config yet: `kubeadm init` has not finished",
            hint="Wait for the bootstrap node: its own status says how far it is.",
        ) from error
    except FleetInvalid as error:
        raise Malformed(f"the ClusterConfiguration in kube-system/kubeadm-config cannot be read: {error}") from error


def owned(
    versions: Mapping[tuple[str, int], KubernetesVersion | None], objects: Sequence[Object]
) -> dict[str, KubernetesVersion | None]:
    """Return the version of each API server by node; a control plane that none of them belongs to has None."""
    owners = {address: name_of(it) for it in objects for address in nodes.addresses(it)}
    found = {owners.get(place[0], place[0]): version for place, version in versions.items()}
    silent = {name_of(it): None for it in objects if nodes.is_control_plane(it)}
    return dict(sorted({**silent, **found}.items()))


def _report(it: Object) -> NodeReport | None:
    """Return the report in a Node's annotation: its agent's word about itself, None when it is none."""
    value = texts(it, "metadata", "annotations").get(STATUS_ANNOTATION, "")
    if not value or len(value) > nodes.MAX_REPORT:
        return None
    try:
        return restore(NodeReport, harmless(json.loads(value)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _version(found: str, whose: str) -> KubernetesVersion:
    version = apiservers.parse(found)
    if version is None:
        raise Malformed(f"{whose} has the version {shown(found, 40)!r}, which is none")
    return version
