"""A timeline: what is expected to happen, when, and how it ends. Plain values: printed, compared and stored."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from kubenode.model.decision import Action, Converged, Decision, Stuck
from kubenode.model.version import Version


@dataclass(frozen=True)
class Event:
    """An action of a node, begun `at` after the beginning; it `lasts` so long by assumption.

    `wave` counts from 1 and is None for machines outside a cluster. `failed` says why it came to nothing, else "".
    """

    at: timedelta
    lasts: timedelta
    node: str
    pool: str
    wave: int | None
    action: Action
    why: str
    failed: str = ""

    @property
    def end(self) -> timedelta:
        """When it is over."""
        return self.at + self.lasts


@dataclass(frozen=True)
class Pause:
    """Nodes of one pool and wave that waited for the same reason, at least one of them from `begin` to `end`.

    `reason` and `message` are those of `Wait`, the message of the first node; `until` is the time waited for, if one
    was known: a window that opens, the end of a soak.
    """

    begin: timedelta
    end: timedelta
    pool: str
    wave: int | None
    reason: str
    message: str
    until: datetime | None
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """Where a node ends: the release it runs then, and its last decision, which time does not change any more."""

    node: str
    pool: str
    wave: int | None
    release: Version
    decision: Decision


@dataclass(frozen=True)
class Timeline:
    """The expected course of a rollout, from `began` (aware, UTC) on.

    `events` and `pauses` in the order of their beginnings, `endings` by name. `unseen`: declared nodes that nobody
    observed, so that nothing is known of them. `notes`: what was assumed or not observed, sentences for people.
    `endless`: why the simulation was given up before its end, "" when it was not.
    """

    began: datetime
    events: tuple[Event, ...]
    pauses: tuple[Pause, ...]
    endings: tuple[Ending, ...]
    unseen: tuple[str, ...]
    notes: tuple[str, ...]
    endless: str = ""

    @property
    def length(self) -> timedelta:
        """From the beginning to the end of the last action."""
        return max((event.end for event in self.events), default=timedelta(0))

    @property
    def done(self) -> tuple[Ending, ...]:
        """The nodes that end as git says."""
        return tuple(it for it in self.endings if isinstance(it.decision, Converged))

    @property
    def stuck(self) -> tuple[Ending, ...]:
        """The nodes that only a person can help."""
        return tuple(it for it in self.endings if isinstance(it.decision, Stuck))

    @property
    def held_back(self) -> tuple[Ending, ...]:
        """The nodes that wait for something that does not come."""
        return tuple(it for it in self.endings if not isinstance(it.decision, Converged | Stuck))
