"""Where nodes stand: their wave, and when their agents look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from kubenode.model.desired import DesiredState
from kubenode.plan.kubernetes.rollout import wave_of
from kubenode.plan.simulate.durations import LOOK_EVERY
from kubenode.plan.simulate.waiting import Group


@dataclass
class Place:
    """A node's pool and wave (from 1; None outside a cluster), the phase of its ticks, its group while it waits."""

    pool: str
    wave: int | None
    phase: timedelta
    group: Group | None = None


def places(desired: Mapping[str, DesiredState]) -> dict[str, Place]:
    """Return every node's place. The ticks of a pool are spread evenly, as chance would have it on average."""
    pools: dict[str, list[str]] = {}
    for name in sorted(desired):
        pools.setdefault(desired[name].pool, []).append(name)
    found = {}
    for pool, seen in pools.items():
        cluster = desired[seen[0]].cluster
        if cluster is None:
            found.update({name: Place(pool, None, _phase(number, seen)) for number, name in enumerate(seen)})
            continue
        peers = [peer.name for peer in cluster.pools[pool]]
        waves = cluster.rollouts[pool].waves
        for number, name in enumerate(peers):
            if name in desired:
                wave, _ = wave_of(number, len(peers), waves)
                found[name] = Place(pool, wave, _phase(number, peers))
    return found


def next_tick(phase: timedelta, at: timedelta) -> timedelta:
    """Return the first tick at a time or after it."""
    return at + (phase - at) % LOOK_EVERY


def _phase(number: int, nodes: Sequence[str]) -> timedelta:
    return LOOK_EVERY * number / len(nodes)
