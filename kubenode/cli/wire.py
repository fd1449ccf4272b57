"""Joins the agent's ports to this machine's hosts."""

from collections.abc import Callable
from functools import partial

from kubenode.agent.tick import Ports
from kubenode.fleet.kubeadm import kubeadm_documents
from kubenode.fleet.secrets import NodeSecret
from kubenode.host.clock import SystemClock
from kubenode.host.git import FleetRepository
from kubenode.host.health import HostHealth
from kubenode.host.machine import HostMachine
from kubenode.host.mirror import addresses
from kubenode.host.paths import Paths
from kubenode.host.remote import RemoteFleet
from kubenode.host.seed import own_identity
from kubenode.host.slots import HostSlots
from kubenode.host.staging import Downloads
from kubenode.host.state import StateFolder
from kubenode.host.static import StaticFleet
from kubenode.host.stores import HttpStores
from kubenode.model.decision import Act
from kubenode.model.desired import DesiredState
from kubenode.model.documents import FleetDocuments
from kubenode.model.state import Seed
from kubenode.ports import Clock, Cluster, FleetSource, Health, Kubeadm, Progress
from kubenode.trust.chain import TrustedTree

Print = Callable[[str], None]
_WORTH_SAYING = 64 << 20
"""Bytes; what is smaller is done before anybody reads about it."""


def node_ports(show: Print | None) -> Ports:
    """Return the ports of this machine; `show` gets a line of progress now and then."""
    paths = Paths()
    clock = SystemClock(paths.clock_epoch)
    return Ports(
        clock=clock,
        state=StateFolder(paths),
        machine=HostMachine(paths),
        slots=HostSlots(paths),
        staging=Downloads(paths.downloads),
        open_fleet=lambda seed: _fleet(paths, seed),
        open_stores=HttpStores,
        open_kubernetes=partial(_kubernetes, paths, clock),
        progress=_progress(show),
        announce=_announcer(show),
    )


def node_health() -> Health:
    """Return this machine's part of the health gate."""
    return HostHealth(Paths())


def _fleet(paths: Paths, seed: Seed) -> FleetSource:
    repository = FleetRepository(paths.state / "fleet.git")
    static = addresses(seed.fleet_url)
    if static:
        return StaticFleet(repository, static, seed.branch, fleet_id=seed.fleet_id)
    return RemoteFleet(repository, seed.fleet_url, seed.branch, fleet_id=seed.fleet_id)


def _kubernetes(
    paths: Paths, clock: Clock, desired: DesiredState, documents: FleetDocuments, tree: TrustedTree
) -> tuple[Cluster, Kubeadm]:
    """Return this machine's ways to its cluster. Nothing is opened or asked yet."""
    # Loaded by members of a cluster only: start-up is a large part of a tick on slow machines.
    from kubenode.host.kube.cluster import KubeCluster
    from kubenode.host.member import Member
    from kubenode.host.membersecrets import MemberSecrets

    cluster = desired.cluster
    assert cluster is not None
    secrets = MemberSecrets(tree.files, documents, desired.node, partial(_open, paths))
    api = KubeCluster(paths, clock, desired.node, cluster, secrets=secrets)
    return api, Member(paths, desired.node, cluster, kubeadm_documents(tree.files), secrets, api, api.etcd)


def _open(paths: Paths, secret: NodeSecret) -> bytes:
    """Open a secret with this machine's identity. Raises HostError."""
    from kubenode.host.age import open_secret, parse_identities

    text, place = own_identity(paths)
    return open_secret(secret, parse_identities(text, str(place)))


def _announcer(show: Print | None) -> Callable[[Act], None]:
    """Return a callback that says in one line what is begun and why."""

    def announce(decision: Act) -> None:
        if show is not None:
            show(f"{type(decision.action).__name__}: {decision.why}")

    return announce


def _progress(show: Print | None) -> Progress:
    """Return a progress callback that says every quarter of long work once."""
    said: dict[str, int] = {}

    def progress(what: str, done: int, size: int) -> None:
        quarter = 4 * done // size if size else 4
        if show is not None and size >= _WORTH_SAYING and said.get(what) != quarter:
            said[what] = quarter
            show(f"  {what}: {done / 1e6:.0f} of {size / 1e6:.0f} MB")

    return progress
