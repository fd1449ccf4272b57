"""Words of others: made harmless for a terminal, and freed of secrets before they leave the machine."""

import re
from typing import Any

REDACTED = "[redacted]"
_SECRETS = re.compile(
    # A PEM block, whole or cut off at either end; the same in base64, as kubeconfigs and Secrets have it.
    r"-----BEGIN [^-\n]+-----[\s\S]*?(?:-----END [^-\n]+-----|\Z)"
    r"|(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/=]{16,}\n)+(?:[A-Za-z0-9+/=]*\n)?-----END [^-\n]+-----"
    r"|LS0tLS1CRUdJTi[A-Za-z0-9+/=]+"
    # Bootstrap tokens of Kubernetes, its signed tokens (JWT), identities of age, passwords in addresses.
    r"|(?<![a-z0-9])[a-z0-9]{6}\.[a-z0-9]{16}(?![a-z0-9])"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|AGE-SECRET-KEY-1[A-Z0-9]+"
    r"|(?<=://)[^\s/@]+(?=@)"
    # kubeadm's certificate key is 64 hex digits, as digests are: only its name tells.
    r"|(?<=certificate key:)\s+[0-9a-f]{64}"
    r"|(?<=certificate-key)[\s=]+[0-9a-f]{64}"
    r"|(?<=certificateKey:)\s*\"?[0-9a-f]{64}",
)


def redacted(text: str) -> str:
    """Return what a program said without the secrets that Kubernetes' tools are known to print."""
    return _SECRETS.sub(REDACTED, text)


def printable(text: str) -> str:
    """Return text whose control characters, line ends too, and invisible marks are written out."""
    if text.isprintable():
        return text
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode("ascii") for it in text)


def harmless(value: Any) -> Any:
    """Return what was read from JSON with every text in it, keys too, on one line and printable."""
    if isinstance(value, str):
        return value if value.isprintable() else printable(" ".join(value.split()))
    if isinstance(value, dict):
        return {harmless(key): harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value
