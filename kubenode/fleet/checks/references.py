"""Names that must lead to a document: node to pool, pool to channel, release and image, channel to release."""

from collections.abc import Iterator

from kubenode.fleet.layout import FLEET_PATH, Kind, path_of
from kubenode.fleet.problems import Problem, choices, did_you_mean, problem
from kubenode.fleet.reading import Reading


def check_references(reading: Reading) -> Iterator[Problem]:
    """Find every reference that leads nowhere."""
    for name, node in reading.nodes.items():
        yield from _check(reading, path_of(Kind.NODE, name), ("spec", "pool"), Kind.POOL, node.pool)
    for name, pool in reading.pools.items():
        path = path_of(Kind.POOL, name)
        yield from _check(reading, path, ("spec", "image"), Kind.IMAGE, pool.image)
        if pool.channel is not None:
            yield from _check(reading, path, ("spec", "channel"), Kind.CHANNEL, pool.channel)
        if pool.release is not None:
            yield from _check(reading, path, ("spec", "release"), Kind.RELEASE, pool.release.text)
    for name, image in reading.images.items():
        if image.overlay is not None and not any(file.startswith(f"{image.overlay}/") for file in reading.files):
            where = reading.at(path_of(Kind.IMAGE, name), "spec", "overlay")
            hint = "Put the files there that the image shall have, or leave the field out."
            yield problem(where, "missing-overlay", f"the folder {image.overlay} is missing or empty", hint)
    for name, channel in reading.channels.items():
        path = path_of(Kind.CHANNEL, name)
        for index, version in enumerate(channel.releases):
            yield from _check(reading, path, ("spec", "releases", index), Kind.RELEASE, version.text)
        before = reading.value(path, "spec", "promotedFrom")
        if before is not None:
            yield from _check(reading, path, ("spec", "promotedFrom"), Kind.CHANNEL, before)
    if reading.fleet is not None:
        for index, pool_name in enumerate(reading.fleet.rollout_order):
            yield from _check(reading, FLEET_PATH, ("spec", "rollout", "order", index), Kind.POOL, pool_name)
        if reading.fleet.cluster is not None:
            at = ("spec", "cluster", "bootstrapNode")
            yield from _check(reading, FLEET_PATH, at, Kind.NODE, reading.fleet.cluster.bootstrap_node)


def _check(reading: Reading, path: str, at: tuple[str | int, ...], kind: Kind, name: str) -> Iterator[Problem]:
    if reading.exists(kind, name):
        return
    known = reading.names(kind)
    wanted = path_of(kind, name)
    hint = did_you_mean(name, known)
    if not hint:
        hint = f"Known: {choices(known)}." if known else f"Add {wanted}."
    message = f"there is no {kind.lower()} {name!r}: the file {wanted} is missing"
    yield problem(reading.at(path, *at), f"unknown-{kind.lower()}", message, hint)
