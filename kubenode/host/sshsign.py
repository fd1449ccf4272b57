"""Signs with the SSH key of a person or a machine: by ssh-keygen, so agents and security keys work too."""

from pathlib import Path

from kubenode.errors import HostError, UsageError
from kubenode.host import process
from kubenode.trust import sshsig
from kubenode.trust.keys import KeyRefused, PublicKey


def public_key(key: Path) -> PublicKey:
    """Return the public part of a key: `key` is a private key with its .pub file beside it, or the .pub file.

    Raises UsageError when there is none that can be used.
    """
    public = key if key.name.endswith(".pub") else key.with_name(key.name + ".pub")
    hint = f"ssh-keygen -t ed25519 -f {key} makes a key, ssh-keygen -y -f {key} prints its public part."
    if not public.is_file():
        raise UsageError(f"there is no public key at {public}", hint=hint)
    try:
        return PublicKey.parse(public.read_text(errors="replace").strip())
    except KeyRefused as error:
        raise UsageError(f"{public} is not a usable SSH public key: {error}", hint=hint) from error


def sign(key: Path, message: bytes, namespace: str) -> bytes:
    """Return the armored SSH signature of `message` for one purpose, checked before it is returned.

    Raises HostError when ssh-keygen fails or no agent has the key, Untrusted when it signs with something else.
    """
    # A security key waits for a touch, a passphrase for its owner.
    argv = ["ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", str(key)]
    done = process.run(argv, timeout=300, stdin=message, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise HostError(
            f"ssh-keygen cannot sign with {key}: {said[0]}",
            hint="Is the private key readable by its owner only, or loaded into the SSH agent?",
        )
    sshsig.verify(done.stdout, message, namespace=namespace, subject=str(key))
    return done.stdout
