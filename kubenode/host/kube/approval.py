"""Approves certificate requests that a decision named, after asking the rule once more."""

from collections.abc import Mapping, Set
from datetime import datetime

from kubenode.errors import HostError
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, NotFound
from kubenode.host.kube.names import REQUESTS
from kubenode.host.kube.reading import Object, name_of
from kubenode.host.kube.requests import pending
from kubenode.model.desired import Peer
from kubenode.plan.kubernetes.requests import refusal


def approve(api: Api, names: Set[str], peers: Mapping[str, Peer], now: datetime) -> None:
    """Approve these pending requests; those that are gone or decided are no error.

    Raises HostError when one of them may not be approved; those before it, by name, were.
    """
    for name, (it, request) in sorted(pending(api).items()):
        if name not in names:
            continue
        why = refusal(request, peers)
        if why is not None:
            raise HostError(
                f"the certificate request {name} is not approved: {why}",
                hint="If nobody should have asked: kubectl delete csr NAME. docs/cluster.md lists the rules.",
            )
        _approve(api, it, f"{request.common_name}, asked for by that node's own kubelet", now)


def _approve(api: Api, it: Object, why: str, now: datetime) -> None:
    condition = {
        "type": "Approved", "status": "True", "reason": "KubenodeApproved", "message": f"kubenode: {why}",
        "lastUpdateTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    # The whole object with its resourceVersion: what is approved is what was judged.
    body = {**it, "status": {**it.get("status", {}), "conditions": [condition]}}
    try:
        api.replace(f"{path_of(REQUESTS, name_of(it))}/approval", body)
    except (Conflict, NotFound):
        # Another control plane was faster, or the asker gave up: the next look tells.
        return
