"""What one node should be, from the documents of a trusted commit."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import NoReturn

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.problems import choices, did_you_mean
from kubenode.model.desired import DesiredCluster, DesiredState, Peer
from kubenode.model.documents import FleetDocuments, Pool, Release, Role
from kubenode.model.version import Version

PINNED_BUILDERS = "stable"
"""Whose builders are accepted for a pinned release when its pool names no channel."""


def desired_state(documents: FleetDocuments, commit: str, node: str) -> DesiredState:
    """Return what a node should be at a commit (40 hex digits).

    A pool that pins a release gives exactly that one; its channel, or `stable`, only names the accepted builders.
    Raises FleetInvalid, with a hint, when the node, its pool, its channel or one of the channel's releases is missing.
    """
    return desired_states(documents, commit, (node,))[node]


def desired_states(documents: FleetDocuments, commit: str, nodes: Iterable[str]) -> dict[str, DesiredState]:
    """Return what each of these nodes should be, by name; the cluster is one object in all of them.

    Raises FleetInvalid as `desired_state` does.
    """
    cluster: DesiredCluster | None = None
    looked = False
    found = {}
    for name in nodes:
        state = _state(documents, commit, name)
        if state.role is not Role.STANDALONE:
            cluster, looked = cluster if looked else _cluster(documents), True
            state = replace(state, cluster=cluster)
        found[name] = state
    return found


def _state(documents: FleetDocuments, commit: str, node: str) -> DesiredState:
    """Return what a node should be, without the cluster."""
    if node not in documents.nodes:
        _missing(Kind.NODE, node, "this node", documents.nodes)
    pool_name = documents.nodes[node].pool
    if pool_name not in documents.pools:
        _missing(Kind.POOL, pool_name, f"node {node!r}", documents.pools)
    pool = documents.pools[pool_name]
    return DesiredState(
        fleet_id=documents.fleet.id,
        commit=commit,
        node=node,
        pool=pool.name,
        role=pool.role,
        channel=builders_channel(pool),
        releases=_releases(documents, pool),
        stores=documents.fleet.stores,
        windows=pool.rollout.windows,
        halted=documents.fleet.halted,
    )


def builders_channel(pool: Pool) -> str:
    """Return the channel whose builders may have built this pool's images."""
    return pool.channel or PINNED_BUILDERS


def _cluster(documents: FleetDocuments) -> DesiredCluster | None:
    """Return the whole cluster: what a member may do depends on the others."""
    cluster = documents.fleet.cluster
    if cluster is None:
        return None
    peers = []
    for name in sorted(documents.nodes):
        node = documents.nodes[name]
        if node.pool not in documents.pools:
            _missing(Kind.POOL, node.pool, f"node {name!r}", documents.pools)
        pool = documents.pools[node.pool]
        if pool.role is not Role.STANDALONE:
            peers.append(
                Peer(name, pool.role, pool.name, _releases(documents, pool, only_target=True)[0], node.address)
            )
    used = {peer.pool: peer.role for peer in peers}
    named = [pool for pool in documents.fleet.rollout_order if pool in used]
    # Control planes first, whatever the order says: a kubelet is never newer than an API server.
    order = sorted([*named, *sorted(set(used) - set(named))], key=lambda pool: used[pool] is not Role.CONTROL_PLANE)
    return DesiredCluster(
        endpoint=cluster.endpoint,
        bootstrap_node=cluster.bootstrap_node,
        init_before=cluster.init_before,
        configuration=documents.kubeadm,
        peers=tuple(peers),
        order=tuple(order),
        rollouts={pool: documents.pools[pool].rollout for pool in order},
    )


def _releases(documents: FleetDocuments, pool: Pool, *, only_target: bool = False) -> tuple[Release, ...]:
    if pool.release is not None:
        return (_release(documents, pool.release, f"pool {pool.name!r}"),)
    if pool.channel is None:
        raise FleetInvalid(
            f"pool {pool.name!r} has neither a channel nor a release",
            location=Location(path_of(Kind.POOL, pool.name)),
            hint="Set spec.channel, or pin a release with spec.release.",
        )
    if pool.channel not in documents.channels:
        _missing(Kind.CHANNEL, pool.channel, f"pool {pool.name!r}", documents.channels)
    channel = documents.channels[pool.channel]
    if not channel.releases:
        raise FleetInvalid(
            f"the channel {channel.name!r} has no release yet",
            location=Location(path_of(Kind.CHANNEL, channel.name)),
            hint=f"Publish one and run `kubenode promote VERSION {channel.name}`.",
        )
    versions = channel.releases[:1] if only_target else channel.releases
    return tuple(_release(documents, version, f"channel {channel.name!r}") for version in versions)


def _release(documents: FleetDocuments, version: Version, wanted_by: str) -> Release:
    if version not in documents.releases:
        _missing(Kind.RELEASE, version.text, wanted_by, [known.text for known in documents.releases])
    return documents.releases[version]


def _missing(kind: Kind, name: str, wanted_by: str, known: Collection[str]) -> NoReturn:
    path = path_of(kind, name)
    guess = did_you_mean(name, known)
    others = f"Known: {choices(known)}." if known else ""
    raise FleetInvalid(
        f"{wanted_by} needs {path}, which is not in the fleet repo",
        location=Location(path),
        hint=guess or others or f"Add {path}, or correct the name.",
    )
