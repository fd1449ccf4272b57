"""Makes the CA set of a Kubernetes cluster, as `kubeadm init phase certs` would, entirely in memory.

Sources: kubeadm "PKI certificates and requirements" (kubernetes.io/docs/setup/best-practices/certificates) and
kubeadm's own certificates. kubeadm signs with whatever CA it finds in /etc/kubernetes/pki.
"""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

VALID = timedelta(days=3650)
"""kubeadm's own lifetime of CAs: ten years."""
_CLOCK_SKEW = timedelta(hours=1)
"""Machines with a clock that is a little behind must accept it at once."""
_AUTHORITIES = {"ca": "kubernetes", "etcd/ca": "etcd-ca", "front-proxy-ca": "front-proxy-ca"}
"""Common names by path, as kubeadm has them."""


def make_ca_set(now: datetime) -> dict[str, bytes]:
    """Return new files by their path below /etc/kubernetes/pki: three CAs (P-256) and the service account key.

    The service account key is RSA (2048 bits, as kubeadm's): tokens signed RS256 are the ones that every relying
    party of OpenID Connect can check.
    """
    files: dict[str, bytes] = {}
    for path, common_name in _AUTHORITIES.items():
        key = ec.generate_private_key(ec.SECP256R1())
        files[f"{path}.crt"] = _certificate(key, common_name, now).public_bytes(Encoding.PEM)
        files[f"{path}.key"] = _private(key)
    account = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    files["sa.key"] = _private(account)
    files["sa.pub"] = account.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return files


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    # "EC PRIVATE KEY" and "RSA PRIVATE KEY", as kubeadm writes them.
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _certificate(key: ec.EllipticCurvePrivateKey, common_name: str, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + VALID)
        .add_extension(usage, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
