"""Age recipients as text: whom a file is sealed to. Native ones (`age1...`) and SSH keys, as age takes both.

Sources: https://c2sp.org/age ("The X25519 recipient type"), BIP 173 (Bech32), age(1) ("SSH keys").
"""

import base64
import hashlib
from functools import lru_cache, reduce

from kubenode.trust.keys import PublicKey

_PREFIX = "age"
_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_SSH = ("ssh-ed25519", "ssh-rsa")


@lru_cache(maxsize=1 << 14)
def canonical(text: str) -> str:
    """Return a recipient in its one form: lower case, SSH keys without comment. Raises ValueError saying why not."""
    if text.startswith("age1"):
        _check_bech32(text)
        return text
    key = PublicKey.parse(text)
    if key.algorithm not in _SSH:
        raise ValueError(f"age cannot seal to keys of type {key.algorithm}, only to {' and '.join(_SSH)}")
    return str(PublicKey(key.algorithm, key.blob))


def stanza_of(recipient: str) -> tuple[str, ...]:
    """Return how the header of a sealed file names a canonical recipient: X25519 alone, or SSH's type and key tag."""
    if recipient.startswith("age1"):
        return ("X25519",)
    key = PublicKey.parse(recipient)
    tag = base64.b64encode(hashlib.sha256(key.blob).digest()[:4]).decode().rstrip("=")
    return (key.algorithm, tag)


def _check_bech32(text: str) -> None:
    digits = [_ALPHABET.find(character) for character in text[len(_PREFIX) + 1 :]]
    if len(digits) != 58 or -1 in digits:
        raise ValueError("an age recipient has 62 characters: age1 and 58 lower-case letters and digits")
    prefix = [ord(character) >> 5 for character in _PREFIX] + [0] + [ord(character) & 31 for character in _PREFIX]
    if reduce(_polymod, prefix + digits, 1) != 1:
        raise ValueError("the checksum of the age recipient is wrong; was a character changed?")


def _polymod(checksum: int, value: int) -> int:
    top = checksum >> 25
    checksum = (checksum & 0x1FFFFFF) << 5 ^ value
    return reduce(lambda sofar, bit: sofar ^ (_GENERATOR[bit] if top >> bit & 1 else 0), range(5), checksum)
