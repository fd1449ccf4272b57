"""Temporary home of the nouns until kubenode.host.kube.seen is there."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Lease:
    """A slot."""

    name: str
    holder: str | None
    since: datetime | None
    why: str


@dataclass(frozen=True)
class EvictablePod:
    """A pod that a drain still has to move."""

    namespace: str
    name: str
    ending: bool = False
    budget: str | None = None
    why: str = ""


@dataclass(frozen=True)
class EtcdMember:
    """A member."""

    name: str
    id: str
    healthy: bool
    learner: bool
    peers: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()


@dataclass(frozen=True)
class EtcdView:
    """All members."""

    members: tuple[EtcdMember, ...]
    alarms: tuple[str, ...] = ()
