"""SSH public keys as values: parsed strictly, compared by their key blob, able to check one raw signature.

Formats: RFC 4253 (ssh-rsa), RFC 5656 (ecdsa), RFC 8709 (ed25519) and OpenSSH's PROTOCOL.u2f (sk- keys).
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from kubenode.trust.wire import Reader, WireError

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 16384
MAX_BLOB = 8192
USER_PRESENT = 0x01

_CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "nistp256": (ec.SECP256R1(), hashes.SHA256()),
    "nistp384": (ec.SECP384R1(), hashes.SHA384()),
    "nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
_SK_ED25519 = "sk-ssh-ed25519@openssh.com"
_SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
_ECDSA = {f"ecdsa-sha2-{curve}": curve for curve in _CURVES} | {_SK_ECDSA: "nistp256"}
ALGORITHMS = ("ssh-ed25519", *(name for name in _ECDSA if name != _SK_ECDSA), "ssh-rsa", _SK_ED25519, _SK_ECDSA)
"""Key types that are read; certificates (`*-cert-v01@openssh.com`) and DSA are not."""
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}

# Points of small order (libsodium's ge25519_has_small_order, sign bit cleared): anyone can sign for such a "key".
_P25519 = 2**255 - 19
_SMALL_ORDER = frozenset(
    number.to_bytes(32, "little")
    for number in (
        0,
        1,
        2707385501144840649318225287225658788936804267575313519463743609750303021222,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
        _P25519 - 1,
        _P25519,
        _P25519 + 1,
    )
)


class KeyRefused(ValueError):
    """A public key cannot be used; the text says why, for people."""


class UnsupportedKey(KeyRefused):
    """The key is of a type, or is used in a way, that is not read."""


@dataclass(frozen=True)
class PublicKey:
    """An SSH public key; equal when the key blobs are equal, whatever the comments say."""

    algorithm: str
    blob: bytes
    comment: str = field(default="", compare=False)
    _key: Any = field(default=None, compare=False, repr=False)
    _application: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, line: str) -> "PublicKey":
        """Read `TYPE BASE64 [COMMENT]`, the content of a .pub file; raises KeyRefused with the reason."""
        words = line.strip().split(None, 2)
        if len(words) < 2:
            raise KeyRefused("expected `TYPE BASE64 [COMMENT]`, as in a .pub file")
        if words[0] not in ALGORITHMS:
            raise UnsupportedKey(f"keys of type {words[0][:60]} are not supported; use one of {', '.join(ALGORITHMS)}")
        try:
            blob = base64.b64decode(words[1], validate=True)
        except (binascii.Error, ValueError) as error:
            raise KeyRefused("the second word is not base64; was the line cut?") from error
        if base64.b64encode(blob).decode() != words[1]:
            raise KeyRefused("the second word is not canonical base64")
        key = cls.from_blob(blob, words[2] if len(words) == 3 else "")
        if key.algorithm != words[0]:
            raise KeyRefused(f"the line says {words[0]}, the key itself {key.algorithm}")
        return key

    @classmethod
    def from_blob(cls, blob: bytes, comment: str = "") -> "PublicKey":
        """Read the wire form of a key; raises KeyRefused with the reason."""
        if len(blob) > MAX_BLOB:
            raise KeyRefused(f"the key has {len(blob)} bytes; at most {MAX_BLOB} are read")
        reader = Reader(blob)
        try:
            algorithm = reader.text("the key type")
            key, application = _read_key(algorithm, reader)
            reader.end("the key")
        except WireError as error:
            raise KeyRefused(str(error)) from error
        return cls(algorithm, blob, comment, key, application)

    @property
    def fingerprint(self) -> str:
        """The fingerprint as `ssh-keygen -l` prints it: SHA256 and unpadded base64."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.algorithm} {base64.b64encode(self.blob).decode()}" + (f" {self.comment}" if self.comment else "")

    def check(self, signature: bytes, message: bytes) -> None:
        """Check an SSH signature blob over `message`.

        Raises WireError or KeyRefused when it is not well-formed for this key, and InvalidSignature when it is wrong.
        """
        reader = Reader(signature)
        kind = reader.text("the signature type")
        body = reader.string("the signature")
        if self.algorithm == "ssh-rsa":
            reader.end("the signature")
            self._check_rsa(kind, body, message)
            return
        if kind != self.algorithm:
            raise KeyRefused(f"a {self.algorithm} key cannot make a {kind} signature")
        if self._application is not None:
            flags = reader.take(1, "the security key's flags")
            counter = reader.take(4, "the security key's counter")
            if not flags[0] & USER_PRESENT:
                raise KeyRefused("the security key was not touched for this signature (user presence is required)")
            application = hashlib.sha256(self._application).digest()
            # PROTOCOL.u2f, "SSH U2F signatures".
            message = application + flags + counter + hashlib.sha256(message).digest()
        reader.end("the signature")
        if self.algorithm in _ECDSA:
            parts = Reader(body)
            r, s = parts.positive("the signature's r"), parts.positive("the signature's s")
            parts.end("the signature's body")
            _, digest = _CURVES[_ECDSA[self.algorithm]]
            self._key.verify(encode_dss_signature(r, s), message, ec.ECDSA(digest))
            return
        if len(body) != 64:
            raise WireError("an ed25519 signature has 64 bytes")
        self._key.verify(body, message)

    def _check_rsa(self, kind: str, body: bytes, message: bytes) -> None:
        digest = _RSA_HASHES.get(kind)
        if digest is None:
            # RFC 8332 keeps the key type ssh-rsa; the signature type of that name means SHA-1.
            raise KeyRefused(f"RSA signatures of type {kind} are refused; use rsa-sha2-512")
        if len(body) != (self._key.key_size + 7) // 8:
            raise WireError("the RSA signature is not as long as the key")
        self._key.verify(body, message, padding.PKCS1v15(), digest)


