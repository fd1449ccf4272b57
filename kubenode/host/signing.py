"""Signs with the key that a clone is set up with, through the program that git would start.

Security keys, agents and passphrases work as they do for `git commit -S`.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError, UsageError
from kubenode.host import process
from kubenode.trust import sshsig
from kubenode.trust.keys import KeyRefused, PublicKey

PATIENCE = 300.0
"""Seconds: a security key waits for a touch, a passphrase for its owner."""


@dataclass(frozen=True)
class SshSigner:
    """An SSH key as git's `user.signingKey` names it: a file (private, or public with an agent), or a `key::` literal.

    `program` is git's `gpg.ssh.program`.
    """

    key: str
    program: str = "ssh-keygen"

    def public(self) -> PublicKey:
        """Return the public key, without asking for a passphrase. Raises UsageError when there is none beside it."""
        literal = self._literal()
        if literal is not None:
            return _parse(literal, "user.signingKey")
        path = Path(self.key)
        for candidate in (path.with_name(path.name + ".pub"), path):
            try:
                text = candidate.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if "PRIVATE KEY" not in text[:100]:
                return _parse(text, str(candidate))
        raise UsageError(
            f"the signing key {self.key} has no public key {path.name}.pub beside it",
            hint=f"ssh-keygen -y -f {self.key} > {self.key}.pub   (or name another key; git's is user.signingKey)",
        )

    def sign(self, message: bytes, namespace: str) -> bytes:
        """Return an armored SSH signature for one purpose, checked against the public key.

        Raises HostError when the program fails or another key signed.
        """
        literal = self._literal()
        words = [self.program, "-Y", "sign", "-n", namespace]
        with tempfile.TemporaryDirectory(prefix="kubenode-") as folder:
            key = Path(self.key)
            if literal is not None:
                key = Path(folder) / "signing.pub"
                key.write_text(literal + "\n", encoding="utf-8")
            # The message goes through a file: some programs in place of ssh-keygen know no other way, as git does it.
            text = Path(folder) / "message"
            text.write_bytes(message)
            argv = [*words, "-f", str(key), *(["-U"] if literal is not None else []), str(text)]
            try:
                process.run(argv, timeout=PATIENCE, env=dict(os.environ))
                armored = text.with_name("message.sig").read_bytes()
            except OSError as error:
                raise HostError(
                    f"`{self.program}` made no signature: {error.strerror}",
                    hint="gpg.ssh.program of the clone names what is run; it must be there and executable.",
                ) from error
            except process.ProcessFailed as error:
                raise HostError(
                    f"signing with {self.key} failed: {error.message}",
                    hint=error.hint or "Is the security key plugged in, the agent running, the passphrase right?",
                ) from error
        signed_by = sshsig.verify(armored.replace(b"\r\n", b"\n"), message, namespace=namespace)
        if signed_by != self.public():
            raise HostError(
                f"`{self.program}` signed with the key {signed_by.fingerprint} instead of {self.public().fingerprint}",
                hint="Is the .pub file beside the private key the one of that key?",
            )
        return armored.replace(b"\r\n", b"\n")

    def _literal(self) -> str | None:
        if self.key.startswith("key::"):
            return self.key.removeprefix("key::")
        return self.key if self.key.startswith(("ssh-", "ecdsa-", "sk-")) and " " in self.key else None


def _parse(text: str, where: str) -> PublicKey:
    try:
        return PublicKey.parse(text.splitlines()[0] if text else "")
    except KeyRefused as error:
        raise UsageError(
            f"{where} is not a usable SSH public key: {error}",
            hint="Name a private key whose .pub file lies beside it; ssh-keygen -y -f KEY > KEY.pub makes one.",
        ) from error
