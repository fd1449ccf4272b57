"""Who may do what in the fake API server: RBAC from its own objects, and a part of the node authorizer.

Sources: the "Using RBAC Authorization" and "Using Node Authorization" pages; `NodeRules` of Kubernetes 1.20.
"""

from dataclasses import dataclass
from typing import Any

from tests.fakes.kubeapi.store import KINDS, Object, Refusal, Store

_RBAC = "rbac.authorization.k8s.io"
_READ = ("get", "list")


@dataclass(frozen=True)
class User:
    """Who asks: name and groups, from the client certificate."""

    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """What is asked for; `resource` with its subresource ("pods/eviction")."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


def require(store: Store, user: User, attempt: Attempt) -> None:
    """Raise the 403 that a real server answers unless some rule allows it."""
    if "system:masters" in user.groups or _node_may(store, user, attempt) or _rules_allow(store, user, attempt):
        return
    where = f' in the namespace "{attempt.namespace}"' if attempt.namespace else " at the cluster scope"
    full = f"{attempt.resource.split('/')[0]}{'.' + attempt.group if attempt.group else ''}"
    raise Refusal(
        403,
        f'{full} "{attempt.name}" is forbidden: User "{user.name}" cannot {attempt.verb} resource '
        f'"{attempt.resource}" in API group "{attempt.group}"{where}',
    )


def _node_may(store: Store, user: User, attempt: Attempt) -> bool:
    if "system:nodes" not in user.groups or not user.name.startswith("system:node:"):
        return False
    own = user.name.removeprefix("system:node:")
    match attempt.resource, attempt.verb:
        case "nodes", "get" | "list":
            return True
        case ("nodes", "patch" | "update") | ("nodes/status", "patch" | "update"):
            return attempt.name == own
        case "pods", "get" | "list":
            return True
        case ("pods/eviction", "create") | ("pods", "delete"):
            pod = store.get(KINDS["", "pods"], attempt.namespace, attempt.name)
            return bool(pod["spec"].get("nodeName") == own)
        case "certificatesigningrequests", "create" | "get" | "list":
            return True
    return False


def _rules_allow(store: Store, user: User, attempt: Attempt) -> bool:
    for binding in store.all(KINDS[_RBAC, "clusterrolebindings"]):
        if _names(binding, user):
            role = _role(store, "clusterroles", "", binding["roleRef"]["name"])
            if any(_matches(rule, attempt) for rule in role.get("rules", [])):
                return True
    for binding in store.all(KINDS[_RBAC, "rolebindings"], attempt.namespace) if attempt.namespace else []:
        if _names(binding, user):
            reference = binding["roleRef"]
            plural, space = ("clusterroles", "") if reference["kind"] == "ClusterRole" else ("roles", attempt.namespace)
            if any(_matches(rule, attempt) for rule in _role(store, plural, space, reference["name"]).get("rules", [])):
                return True
    return False


def _role(store: Store, plural: str, namespace: str, name: str) -> Object:
    try:
        return store.get(KINDS[_RBAC, plural], namespace, name)
    except Refusal:
        return {}


def _names(binding: Object, user: User) -> bool:
    return any(
        (it["kind"] == "User" and it["name"] == user.name) or (it["kind"] == "Group" and it["name"] in user.groups)
        for it in binding.get("subjects", [])
    )


def _matches(rule: dict[str, Any], attempt: Attempt) -> bool:
    names = rule.get("resourceNames")
    return (
        bool({"*", attempt.verb} & set(rule["verbs"]))
        and bool({"*", attempt.group} & set(rule.get("apiGroups", [])))
        and bool({"*", attempt.resource} & set(rule.get("resources", [])))
        and (not names or attempt.name in names)
    )
