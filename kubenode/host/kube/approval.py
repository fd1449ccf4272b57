"""Approves certificate requests as an agent on a control plane: `requests.judge` decides, this writes it down."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, Malformed, NotFound
from kubenode.host.kube.names import REQUESTS
from kubenode.host.kube.reading import Object, items, name_of, text
from kubenode.host.kube.requests import Declared, Verdict, judge


@dataclass(frozen=True)
class Judged:
    """What became of one pending request: its name, and the verdict."""

    request: str
    verdict: Verdict


def approve_requests(api: Api, nodes: Mapping[str, Declared], now: datetime) -> tuple[Judged, ...]:
    """Approve every pending request that may be; return all that were looked at. `nodes` come from the trusted fleet.

    Requests that other signers or other tools answer for are left out; what is refused stays pending.
    """
    judged = []
    for request in list(api.list(REQUESTS)):
        if _decided(request):
            continue
        try:
            name = name_of(request)
            verdict = judge(request, nodes)
        except Malformed as error:
            judged.append(Judged("?", Verdict(False, error.message)))
            continue
        if not verdict.ours:
            continue
        if verdict.approve:
            _approve(api, request, verdict.reason, now)
        judged.append(Judged(name, verdict))
    return tuple(judged)


def _decided(request: Object) -> bool:
    return bool(items(request, "status", "conditions") or text(request, "status", "certificate", default=""))


def _approve(api: Api, request: Object, why: str, now: datetime) -> None:
    condition = {
        "type": "Approved", "status": "True", "reason": "KubenodeApproved", "message": f"kubenode: {why}",
        "lastUpdateTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    # The whole object with its resourceVersion: what is approved is what was judged.
    body = {**request, "status": {**request.get("status", {}), "conditions": [condition]}}
    try:
        api.replace(f"{path_of(REQUESTS, name_of(request))}/approval", body)
    except (Conflict, NotFound):
        # Another control plane was faster, or the asker gave up: the next tick sees.
        return
