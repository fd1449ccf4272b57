"""The access rules that kubenode installs: what an agent on a worker may do beyond its kubelet, and no more.

RBAC cannot bind a verb to "my own object", so own pods and the own Node are reached as the kubelet, whom the node
authorizer confines. Nor can it restrict `create` by name, so control planes create the leases (kubernetes.io, "Using
RBAC Authorization", "Referring to resources").
"""

import re
from collections.abc import Iterable, Mapping, Set

from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, NotFound
from kubenode.host.kube.names import NAMESPACE, RBAC
from kubenode.host.kube.reading import Object, items, name_of
from kubenode.plan.kubernetes.requests import AGENTS, pool_group

_API = "rbac.authorization.k8s.io/v1"
_SLOTS = "kubenode:slots:"
_ADMINISTRATORS = "kubeadm:cluster-admins"
_LEASE = re.compile(r"slot-pool-(.+)-[0-9]+")
_COMPARED = ("rules", "roleRef", "subjects")


def objects(slots: Mapping[str, frozenset[str]]) -> tuple[Object, ...]:
    """Return the rules; `slots` are the lease names of each pool. Every object has its kind and namespace."""
    found = [
        _role("ClusterRole", "kubenode:agent", "", _rule("", "nodes", ("get", "list"))),
        _binding("ClusterRoleBinding", "kubenode:agent", "", AGENTS),
        _role("Role", "kubenode:agent", NAMESPACE, _rule("coordination.k8s.io", "leases", ("get", "list"))),
        _binding("RoleBinding", "kubenode:agent", NAMESPACE, AGENTS),
        _role("Role", "kubenode:agent", "kube-system", _rule("", "configmaps", ("get",), ("kubeadm-config",))),
        _binding("RoleBinding", "kubenode:agent", "kube-system", AGENTS),
        # Where every API server is: the list that they keep themselves.
        _role("Role", "kubenode:agent", "default", _rule("", "endpoints", ("get",), ("kubernetes",))),
        _binding("RoleBinding", "kubenode:agent", "default", AGENTS),
    ]
    for pool, names in sorted(slots.items()):
        name = f"{_SLOTS}{pool}"
        # A rule without names would allow all leases.
        if names:
            rule = _rule("coordination.k8s.io", "leases", ("update",), tuple(sorted(names)))
            found += [_role("Role", name, NAMESPACE, rule), _binding("RoleBinding", name, NAMESPACE, pool_group(pool))]
    return tuple(found)


def install(api: Api, slots: Mapping[str, frozenset[str]]) -> int:
    """Make the namespace and the rules what they should be; return how many objects were changed."""
    changed = 0
    try:
        api.get(path_of("/api/v1/namespaces", NAMESPACE))
    except NotFound:
        changed += _create(api, "/api/v1/namespaces", _object("v1", "Namespace", NAMESPACE))
    for wanted in objects(slots):
        changed += _ensure(api, wanted)
    for pool in sorted(set(allowed(api)) - {pool for pool, names in slots.items() if names}):
        # A pool that git does not have any more: its nodes' certificates live on for a while.
        for plural in ("rolebindings", "roles"):
            changed += api.delete(path_of(f"{RBAC}/namespaces/{NAMESPACE}/{plural}", f"{_SLOTS}{pool}"))
    return changed


def slots(leases: Set[str], pools: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the leases of each of these pools, by name: those of control planes are no pool's."""
    found: dict[str, set[str]] = {}
    known = frozenset(pools)
    for name in leases:
        match = _LEASE.fullmatch(name)
        if match is not None and match[1] in known:
            found.setdefault(match[1], set()).add(name)
    return {pool: frozenset(names) for pool, names in sorted(found.items())}


def administrators(api: Api) -> str:
    """Return the group of administrators: kubeadm has one of its own since 1.29."""
    try:
        api.get(path_of(f"{RBAC}/clusterrolebindings", _ADMINISTRATORS))
    except NotFound:
        return "system:masters"
    return _ADMINISTRATORS


def allowed(api: Api) -> dict[str, frozenset[str]]:
    """Return the lease names that each pool's agents may take, as the rules in the cluster say now."""
    found = {}
    for role in api.list(f"{RBAC}/namespaces/{NAMESPACE}/roles"):
        _, ours, pool = name_of(role).partition(_SLOTS)
        if ours and pool:
            names = [str(name) for rule in items(role, "rules") for name in items(rule, "resourceNames")]
            found[pool] = frozenset(names)
    return found


def _ensure(api: Api, wanted: Object) -> int:
    group = _folder(wanted)
    path = path_of(group, name_of(wanted))
    try:
        found = api.get(path)
    except NotFound:
        return _create(api, group, wanted)
    if all(_same(wanted.get(key), found.get(key)) for key in _COMPARED):
        return 0
    if not _same(wanted.get("roleRef"), found.get("roleRef")):
        # A binding's role cannot be changed.
        api.delete(path)
        return _create(api, group, wanted)
    api.replace(path, wanted)
    return 1


def _create(api: Api, group: str, wanted: Object) -> int:
    try:
        api.create(group, wanted)
    except Conflict:
        # Another control plane was faster.
        return 0
    return 1


def _same(wanted: object, found: object) -> bool:
    return (wanted or None) == (found or None)


def _folder(it: Object) -> str:
    plural = f"{it['kind'].lower()}s"
    namespace = it["metadata"].get("namespace")
    return f"{RBAC}/namespaces/{namespace}/{plural}" if namespace else f"{RBAC}/{plural}"


def _object(version: str, kind: str, name: str, namespace: str = "") -> Object:
    place = {"namespace": namespace} if namespace else {}
    labels = {"app.kubernetes.io/managed-by": "kubenode"}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **place, "labels": labels}}


def _rule(group: str, resource: str, verbs: tuple[str, ...], names: tuple[str, ...] = ()) -> Object:
    rule: Object = {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
    return {**rule, "resourceNames": list(names)} if names else rule


def _role(kind: str, name: str, namespace: str, rule: Object) -> Object:
    return {**_object(_API, kind, name, namespace), "rules": [rule]}


def _binding(kind: str, name: str, namespace: str, group: str) -> Object:
    role = "Role" if namespace else "ClusterRole"
    return {
        **_object(_API, kind, name, namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    }
