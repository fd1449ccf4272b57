"""What two commits of a fleet want differently of each node, without looking at any machine. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kubenode.model.desired import DesiredState
from kubenode.model.documents import Release, Rollout, Window

_WAY = "older releases"


@dataclass(frozen=True)
class FieldChange:
    """One field of what a node should be, in words, before and after; empty for what is not there."""

    field: str
    old: str
    new: str


@dataclass(frozen=True)
class NodeChange:
    """What changes for one node. `kind`: added, removed or changed; `pool` is the new one where there is one."""

    node: str
    pool: str
    kind: str
    fields: tuple[FieldChange, ...]


def changes(old: Mapping[str, DesiredState], new: Mapping[str, DesiredState]) -> tuple[NodeChange, ...]:
    """Return every node for which something changes, by name."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        state = after or before
        assert state is not None
        kind = "added" if before is None else "removed" if after is None else "changed"
        fields = tuple(_fields(before, after))
        if fields:
            found.append(NodeChange(name, state.pool, kind, fields))
    return tuple(found)


def _fields(old: DesiredState | None, new: DesiredState | None) -> Iterator[FieldChange]:
    before, after = _facts(old), _facts(new)
    found = {field: (before.get(field, ""), after.get(field, "")) for field in dict.fromkeys((*before, *after))}
    changed = {field: pair for field, pair in found.items() if pair[0] != pair[1]}
    if "release" in changed:
        # A release that has become the target has left its way, or the other way round: that is said already.
        changed.pop(_WAY, None)
    yield from (FieldChange(field, was, now) for field, (was, now) in changed.items())
    if old is not None and new is not None and old.target != new.target and old.target.version == new.target.version:
        yield FieldChange("release", _identity(old.target), _identity(new.target))


def _facts(state: DesiredState | None) -> dict[str, str]:
    if state is None:
        return {}
    found = {
        "pool": state.pool,
        "role": str(state.role),
        "channel": state.channel,
        "release": str(state.target.version),
        _WAY: ", ".join(str(it.version) for it in state.releases[1:]),
        "Kubernetes": state.target.kubernetes or "none",
        "windows": "; ".join(map(_window, state.windows)) or "always",
        "halted": "yes" if state.halted else "no",
        "stores": ", ".join(state.stores),
    }
    cluster = state.cluster
    if cluster is not None:
        found |= {
            "configuration": cluster.configuration[:12],
            "endpoint": cluster.endpoint,
            "rollout": _rollout(cluster.rollouts[state.pool]),
            "order": ", ".join(cluster.order),
            "address": cluster.by_name[state.node].address or "",
        }
    return found


def _identity(release: Release) -> str:
    """Name a release whose version says nothing: its document was changed, which it never should be."""
    return f"{release.version} with root hash {release.root_hash[:12]}, manifest {release.manifest[:12]}"


def _window(window: Window) -> str:
    days = ",".join(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[day] for day in sorted(window.days))
    return f"{days} {window.start:%H:%M} for {window.duration.total_seconds() / 3600:g} h {window.timezone}"


def _rollout(rollout: Rollout) -> str:
    return (
        f"maxUnavailable {rollout.max_unavailable}, waves {', '.join(rollout.waves)}, "
        f"soak {rollout.soak.total_seconds() / 60:g} min, maxFailures {rollout.max_failures}, "
        f"drain {rollout.drain_timeout.total_seconds() / 60:g} min then {'force' if rollout.drain_force else 'stop'}"
    )
