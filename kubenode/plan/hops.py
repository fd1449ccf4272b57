"""Which releases lead from the one that runs to the target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kubenode.model.documents import Release
from kubenode.model.journal import Poisoned
from kubenode.model.version import Version


@dataclass(frozen=True)
class Hop:
    """One step of a way: to a release, from the one before it; None is what runs."""

    before: Release | None
    release: Release


def _any(_hop: Hop) -> bool:
    return True


def is_poisoned(release: Release, poisoned: Sequence[Poisoned]) -> bool:
    """Say whether a release failed its trial on this node.

    Both names of a release count: the root hash is all that is known of one that has left the channel, and a manifest
    that was signed again describes the same content.
    """
    return any(bad.root_hash == release.root_hash or bad.manifest == release.manifest for bad in poisoned)


def path_to_target(
    start: Version,
    releases: Sequence[Release],
    poisoned: Sequence[Poisoned],
    allowed: Callable[[Hop], bool] = _any,
) -> tuple[Release, ...]:
    """Return the releases to run one after the other, the target last; empty when there is no way.

    `releases` is the channel, target first. The way has the fewest hops; of several such, the one whose early hops are
    newest. Every hop goes up, honours the floor of the release it goes to, is not poisoned and is `allowed`. A target
    that is older than `start` is one hop down: the channel was moved back on purpose, and what lies between is what it
    moves away from.
    """
    target = releases[0]
    if is_poisoned(target, poisoned):
        return ()
    between = [
        release
        for release in releases
        if start < release.version < target.version and not is_poisoned(release, poisoned)
    ]
    # From the target backwards, so that the way onwards from every newer release is known when it is needed.
    steps = [target, *sorted(between, key=lambda release: release.version, reverse=True)]
    onwards: list[tuple[Release, ...]] = []
    for step in steps:
        rest = _best(step, step.version, onwards, allowed) if onwards else ()
        onwards.append((step, *rest) if rest or step is target else ())
    return _best(None, start, onwards, allowed)


def _best(
    before: Release | None, start: Version, ways: Sequence[tuple[Release, ...]], allowed: Callable[[Hop], bool]
) -> tuple[Release, ...]:
    """Return the shortest of the ways (newest first step first) that can be entered from `start`."""
    open_ways = [way for way in ways if way and _may_update(start, way[0]) and allowed(Hop(before, way[0]))]
    return min(open_ways, key=len, default=())


def _may_update(start: Version, release: Release) -> bool:
    return release.version != start and (release.floor is None or start >= release.floor)