def _read_key(algorithm: str, reader: Reader) -> tuple[Any, bytes | None]:
    try:
        if algorithm == "ssh-rsa":
            return _read_rsa(reader), None
        if algorithm in _ECDSA:
            curve = _ECDSA[algorithm]
            if reader.text("the curve") != curve:
                raise KeyRefused("the key's curve is not the one of its type")
            point = reader.string("the curve point")
            if point[:1] != b"\x04":
                raise KeyRefused("the curve point is not in uncompressed form")
            key: Any = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve][0], point)
            return key, reader.string("the application") if algorithm == _SK_ECDSA else None
        if algorithm in ("ssh-ed25519", _SK_ED25519):
            raw = reader.string("the key")
            if len(raw) != 32:
                raise KeyRefused("an ed25519 key has 32 bytes")
            if raw[:31] + bytes([raw[31] & 0x7F]) in _SMALL_ORDER:
                raise KeyRefused("the key is a point of small order, for which anyone can sign")
            key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
            return key, reader.string("the application") if algorithm == _SK_ED25519 else None
    except (UnsupportedAlgorithm, WireError, KeyRefused):
        raise
    except ValueError as error:
        raise KeyRefused(f"the numbers do not form a {algorithm} key") from error
    if "-cert-v" in algorithm:
        raise UnsupportedKey("signatures by SSH certificates are not supported; list the keys themselves")
    raise UnsupportedKey(f"keys of type {algorithm[:60]} are not supported")


def _read_rsa(reader: Reader) -> Any:
    exponent, modulus = reader.positive("the RSA exponent"), reader.positive("the RSA modulus")
    bits = modulus.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise KeyRefused(f"an RSA key of {bits} bits is refused; use {MIN_RSA_BITS} or more, or ed25519")
    if not 3 <= exponent < 1 << 32 or not exponent & 1 or not modulus & 1:
        raise KeyRefused("the RSA exponent or modulus cannot be right")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


__all__ = ["ALGORITHMS", "InvalidSignature", "KeyRefused", "PublicKey", "UnsupportedKey"]
