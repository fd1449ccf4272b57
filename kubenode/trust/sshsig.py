"""SSH signatures (OpenSSH's PROTOCOL.sshsig), verified in this process instead of by starting ssh-keygen."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from kubenode.errors import Untrusted
from kubenode.trust.keys import InvalidSignature, KeyRefused, PublicKey, UnsupportedKey
from kubenode.trust.reasons import Reason
from kubenode.trust.wire import Reader, WireError, string

BEGIN = b"-----BEGIN SSH SIGNATURE-----"
END = b"-----END SSH SIGNATURE-----"
MAGIC = b"SSHSIG"
MAX_ARMORED = 32_768
HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class SshSignature:
    """A parsed SSH signature: who claims to have signed, for which purpose (`namespace`); nothing is checked yet."""

    key: PublicKey
    namespace: str
    hash: str
    signature: bytes

    def signed_bytes(self, message: bytes) -> bytes:
        """Return what the key signed for `message` (PROTOCOL.sshsig, section 3)."""
        digest = HASHES[self.hash](message).digest()
        return b"".join((MAGIC, *map(string, (self.namespace.encode(), b"", self.hash.encode(), digest))))


def parse(armored: bytes, *, subject: str = "") -> SshSignature:
    """Parse an armored signature strictly.

    Raises Untrusted: UnsupportedSignature for key types and versions that are not read, BadSignature for the rest.
    """
    try:
        return _parse_blob(_dearmor(armored))
    except UnsupportedKey as error:
        raise Untrusted(
            Reason.UNSUPPORTED_SIGNATURE,
            f"the signature cannot be checked: {error}",
            subject=subject,
            hint="Sign with an ed25519, ecdsa, rsa or security key that the trust policy lists.",
        ) from error
    except (WireError, KeyRefused) as error:
        raise Untrusted(Reason.BAD_SIGNATURE, f"the SSH signature is not valid: {error}", subject=subject) from error


def verify(armored: bytes, message: bytes, *, namespace: str, subject: str = "") -> PublicKey:
    """Verify an armored signature over `message` for one purpose and return the key that made it.

    Whether that key is allowed is for the caller to decide. Raises Untrusted with BadSignature or
    UnsupportedSignature; `subject` says in the error what the signature is about.
    """
    parsed = parse(armored, subject=subject)
    if parsed.namespace != namespace:
        raise Untrusted(
            Reason.BAD_SIGNATURE,
            f"the signature was made for the purpose `{parsed.namespace[:60]}`, not for `{namespace}`",
            subject=subject,
        )
    try:
        parsed.key.check(parsed.signature, parsed.signed_bytes(message))
    except InvalidSignature as error:
        raise Untrusted(
            Reason.BAD_SIGNATURE,
            f"the signature by key {parsed.key.fingerprint} does not match the content: "
            "it was made for something else, or one of the two was changed",
            subject=subject,
        ) from error
    except (WireError, KeyRefused) as error:
        raise Untrusted(
            Reason.BAD_SIGNATURE,
            f"the signature by key {parsed.key.fingerprint} is not valid: {error}",
            subject=subject,
        ) from error
    return parsed.key


def _dearmor(armored: bytes) -> bytes:
    if len(armored) > MAX_ARMORED:
        raise WireError(f"it has {len(armored)} bytes; at most {MAX_ARMORED} are read")
    lines = armored.removesuffix(b"\n").split(b"\n")
    if len(lines) < 3 or lines[0] != BEGIN or lines[-1] != END:
        raise WireError("it does not begin and end as an SSH signature does")
    body = lines[1:-1]
    if not all(_LINE.fullmatch(line) for line in body):
        raise WireError("a line is not base64")
    joined = b"".join(body)
    try:
        blob = base64.b64decode(joined, validate=True)
    except binascii.Error as error:
        raise WireError("it is not base64") from error
    if base64.b64encode(blob) != joined:
        raise WireError("it is not canonical base64")
    return blob


@lru_cache(maxsize=64)
def _key(blob: bytes) -> PublicKey:
    """Read a key; a history has thousands of signatures and few keys."""
    return PublicKey.from_blob(blob)


def _parse_blob(blob: bytes) -> SshSignature:
    reader = Reader(blob)
    if reader.take(len(MAGIC), "the signature") != MAGIC:
        raise WireError("it does not start with SSHSIG")
    version = reader.uint32("the version")
    if version != 1:
        raise UnsupportedKey(f"signatures of version {version} are not supported")
    key = _key(reader.string("the key"))
    namespace = reader.text("the namespace")
    # The format tells verifiers to ignore this field; no known signer fills it, and it would not be signed.
    if reader.string("the reserved field"):
        raise WireError("the reserved field is not empty")
    name = reader.text("the hash algorithm")
    if name not in HASHES:
        raise WireError(f"the hash algorithm {name[:40]} is not allowed")
    signature = reader.string("the signature")
    reader.end("the signature")
    if not namespace:
        raise WireError("the namespace is empty")
    return SshSignature(key, namespace, name, signature)
