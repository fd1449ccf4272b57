"""SSH keys of people: made once, readable by their owner only."""

from pathlib import Path

from kubenode.errors import UsageError
from kubenode.host.process import run


def ssh_key(private: Path, *, comment: str) -> tuple[str, bool]:
    """Return the public key line of an SSH key and whether it was made now (ed25519, without passphrase).

    Raises UsageError when a file is there that is not a private key with its public part beside it.
    """
    public = private.with_name(private.name + ".pub")
    made = not private.exists()
    if made:
        private.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", private], timeout=60)
    if not public.is_file():
        raise UsageError(f"{private} has no public key {public.name} beside it", hint=f"ssh-keygen -y -f {private}")
    return public.read_text().strip(), made
