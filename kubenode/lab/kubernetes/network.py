"""The members of the lab's cluster and their network: an address on the shared card, and routes between their pods.

The first card is QEMU's user network, where every machine has the same address (10.0.2.15) and reaches only the host:
it carries the fleet repo and the releases. Everything of the cluster goes over the shared card. Pods are on a bridge of
their node with a subnet of its own, and networkd routes the other nodes' subnets to their addresses: no program is
needed for it, as a CNI that runs as pods would.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

from kubenode.lab.qemu import mac_address
from kubenode.model.documents import Role

POD_SUBNET = "10.244.0.0/16"
NETWORK_FILE = "50-lab.network"
"""Before the image's own 90-kubenode-dhcp.network, which would ask for a lease on the shared card, too."""
CNI_FILE = "/etc/cni/net.d/10-bridge.conflist"
MOST = 9
"""Members of a role that addresses are made for."""


@dataclass(frozen=True)
class Member:
    """A machine of the cluster: its name in the fleet, its role, and its address on the shared network."""

    name: str
    role: Role
    address: str

    @property
    def pod_subnet(self) -> str:
        """The subnet of this node's pods, a /24."""
        return f"10.244.{self.address.rpartition('.')[2]}.0/24"

    @property
    def serves_api(self) -> bool:
        """Whether an API server runs on it."""
        return self.role is Role.CONTROL_PLANE


def members(control_planes: int = 1, workers: int = 0) -> tuple[Member, ...]:
    """Return a cluster's members, control planes first: cp-1 is 10.77.0.11, cp-2 10.77.0.12, w-1 10.77.0.21."""
    if not (1 <= control_planes <= MOST and 0 <= workers <= MOST):
        raise ValueError(f"{control_planes} control planes and {workers} workers")
    first = [Member(f"cp-{it}", Role.CONTROL_PLANE, f"10.77.0.{10 + it}") for it in range(1, control_planes + 1)]
    return (*first, *(Member(f"w-{it}", Role.WORKER, f"10.77.0.{20 + it}") for it in range(1, workers + 1)))


def network_file(member: Member, everybody: Sequence[Member]) -> bytes:
    """Return the .network file of the shared card: a static address, and routes to the pods of all others."""
    text = (
        f"[Match]\nMACAddress={mac_address(member.name)}\n\n"
        f"[Network]\nAddress={member.address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )
    for other in everybody:
        if other != member:
            text += f"\n[Route]\nDestination={other.pod_subnet}\nGateway={other.address}\n"
    return text.encode()


def conflist(member: Member) -> bytes:
    """Return the CNI configuration of a node: a bridge, with addresses from the node's own subnet."""
    ranges = [[{"subnet": member.pod_subnet}]]
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "bridge", "plugins": [bridge, portmap]}).encode()


def system_credentials(member: Member) -> dict[str, bytes]:
    """Return what puts the node's CNI configuration in its place, at every boot.

    A line of tmpfiles.d(5), `f+~`: write anew, from Base64. The credential is one that systemd itself reads
    (systemd.system-credentials(7), tmpfiles.extra): images are the same for all nodes, this file is not.
    """
    line = f"f+~ {CNI_FILE} 0644 root root - {base64.b64encode(conflist(member)).decode()}\n"
    return {"tmpfiles.extra": line.encode()}
