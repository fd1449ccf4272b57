"""What a member of a cluster needs of the fleet's sealed secrets, opened when it is asked for and not before.

A tick of a node with nothing to do opens nothing, and a control plane opens the tokens that it publishes, not a
thousand others.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

from kubenode.errors import FleetInvalid, HostError
from kubenode.fleet.cluster_ca import CLUSTER_CA, decode_ca_set
from kubenode.fleet.secrets import NodeSecret, load_secrets, secrets_for
from kubenode.fleet.tokens import is_token
from kubenode.model.documents import ClusterCA, FleetDocuments, SealedSecret

Open = Callable[[NodeSecret], bytes]


class MemberSecrets:
    """Of a trusted commit's `files`, for the node `node`; `opens` decrypts with this machine's identity."""

    def __init__(self, files: Mapping[str, bytes], documents: FleetDocuments, node: str, opens: Open) -> None:
        self._files = files
        self._documents = documents
        self._node = node
        self._open = opens

    @property
    def ca_certificate(self) -> bytes:
        """The cluster's CA certificate (PEM), which is public. Raises HostError when the fleet has none."""
        return self._cluster_ca.certificate.encode()

    @property
    def ca_cert_hash(self) -> str:
        """The hash of the CA's public key by which a joining node knows its cluster. Raises HostError."""
        return self._cluster_ca.ca_cert_hash

    def ca_set(self) -> Mapping[str, bytes]:
        """Return the cluster's CA set by path below /etc/kubernetes/pki; on control planes only. Raises HostError."""
        if self._opened_ca is None:
            raise HostError(
                f"the cluster's CA set is not sealed to {self._node}",
                hint=f"On a laptop: kubenode seal --reseal {CLUSTER_CA}, commit, push.",
            )
        try:
            return decode_ca_set(self._opened_ca)
        except ValueError as error:
            raise HostError(f"the secret {CLUSTER_CA!r} is damaged: {error}", hint="Seal it again.") from error

    def own_token(self) -> str:
        """Return this node's own bootstrap token. Raises HostError when the fleet has none that this node can open."""
        found = self.tokens_of(frozenset({self._node}))
        if self._node not in found:
            raise HostError(
                f"the fleet has no bootstrap token for {self._node}",
                hint="On a laptop: kubenode seal --bootstrap-tokens, commit, push.",
            )
        return found[self._node]

    def tokens_of(self, nodes: frozenset[str]) -> dict[str, str]:
        """Return the bootstrap tokens ("id.secret") of these nodes, as far as the fleet has them. Raises HostError."""
        found = {}
        for name, secret in self._mine.items():
            node = self._described[name].bootstrap_token_of
            if node is not None and node in nodes:
                found[node] = self._open(secret).decode("ascii", errors="replace").strip()
                if not is_token(found[node]):
                    raise HostError(
                        f"the secret {name!r} does not hold a bootstrap token",
                        hint="Delete both its files and make it again: kubenode seal --bootstrap-tokens",
                    )
        return found

    @cached_property
    def _described(self) -> dict[str, SealedSecret]:
        try:
            return load_secrets(self._files)
        except FleetInvalid as error:
            raise HostError(str(error), hint=error.hint) from error

    @cached_property
    def _mine(self) -> dict[str, NodeSecret]:
        try:
            return {it.name: it for it in secrets_for(self._files, self._documents, self._node)}
        except FleetInvalid as error:
            raise HostError(str(error), hint=error.hint) from error

    @property
    def _cluster_ca(self) -> ClusterCA:
        secret = self._described.get(CLUSTER_CA)
        if secret is None or secret.cluster_ca is None:
            raise HostError(
                "the fleet has a cluster and no CA set of it, so nobody could tell whether it exists already",
                hint="On a laptop: kubenode seal --cluster-ca, commit, push.",
            )
        return secret.cluster_ca

    @cached_property
    def _opened_ca(self) -> bytes | None:
        secret = self._mine.get(CLUSTER_CA)
        return self._open(secret) if secret is not None else None
