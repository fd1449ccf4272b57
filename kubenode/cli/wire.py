"""Joins the agent's ports to this machine's hosts."""

from collections.abc import Callable

from kubenode.agent.tick import Ports
from kubenode.host.clock import SystemClock
from kubenode.host.git import FleetRepository
from kubenode.host.health import HostHealth
from kubenode.host.machine import HostMachine
from kubenode.host.mirror import addresses
from kubenode.host.paths import Paths
from kubenode.host.remote import RemoteFleet
from kubenode.host.slots import HostSlots
from kubenode.host.staging import Downloads
from kubenode.host.state import StateFolder
from kubenode.host.static import StaticFleet
from kubenode.host.stores import HttpStores
from kubenode.model.decision import Act
from kubenode.model.state import Seed
from kubenode.ports import FleetSource, Health, Progress

Print = Callable[[str], None]
_WORTH_SAYING = 64 << 20
"""Bytes; what is smaller is done before anybody reads about it."""


def node_ports(show: Print | None) -> Ports:
    """Return the ports of this machine; `show` gets a line of progress now and then."""
    paths = Paths()
    return Ports(
        clock=SystemClock(paths.clock_epoch),
        state=StateFolder(paths),
        machine=HostMachine(paths),
        slots=HostSlots(paths),
        staging=Downloads(paths.downloads),
        open_fleet=lambda seed: _fleet(paths, seed),
        open_stores=HttpStores,
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
