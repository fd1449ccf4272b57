"""What a member of a cluster needs of the fleet's sealed secrets, opened when it is asked for and not before.

A tick of a node with nothing to do opens nothing, and a control plane opens the tokens that it publishes, not a
thousand others.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

from kubenode.errors import FleetInvalid, HostError
from kubenode.fleet.cluster_ca import CA_CERTIFICATE, CLUSTER_CA, ca_cert_hash, decode_ca_set
from kubenode.fleet.secrets import NodeSecret, load_secret, secret_for
from kubenode.fleet.tokens import is_token, secret_name
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
        opened = self._opened(CLUSTER_CA)
        if opened is None:
            raise HostError(
                f"the cluster's CA set is not sealed to {self._node}",
                hint=f"On a laptop: kubenode seal --reseal {CLUSTER_CA}, commit, push.",
            )
        try:
            found = decode_ca_set(opened)
            same = ca_cert_hash(found[CA_CERTIFICATE]) == self.ca_cert_hash
        except ValueError as error:
            raise HostError(f"the secret {CLUSTER_CA!r} is damaged: {error}", hint="Seal it again.") from None
        if not same:
            raise HostError(
                f"the secret {CLUSTER_CA!r} holds another CA than its description says",
                hint=f"Take both its files from one commit: git log -- secrets/{CLUSTER_CA}.age",
            )
        return found

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
        for node in sorted(nodes):
            name = secret_name(node)
            described = self._described(name)
            opened = self._opened(name) if described is not None and described.bootstrap_token_of == node else None
            if opened is None:
                continue
            found[node] = opened.decode("ascii", errors="replace").strip()
            if not is_token(found[node]):
                raise HostError(
                    f"the secret {name!r} does not hold a bootstrap token",
                    hint="Delete both its files and make it again: kubenode seal --bootstrap-tokens",
                )
        return found

    def _described(self, name: str) -> SealedSecret | None:
        with _said(name):
            return load_secret(self._files, name)

    def _opened(self, name: str) -> bytes | None:
        """Return what is in a secret, None when there is none of this name or it is not for this node."""
        with _said(name):
            secret = secret_for(self._files, self._documents, self._node, name)
        return self._open(secret) if secret is not None else None

    @cached_property
    def _cluster_ca(self) -> ClusterCA:
        secret = self._described(CLUSTER_CA)
        if secret is None or secret.cluster_ca is None:
            raise HostError(
                "the fleet has a cluster and no CA set of it, so nobody could tell whether it exists already",
                hint="On a laptop: kubenode seal --cluster-ca, commit, push.",
            )
        return secret.cluster_ca


@contextmanager
def _said(name: str) -> Iterator[None]:
    """Turn a mistake in a secret's documents into one of this machine's work: nothing else of the fleet is wrong."""
    try:
        yield
    except FleetInvalid as error:
        hint = error.hint or "On a laptop: kubenode validate"
        raise HostError(f"the secret {name!r} cannot be used: {error}", hint=hint) from error
