"""Signature formats of commits, by how their armor begins: the one place to add another.

git knows three (its gpg-interface.c): SSH, OpenPGP and X.509, which gitsign uses too. A format that cannot be verified
is never taken for a good signature: the commit counts as not signed, and what is said tells why.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kubenode.errors import Untrusted
from kubenode.trust import sshsig
from kubenode.trust.keys import PublicKey
from kubenode.trust.reasons import Reason

NAMESPACE = "git"
"""The purpose that git gives its SSH signatures."""

Verifier = Callable[[bytes, bytes, str], PublicKey]
"""Signature, message and subject (for the error) -> the key that made it, or Untrusted."""


@dataclass(frozen=True)
class SignatureFormat:
    """How signatures of one kind begin, and how they are verified; without `verify` they are not supported yet."""

    name: str
    begins: bytes
    verify: Verifier | None = None
    advice: str = ""


def _verify_ssh(signature: bytes, message: bytes, subject: str) -> PublicKey:
    return sshsig.verify(signature, message, namespace=NAMESPACE, subject=subject)


FORMATS = (
    SignatureFormat("SSH", b"-----BEGIN SSH SIGNATURE-----", _verify_ssh),
    SignatureFormat(
        "OpenPGP",
        b"-----BEGIN PGP ",
        advice="Merge buttons of forges sign with the forge's own OpenPGP key, which proves nothing about people.",
    ),
    SignatureFormat("X.509 (S/MIME or gitsign)", b"-----BEGIN SIGNED MESSAGE-----"),
)


def verify_signature(signature: bytes, message: bytes, *, subject: str) -> PublicKey:
    """Verify a commit's signature over its payload and return the key that made it.

    Raises Untrusted: UnsupportedSignature for formats and keys that are not read, BadSignature for everything else.
    """
    found = next((entry for entry in FORMATS if signature.startswith(entry.begins)), None)
    if found is None:
        raise Untrusted(
            Reason.BAD_SIGNATURE,
            f"the signature is in no format that git knows ({', '.join(entry.name for entry in FORMATS)})",
            subject=subject,
        )
    if found.verify is None:
        raise Untrusted(
            Reason.UNSUPPORTED_SIGNATURE,
            f"it has an {found.name} signature, which is not supported yet",
            subject=subject,
            hint=f"Sign with an SSH key (gpg.format=ssh). {found.advice}".strip(),
        )
    return found.verify(signature, message, subject)
