"""Two machines on the lab's shared network: each has the address of its seed, and they reach each other by it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kubenode.lab.kubernetes.network import CNI_FILE, NETWORK_FILE, conflist, members, network_file, system_credentials
from kubenode.lab.node import LabNode
from kubenode.lab.qemu import SharedNetwork
from kubenode.lab.story import FIRST, Story

pytestmark = pytest.mark.vm

PAIR = members(1, 1)
SERVE = """
import socket
server = socket.create_server(("{address}", 7000))
while True:
    connection, peer = server.accept()
    connection.sendall(("reached by " + peer[0]).encode())
    connection.close()
"""
ASK = """
import socket, time
deadline = time.monotonic() + 60
while True:
    try:
        connection = socket.create_connection(("{address}", 7000), 60)
        break
    except ConnectionRefusedError:  # systemd-run returns before the server of its unit listens
        if time.monotonic() > deadline:
            raise
        time.sleep(1)
print(connection.recv(100).decode())
"""
CARDS = """
import json, subprocess
links = json.loads(subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True).stdout)
print(*sorted(ip["local"] for link in links for ip in link["addr_info"] if link["ifname"] != "lo"))
"""


@pytest.fixture
def pair(story: Story, tmp_path: Path) -> Iterator[list[LabNode]]:
    """One machine for each member, with the demo's first release; their agents follow nothing."""
    disk = story.workshop.out / FIRST / f"kubenode_{FIRST}.disk.raw"
    shared = SharedNetwork.of(tmp_path)
    with ExitStack() as stack:
        nodes = []
        for member in PAIR:
            credential = f"network.network.{NETWORK_FILE.removesuffix('.network')}"
            node = LabNode(
                member.name,
                disk,
                tmp_path / member.name,
                story.workshop.seed(member.name, story.workshop.anchor),
                manual=True,
                hardware={"memory_mib": 1024, "cpus": 1, "shared": shared},
                more={credential: network_file(member, PAIR), **system_credentials(member)},
            )
            stack.callback(node.cut_power)
            nodes.append(node)
        yield nodes


def test_two_machines_reach_each_other(pair: list[LabNode]) -> None:
    for node in pair:
        node.machine.start()
    for node, member in zip(pair, PAIR, strict=True):
        node.probe.wait(300)
        node.wait_up(400)
        # The user network's address is the same on every machine; the other is the seed's.
        assert node.probe.python(CARDS).split() == ["10.0.2.15", member.address]
        assert node.probe.read(CNI_FILE) == conflist(member)
        serve = ["/usr/bin/python3", "-I", "-c", SERVE.format(address=member.address)]
        node.probe.run(["/usr/bin/systemd-run", "--quiet", "--unit=lab-serve", *serve])
    for node, me, other in ((pair[0], *PAIR), (pair[1], *reversed(PAIR))):
        assert node.probe.python(ASK.format(address=other.address), 150).strip() == f"reached by {me.address}"
        # What comes for the other node's pods goes over the shared network.
        route = node.probe.run(["/usr/bin/ip", "route", "get", other.pod_subnet.replace(".0/24", ".5")]).text
        assert f"via {other.address} " in route
        assert f"src {me.address} " in route
