"""Which certificate requests an agent on a control plane approves, and only those. Pure: a request in, a verdict out.

Two kinds: the certificate of an agent (signer kube-apiserver-client) and the serving certificate of a kubelet (signer
kubelet-serving). Both name a node, must come from that very node's kubelet, and the node must be in the trusted fleet.
The API server itself writes who asks; the rest is the asker's word and is compared. Nothing is ever denied: what is not
approved stays pending, is reported, and expires. Source: Kubernetes, "Certificates and Certificate Signing Requests",
"Kubernetes signers".
"""

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from kubenode.host.kube.names import AGENTS, agent, kubelet, pool_group
from kubenode.host.kube.reading import Object, items, text

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
_NODES = "system:nodes"
_AGENT_PREFIX = agent("")
_KUBELET_PREFIX = kubelet("")
_MAX_BYTES = 16 << 10
_CLIENT_USAGES = (frozenset({"digital signature", "client auth"}), frozenset({"key encipherment"}))
_SERVING_USAGES = (frozenset({"digital signature", "server auth"}), frozenset({"key encipherment"}))


@dataclass(frozen=True)
class Declared:
    """A node as the trusted fleet says: its pool and the addresses its kubelet may serve at."""

    pool: str
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """`approve`, or why not; `ours` is False for requests that kubenode has nothing to say about."""

    approve: bool
    reason: str
    ours: bool = True


class _Refused(Exception):
    """Why a request is not approved."""


def judge(request: Object, nodes: Mapping[str, Declared]) -> Verdict:
    """Return the verdict about a CertificateSigningRequest object. Raises Malformed for one that is no such object."""
    signer = text(request, "spec", "signerName", default="")
    if signer not in (CLIENT_SIGNER, SERVING_SIGNER):
        return Verdict(False, f"the signer {signer[:80]!r} is not ours", ours=False)
    try:
        csr = _parse(text(request, "spec", "request"))
        name = _only(csr, NameOID.COMMON_NAME)
        if signer == CLIENT_SIGNER and not name.startswith(_AGENT_PREFIX):
            return Verdict(False, f"{name[:80]!r} is no agent of kubenode", ours=False)
        if signer == CLIENT_SIGNER:
            node = _requester(request, name.removeprefix(_AGENT_PREFIX), nodes)
            _agent(request, csr, nodes[node])
            return Verdict(True, f"the agent of {node}, asked for by its kubelet")
        if not name.startswith(_KUBELET_PREFIX):
            raise _Refused(f"the common name {name[:80]!r} is no kubelet's")
        node = _requester(request, name.removeprefix(_KUBELET_PREFIX), nodes)
        _serving(request, csr, node, nodes[node])
        return Verdict(True, f"the kubelet of {node}, for its declared addresses")
    except _Refused as refused:
        return Verdict(False, str(refused))


def _requester(request: Object, node: str, nodes: Mapping[str, Declared]) -> str:
    """Return the node when it is known and its own kubelet asks."""
    asker = text(request, "spec", "username", default="")
    if asker != kubelet(node):
        raise _Refused(f"{asker[:80]!r} asks for a certificate of the node {node[:80]!r}")
    if _NODES not in items(request, "spec", "groups"):
        raise _Refused(f"{asker[:80]!r} is not in the group {_NODES}")
    if node not in nodes:
        raise _Refused(f"the trusted fleet has no node {node[:80]!r}")
    return node


def _agent(request: Object, csr: x509.CertificateSigningRequest, declared: Declared) -> None:
    _groups(csr, {AGENTS, pool_group(declared.pool)})
    _usages(request, *_CLIENT_USAGES)
    if list(csr.extensions):
        raise _Refused("an agent's request has no extensions, this one has")


def _serving(request: Object, csr: x509.CertificateSigningRequest, node: str, declared: Declared) -> None:
    _groups(csr, {_NODES})
    _usages(request, *_SERVING_USAGES)
    others = [it.oid.dotted_string for it in csr.extensions if it.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME]
    if others:
        raise _Refused(f"it asks for the extension {others[0]}")
    try:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise _Refused("it names no address") from None
    if not list(names):
        raise _Refused("it names no address")
    allowed = {_normal(it) for it in declared.addresses}
    for general in names:
        match general:
            case x509.DNSName(value=value) if value == node or value in allowed:
                continue
            case x509.IPAddress(value=value) if str(value) in allowed:
                continue
        raise _Refused(f"{_shown(general)} is not declared for {node} in the fleet (spec.address of nodes/{node}.yaml)")


def _normal(address: str) -> str:
    """Return an address in its one spelling; a name stays as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _groups(csr: x509.CertificateSigningRequest, wanted: set[str]) -> None:
    found = [str(it.value) for it in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if set(found) != wanted or len(found) != len(wanted):
        raise _Refused(
            f"the groups are {', '.join(sorted(found))[:200] or 'none'}; {', '.join(sorted(wanted))} are due"
        )
    others = [
        it.oid.dotted_string for it in csr.subject if it.oid not in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    ]
    if others:
        raise _Refused(f"the subject has the attribute {others[0]}")


def _usages(request: Object, needed: frozenset[str], allowed: frozenset[str]) -> None:
    found = items(request, "spec", "usages")
    usages = {it for it in found if isinstance(it, str)}
    if len(usages) != len(found) or not needed <= usages <= needed | allowed:
        raise _Refused(f"the usages are {', '.join(sorted(usages))[:200]}; {', '.join(sorted(needed))} are due")


def _parse(encoded: str) -> x509.CertificateSigningRequest:
    if len(encoded) > _MAX_BYTES:
        raise _Refused(f"the request is larger than {_MAX_BYTES} bytes")
    try:
        data = base64.b64decode(encoded, validate=True)
        if data.count(b"-----BEGIN ") != 1 or not data.startswith(b"-----BEGIN CERTIFICATE REQUEST-----"):
            raise _Refused("it is not exactly one PEM certificate request")
        csr = x509.load_pem_x509_csr(data)
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            raise _Refused("the kind of its key is not taken")
        if isinstance(key, rsa.RSAPublicKey) and not 2048 <= key.key_size <= 8192:
            raise _Refused(f"its RSA key has {key.key_size} bits")
        if not csr.is_signature_valid:
            raise _Refused("it is not signed by its own key")
        list(csr.extensions)
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise _Refused("it cannot be read as a certificate request") from error
    return csr


def _only(csr: x509.CertificateSigningRequest, oid: Any) -> str:
    found = csr.subject.get_attributes_for_oid(oid)
    if len(found) != 1:
        raise _Refused(f"the subject has {len(found)} common names")
    return str(found[0].value)


def _shown(general: x509.GeneralName) -> str:
    return str(getattr(general, "value", general))[:80].encode("ascii", "backslashreplace").decode()
