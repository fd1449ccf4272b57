"""Which version each API server runs: every one is asked itself, never only the one behind the endpoint.

Where they are comes from the Endpoints object `default/kubernetes`, which only API servers write. An address without
an answer stays in the result with None: the version skew policy speaks of all of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from kubenode.errors import KubenodeError, TryLater
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed
from kubenode.host.kube.reading import find, items, text

_SECONDS = 10
_CONNECT_SECONDS = 3


def versions(api: Api, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str | None]:
    """Return the git version ("v1.34.2") at each place; None where no API server of this cluster answers."""
    return {place: _version(api, *place) for place in places}


def places(api: Api) -> tuple[tuple[str, int], ...]:
    """Return the address and port of every API server. Raises TryLater while none has announced itself."""
    endpoints = api.get("/api/v1/namespaces/default/endpoints/kubernetes")
    found = set()
    for subset in items(endpoints, "subsets"):
        ports = [find(it, "port") for it in items(subset, "ports")]
        if not ports or not isinstance(ports[0], int):
            raise Malformed("the Endpoints object kubernetes has no port")
        # Those that are not ready are API servers, too.
        for key in ("addresses", "notReadyAddresses"):
            found |= {(text(it, "ip"), ports[0]) for it in items(subset, key)}
    if not found:
        raise TryLater("the Endpoints object kubernetes names no API server yet")
    return tuple(sorted(found))


def _version(api: Api, address: str, port: int) -> str | None:
    host = f"[{address}]" if ":" in address else address
    access = replace(api.access, server=f"https://{host}:{port}", name=None)
    try:
        with Api(access, connect_seconds=_CONNECT_SECONDS, seconds=_SECONDS) as one:
            return text(one.get("/version"), "gitVersion")
    except KubenodeError:
        return None
