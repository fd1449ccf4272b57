"""Moves a channel back to an older release, and says what that cannot undo."""

from collections.abc import Iterator

from kubenode.errors import FleetInvalid, Location, UsageError
from kubenode.fleet import decode
from kubenode.fleet.edit import node_at
from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.problems import choices
from kubenode.model.documents import FleetDocuments, Pool, Role
from kubenode.model.kubernetes import KubernetesVersion
from kubenode.model.version import Version
from kubenode.trust.strictyaml import load


def roll_back(channel_yaml: bytes, to: Version | None = None) -> bytes:
    """Return a channel document without the releases before `to`, or without the first; nothing else is changed.

    The same bytes come back when `to` is the first already. Raises UsageError when there is nothing to go back to, and
    FleetInvalid when the document is no channel.
    """
    document = load(channel_yaml, "channel")
    name = decode.check_header(document, Kind.CHANNEL, None)
    releases = decode.channel(document, name).releases
    if to is None:
        if len(releases) < 2:
            only = f"only {releases[0]}" if releases else "no release"
            raise UsageError(
                f"channel {name!r} lists {only}, so there is nothing to go back to",
                hint=f"Name an older release in channels/{name}.yaml, or pin one in the pool (spec.release).",
            )
        to = releases[1]
    if to not in releases:
        raise UsageError(
            f"{to} is not in channel {name!r}",
            hint=f"The channel lists {choices(it.text for it in releases) or 'no release'}.",
        )
    text, leave = channel_yaml.decode(), releases.index(to)
    node = node_at(text, "spec", "releases")
    if node is None or not isinstance(node.value, list) or len(node.value) != len(releases):
        hint = "Write the releases as a list, newest first; kubenode validate says more."
        raise FleetInvalid("spec.releases is not a list", location=Location(path_of(Kind.CHANNEL, name)), hint=hint)
    if leave == 0:
        return channel_yaml
    if node.flow_style:
        start, end = (node.value[at].start_mark.index for at in (0, leave))
        return f"{text[:start]}{text[end:]}".encode()
    # Whole lines, with what is written beside the release; comments on lines of their own stay.
    lines = text.splitlines(keepends=True)
    gone = {node.value[at].start_mark.line for at in range(leave)}
    return "".join(line for number, line in enumerate(lines) if number not in gone).encode()


def followers(documents: FleetDocuments, channel: str) -> tuple[Pool, ...]:
    """Return the pools that a channel moves: those that follow it and pin no release."""
    return tuple(it for _, it in sorted(documents.pools.items()) if it.channel == channel and it.release is None)


def barriers(documents: FleetDocuments, channel: str, old: Version, new: Version) -> Iterator[str]:
    """Yield what a way back from one release of a channel to an older one will not do, a sentence each.

    Those that leave members of a cluster stuck come first; `strands` says whether there are such.
    """
    before, after = _kubernetes(documents, old), _kubernetes(documents, new)
    members = [pool for pool in followers(documents, channel) if pool.role is not Role.STANDALONE]
    if not members or before is None:
        return
    planes = [pool.name for pool in members if pool.role is Role.CONTROL_PLANE]
    if strands(documents, channel, old, new):
        yield (
            f"Kubernetes never goes back by a minor ({before} to {after or 'none'}): nodes of {_names(members)} that "
            f"run {old} keep it and say KubernetesDowngrade; only those that have not moved yet stay at {new}."
        )
    if planes and after is not None and after < before:
        yield (
            f"Control planes are never rolled back: where static pods and etcd are at {before} already, they stay "
            f"there under the kubelet of {new}, which is allowed."
        )


def strands(documents: FleetDocuments, channel: str, old: Version, new: Version) -> bool:
    """Say whether nodes of a cluster that run the old release cannot follow to the new one."""
    before, after = _kubernetes(documents, old), _kubernetes(documents, new)
    members = any(pool.role is not Role.STANDALONE for pool in followers(documents, channel))
    return members and before is not None and (after is None or after.minor < before.minor)


def _kubernetes(documents: FleetDocuments, version: Version) -> KubernetesVersion | None:
    release = documents.releases.get(version)
    return KubernetesVersion(release.kubernetes) if release is not None and release.kubernetes is not None else None


def _names(pools: list[Pool]) -> str:
    return " and ".join(pool.name for pool in pools)
