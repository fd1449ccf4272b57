"""The API server's certificate follows the fleet's documents: kubeadm renews it with the names it has, never others.

Source: kubeadm, "Certificate Management with kubeadm": `certs renew` takes the attributes of the existing certificate.
So kubeadm makes a new pair in a folder of its own, and it is put in place when its names are others. Key and
certificate are two files, and a power cut between them would leave an API server that does not start: the new pair is
whole on the disk before the first is replaced, and the kubelet's unit finishes what was begun before it starts
(`kubenode-kubelet-config`), without which nothing here could.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from kubenode.errors import HostError
from kubenode.host.files import host_errors, make_folder, sync_folder, write_atomically
from kubenode.host.paths import Paths

FOLDER = "kubenode-new"
"""Below the folder of certificates, while a pair is made."""
READY = "ready"
"""In it from when the pair is whole until both files are in place."""
KEY, CERTIFICATE = "apiserver.key", "apiserver.crt"
_CA = ("ca.crt", "ca.key")


@dataclass(frozen=True)
class Making:
    """A folder with the cluster's CA in which kubeadm makes a pair, and where it belongs."""

    folder: Path
    pki: Path

    @property
    def is_other(self) -> bool:
        """Whether what was made has other names than what is there. Raises HostError."""
        return names(self.folder / CERTIFICATE) != names(self.pki / CERTIFICATE)

    def install(self) -> None:
        """Put the pair in place. Raises NoSpace, HostError."""
        with host_errors(f"{self.folder} cannot be put in place", self.pki):
            for name, mode in ((KEY, 0o600), (CERTIFICATE, 0o644)):
                write_atomically(self.folder / name, (self.folder / name).read_bytes(), mode)
            write_atomically(self.folder / READY, b"")
            self.finish()

    def finish(self) -> None:
        """Put in place what a killed `install` left."""
        for name in (KEY, CERTIFICATE):
            if (self.folder / name).exists():
                (self.folder / name).replace(self.pki / name)
        sync_folder(self.pki)
        (self.folder / READY).unlink()


@contextmanager
def making(paths: Paths) -> Iterator[Making]:
    """Yield a new folder to make a pair in; it is deleted when nothing failed. Raises NoSpace, HostError."""
    pki = paths.kubernetes / "pki"
    made = Making(pki / FOLDER, pki)
    with host_errors(f"{made.folder} cannot be prepared", pki):
        if (made.folder / READY).exists():
            made.finish()
        shutil.rmtree(made.folder, ignore_errors=True)
        make_folder(made.folder)
        for name in _CA:
            (made.folder / name).symlink_to(pki / name)
    yield made
    # Not when it failed: a pair that is half in place is finished by the next call, or before the kubelet starts.
    shutil.rmtree(made.folder, ignore_errors=True)


def names(certificate: Path) -> frozenset[str]:
    """Return the names and addresses that a certificate is for, none when it is not there. Raises HostError."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        shown = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise HostError(
            f"{certificate} cannot be read: {error}", hint="kubeadm wrote it: is the disk healthy?"
        ) from error
    return frozenset(str(it.value) for it in shown)
