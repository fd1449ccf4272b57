"""Which version each API server runs: every one is asked itself, never only the one behind the endpoint.

Where they are comes from the Endpoints object `default/kubernetes`, which only API servers write. An address without
an answer stays in the result with None: the version skew policy speaks of all of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kubenode.errors import KubenodeError, TryLater
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed, NotFound, NotOurs, Unreachable
from kubenode.host.kube.kubeconfig import Access
from kubenode.host.kube.reading import find, items, text, texts
from kubenode.model.kubernetes import Answer, KubernetesVersion

_CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_SECONDS = 20
_CONNECT_SECONDS = 10


def versions(
    api: Api, places: Sequence[tuple[str, int]], seconds: float = _SECONDS
) -> dict[tuple[str, int], KubernetesVersion | None]:
    """Return the version at each place; None where no API server of this cluster answers within `seconds`."""
    return {place: _version(api, *place, seconds) for place in places}


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
        raise TryLater(
            "the Endpoints object kubernetes names no API server yet",
            hint="Wait: an API server lists itself a few seconds after it started.",
        )
    return tuple(sorted(found))


def answers(places: Mapping[str, Access]) -> tuple[Answer, ...]:
    """Ask at each place (by name) without any identity; return those that show a certificate of the cluster's CA.

    An API server that then refuses, fails or is silent has answered: there is a cluster.
    """
    found = []
    for name, access in sorted(places.items()):
        try:
            with Api(access, connect_seconds=_CONNECT_SECONDS, seconds=_SECONDS) as api:
                found.append(Answer(name, parse(text(api.get("/version"), "gitVersion"))))
        except (Unreachable, NotOurs):
            continue
        except KubenodeError:
            found.append(Answer(name, None))
    return tuple(found)


def invited(access: Access, token: str) -> bool | None:
    """Say whether the cluster shows that it knows a bootstrap token ("id.secret"); None when that cannot be told.

    Asked as kubeadm asks (Kubernetes, "Authenticating with Bootstrap Tokens"): anybody may read the ConfigMap
    cluster-info in kube-public, which the controller manager signs with every token that is there.
    """
    try:
        with Api(access, connect_seconds=_CONNECT_SECONDS, seconds=_SECONDS) as api:
            signed = texts(api.get(_CLUSTER_INFO), "data")
    except NotFound:
        return False
    except KubenodeError:
        return None
    return f"jws-kubeconfig-{token.partition('.')[0]}" in signed


def parse(version: str) -> KubernetesVersion | None:
    """Return a git version without what comes after its numbers, None when it is none."""
    try:
        return KubernetesVersion(re.split(r"[-+]", version, maxsplit=1)[0])
    except ValueError:
        return None


def place(host: str, port: int) -> str:
    """Return the address of a server; IPv6 in brackets."""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _version(api: Api, address: str, port: int, seconds: float) -> KubernetesVersion | None:
    access = replace(api.access, server=place(address, port), name=None)
    try:
        with Api(access, connect_seconds=min(_CONNECT_SECONDS, seconds), seconds=seconds) as one:
            return parse(text(one.get("/version"), "gitVersion"))
    except KubenodeError:
        return None
