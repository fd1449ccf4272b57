"""The kubeadm documents of a trusted commit, as kubeadm is given them; `checks/kubeadm.py` is what people are told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet.layout import KUBEADM_CLUSTER_PATH, KUBEADM_FOLDER
from kubenode.trust.strictyaml import load

_PATCHES = f"{KUBEADM_FOLDER}patches/"


@dataclass(frozen=True)
class KubeadmDocuments:
    """`cluster` is the ClusterConfiguration, `others` are those for components; each is plain kubeadm.

    `patches`: kubeadm's patch files by name. `skip_phases`: of the InitConfiguration, which kubeadm itself knows from
    1.22 on only.
    """

    cluster: Mapping[str, Any]
    init: Mapping[str, Any] = field(default_factory=dict)
    join: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Mapping[str, Any], ...] = ()
    patches: Mapping[str, bytes] = field(default_factory=dict)
    skip_phases: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """The version of kubeadm's format that the fleet uses."""
        return str(self.cluster["apiVersion"])


def kubeadm_documents(files: Mapping[str, bytes]) -> KubeadmDocuments:
    """Read all of kubeadm/. Raises FleetInvalid for one that is no mapping, and without a ClusterConfiguration."""
    by_kind: dict[str, dict[str, Any]] = {}
    for path in sorted(files):
        name = path.removeprefix(KUBEADM_FOLDER)
        if name == path or "/" in name or not name.endswith(".yaml"):
            continue
        value: Any = load(files[path], path).value
        if not isinstance(value, dict) or not isinstance(value.get("apiVersion"), str):
            raise FleetInvalid(f"{path} is no kubeadm document", location=Location(path), hint="kubenode validate")
        by_kind[str(value.get("kind"))] = value
    if "ClusterConfiguration" not in by_kind:
        raise FleetInvalid(
            f"the fleet has a cluster and no ClusterConfiguration in {KUBEADM_CLUSTER_PATH}",
            location=Location(KUBEADM_CLUSTER_PATH),
            hint="Add a kubeadm ClusterConfiguration.",
        )
    init = by_kind.pop("InitConfiguration", {})
    skipped = init.pop("skipPhases", [])
    return KubeadmDocuments(
        cluster=by_kind.pop("ClusterConfiguration"),
        init=init,
        join=by_kind.pop("JoinConfiguration", {}),
        others=tuple(by_kind.values()),
        patches={path.removeprefix(_PATCHES): files[path] for path in sorted(files) if path.startswith(_PATCHES)},
        skip_phases=tuple(map(str, skipped)) if isinstance(skipped, list) else (),
    )
