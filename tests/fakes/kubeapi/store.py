"""The objects of the fake API server and their rules: resource versions, patches, deletion, eviction, pages.

It does what `tests/contract/kube_suite.py` asks of a real kube-apiserver, and no more: no watch, no defaults, no
validation beyond what kubenode can meet.
"""

import base64
import copy
import json
import re
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed",
    409: "Conflict", 410: "Expired", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError",
}  # fmt: skip
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.:]*[a-z0-9])?")
_ANNOTATIONS = 256 << 10


class Refusal(Exception):
    """What becomes a Status object."""

    def __init__(self, code: int, message: str, reason: str = "", causes: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason or REASONS[code], "code": code,
        }  # fmt: skip
        if causes:
            self.status["details"] = {"causes": [{"reason": kind, "message": said} for kind, said in causes]}


@dataclass(frozen=True)
class Kind:
    """A resource: its API group, whether it lives in a namespace, and the names of its versions."""

    group: str
    plural: str
    kind: str
    namespaced: bool
    versions: tuple[str, ...] = ("v1",)


KINDS = {
    (kind.group, kind.plural): kind
    for kind in (
        Kind("", "nodes", "Node", False),
        Kind("", "namespaces", "Namespace", False),
        Kind("", "pods", "Pod", True),
        Kind("", "configmaps", "ConfigMap", True),
        Kind("", "secrets", "Secret", True),
        Kind("", "endpoints", "Endpoints", True),
        Kind("coordination.k8s.io", "leases", "Lease", True),
        Kind("certificates.k8s.io", "certificatesigningrequests", "CertificateSigningRequest", False),
        Kind("policy", "poddisruptionbudgets", "PodDisruptionBudget", True, ("v1", "v1beta1")),
        Kind("rbac.authorization.k8s.io", "roles", "Role", True),
        Kind("rbac.authorization.k8s.io", "rolebindings", "RoleBinding", True),
        Kind("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", False),
        Kind("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", False),
    )
}


