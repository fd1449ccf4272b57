"""What a fleet's machines need before their first boot, made with the kubenode command as an operator would."""

import base64
from collections.abc import Sequence
from pathlib import Path

from kubenode.host.seed import smbios_string
from kubenode.lab.failed import LabFailed
from kubenode.lab.kubernetes.network import NETWORK_FILE, Member, network_file
from kubenode.lab.workshop import Workshop


def enroll(workshop: Workshop, members: Sequence[Member]) -> None:
    """Make the identity and the seed of every member and the sealed secrets of the cluster, in one signed commit.

    May be called again: an identity that is there stays. The operator can open what is sealed: `kubenode new` names
    the lab's signing key as a recipient.
    """
    for member in members:
        folder = seed_folder(workshop, member.name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / NETWORK_FILE
        file.write_bytes(network_file(member, members))
        workshop.kubenode(
            *("seed", member.name, "-C", workshop.fleet, "--fleet-url", workshop.fleet_url),
            *("--anchor", workshop.anchor, "--out", folder, "--network", file),
        )
    seal_cluster_secrets(workshop)
    if workshop.git("status", "--porcelain"):
        workshop.git("add", "--all")
        workshop.git("commit", "--quiet", "--message", "The identities and secrets of the lab's cluster")
        workshop.push()


def seal_cluster_secrets(workshop: Workshop) -> None:
    """Seal the cluster's CA set to the control planes, and to each node the token by which it joins."""
    if not (workshop.fleet / "secrets/cluster-ca.yaml").exists():
        workshop.kubenode("seal", "--cluster-ca", "-C", workshop.fleet)
    workshop.kubenode("seal", "--bootstrap-tokens", "-C", workshop.fleet)


def seed_folder(workshop: Workshop, name: str) -> Path:
    """Return the folder of a machine's seed, with its private key: never in the fleet repo."""
    return workshop.keys / "seeds" / name


def seed_credentials(workshop: Workshop, name: str) -> dict[str, bytes]:
    """Return the credentials that `kubenode seed` made for a machine. Raises HostError when there are none."""
    folder = seed_folder(workshop, name) / "smbios"
    if not folder.is_dir():
        raise LabFailed(f"{name} has no seed in {folder.parent}")
    found = {}
    for file in sorted(folder.iterdir()):
        found[file.name] = base64.b64decode(file.read_text().removeprefix(smbios_string(file.name, b"")))
    return found
