"""Throwaway certificate authorities for tests: EC keys, valid for a day."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubenode.host.kube.kubeconfig import Access


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> None:
        (folder / f"{name}.crt").write_bytes(self.certificate)
        (folder / f"{name}.key").write_bytes(self.key)


class Authority:
    """A CA; its own certificate is `pair.certificate`."""

    def __init__(self, name: str = "kubernetes") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._subject = subject
        self.pair = Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(self._key))

    def issue(self, name: str, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = (), *, days: int = 1) -> Pair:
        """Issue for `CN=name, O=groups`; with `hosts` it is a server's certificate (and a client's, as for etcd)."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Pair(self._sign(_subject(name, groups), key.public_key(), hosts, days), _pem(key))

    def sign(self, request: bytes) -> bytes:
        """Sign a request as Kubernetes' own signer does: its subject and key, for clients."""
        csr = x509.load_pem_x509_csr(request)
        public = csr.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return self._sign(csr.subject, public, (), 30)

    def access(self, server: str, pair: Pair | None = None, source: str = "test") -> Access:
        """Return the access of an identity to a server of this authority."""
        return Access(server, self.pair.certificate, pair and pair.certificate, pair and pair.key, None, None, source)

    def _sign(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, hosts: tuple[str, ...], days: int) -> bytes:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
        builder = (
            _builder(subject, self._subject, public, days)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request(
    name: str,
    groups: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    """Make a certificate request (PEM)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name, groups))
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def _subject(name: str, groups: tuple[str, ...]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int = 1
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=not sign, data_encipherment=False,
        key_agreement=False, key_cert_sign=sign, crl_sign=sign, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
