"""A machine's seed as files and as systemd credentials: how it is handed over, and where a machine finds it.

Sources: systemd.system-credentials(7) (names that systemd itself reads), systemd-network-generator(8),
systemd(1) "io.systemd.credential.binary" in SMBIOS type 11 strings, QEMU's -smbios, libvirt's <oemStrings>.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.paths import Paths

SEED = "kubenode.seed"
IDENTITY = "kubenode.identity"
SEED_FILE = "seed.json"
IDENTITY_FILE = "identity.key"
FILE_OF = {SEED: SEED_FILE, IDENTITY: IDENTITY_FILE}
"""Names of credentials, and of the same on the state partition, in /var/lib/kubenode."""
NETWORK_KINDS = ("network", "netdev", "link", "conf")
"""Endings of files for systemd-networkd that can be given as credentials `network.<ending>.<name>`."""


def places(credential: str, paths: Paths, environment: Mapping[str, str]) -> list[Path]:
    """Return where a machine looks for a part of its seed: credentials of the service, of the system, the disk."""
    found = [paths.root / "run/credentials/@system" / credential, paths.state / FILE_OF[credential]]
    if "CREDENTIALS_DIRECTORY" in environment:
        found.insert(0, Path(environment["CREDENTIALS_DIRECTORY"]) / credential)
    return found


def own_identity(paths: Paths = Paths(), environment: Mapping[str, str] = os.environ) -> tuple[bytes, Path]:  # noqa: B008
    """Return this machine's identity file (secret) and where it was found, in the order of `places`.

    Raises HostError saying where it was looked for.
    """
    looked = places(IDENTITY, paths, environment)
    for place in looked:
        try:
            return place.read_bytes(), place
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(
                f"{place} cannot be read: {error.strerror}",
                hint="Give the machine its seed again (`kubenode seed NODE` makes it); the file is root's, mode 0600.",
            ) from error
    raise HostError(
        f"this machine has no identity; it was looked for in {', '.join(map(str, looked))}",
        hint=f"give the machine the credential {IDENTITY}, which `kubenode seed` makes",
    )


def smbios_string(name: str, value: bytes) -> str:
    """Return a credential as an SMBIOS type 11 string that systemd reads."""
    return f"io.systemd.credential.binary:{name}={base64.b64encode(value).decode()}"


def qemu_arguments(files: Mapping[str, Path]) -> list[str]:
    """Return QEMU's arguments for credentials whose SMBIOS strings are in files: a secret must not show in `ps`."""
    words = []
    for path in files.values():
        escaped = str(path).replace(",", ",,")
        words += ["-smbios", f"type=11,path={escaped}"]
    return words


def libvirt_xml(credentials: Mapping[str, bytes]) -> str:
    """Return the parts of a libvirt domain that hand over credentials (libvirt.org/formatdomain.html, SMBIOS)."""
    entries = "\n".join(f"    <entry>{smbios_string(name, value)}</entry>" for name, value in credentials.items())
    return (
        "<!-- Secret: it holds the machine's identity. Put both elements into the domain (virsh edit). -->\n"
        "<!-- Into the existing <os> element: -->\n<smbios mode='sysinfo'/>\n"
        "<!-- Into <domain>: -->\n"
        f"<sysinfo type='smbios'>\n  <oemStrings>\n{entries}\n  </oemStrings>\n</sysinfo>\n"
    )


def dhcp_with_ntp(servers: str) -> bytes:
    """Return a .network file like the image's own for wired interfaces, with time servers (systemd.network(5))."""
    return f"[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\nNTP={servers}\n\n[DHCPv4]\nUseDomains=yes\n".encode()
