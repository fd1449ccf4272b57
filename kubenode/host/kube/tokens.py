"""Bootstrap tokens, one for each node, in the cluster only while that node has to join.

Source: Kubernetes, "Authenticating with Bootstrap Tokens": a Secret of type bootstrap.kubernetes.io/token in
kube-system, named after the token's public half; expired ones are removed by the token cleaner.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kubenode.errors import HostError
from kubenode.fleet.tokens import is_token
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, NotFound
from kubenode.host.kube.reading import Object, name_of, texts

_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_TYPE = "bootstrap.kubernetes.io/token"
_LABEL = "kubenode.dev/node"
_GROUP = "system:bootstrappers:kubeadm:default-node-token"
LIFETIME = timedelta(hours=1)


class Tokens:
    """The bootstrap tokens of a cluster that kubenode made, by node; other tokens are left alone."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def nodes(self, now: datetime) -> frozenset[str]:
        """Return whose token can be used, for half its lifetime at least: what is older is to be set again."""
        found = self._api.list(_SECRETS, labelSelector=_LABEL)
        fresh = [it for it in found if _expiry(texts(it, "data")) > now + LIFETIME / 2]
        return frozenset(texts(it, "metadata", "labels")[_LABEL] for it in fresh)

    def present(self) -> dict[str, str]:
        """Return the node of each token's Secret, by the Secret's name."""
        found = self._api.list(_SECRETS, labelSelector=_LABEL)
        return {name_of(it): texts(it, "metadata", "labels").get(_LABEL, "") for it in found}

    def keep(self, wanted: Mapping[str, str], now: datetime) -> int:
        """Have exactly these tokens ("id.secret", by node) in the cluster; return how many Secrets were changed.

        Each is good for an hour and gets a new hour at half time: a cluster whose agents stop is soon closed.
        """
        changed = 0
        for name, node in self.present().items():
            if node not in wanted or name != _name(node, wanted[node]):
                changed += self._api.delete(path_of(_SECRETS, name))
        for node, token in sorted(wanted.items()):
            changed += self._ensure(node, token, now)
        return changed

    def withdraw(self, token: str) -> None:
        """Remove the token with this one's id, whoever made it."""
        self._api.delete(path_of(_SECRETS, _name("this node", token)))

    def _ensure(self, node: str, token: str, now: datetime) -> int:
        wanted = _secret(node, token, now + LIFETIME)
        path = path_of(_SECRETS, name_of(wanted))
        try:
            found = self._api.get(path)
        except NotFound:
            try:
                self._api.create(_SECRETS, wanted)
            except Conflict:
                # Another control plane was faster.
                return 0
            return 1
        if texts(found, "metadata", "labels").get(_LABEL) != node:
            raise HostError(
                f"the token of {node} has the id of another token in this cluster",
                hint=f"give {node} a new bootstrap token: two tokens cannot share their first six characters",
            )
        data = texts(found, "data")
        fresh = _expiry(data) > now + LIFETIME / 2
        if fresh and data.get("token-secret") == wanted["data"]["token-secret"]:
            return 0
        self._api.patch(path, {"data": wanted["data"]})
        return 1


def _name(node: str, token: str) -> str:
    if not is_token(token):
        raise HostError(
            f"the bootstrap token of {node} is none", hint="six characters, a dot, sixteen characters: [a-z0-9]"
        )
    return f"bootstrap-token-{token.partition('.')[0]}"


def _secret(node: str, token: str, until: datetime) -> Object:
    name = _name(node, token)
    public, _, secret = token.partition(".")
    data = {
        "token-id": public, "token-secret": secret, "expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": f"kubenode: {node} joins", "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true", "auth-extra-groups": _GROUP,
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": _TYPE,
        "metadata": {"name": name, "namespace": "kube-system", "labels": {_LABEL: node}},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def _expiry(data: Mapping[str, str]) -> datetime:
    """Return when a token ends; one that does not say, or not readably, is taken as ended."""
    try:
        at = datetime.fromisoformat(base64.b64decode(data.get("expiration", ""), validate=True).decode("ascii"))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
