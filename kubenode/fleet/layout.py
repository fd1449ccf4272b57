"""Where each kind of document lives in a fleet repo."""

from collections.abc import Iterable
from enum import StrEnum

API_VERSION = "kubenode.dev/v1alpha1"
API_GROUP = "kubenode.dev/"
FLEET_PATH = "fleet.yaml"
TRUSTED_ROOT_PATH = "trust/sigstore/trusted_root.json"
KUBEADM_FOLDER = "kubeadm/"
KUBEADM_CLUSTER_PATH = f"{KUBEADM_FOLDER}cluster.yaml"


class Kind(StrEnum):
    """The kinds of documents that kubenode defines."""

    FLEET = "Fleet"
    TRUST_POLICY = "TrustPolicy"
    CHANNEL = "Channel"
    RELEASE = "Release"
    IMAGE = "Image"
    POOL = "Pool"
    NODE = "Node"


FIXED = {FLEET_PATH: Kind.FLEET, "trust/policy.yaml": Kind.TRUST_POLICY}
FOLDERS = {
    "channels": Kind.CHANNEL,
    "releases": Kind.RELEASE,
    "images": Kind.IMAGE,
    "pools": Kind.POOL,
    "nodes": Kind.NODE,
}
_FOLDER_OF = {kind: folder for folder, kind in FOLDERS.items()}


def path_of(kind: Kind, name: str) -> str:
    """Return the path of the document of this kind and name."""
    return f"{_FOLDER_OF[kind]}/{name}.yaml"


def kind_at(path: str) -> Kind | None:
    """Return the kind of document that belongs at a path, or None when kubenode reads no document there."""
    if path in FIXED:
        return FIXED[path]
    folder, _, name = path.partition("/")
    return FOLDERS.get(folder) if name.endswith(".yaml") and "/" not in name else None


def name_at(path: str) -> str:
    """Return the name that a document at this path in a folder must have."""
    return path.rpartition("/")[2].removesuffix(".yaml")


def names_of(kind: Kind, paths: Iterable[str]) -> list[str]:
    """Return the names of all documents of a kind that are kept in a folder, sorted."""
    return sorted(name_at(path) for path in paths if kind_at(path) is kind)


def home_of(kind: Kind) -> str:
    """Return where documents of a kind belong, for people."""
    fixed = [path for path, one in FIXED.items() if one is kind]
    return fixed[0] if fixed else f"{_FOLDER_OF[kind]}/"
