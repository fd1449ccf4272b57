"""The files that kubeadm is given: the fleet's own documents, with what only one node knows filled in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kubenode.host.kubeadm import PATCHES_IN_DOCUMENTS, minor

CRI_SOCKET = "unix:///run/containerd/containerd.sock"
_GROUP = "kubeadm.k8s.io"


@dataclass(frozen=True)
class Registration:
    """What kubenode fills into the fleet's documents for one node.

    `address` is as nodes/NAME.yaml declares it. An IP address is what the API server advertises and what the kubelet
    registers (its --node-ip); a DNS name is neither, both then take the interface of the default route.
    """

    name: str
    address: str | None = None
    taints: tuple[dict[str, str], ...] | None = None
    """None: as kubeadm decides. An empty tuple: none at all, which lets pods run on a control plane."""
    patches: Path | None = None
    """The folder of kubeadm's patches, for versions whose documents name it."""

    @property
    def ip(self) -> str | None:
        """The address, if it is an IP address."""
        try:
            return str(ip_address(self.address or ""))
        except ValueError:
            return None


@dataclass(frozen=True)
class Discovery:
    """How a joining node finds and trusts its cluster: a bootstrap token and the hash of the CA's public key."""

    endpoint: str
    token: str
    ca_hash: str
    """`sha256:` and 64 hex digits of the SubjectPublicKeyInfo (RFC 7469)."""


def init_documents(
    version: str,
    cluster: Mapping[str, Any],
    node: Registration,
    *others: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> bytes:
    """Return the file for `kubeadm init`: the fleet's ClusterConfiguration and other documents, filled in.

    `base` is the fleet's InitConfiguration, if it has one. `token` becomes the first bootstrap token; without it
    kubeadm makes one that lasts a day. Raises HostError.
    """
    own: dict[str, Any] = {
        "apiVersion": cluster["apiVersion"],
        "kind": "InitConfiguration",
        "nodeRegistration": _registration(node, cluster["apiVersion"]),
    }
    if node.ip is not None:
        own["localAPIEndpoint"] = {"advertiseAddress": node.ip, "bindPort": 6443}
    if token is not None:
        own["bootstrapTokens"] = [{"token": token, "ttl": "24h0m0s"}]
    own |= _patches(version, node)
    return _documents(_merged(base or {}, own), {**cluster, "kubernetesVersion": version}, *others)


def join_documents(
    version: str,
    api_version: str,
    node: Registration,
    discovery: Discovery | Path,
    *,
    control_plane: bool,
    base: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the file for `kubeadm join`; `api_version` is that of the fleet's kubeadm documents.

    `discovery` may be a kubeconfig instead. `base` is the fleet's JoinConfiguration, if it has one. Raises HostError.
    """
    own: dict[str, Any] = {
        "apiVersion": api_version,
        "kind": "JoinConfiguration",
        "nodeRegistration": _registration(node, api_version),
        "discovery": _discovery(discovery),
    }
    if isinstance(discovery, Path) and base is not None and "discovery" in base:
        # kubeadm takes one way of discovery only.
        base = {**base, "discovery": {key: it for key, it in base["discovery"].items() if key != "bootstrapToken"}}
    if control_plane:
        endpoint = {"advertiseAddress": node.ip, "bindPort": 6443} if node.ip else {}
        own["controlPlane"] = {"localAPIEndpoint": endpoint} if endpoint else {}
    own |= _patches(version, node)
    return _documents(_merged(base or {}, own))


def _discovery(found: Discovery | Path) -> dict[str, Any]:
    if isinstance(found, Path):
        return {"file": {"kubeConfigPath": str(found)}}
    return {
        "bootstrapToken": {
            "apiServerEndpoint": found.endpoint,
            "token": found.token,
            "caCertHashes": [found.ca_hash],
        },
        "tlsBootstrapToken": found.token,
    }


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fleet's document with kubenode's own fields in it; lists (v1beta4's arguments) are joined."""
    found = dict(base)
    for key, value in own.items():
        there = found.get(key)
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            found[key] = _merged(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            found[key] = [*there, *value]
        else:
            found[key] = value
    return found


def _registration(node: Registration, api_version: str) -> dict[str, Any]:
    own: dict[str, Any] = {"name": node.name, "criSocket": CRI_SOCKET}
    if node.ip is not None:
        # A map until v1beta3, a list since v1beta4 (kubeadm-config.v1beta4, "Arg").
        as_map = api_version in (f"{_GROUP}/v1beta2", f"{_GROUP}/v1beta3")
        own["kubeletExtraArgs"] = {"node-ip": node.ip} if as_map else [{"name": "node-ip", "value": node.ip}]
    if node.taints is not None:
        own["taints"] = list(node.taints)
    return own


def _patches(version: str, node: Registration) -> dict[str, Any]:
    named = minor(version) >= PATCHES_IN_DOCUMENTS and node.patches is not None
    return {"patches": {"directory": str(node.patches)}} if named else {}


def _documents(*documents: Mapping[str, Any]) -> bytes:
    # JSON is YAML, and no YAML writer can surprise kubeadm.
    return "---\n".join(json.dumps(it, indent=1) + "\n" for it in documents).encode()
