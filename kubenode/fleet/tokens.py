"""Bootstrap tokens: each node of a cluster joins with its own, known to itself and to the control planes only.

Source of the format: Kubernetes, "Authenticating with Bootstrap Tokens". A control plane publishes a token only while
its node is absent or not ready, and only for an hour at a time.
"""

import hashlib
import re
from collections.abc import Callable, Mapping

from kubenode.model.documents import Node, Pool, Role, Sealed, SealedSecret

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_PUBLIC, _SECRET = 6, 16
_TOKEN = re.compile(f"[{ALPHABET}]{{{_PUBLIC}}}\\.[{ALPHABET}]{{{_SECRET}}}")
_LONGEST = 63


def secret_name(node: str) -> str:
    """Return the name of the secret with a node's token; of a long node name its hash."""
    name = f"bootstrap-token-{node}"
    if len(name) <= _LONGEST:
        return name
    return f"bootstrap-token-{hashlib.sha256(node.encode()).hexdigest()[:32]}"


def is_token(text: str) -> bool:
    """Say whether a text is a bootstrap token, "abcdef.0123456789abcdef"."""
    return _TOKEN.fullmatch(text) is not None


def make_token(choose: Callable[[str], str]) -> str:
    """Return a new token; `choose` picks one character at random.

    The first six characters are the token's public name in the cluster. Two nodes get the same ones with a chance of
    one in two billion, and the control plane that would publish both then says so.
    """
    letters = [choose(ALPHABET) for _ in range(_PUBLIC + _SECRET)]
    return "".join((*letters[:_PUBLIC], ".", *letters[_PUBLIC:]))


def describe(node: str, operators: tuple[str, ...]) -> SealedSecret:
    """Return the description of the secret with a node's token, not sealed yet."""
    return SealedSecret(
        secret_name(node), Sealed(""), (node,), (), (Role.CONTROL_PLANE,), operators, bootstrap_token_of=node
    )


def nodes_without(
    nodes: Mapping[str, Node], pools: Mapping[str, Pool], secrets: Mapping[str, SealedSecret]
) -> list[Node]:
    """Return the nodes of the cluster that have no token, by name; of a node without a pool nobody knows."""
    known = {secret.bootstrap_token_of for secret in secrets.values()}
    return [
        node
        for name, node in sorted(nodes.items())
        if name not in known and node.pool in pools and pools[node.pool].role is not Role.STANDALONE
    ]
