"""Certificates of a local Sigstore instance: its authorities, and short-lived leaves with one embedded SCT.

Profile of the leaves: https://github.com/sigstore/fulcio/blob/main/docs/certificate-specification.md.
"""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from kubenode.image.sigstore_local_log import key_id
from kubenode.image.sigstore_local_tsa import octet_string, utf8_string

LEAF_LIFETIME = timedelta(minutes=10)

ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key, the one kind that every Sigstore client accepts."""
    return ec.generate_private_key(ec.SECP256R1())


def name(common_name: str, organization: str) -> x509.Name:
    """Return a distinguished name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=not digital_signature,
        crl_sign=not digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def issue_root(subject: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime) -> x509.Certificate:
    """Return a self-signed authority certificate."""
    return (
        _builder(subject, key.public_key(), subject, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(digital_signature=False), critical=True)
        .sign(key, hashes.SHA256())
    )


def issue_intermediate(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return the certificate of the authority that signs leaves, valid as long as its root."""
    begin, end = root.not_valid_before_utc, root.not_valid_after_utc
    return (
        _builder(subject, key, root.subject, root_key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(digital_signature=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def issue_timestamper(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return the certificate of the timestamp key; RFC 3161 section 2.3 demands one critical extended key usage."""
    begin, end = root.not_valid_before_utc, root.not_valid_after_utc
    return (
        _builder(subject, key, root.subject, root_key.public_key(), begin, end)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .sign(root_key, hashes.SHA256())
    )


def leaf_builder(
    key: ec.EllipticCurvePublicKey, ca: x509.Certificate, *, identity: str, issuer: str, at: datetime
) -> x509.CertificateBuilder:
    """Return a leaf certificate for an identity (email or URI), ready to be signed, without its SCT."""
    ca_key = ca.public_key()
    assert isinstance(ca_key, ec.EllipticCurvePublicKey)
    alternative = x509.UniformResourceIdentifier(identity) if "://" in identity else x509.RFC822Name(identity)
    return (
        _builder(x509.Name([]), key, ca.subject, ca_key, at, at + LEAF_LIFETIME)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        # Critical, because the subject is empty (RFC 5280 section 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=True)
        .add_extension(x509.UnrecognizedExtension(ISSUER_V1, issuer.encode()), critical=False)
        .add_extension(x509.UnrecognizedExtension(ISSUER_V2, utf8_string(issuer)), critical=False)
    )


def issue_leaf(
    key: ec.EllipticCurvePublicKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    ct_key: ec.EllipticCurvePrivateKey,
    *,
    identity: str,
    issuer: str,
    at: datetime,
) -> x509.Certificate:
    """Return a leaf certificate, valid for 10 minutes, with exactly one SCT of the certificate transparency key.

    The SCT covers the certificate without the SCT (RFC 6962 section 3.2), so the same content is signed twice.
    """
    builder = leaf_builder(key, ca, identity=identity, issuer=issuer, at=at)
    without = builder.sign(ca_key, hashes.SHA256())
    ca_public_key = ca_key.public_key()
    sct = _sct(without.tbs_certificate_bytes, key_id(ca_public_key), ct_key, at)
    sct_list = _opaque(2, _opaque(2, sct))
    return builder.add_extension(
        x509.UnrecognizedExtension(
            ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS,
            # The list is wrapped twice: RFC 6962 section 3.3.
            octet_string(sct_list),
        ),
        critical=False,
    ).sign(ca_key, hashes.SHA256())


def _sct(tbs: bytes, issuer_key_hash: bytes, ct_key: ec.EllipticCurvePrivateKey, at: datetime) -> bytes:
    """Return a v1 SignedCertificateTimestamp for a pre-certificate entry (RFC 6962 section 3.2)."""
    # Whole seconds: readers convert milliseconds through floats.
    milliseconds = (int(at.timestamp()) * 1000).to_bytes(8, "big")
    version, certificate_timestamp, precert_entry, no_extensions = b"\x00", b"\x00", b"\x00\x01", b"\x00\x00"
    entry = issuer_key_hash + _opaque(3, tbs)
    signature = ct_key.sign(
        version + certificate_timestamp + milliseconds + precert_entry + entry + no_extensions,
        ec.ECDSA(hashes.SHA256()),
    )
    sha256_ecdsa = b"\x04\x03"
    return version + key_id(ct_key.public_key()) + milliseconds + no_extensions + sha256_ecdsa + _opaque(2, signature)


def _opaque(width: int, content: bytes) -> bytes:
    """Return a TLS vector: length in `width` bytes, then the content (RFC 5246 section 4.3)."""
    return len(content).to_bytes(width, "big") + content
