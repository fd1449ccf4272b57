"""Sealing and opening age files with pyrage (https://c2sp.org/age), all in memory.

No error here quotes what it read: its text may reach a log. pyrage is loaded when something is sealed or opened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubenode.errors import HostError, UsageError
from kubenode.fleet.secrets import NodeSecret

_NATIVE = "AGE-SECRET-KEY-1"
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_PEM_KEY = (b"-----BEGIN RSA PRIVATE KEY-----", b"-----BEGIN PRIVATE KEY-----")
_MAX_KEY_FILE = 64 << 10
_WHICH = "Name an age identity (age-keygen writes one) or an ed25519 or RSA SSH private key."

Ask = Callable[[str], str]
"""Asks a person for a passphrase; takes the prompt."""


@dataclass(frozen=True)
class Identity:
    """A private key that opens sealed files; never shown. `name` says which, for messages."""

    name: str
    _key: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class NewIdentity:
    """A machine's new identity: the text of its file, which is secret, and the recipient that others seal to."""

    recipient: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class OpenedSecret:
    """A secret that this machine opened: where it goes, and what it is; never shown."""

    secret: NodeSecret
    content: bytes = field(repr=False)


def seal(plain: bytes, recipients: Sequence[str]) -> bytes:
    """Return an armored age file that any one of the recipients (age1..., or SSH keys) can open.

    Raises UsageError for a recipient that cannot be used.
    """
    import pyrage

    keys: list[Any] = []
    for recipient in recipients:
        try:
            parse = pyrage.x25519.Recipient if recipient.startswith("age1") else pyrage.ssh.Recipient
            keys.append(parse.from_str(recipient))
        except pyrage.RecipientError as error:
            raise UsageError(
                f"nothing can be sealed to {recipient[:80]}: {error}",
                hint="Recipients are age1... or the line of an SSH key (ed25519, RSA); others can only sign.",
            ) from error
    if not keys:
        raise UsageError("there is nobody to seal to", hint="Name an operator.")
    sealed: bytes = pyrage.encrypt(plain, keys, armored=True)
    return sealed


def unseal(ciphertext: bytes, identities: Sequence[Identity], what: str) -> bytes:
    """Return what is in an age file; `what` is its name for messages.

    Raises HostError when none of the identities opens it, or it is damaged.
    """
    import pyrage

    try:
        plain: bytes = pyrage.decrypt(ciphertext, [identity._key for identity in identities])
    except pyrage.DecryptError as error:
        names = " or ".join(identity.name for identity in identities)
        if "No matching keys" in str(error):
            hint = "Its description in secrets/ lists who can open it."
            raise HostError(f"{what} is not sealed to {names}", hint=hint) from None
        raise HostError(f"{what} cannot be opened with {names}: {error}", hint="Is the file whole?") from None
    return plain


def unseal_for_node(secrets: Sequence[NodeSecret], identity: Identity) -> list[OpenedSecret]:
    """Open the secrets of this machine, as `kubenode.fleet.secrets.secrets_for` chose them.

    Raises HostError naming the first that cannot be opened.
    """
    return [OpenedSecret(it, open_secret(it, [identity])) for it in secrets]


def open_secret(secret: NodeSecret, identities: Sequence[Identity]) -> bytes:
    """Return what is in a secret of this machine. Raises HostError naming it when it cannot be opened."""
    return unseal(secret.ciphertext, identities, f"the secret {secret.name!r}")


def new_identity() -> NewIdentity:
    """Make an X25519 identity; its text is an identity file as age-keygen writes it."""
    import pyrage

    key = pyrage.x25519.Identity.generate()
    recipient = str(key.to_public())
    return NewIdentity(recipient, f"# public key: {recipient}\n{key}\n")


def recipient_of(text: bytes, where: str) -> str:
    """Return the recipient of a machine's identity (the text of its file); `where` is its name for messages.

    Raises HostError when it is none, or several.
    """
    import pyrage

    keys = _native_keys(text)
    if len(keys) == 1:
        try:
            return str(pyrage.x25519.Identity.from_str(keys[0]).to_public())
        except pyrage.IdentityError:
            pass
    raise HostError(f"{where} does not hold one age identity", hint="Is it whole? age-keygen -y tells.")


def parse_identities(data: bytes, where: str, ask: Ask | None = None) -> list[Identity]:
    """Read an age identity file or an SSH private key; `where` is its name for messages.

    An SSH key with a passphrase is opened in memory; `ask` gets it. Raises UsageError saying what is there instead.
    """
    import pyrage

    if data.startswith((_OPENSSH, *_PEM_KEY)):
        return [_ssh_identity(data, where, ask)]
    try:
        found = [Identity(where, pyrage.x25519.Identity.from_str(key)) for key in _native_keys(data)]
    except pyrage.IdentityError:
        raise UsageError(f"{where} holds a damaged age identity", hint="age-keygen -y tells what is wrong.") from None
    if found:
        return found
    if data.startswith((b"-----BEGIN AGE ENCRYPTED FILE-----", b"age-encryption.org/")):
        hint = "Open it first, without a file in between: age --decrypt FILE | kubenode unseal NAME --identity -"
        raise UsageError(f"{where} is itself encrypted", hint=hint)
    if data.startswith((b"ssh-", b"ecdsa-", b"sk-", b"age1")):
        raise UsageError(f"{where} is the public half of a key; the private one opens files", hint=_WHICH)
    raise UsageError(f"{where} is no key that opens sealed files", hint=_WHICH)


def read_identity(path: Path, ask: Ask | None = None) -> list[Identity]:
    """Read identities from a file. Raises UsageError, HostError when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}", hint=_WHICH) from error
    return parse_identities(data, str(path), ask)


def _native_keys(text: bytes) -> list[str]:
    lines = [line.strip() for line in text.decode("ascii", "replace").splitlines()]
    return [line for line in lines if line.upper().startswith(_NATIVE)]


def _ssh_identity(data: bytes, where: str, ask: Ask | None) -> Identity:
    import pyrage
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_ssh_private_key,
    )

    try:
        return Identity(where, pyrage.ssh.Identity.from_buffer(data))
    except pyrage.IdentityError as error:
        if b"ENCRYPTED" in data[:200]:
            hint = f"ssh-keygen -p -f {where} writes it in the present form, still with a passphrase."
            raise UsageError(f"{where} is encrypted in an old form that is not read", hint=hint) from None
        if "must be decrypted" not in str(error) or not data.startswith(_OPENSSH):
            hint = "Security keys (sk-) and ECDSA keys cannot open files, only sign."
            raise UsageError(
                f"{where} is no ed25519 or RSA key that opens sealed files", hint=f"{hint} {_WHICH}"
            ) from None
    if ask is None:
        raise UsageError(f"{where} has a passphrase, and nobody can be asked for it here", hint="Use a terminal.")
    try:
        key = load_ssh_private_key(data, ask(f"Passphrase of {where}").encode())
        # Decrypted in memory only, in the form that pyrage reads.
        return Identity(
            where,
            pyrage.ssh.Identity.from_buffer(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())),
        )
    except (ValueError, TypeError, pyrage.IdentityError):
        raise UsageError(f"the passphrase does not open {where}", hint="Try again.") from None
