"""A minimal RFC 3161 timestamp authority: the few DER structures of one timestamp response, written by hand.

No library that kubenode depends on creates timestamps (rfc3161-client only asks for and verifies them), and a general
ASN.1 package would be a new dependency for some sixty lines.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_INTEGER, _OCTETS, _NULL, _OID, _GENERALIZED_TIME, _SEQUENCE, _SET = 0x02, 0x04, 0x05, 0x06, 0x18, 0x30, 0x31
_UTF8 = 0x0C

_SHA256 = "2.16.840.1.101.3.4.2.1"
_ECDSA_SHA256 = "1.2.840.10045.4.3.2"
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
_TST_INFO = "1.2.840.113549.1.9.16.1.4"
# RFC 3161 wants a policy; this is the one of Sigstore's own timestamp authority.
_POLICY = "1.3.6.1.4.1.57264.2"


def tlv(tag: int, content: bytes) -> bytes:
    """Return one DER value: tag, definite length, content (X.690 section 8.1)."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def utf8_string(text: str) -> bytes:
    """Return a DER UTF8String."""
    return tlv(_UTF8, text.encode())


def octet_string(content: bytes) -> bytes:
    """Return a DER OCTET STRING."""
    return tlv(_OCTETS, content)


def _integer(value: int) -> bytes:
    # One more bit than the value needs, so that the sign bit stays clear.
    return tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = b""
    for number in (first * 40 + second, *rest):
        base128 = [number & 0x7F]
        while number := number >> 7:
            base128.append(0x80 | number & 0x7F)
        content += bytes(reversed(base128))
    return tlv(_OID, content)


def _sequence(*parts: bytes) -> bytes:
    return tlv(_SEQUENCE, b"".join(parts))


def _set_of(parts: Sequence[bytes]) -> bytes:
    # DER sorts the members of a SET OF (X.690 section 11.6).
    return tlv(_SET, b"".join(sorted(parts)))


_SHA256_ALGORITHM = _sequence(_oid(_SHA256), tlv(_NULL, b""))


def timestamp(
    digest: bytes,
    at: datetime,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    serial: int,
    nonce: int | None = None,
) -> bytes:
    """Return a granted TimeStampResp (RFC 3161 section 2.4.2) over a sha256 digest, DER; `at` is cut to seconds."""
    content = _sequence(
        _integer(1),
        _oid(_POLICY),
        _sequence(_SHA256_ALGORITHM, octet_string(digest)),
        _integer(serial),
        tlv(_GENERALIZED_TIME, at.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode()),
        b"" if nonce is None else _integer(nonce),
    )
    signed_data = _sequence(
        _integer(3),
        _set_of([_SHA256_ALGORITHM]),
        _sequence(_oid(_TST_INFO), tlv(0xA0, octet_string(content))),
        tlv(0xA0, certificate.public_bytes(serialization.Encoding.DER)),
        _set_of([_signer_info(content, certificate, key)]),
    )
    token = _sequence(_oid(_SIGNED_DATA), tlv(0xA0, signed_data))
    return _sequence(_sequence(_integer(0)), token)


def _signer_info(content: bytes, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the CMS SignerInfo (RFC 5652 section 5.3) with the attributes that RFC 3161 section 2.4.2 demands."""
    issuer = certificate.issuer.public_bytes()
    serial = _integer(certificate.serial_number)
    # ESSCertIDv2 (RFC 5816): binds the token to one certificate; sha256 is its default algorithm and is left out.
    certificate_id = _sequence(
        octet_string(hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()),
        _sequence(_sequence(tlv(0xA4, issuer)), serial),
    )
    attributes = _set_of(
        [
            _sequence(_oid(_CONTENT_TYPE), _set_of([_oid(_TST_INFO)])),
            _sequence(_oid(_MESSAGE_DIGEST), _set_of([octet_string(hashlib.sha256(content).digest())])),
            _sequence(_oid(_SIGNING_CERTIFICATE_V2), _set_of([_sequence(_sequence(certificate_id))])),
        ]
    )
    signature = key.sign(attributes, ec.ECDSA(hashes.SHA256()))
    return _sequence(
        _integer(1),
        _sequence(issuer, serial),
        _SHA256_ALGORITHM,
        # Signed as a SET, stored as [0]: RFC 5652 section 5.4.
        b"\xa0" + attributes[1:],
        _sequence(_oid(_ECDSA_SHA256)),
        octet_string(signature),
    )
