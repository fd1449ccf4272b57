"""Draining by the Eviction API: one pass asks for what is still there and says what is left. It waits for nothing.

Left alone, as `kubectl drain` does: pods of DaemonSets, mirror pods of static pods, pods that have ended. A pod is gone
when its object is gone, not when its eviction was accepted. Pods without a controller are evicted, too, and nobody
makes them anew. Source: Kubernetes, "Safely Drain a Node", "API-initiated Eviction".
"""

from kubenode.errors import TryLater
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, NotFound, ServerFailed, Throttled
from kubenode.host.kube.names import PODS
from kubenode.host.kube.reading import Object, find, flag, items, name_of, text, texts
from kubenode.model.kubernetes import EvictablePod

_MIRROR = "kubernetes.io/config.mirror"
_ENDED = ("Succeeded", "Failed")
_BUDGET = "disruption budget "


def evictable(api: Api, node: str) -> tuple[Object, ...]:
    """Return the pods on a node that a drain has to move, by namespace and name."""
    found = [pod for pod in api.list(PODS, fieldSelector=f"spec.nodeName={node}") if _moves(pod)]
    return tuple(sorted(found, key=_key))


def evict_some(api: Api, node: str, *, force: bool = False) -> tuple[EvictablePod, ...]:
    """Ask for the eviction of each pod that is still there; return what is left, and what keeps it.

    With `force`, pods that a disruption budget keeps are deleted instead, with the grace they ask for. Raises TryLater
    and HostError when the server cannot be asked; pods evicted before that stay evicted.
    """
    version = ""
    left = []
    for pod in evictable(api, node):
        if _ending(pod):
            left.append(_left(pod, ending=True))
            continue
        version = version or eviction_version(api)
        kept = _evict(api, pod, version, force)
        if kept is not None:
            left.append(kept)
    return tuple(left)


def eviction_version(api: Api) -> str:
    """Return the version of the Eviction API that the server offers, "policy/v1" (since 1.22) or "policy/v1beta1"."""
    for resource in items(api.get("/api/v1"), "resources"):
        if find(resource, "name") == "pods/eviction":
            return f"{text(resource, 'group', default='policy')}/{text(resource, 'version', default='v1')}"
    raise TryLater(
        "the API server offers no evictions yet",
        hint="Wait until the API server has started; kubectl get --raw /api/v1 lists pods/eviction then.",
    )


def left_on(api: Api, node: str) -> tuple[EvictablePod, ...]:
    """Return what a drain of this node still has to move, without moving anything."""
    return tuple(_left(pod, ending=_ending(pod)) for pod in evictable(api, node))


def _evict(api: Api, pod: Object, version: str, force: bool) -> EvictablePod | None:
    """Evict one pod; return it when it is still there or may not go."""
    namespace, name = _key(pod)
    # The uid: a pod of a StatefulSet comes back under the same name, on another node.
    options = {"preconditions": {"uid": text(pod, "metadata", "uid")}}
    path = path_of("/api/v1/namespaces", namespace, "pods", name)
    body = {
        "apiVersion": version, "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options,
    }  # fmt: skip
    try:
        api.create(f"{path}/eviction", body)
    except (NotFound, Conflict):
        return None
    except (Throttled, ServerFailed) as error:
        # 500: more than one budget covers the pod, or its budget cannot be worked out. Other pods can still go.
        if not force:
            return _left(pod, _budget(error), error.message)
        try:
            api.delete(path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})
        except Conflict:
            return None
    return _left(pod, ending=True)


def _budget(error: TryLater) -> str | None:
    """Return the name of the budget in "The disruption budget NAME needs ..." (the cause of a 429)."""
    for cause in getattr(error, "causes", ()):
        _, found, rest = cause.partition(_BUDGET)
        if found and rest:
            return str(rest.split()[0])
    return None


def _left(pod: Object, budget: str | None = None, why: str = "", *, ending: bool = False) -> EvictablePod:
    namespace, name = _key(pod)
    return EvictablePod(namespace, name, ending, budget, why)


def _moves(pod: Object) -> bool:
    if _MIRROR in texts(pod, "metadata", "annotations"):
        return False
    if text(pod, "status", "phase", default="") in _ENDED:
        return False
    return not any(
        flag(owner, "controller") and text(owner, "kind", default="") == "DaemonSet"
        for owner in items(pod, "metadata", "ownerReferences")
    )


def _ending(pod: Object) -> bool:
    return find(pod, "metadata", "deletionTimestamp") is not None


def _key(pod: Object) -> tuple[str, str]:
    return text(pod, "metadata", "namespace"), name_of(pod)
