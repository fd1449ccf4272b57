"""What one node should be, from the documents of a trusted commit."""

from collections.abc import Collection
from typing import NoReturn

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.problems import choices, did_you_mean
from kubenode.model.desired import DesiredState
from kubenode.model.documents import FleetDocuments, Pool, Release
from kubenode.model.version import Version

PINNED_BUILDERS = "stable"
"""Whose builders are accepted for a pinned release when its pool names no channel."""


def desired_state(documents: FleetDocuments, commit: str, node: str) -> DesiredState:
    """Return what a node should be at a commit (40 hex digits).

    A pool that pins a release gives exactly that one; its channel, or `stable`, only names the accepted builders.
    Raises FleetInvalid, with a hint, when the node, its pool, its channel or one of the channel's releases is missing.
    """
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


def _releases(documents: FleetDocuments, pool: Pool) -> tuple[Release, ...]:
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
    return tuple(_release(documents, version, f"channel {channel.name!r}") for version in channel.releases)


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
