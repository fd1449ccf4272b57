"""The load balancer before the API servers of a cluster with several control planes, as every fleet has one: haproxy.

It runs on the host. Machines reach it, as they do the fleet repo, by the address under which QEMU's user network shows
the host's loopback; it reaches each API server by the port that is forwarded to it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.process import spawn
from kubenode.lab.qemu import HOST_ADDRESS

CONFIGURATION = """\
defaults
    mode tcp
    timeout connect 10s
    timeout check 60s
    # Watches are quiet for long.
    timeout client 1h
    timeout server 1h
listen api
    bind 127.0.0.1:{port}
    # Connections to a server that has gone are of no use to anybody: clients must come to another one.
    default-server inter 5s fall 3 rise 1 check-ssl verify none on-marked-down shutdown-sessions
    option httpchk GET /readyz
    http-check expect status 200
    # When none is ready, any that takes connections: slow machines are unready together now and then.
    option allbackups
"""


def port_of(folder: Path) -> int:
    """Return the balancer's port for a lab folder, always the same: the fleet's documents name it."""
    digest = hashlib.sha256(f"balancer of {folder.resolve()}".encode()).digest()
    # Below the ports that Linux gives to connections (32768 and up).
    return 20000 + int.from_bytes(digest[:2]) % 10000


def endpoint(folder: Path) -> str:
    """Return where machines reach the balancer."""
    return f"{HOST_ADDRESS}:{port_of(folder)}"


@contextmanager
def balancer(folder: Path, servers: Mapping[str, int]) -> Iterator[None]:
    """Balance between API servers (ports of the loopback by name) as long as the context lives. Raises HostError."""
    configuration, log = folder / "haproxy.cfg", folder / "logs/haproxy.log"
    ready = (f"    server {name} 127.0.0.1:{port} check\n" for name, port in servers.items())
    others = (f"    server {name}-unready 127.0.0.1:{port} backup\n" for name, port in servers.items())
    configuration.write_text(CONFIGURATION.format(port=port_of(folder)) + "".join([*ready, *others]))
    process = spawn(["haproxy", "-db", "-f", configuration], log=log)
    try:
        yield
        if process.poll() is not None:
            raise HostError("haproxy ended by itself", hint=f"see {log}")
    finally:
        process.terminate()
        process.wait(timeout=10)