class Store:
    """All objects by (kind, namespace, name); one lock makes every request atomic."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.objects: dict[tuple[str, str, str, str], Object] = {}
        self.revision = 100
        self._pages: dict[str, list[Object]] = {}
        for name in ("default", "kube-public", "kube-system"):
            self.create(KINDS["", "namespaces"], "", {"metadata": {"name": name}})

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return self.objects[kind.group, kind.plural, namespace, name]
        except KeyError:
            raise Refusal(404, f'{_full(kind)} "{name}" not found') from None

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        wanted = (kind.group, kind.plural)
        found = [(key, it) for key, it in self.objects.items() if key[:2] == wanted and namespace in ("", key[2])]
        return [it for _, it in sorted(found, key=lambda pair: pair[0])]

    def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        metadata = body.setdefault("metadata", {})
        name = metadata.get("name", "")
        if not _NAME.fullmatch(name):
            raise Refusal(422, f'{kind.kind} "{name}" is invalid: metadata.name: Invalid value')
        if kind.namespaced:
            self.get(KINDS["", "namespaces"], "", namespace)
            metadata["namespace"] = namespace
        if (kind.group, kind.plural, namespace, name) in self.objects:
            raise Refusal(409, f'{_full(kind)} "{name}" already exists', "AlreadyExists")
        if metadata.pop("resourceVersion", ""):
            raise Refusal(400, "resourceVersion should not be set on objects to be created")
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body["kind"] = kind.kind
        return self._keep(kind, namespace, name, body)

    def replace(self, kind: Kind, namespace: str, name: str, body: Object, part: str = "") -> Object:
        """Replace an object, or only `part` of it (status; the conditions of a request for approval)."""
        old = self.get(kind, namespace, name)
        given = body.get("metadata", {}).get("resourceVersion", "")
        if not given and kind.plural == "leases":
            raise Refusal(
                422,
                f'{_full(kind)} "{name}" is invalid: metadata.resourceVersion: Invalid value: 0x0: '
                "must be specified for an update",
            )
        self._same_version(kind, old, given)
        new = copy.deepcopy(old)
        if part == "approval":
            new.setdefault("status", {})["conditions"] = body.get("status", {}).get("conditions", [])
        elif part == "status":
            new["status"] = body.get("status", {})
        else:
            new = {**copy.deepcopy(body), "kind": kind.kind}
            if "status" in old:
                new["status"] = old["status"]
            kept = ("uid", "creationTimestamp", "namespace", "deletionTimestamp")
            new["metadata"] = {
                **new["metadata"],
                **{key: old["metadata"][key] for key in kept if key in old["metadata"]},
            }
        return self._keep(kind, namespace, name, new)

    def patch(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        old = self.get(kind, namespace, name)
        self._same_version(kind, old, body.get("metadata", {}).get("resourceVersion", ""))
        return self._keep(kind, namespace, name, merged(old, body))

    def delete(self, kind: Kind, namespace: str, name: str, options: Object) -> Object:
        old = self.get(kind, namespace, name)
        uid = options.get("preconditions", {}).get("uid", old["metadata"]["uid"])
        if uid != old["metadata"]["uid"]:
            raise Refusal(
                409, f'Operation cannot be fulfilled on {_full(kind)} "{name}": the UID in the precondition differs'
            )
        runs = kind.plural == "pods" and old["spec"].get("nodeName") and not _finished(old)
        if runs and options.get("gracePeriodSeconds") != 0:
            # Only its kubelet, or somebody who asks for no grace, ends a pod that runs on a node.
            if "deletionTimestamp" not in old["metadata"]:
                new = copy.deepcopy(old)
                new["metadata"]["deletionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                return self._keep(kind, namespace, name, new)
            return old
        self.revision += 1
        return self.objects.pop((kind.group, kind.plural, namespace, name))

    def evict(self, namespace: str, name: str, options: Object) -> Object:
        pods, budgets = KINDS["", "pods"], KINDS["policy", "poddisruptionbudgets"]
        pod = self.get(pods, namespace, name)
        labels = pod["metadata"].get("labels", {})
        hits = [it for it in self.all(budgets, namespace) if _selects(it["spec"].get("selector", {}), labels)]
        if not _finished(pod) and "deletionTimestamp" not in pod["metadata"]:
            if len(hits) > 1:
                raise Refusal(
                    500,
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                )
            for budget in hits:
                self._take(budgets, namespace, budget)
        self.delete(pods, namespace, name, options)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def page(self, found: list[Object], limit: int, token: str) -> tuple[list[Object], str]:
        """Return one page of a list and the token of the next; a list is a snapshot of its first page's moment."""
        offset = 0
        if token:
            try:
                snapshot, offset = json.loads(base64.b64decode(token))
                found = self._pages[snapshot]
            except (ValueError, KeyError):
                raise Refusal(410, "The provided continue parameter is too old", "Expired") from None
        else:
            snapshot = str(uuid.uuid4())
            found = copy.deepcopy(found)
        if not limit or offset + limit >= len(found):
            return found[offset:], ""
        self._pages[snapshot] = found
        return found[offset : offset + limit], base64.b64encode(
            json.dumps([snapshot, offset + limit]).encode()
        ).decode()

    def compact(self) -> None:
        """Forget every list that is being read, as etcd's compaction does."""
        self._pages.clear()

    def _take(self, kind: Kind, namespace: str, budget: Object) -> None:
        name, status = budget["metadata"]["name"], budget.get("status", {})
        allowed = status.get("disruptionsAllowed", 0)
        if allowed <= 0:
            said = (
                f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods "
                f"and has {status.get('currentHealthy', 0)} currently"
            )
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Refusal(429, message, causes=(("DisruptionBudget", said),))
        new = copy.deepcopy(budget)
        new["status"]["disruptionsAllowed"] = allowed - 1
        self._keep(kind, namespace, name, new)

    def _same_version(self, kind: Kind, old: Object, given: str) -> None:
        if given and given != old["metadata"]["resourceVersion"]:
            name = old["metadata"]["name"]
            raise Refusal(
                409,
                f'Operation cannot be fulfilled on {_full(kind)} "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )

    def _keep(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        size = sum(len(k) + len(v) for k, v in (body["metadata"].get("annotations") or {}).items())
        if size > _ANNOTATIONS:
            said = f"metadata.annotations: Too long: must have at most {_ANNOTATIONS} bytes"
            raise Refusal(422, f'{kind.kind} "{name}" is invalid: {said}')
        self.revision += 1
        body["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[kind.group, kind.plural, namespace, name] = body
        return body


def merged(old: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _finished(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _full(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural
