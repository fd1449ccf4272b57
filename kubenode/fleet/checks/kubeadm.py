"""The kubeadm documents: versions that the kubeadm of the fleet's releases reads, and known traps.

They stay kubeadm's own documents; kubenode fills in only the Kubernetes version, node name, CRI socket and tokens.
Source of the versions: https://kubernetes.io/docs/reference/config-api/ (v1beta2 was removed by kubernetes#114540).
"""

import re
from collections.abc import Iterator
from typing import Any

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet.layout import KUBEADM_CLUSTER_PATH
from kubenode.fleet.problems import Problem, choices, did_you_mean, from_error, problem
from kubenode.fleet.reading import Reading
from kubenode.fleet.scalars import kubernetes_minor
from kubenode.model.documents import Role
from kubenode.trust.strictyaml import Document, load

_GROUP = "kubeadm.k8s.io/"
_MINORS: dict[str, tuple[int, int | None]] = {
    f"{_GROUP}v1beta2": (15, 26),
    f"{_GROUP}v1beta3": (22, None),
    f"{_GROUP}v1beta4": (31, None),
}
"""First and last minor of Kubernetes 1 whose kubeadm reads a version of the format."""
_KINDS = {
    "ClusterConfiguration": tuple(_MINORS),
    "InitConfiguration": tuple(_MINORS),
    "JoinConfiguration": tuple(_MINORS),
    "KubeletConfiguration": ("kubelet.config.k8s.io/v1beta1",),
    "KubeProxyConfiguration": ("kubeproxy.config.k8s.io/v1alpha1",),
}
_FIXED_KINDS = {KUBEADM_CLUSTER_PATH: "ClusterConfiguration", "kubeadm/kubelet.yaml": "KubeletConfiguration"}
_LISTS_OF_ARGUMENTS = f"{_GROUP}v1beta4"
_ARGUMENTS = ("extraArgs", "kubeletExtraArgs")
_OWNED = (
    ("kubernetesVersion",),
    ("nodeRegistration", "name"),
    ("nodeRegistration", "criSocket"),
    ("bootstrapTokens",),
    ("discovery", "bootstrapToken", "token"),
    ("discovery", "tlsBootstrapToken"),
)
# https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/control-plane-flags/#patches
_PATCH = re.compile(
    r"(kube-apiserver|kube-controller-manager|kube-scheduler|etcd|kubeletconfiguration|corednsdeployment)"
    r"[^+/]*(\+(strategic|merge|json))?\.(json|yaml)"
)

_GO_DURATION = re.compile(r"([0-9]{1,9}(\.[0-9]{1,9})?(h|m|s|ms))+")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SYNC_SECONDS = 120.0

At = tuple[str | int, ...]


def check_kubeadm(reading: Reading) -> Iterator[Problem]:
    """Find everything wrong with the files of kubeadm/."""
    if reading.fleet and reading.fleet.cluster and KUBEADM_CLUSTER_PATH not in reading.files:
        hint = "Add a kubeadm ClusterConfiguration."
        message = f"the fleet has a cluster, but the file {KUBEADM_CLUSTER_PATH} is missing"
        yield problem(Location(KUBEADM_CLUSTER_PATH), "missing-file", message, hint)
    first: dict[str, str] = {}
    for path in sorted(reading.files):
        folder, _, name = path.partition("/")
        if folder != "kubeadm":
            continue
        if name.startswith("patches/") and not name.endswith("/.gitkeep"):
            yield from _check_patch_name(path, name.removeprefix("patches/"))
        elif name.endswith(".yaml") and "/" not in name:
            yield from _check_file(reading, path, first)


def _check_patch_name(path: str, name: str) -> Iterator[Problem]:
    if not _PATCH.fullmatch(name):
        message = "kubeadm would not read a patch of this name"
        hint = "Call it TARGET[SUFFIX][+strategic|+merge|+json].yaml, for example kube-apiserver0+merge.yaml."
        yield problem(Location(path), "patch-name", message, hint)


def _check_file(reading: Reading, path: str, first: dict[str, str]) -> Iterator[Problem]:
    try:
        document = load(reading.files[path], path)
    except FleetInvalid as error:
        yield from_error(error, "yaml", path)
        return
    value = document.value
    if not isinstance(value, dict):
        yield problem(document.locate(), "wrong-type", "a kubeadm document is a mapping")
        return
    wrong = _check_header(document, path, value)
    if wrong is not None:
        yield wrong
        return
    kind, version = str(value["kind"]), str(value["apiVersion"])
    if first.setdefault(kind, path) != path:
        message = f"{first[kind]} is a {kind} already"
        yield problem(document.locate("kind"), "duplicate-kind", message, "Keep one document of each kind.")
    if version.startswith(_GROUP):
        yield from _check_readable(reading, document, version)
        yield from _check_arguments(document, version, (), value)
        yield from _check_owned(document, value)
    if kind == "KubeletConfiguration":
        yield from _check_sync(document, value)
    if kind == "ClusterConfiguration" and reading.fleet and reading.fleet.cluster:
        endpoint = value.get("controlPlaneEndpoint")
        if endpoint is not None and endpoint != reading.fleet.cluster.endpoint:
            message = (
                f"controlPlaneEndpoint is {str(endpoint)[:80]!r}; fleet.yaml says {reading.fleet.cluster.endpoint!r}"
            )
            yield problem(document.locate("controlPlaneEndpoint"), "endpoint-differs", message, "Make them the same.")


def _check_header(document: Document, path: str, value: dict[str, Any]) -> Problem | None:
    kind, version = str(value.get("kind")), str(value.get("apiVersion"))
    wanted = _FIXED_KINDS.get(path)
    if kind not in _KINDS or wanted not in (None, kind):
        allowed = [wanted] if wanted else list(_KINDS)
        hint = did_you_mean(kind, allowed)
        message = f"kind is {kind[:80]!r}; allowed here: {choices(allowed)}"
        return problem(document.locate("kind"), "wrong-kind", message, hint)
    if version not in _KINDS[kind]:
        message = f"apiVersion is {version[:80]!r}; kubenode knows {choices(_KINDS[kind])} for a {kind}"
        return problem(document.locate("apiVersion"), "kubeadm-version", message)
    return None


def _check_readable(reading: Reading, document: Document, version: str) -> Iterator[Problem]:
    first, last = _MINORS[version]
    for name, pool in sorted(reading.pools_in_use().items()):
        target = reading.target(pool) if pool.role is not Role.STANDALONE else None
        if target is None or target.kubernetes is None:
            continue
        minor = kubernetes_minor(target.kubernetes)[1]
        if minor < first or (last is not None and minor > last):
            message = f"kubeadm {target.kubernetes} (pool {name!r}) cannot read {version}"
            reads = [one for one, (low, high) in _MINORS.items() if low <= minor and (high is None or minor <= high)]
            hint = f"It reads {choices(reads)}; `kubeadm config migrate` rewrites documents." if reads else ""
            yield problem(document.locate("apiVersion"), "kubeadm-version", message, hint)
            return


def _check_arguments(document: Document, version: str, at: At, value: object) -> Iterator[Problem]:
    """Arguments are a list of {name, value} in v1beta4 and a mapping of texts before it."""
    for key, child in _children(value):
        here = (*at, key)
        if key not in _ARGUMENTS:
            yield from _check_arguments(document, version, here, child)
        elif version == _LISTS_OF_ARGUMENTS:
            yield from _check_argument_list(document, here, child)
        elif not isinstance(child, dict):
            message = f"{_dotted(here)} must be a mapping in {version.removeprefix(_GROUP)}"
            yield problem(document.locate(*here), "extra-args", message, "Write name: value; lists came with v1beta4.")
        else:
            for name, one in child.items():
                if not isinstance(one, str):
                    message = f"{_dotted((*here, name))} must be text"
                    yield problem(document.locate(*here, name), "extra-args", message, "Put the value in quotes.")


def _check_argument_list(document: Document, at: At, value: object) -> Iterator[Problem]:
    if not isinstance(value, list):
        message = f"{_dotted(at)} must be a list in v1beta4"
        hint = "Write each argument as {name: NAME, value: VALUE}; mappings were used up to v1beta3."
        yield problem(document.locate(*at), "extra-args", message, hint)
        return
    for index, item in enumerate(value):
        if not isinstance(item, dict) or set(item) != {"name", "value"}:
            message = f"{_dotted((*at, index))} must have a name and a value"
            hint = "Write {name: NAME, value: VALUE}."
            yield problem(document.locate(*at, index), "extra-args", message, hint)
        elif not all(isinstance(one, str) for one in item.values()):
            key = next(name for name, one in item.items() if not isinstance(one, str))
            message = f"{_dotted((*at, index, key))} must be text"
            yield problem(document.locate(*at, index, key), "extra-args", message, "Put the value in quotes.")


def _check_sync(document: Document, value: dict[str, Any]) -> Iterator[Problem]:
    """A kubelet that could not tell the API server of a static pod's change tries again at its next sync only."""
    written = str(value.get("syncFrequency", ""))
    if _GO_DURATION.fullmatch(written) is None:
        return
    parts = re.findall(r"([0-9.]+)(h|ms|m|s)", written)
    if sum(float(number) * _SECONDS[unit] for number, unit in parts) > _SYNC_SECONDS:
        message = f"syncFrequency is {written[:40]}, and kubeadm gives a changed static pod 5 minutes to be seen"
        hint = "Upgrades would fail (kubeadm#740): 2m or less; the kubelet's default is 1m."
        yield problem(document.locate("syncFrequency"), "kubelet-sync", message, hint)


def _check_owned(document: Document, value: dict[str, Any]) -> Iterator[Problem]:
    for at in _OWNED:
        found: Any = value
        for key in at:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            message = f"{_dotted(at)} is filled in by kubenode"
            yield problem(document.locate_key(*at), "kubeadm-owned-field", message, "Remove the field.")


def _children(value: object) -> Iterator[tuple[str | int, object]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _dotted(at: At) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")
