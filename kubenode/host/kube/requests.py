"""Certificate requests as the API shows them, read strictly; `kubenode.plan.kubernetes.requests` says who may get what.

Whatever a certificate could carry beyond the fields of `CertificateRequest` is refused here: other extensions, other
attributes of the subject, other kinds of names, a key that is weak or not the asker's own.
"""

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed
from kubenode.host.kube.names import REQUESTS
from kubenode.host.kube.reading import Object, items, name_of, shown, text
from kubenode.model.kubernetes import CertificateRequest
from kubenode.plan.kubernetes.requests import CLIENT_SIGNER, SERVING_SIGNER, is_ours

_MAX_BYTES = 16 << 10
_BEGIN = b"-----BEGIN CERTIFICATE REQUEST-----"


class Unacceptable(Exception):
    """Why a request is not even looked at: no certificate request, or one that asks for more than is ever given."""


def pending(api: Api) -> dict[str, tuple[Object, CertificateRequest]]:
    """Return the pending requests that kubenode has to do with, by name: the object, and what it asks for.

    What cannot be read strictly is left out: it can never be approved.
    """
    found = {}
    for it in api.list(REQUESTS):
        try:
            if not _is_decided(it):
                request = read_request(it)
                if is_ours(request):
                    found[request.name] = it, request
        except (Malformed, Unacceptable):
            continue
    return found


def read_request(it: Object) -> CertificateRequest:
    """Read a CertificateSigningRequest object. Raises Unacceptable, and Malformed for one that is no such object."""
    signer = text(it, "spec", "signerName")
    if signer not in (CLIENT_SIGNER, SERVING_SIGNER):
        raise Unacceptable(f"the signer {shown(signer, 80)!r} is not ours")
    csr = _parse(text(it, "spec", "request"))
    usages = [str(usage) for usage in items(it, "spec", "usages")]
    return CertificateRequest(
        name_of(it),
        signer,
        text(it, "spec", "username", default=""),
        frozenset(str(group) for group in items(it, "spec", "groups")),
        _common_name(csr),
        _organizations(csr),
        frozenset(usages),
        _names(csr),
    )


def _is_decided(it: Object) -> bool:
    return bool(items(it, "status", "conditions") or text(it, "status", "certificate", default=""))


def _parse(encoded: str) -> x509.CertificateSigningRequest:
    if len(encoded) > _MAX_BYTES:
        raise Unacceptable(f"the request is larger than {_MAX_BYTES} bytes")
    try:
        data = base64.b64decode(encoded, validate=True)
        # Another reader could take another block, or a header, for the request.
        if data.count(b"-----BEGIN ") != 1 or not data.startswith(_BEGIN):
            raise Unacceptable("it is not exactly one PEM certificate request")
        csr = x509.load_pem_x509_csr(data)
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            raise Unacceptable("the kind of its key is not taken")
        if isinstance(key, rsa.RSAPublicKey) and not 2048 <= key.key_size <= 8192:
            raise Unacceptable(f"its RSA key has {key.key_size} bits")
        if not csr.is_signature_valid:
            raise Unacceptable("it is not signed by its own key")
        others = [it.oid.dotted_string for it in csr.extensions if it.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME]
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise Unacceptable("it cannot be read as a certificate request") from error
    if others:
        raise Unacceptable(f"it asks for the extension {others[0]}")
    return csr


def _common_name(csr: x509.CertificateSigningRequest) -> str:
    found = [str(it.value) for it in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(found) != 1:
        raise Unacceptable(f"the subject has {len(found)} common names")
    return found[0]


def _organizations(csr: x509.CertificateSigningRequest) -> frozenset[str]:
    found = [str(it.value) for it in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if len(found) + 1 != len(list(csr.subject)) or len(set(found)) != len(found):
        raise Unacceptable("the subject has more than one common name and different organizations")
    return frozenset(found)


def _names(csr: x509.CertificateSigningRequest) -> frozenset[str]:
    try:
        asked = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return frozenset()
    if not all(isinstance(it, x509.DNSName | x509.IPAddress) for it in asked):
        raise Unacceptable("it asks for names that are neither DNS names nor addresses")
    return frozenset(str(it.value) for it in asked)
