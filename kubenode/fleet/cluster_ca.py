"""The cluster's CA set as one secret: its files as kubeadm names them, and the hash by which nodes know the cluster."""

import hashlib
import json
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CLUSTER_CA = "cluster-ca"
"""The name of the secret."""
CA_CERTIFICATE = "ca.crt"
CA_FILES = (
    CA_CERTIFICATE,
    "ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "sa.key",
    "sa.pub",
)
"""Paths below /etc/kubernetes/pki that kubeadm makes itself when they are missing (kubeadm init phase certs)."""

_API_VERSION = "kubenode.dev/v1alpha1"
_KIND = "ClusterCASet"


def encode_ca_set(files: Mapping[str, bytes]) -> bytes:
    """Return the CA set as the one JSON document that is sealed; `files` has the paths of `CA_FILES`."""
    content = {path: files[path].decode("ascii") for path in CA_FILES}
    return json.dumps({"apiVersion": _API_VERSION, "kind": _KIND, "files": content}, indent=1).encode() + b"\n"


def decode_ca_set(data: bytes) -> dict[str, bytes]:
    """Return the files of an opened CA set, by their path below /etc/kubernetes/pki.

    Unknown keys are passed over. Raises ValueError, without quoting what it read, when it is not one.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("the cluster's CA set is not JSON") from None  # The cause would quote the secret.
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise ValueError("this is not a cluster's CA set")
    files = document.get("files")
    if not isinstance(files, dict):
        raise ValueError("the cluster's CA set has no files")
    wrong = [path for path in CA_FILES if not isinstance(files.get(path), str)]
    if wrong:
        raise ValueError(f"the cluster's CA set has no {wrong[0]}")
    return {path: files[path].encode() for path in CA_FILES}


def ca_cert_hash(certificate: bytes) -> str:
    """Return "sha256:" and the hash of a PEM certificate's SubjectPublicKeyInfo, as kubeadm pins it.

    Source: kubeadm join, discovery-token-ca-cert-hash. Raises ValueError when it is not one CA certificate.
    """
    try:
        (parsed,) = x509.load_pem_x509_certificates(certificate)
        is_ca = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        key = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:
        # cryptography raises many kinds for malformed certificates, not all of them ValueError.
        raise ValueError("this is not one PEM certificate of a CA") from error
    if not is_ca:
        raise ValueError("this certificate is not one of a CA")
    return f"sha256:{hashlib.sha256(key).hexdigest()}"
