"""A timeline folded for people: equal actions of the nodes of one wave are one row, and so are equal waits."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from kubenode.model.decision import (
    DeleteNode,
    Drain,
    FetchRelease,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PoisonRelease,
    PrepareKubelet,
    PullImages,
    Reboot,
    Reconfigure,
    RemoveEtcdMember,
    RenewCertificates,
    WriteSlot,
)
from kubenode.plan.simulate.timeline import Event, Pause, Timeline
from kubenode.plan.simulate.words import words

_SHOWN = (
    FetchRelease,
    WriteSlot,
    PullImages,
    PrepareKubelet,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    Reconfigure,
    RenewCertificates,
    Drain,
    Reboot,
    PoisonRelease,
    RemoveEtcdMember,
    DeleteNode,
)
"""What people wait for. Leases, marks, reports, tokens and tidying up belong to it and are left out."""

WAITS = {
    "OutsideWindow": "wait for a window",
    "Soaking": "soak",
    "WaitsForWave": "wait for the wave before",
    "WaitsForPool": "wait for a pool before",
    "WaitsForApiServers": "wait for every API server",
    "ApiServersBehind": "wait for API servers behind",
    "KubeletsTooOld": "wait for kubelets too old",
    "WaitsForConfiguration": "wait for git's configuration",
    "WaitsForRelease": "wait for a release that fits",
    "WaitsForCluster": "wait for the cluster",
    "CannotJoinYet": "wait for a version to join",
    "WaitsForToken": "wait for a bootstrap token",
    "TrialBoot": "wait for a trial boot",
    "ApiUnreachable": "wait for the API",
}
"""Waits that shape a rollout. Those for a lease or a neighbour are how nodes take turns, and are left out."""


@dataclass(frozen=True)
class Row:
    """What nodes of one wave do, or wait for, from the first that begins to the last that ends; nodes in that order."""

    pool: str
    wave: int | None
    begin: timedelta
    end: timedelta
    what: str
    waits: bool
    nodes: tuple[str, ...]


def rows(timeline: Timeline) -> tuple[Row, ...]:
    """Return the rows by pool, wave and beginning; the pool that is done first comes first."""
    found = [*_folded(map(_of_event, filter(_shown, timeline.events))), *_folded(_of_pauses(timeline))]
    last = _last(found)
    return tuple(
        sorted(found, key=lambda it: (last[it.pool], it.pool, it.wave or 0, it.begin, it.end, not it.waits, it.what))
    )


def _last(found: Iterable[Row]) -> dict[str, timedelta]:
    """Return when each pool is done: the order in which a reader meets them."""
    ends: dict[str, timedelta] = {}
    for row in found:
        ends[row.pool] = max(ends.get(row.pool, row.end), row.end)
    return ends


def _shown(event: Event) -> bool:
    return isinstance(event.action, _SHOWN)


def _of_event(event: Event) -> Row:
    what = words(event.action, event.node) + (" (fails)" if event.failed else "")
    return Row(event.pool, event.wave, event.at, event.end, what, waits=False, nodes=(event.node,))


def _of_pauses(timeline: Timeline) -> Iterable[Row]:
    return (
        Row(it.pool, it.wave, it.begin, it.end, _what(it), waits=True, nodes=it.nodes)
        for it in timeline.pauses
        if it.reason in WAITS
    )


def _what(pause: Pause) -> str:
    if pause.reason == "OutsideWindow" and pause.until is not None:
        return f"wait until {pause.until:%a %Y-%m-%d %H:%M} UTC"
    return WAITS[pause.reason]


def _folded(found: Iterable[Row]) -> Iterable[Row]:
    together: dict[tuple[str, int | None, str], list[Row]] = {}
    for row in found:
        together.setdefault((row.pool, row.wave, row.what), []).append(row)
    for (pool, wave, what), members in together.items():
        nodes = dict.fromkeys(name for row in members for name in row.nodes)
        begin, end = min(row.begin for row in members), max(row.end for row in members)
        yield Row(pool, wave, begin, end, what, members[0].waits, tuple(nodes))
