"""Node objects: what they say, cordon and uncordon, the report in an annotation, removal.

Everything is changed by merge patches of single fields, so that nothing of others is written over.
"""

import json

from kubenode.errors import HostError, TryLater
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, NotFound
from kubenode.host.kube.names import ACCOUNT_ANNOTATION, CORDON_ANNOTATION, NODES, SOCKET_ANNOTATION, STATUS_ANNOTATION
from kubenode.host.kube.reading import Object, find, flag, items, text, texts
from kubenode.model.plain import Plain

MAX_REPORT = 16 << 10
"""Bytes of the annotation; all annotations of an object share 256 KiB, and every Node is read at every tick."""
_ROLE_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


def cordon(api: Api, node: str) -> None:
    """Let nothing new be scheduled on a node, and leave our mark; one that a person cordoned gets no mark."""
    found = _get(api, node)
    if not is_cordoned(found):
        # With its resourceVersion: a person's cordon in between must not become ours.
        metadata = {
            "annotations": {CORDON_ANNOTATION: "true"},
            "resourceVersion": text(found, "metadata", "resourceVersion"),
        }
        _patch(api, node, {"metadata": metadata, "spec": {"unschedulable": True}})


def uncordon(api: Api, node: str) -> None:
    """Take back our cordon; a node without our mark stays as it is."""
    if is_ours(_get(api, node)):
        _patch(api, node, {"metadata": {"annotations": {CORDON_ANNOTATION: None}}, "spec": {"unschedulable": None}})


def report(api: Api, node: str, status: Plain, account: str | None = None) -> None:
    """Write a node's report and its account (None: it stays as it is) into their annotations, both at once.

    Raises HostError when one of them is larger than MAX_REPORT.
    """
    value = json.dumps(status, separators=(",", ":"), ensure_ascii=True, sort_keys=True)
    annotations = {STATUS_ANNOTATION: value, **({} if account is None else {ACCOUNT_ANNOTATION: account})}
    for written in annotations.values():
        if len(written) > MAX_REPORT:
            raise HostError(
                f"the report of {node} has {len(written)} bytes, more than {MAX_REPORT}",
                hint="This is a mistake in kubenode: please report it with /var/lib/kubenode/status.json.",
            )
    _patch(api, node, {"metadata": {"annotations": annotations}})


def mark_socket(api: Api, node: str, socket: str) -> None:
    """Write a node's CRI socket where kubeadm writes it."""
    _patch(api, node, {"metadata": {"annotations": {SOCKET_ANNOTATION: socket}}})


def delete(api: Api, node: str) -> bool:
    """Remove a Node object; False when it was gone."""
    return api.delete(path_of(NODES, node))


def is_ready(node: Object) -> bool:
    """Return whether the condition Ready is True; Unknown is not."""
    conditions = items(node, "status", "conditions")
    return any(find(it, "type") == "Ready" and find(it, "status") == "True" for it in conditions)


def is_cordoned(node: Object) -> bool:
    """Return whether nothing new is scheduled there."""
    return flag(node, "spec", "unschedulable")


def is_ours(node: Object) -> bool:
    """Return whether kubenode cordoned it."""
    return CORDON_ANNOTATION in texts(node, "metadata", "annotations")


def is_control_plane(node: Object) -> bool:
    """Return whether kubeadm labelled it as a control plane; kubelets cannot (NodeRestriction)."""
    labels = find(node, "metadata", "labels") or {}
    return any(label in labels for label in _ROLE_LABELS)


def addresses(node: Object, kind: str = "InternalIP") -> tuple[str, ...]:
    """Return a node's addresses of one kind."""
    return tuple(
        text(it, "address") for it in items(node, "status", "addresses") if text(it, "type", default="") == kind
    )


def _get(api: Api, node: str) -> Object:
    try:
        return api.get(path_of(NODES, node))
    except NotFound as error:
        raise _gone(node) from error


def _patch(api: Api, node: str, change: Object) -> None:
    try:
        api.patch(path_of(NODES, node), change)
    except NotFound as error:
        raise _gone(node) from error
    except Conflict as error:
        raise TryLater(
            f"the node {node} was changed by somebody else just now",
            hint="Nothing to do: the next tick writes it again.",
        ) from error


def _gone(node: str) -> HostError:
    return HostError(
        f"the cluster has no node {node}",
        hint="somebody removed it while its machine runs; restart kubelet there and it registers again",
    )
