"""Reads the documents of a fleet repo that was authenticated already; the first mistake ends it.

Unknown fields are passed over and the schemas are not used: `validate` is for people, this is for nodes, which must
be able to leave for a newer release whatever else that release's documents say.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from kubenode.fleet import decode
from kubenode.fleet.layout import FLEET_PATH, KUBEADM_FOLDER, Kind, kind_at, name_at, names_of, path_of
from kubenode.model.documents import Channel, FleetDocuments, Node, Pool, Release, Role
from kubenode.model.version import Version
from kubenode.trust.strictyaml import Document, load

T = TypeVar("T")


def load_fleet(files: Mapping[str, bytes], *, node: str | None = None) -> FleetDocuments:
    """Read every document; with `node`, only those that this node's desired state is made of.

    With `node`, a mistake in another node's documents does not matter to a standalone machine, and the cost does not
    grow with the fleet; a member of the cluster needs all of the cluster's nodes. Documents that are missing are left
    out, for `desired_state` to say so. Raises FleetInvalid.
    """
    if FLEET_PATH not in files:
        raise decode.missing(FLEET_PATH, "A fleet repo has a fleet.yaml at its top: is this the right folder?")
    fleet = decode.fleet(load(files[FLEET_PATH], FLEET_PATH))
    if node is not None:
        return _load_for_node(files, FleetDocuments(fleet), node)
    releases = _load_all(files, Kind.RELEASE, decode.release)
    return FleetDocuments(
        fleet,
        channels=_load_all(files, Kind.CHANNEL, decode.channel),
        releases={release.version: release for release in releases.values()},
        pools=_load_all(files, Kind.POOL, decode.pool),
        nodes=_load_all(files, Kind.NODE, decode.node),
        images=_load_all(files, Kind.IMAGE, decode.image),
        kubeadm=kubeadm_digest(files),
    )


def _load_for_node(files: Mapping[str, bytes], documents: FleetDocuments, name: str) -> FleetDocuments:
    node: Node | None = _load_one(files, Kind.NODE, name, decode.node)
    if node is None:
        return documents
    documents.nodes[name] = node
    _load_pool(files, documents, node.pool, targets_only=False)
    pool = documents.pools.get(node.pool)
    if pool is None or pool.role is Role.STANDALONE or documents.fleet.cluster is None:
        return documents
    documents.nodes.update(_load_all(files, Kind.NODE, decode.node))
    for other in sorted({peer.pool for peer in documents.nodes.values()} - {pool.name}):
        _load_pool(files, documents, other, targets_only=True)
    return replace(documents, kubeadm=kubeadm_digest(files))


def _load_pool(files: Mapping[str, bytes], documents: FleetDocuments, name: str, *, targets_only: bool) -> None:
    """Read a pool, its channel and that channel's releases (only the first, with `targets_only`), as far as there."""
    pool: Pool | None = _load_one(files, Kind.POOL, name, decode.pool)
    if pool is None:
        return
    documents.pools[pool.name] = pool
    wanted: tuple[Version, ...] = (pool.release,) if pool.release else ()
    if pool.channel and not pool.release:
        channel: Channel | None = _load_one(files, Kind.CHANNEL, pool.channel, decode.channel)
        if channel is not None:
            documents.channels[channel.name] = channel
            wanted = channel.releases[:1] if targets_only else channel.releases
    for version in wanted:
        if version not in documents.releases:
            release: Release | None = _load_one(files, Kind.RELEASE, version.text, decode.release)
            if release is not None:
                documents.releases[version] = release


def kubeadm_digest(files: Mapping[str, bytes]) -> str:
    """Return one digest of everything that manifests and kubelets are rendered from."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.startswith(KUBEADM_FOLDER):
            digest.update(f"{path}\0{hashlib.sha256(files[path]).hexdigest()}\n".encode())
    return digest.hexdigest()


def _load_all(files: Mapping[str, bytes], kind: Kind, read: Callable[[Document, str], T]) -> dict[str, T]:
    return {name: read(load(files[path_of(kind, name)], path_of(kind, name)), name) for name in names_of(kind, files)}


def _load_one(files: Mapping[str, bytes], kind: Kind, name: str, read: Callable[[Document, str], T]) -> T | None:
    path = path_of(kind, name)
    if kind_at(path) is not kind or name_at(path) != name or path not in files:
        return None
    return read(load(files[path], path), name)
