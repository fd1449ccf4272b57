"""The history of channels: order, floors, Kubernetes hops and promotion."""

from collections.abc import Iterator
from itertools import pairwise

from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.problems import Problem, problem
from kubenode.fleet.reading import Reading
from kubenode.fleet.scalars import kubernetes_minor
from kubenode.model.documents import Release


def check_releases(reading: Reading) -> Iterator[Problem]:
    """Find releases whose floor can never be met."""
    for name, release in reading.releases.items():
        if release.floor is not None and release.floor >= release.version:
            where = reading.at(path_of(Kind.RELEASE, name), "spec", "floor")
            message = f"the floor {release.floor} is not older than the release {release.version} itself"
            hint = "The floor is the oldest release that may update to this one."
            yield problem(where, "floor-too-new", message, hint)


def check_channels(reading: Reading) -> Iterator[Problem]:
    """Find channels that are out of order, have a gap on the way to their newest release, or skip the promotion."""
    for name in reading.channels:
        found = list(_check_order(reading, name))
        yield from found or _check_hops(reading, name)
        yield from _check_promotion(reading, name)


def _check_order(reading: Reading, name: str) -> Iterator[Problem]:
    releases = reading.channels[name].releases
    for index, (newer, older) in enumerate(pairwise(releases)):
        if newer <= older:
            where = reading.at(path_of(Kind.CHANNEL, name), "spec", "releases", index + 1)
            message = f"{older} stands after {newer}, but releases are listed newest first"
            hint = "The first release is what nodes will run; sort the list from the newest to the oldest."
            yield problem(where, "channel-order", message, hint)
            return


def _check_hops(reading: Reading, name: str) -> Iterator[Problem]:
    """Report the newest release of a channel from which the first one cannot be reached."""
    versions = reading.channels[name].releases
    releases = [reading.releases.get(version.text) for version in versions]
    known = [release for release in releases if release is not None]
    if len(known) < len(releases):
        return
    if any(release.floor is not None and release.floor >= release.version for release in known):
        return
    reaches = [True]
    for index, release in enumerate(known[1:], start=1):
        reaches.append(any(reaches[newer] and not _obstacle(release, known[newer]) for newer in reversed(range(index))))
        if not reaches[index]:
            where = reading.at(path_of(Kind.CHANNEL, name), "spec", "releases", index)
            why = _obstacle(release, known[index - 1])
            message = f"nodes on {release.version} cannot get to {known[0].version}: {why}"
            hint = "Put a release in between, or take the old one out when no node runs it any more."
            yield problem(where, "no-hop-path", message, hint)
            return


def _obstacle(old: Release, new: Release) -> str:
    """Say why a node on `old` cannot update to `new` directly; empty when it can.

    One Kubernetes minor at a time, never back: https://kubernetes.io/releases/version-skew-policy/.
    """
    if new.floor is not None and old.version < new.floor:
        return f"{new.version} can be reached only from {new.floor} or newer"
    if old.kubernetes is not None and new.kubernetes is not None:
        before, after = kubernetes_minor(old.kubernetes), kubernetes_minor(new.kubernetes)
        if after < before:
            return f"{new.version} has Kubernetes {new.kubernetes}, older than {old.kubernetes}"
        if after[0] != before[0] or after[1] > before[1] + 1:
            return f"{new.version} has Kubernetes {new.kubernetes}, more than one minor after {old.kubernetes}"
    return ""


def promoted_from(reading: Reading, name: str) -> str | None:
    """Return the channel that a release must be in before it may be in this one, None when there is none."""
    spec = reading.value(path_of(Kind.CHANNEL, name), "spec")
    if "promotedFrom" in spec:
        before: str | None = spec["promotedFrom"]
        return before
    return "beta" if name == "stable" and reading.exists(Kind.CHANNEL, "beta") else None


def _check_promotion(reading: Reading, name: str) -> Iterator[Problem]:
    before = promoted_from(reading, name)
    if before is None or before not in reading.channels:
        return
    for index, version in enumerate(reading.channels[name].releases):
        if version not in reading.channels[before].releases and reading.exists(Kind.RELEASE, version.text):
            where = reading.at(path_of(Kind.CHANNEL, name), "spec", "releases", index)
            message = f"{version} is in {name} without being in {before}"
            hint = f"Run `kubenode promote {version} {before}` first, or set promotedFrom: null in this channel."
            yield problem(where, "not-promoted", message, hint)
