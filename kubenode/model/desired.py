"""What one node should be, as the trusted commit says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from kubenode.model.documents import Release, Role, Rollout, Window


@dataclass(frozen=True)
class Peer:
    """A node of the cluster as git declares it; `target` is the release that its pool should end on."""

    name: str
    role: Role
    pool: str
    target: Release
    address: str | None = None


@dataclass(frozen=True)
class DesiredCluster:
    """The cluster as git declares it.

    `peers`: every node that is no standalone machine, sorted by name, this one among them. `order`: their pools in
    the order of changes, control planes first. `rollouts`: by pool. `configuration`: sha256 (hex) of the kubeadm
    documents.
    """

    endpoint: str
    bootstrap_node: str
    init_before: datetime
    configuration: str
    peers: tuple[Peer, ...]
    order: tuple[str, ...]
    rollouts: Mapping[str, Rollout]

    @cached_property
    def by_name(self) -> dict[str, Peer]:
        """The peers by name."""
        return {peer.name: peer for peer in self.peers}

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each peer in its pool, from 0."""
        return {peer.name: place for peers in self.pools.values() for place, peer in enumerate(peers)}

    @cached_property
    def pools(self) -> dict[str, tuple[Peer, ...]]:
        """The peers of each pool, sorted by name."""
        found: dict[str, list[Peer]] = {pool: [] for pool in self.order}
        for peer in self.peers:
            found[peer.pool].append(peer)
        return {pool: tuple(peers) for pool, peers in found.items()}


@dataclass(frozen=True)
class DesiredState:
    """The desired state of one node.

    `releases` are those of the node's channel, newest first; the first is the target. A pinned pool has exactly one.
    `channel` names the builder list of the trust policy that applies. `cluster` is None for a standalone machine.
    """

    fleet_id: str
    commit: str
    node: str
    pool: str
    role: Role
    channel: str
    releases: tuple[Release, ...]
    stores: tuple[str, ...]
    windows: tuple[Window, ...] = ()
    halted: bool = False
    cluster: DesiredCluster | None = None

    @property
    def target(self) -> Release:
        """The release the node should end on."""
        return self.releases[0]
