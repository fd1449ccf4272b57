"""System packages that laptops and builders need, found by what they bring; installed only with consent."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubenode.host.process import run


@dataclass(frozen=True)
class Requirement:
    """A Debian package, what it is needed for, and how to see that it is there: any of these commands or files."""

    package: str
    purpose: str
    found_by: tuple[str, ...]

    @property
    def present(self) -> bool:
        """Whether one of the commands is on PATH or one of the files exists."""
        return any(Path(name).exists() if name.startswith("/") else shutil.which(name) for name in self.found_by)


LAPTOP = (
    Requirement("git", "the fleet repo", ("git",)),
    Requirement("openssh-client", "signing commits", ("ssh-keygen",)),
)
BUILDER = (
    Requirement("apt", "packages of the image", ("apt-get",)),
    Requirement(
        "debian-archive-keyring", "checking those packages", ("/usr/share/keyrings/debian-archive-keyring.gpg",)
    ),
    Requirement("uidmap", "building without root", ("newuidmap",)),
)
DISKS = (Requirement("fdisk", "partition tables", ("sfdisk", "/usr/sbin/sfdisk", "/sbin/sfdisk")),)
LAB = (
    *DISKS,
    Requirement("qemu-system-x86", "virtual machines", ("qemu-system-x86_64",)),
    Requirement("qemu-utils", "disks of virtual machines", ("qemu-img",)),
    Requirement("ovmf", "UEFI firmware", ("/usr/share/OVMF/OVMF_CODE_4M.fd",)),
)

KUBERNETES = (
    Requirement("rsync", "building Kubernetes for tests", ("rsync",)),
    Requirement("jq", "building Kubernetes for tests", ("jq",)),
    Requirement("make", "building Kubernetes for tests", ("make",)),
    Requirement("gcc", "building Kubernetes for tests", ("gcc",)),
    Requirement("libc6-dev", "building Kubernetes for tests", ("/usr/lib/x86_64-linux-gnu/libc.a",)),
    Requirement("dpkg-dev", "building Kubernetes for tests", ("dpkg-source",)),
    Requirement("haproxy", "several API servers in the lab", ("haproxy", "/usr/sbin/haproxy")),
)


def missing(requirements: Sequence[Requirement]) -> tuple[Requirement, ...]:
    """Return the requirements that this machine does not meet."""
    return tuple(requirement for requirement in requirements if not requirement.present)


def install_command(requirements: Sequence[Requirement]) -> list[str]:
    """Return the exact command that installs these packages."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    packages = [requirement.package for requirement in requirements]
    return [*sudo, "apt-get", "install", "--yes", "--no-install-recommends", *packages]


def install(requirements: Sequence[Requirement]) -> None:
    """Install the packages with apt. Raises ProcessFailed with apt's own words."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    run([*sudo, "apt-get", "update", "--quiet"], timeout=600)
    run([*sudo, "env", "DEBIAN_FRONTEND=noninteractive", *install_command(requirements)[len(sudo) :]], timeout=1800)
