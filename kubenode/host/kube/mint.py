"""Client certificates that a control plane makes for itself, with the CA keys that it holds anyway.

They work before kubeadm has joined the machine and after kubeadm's own certificates have run out. The agent's live in
memory, for an hour; `kubenode kubeconfig` makes one for a person. Nothing else is ever signed with these keys here.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubenode.errors import HostError

LIFETIME = timedelta(hours=1)
_SKEW = timedelta(minutes=5)
"""Clocks of control planes differ a little."""


@dataclass(frozen=True)
class Signer:
    """A CA's certificate and key (PEM); `source` says for messages where they are from."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    source: str


def signer_of(ca: Path) -> Signer | None:
    """Return the CA whose files are named `ca` without ending, None when one of them is missing. Raises HostError."""
    files = ca.with_suffix(".crt"), ca.with_suffix(".key")
    try:
        return Signer(files[0].read_bytes(), files[1].read_bytes(), f"{files[0]} with {files[1].name}")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(
            f"{error.filename} cannot be read: {error.strerror}",
            hint="Run this as root on a control plane, or name the CA's folder with --ca.",
        ) from error


def mint(
    ca: Signer, user: str, groups: tuple[str, ...], now: datetime, life: timedelta = LIFETIME
) -> tuple[bytes, bytes, bytes]:
    """Return the CA's certificate, a new client certificate for `user`, and its key (PEM); it is good for `life`.

    It never outlives the CA. Raises HostError when the CA's certificate and key do not fit each other.
    """
    try:
        authority = x509.load_pem_x509_certificate(ca.certificate)
        signer = serialization.load_pem_private_key(ca.key, None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
            raise ValueError("the kind of the key is not taken")
        if signer.public_key() != authority.public_key():
            raise ValueError("certificate and key do not belong together")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_subject(user, groups))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(min(now + life, authority.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise HostError(
            f"the CA {ca.source} is not usable: {error}",
            hint="both come from the fleet's sealed secrets on control planes",
        ) from error
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ca.certificate, certificate.public_bytes(encoding), secret


def _subject(user: str, groups: tuple[str, ...]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])
