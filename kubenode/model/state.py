"""What a node is given once (the seed), may never forget (the trust state) and tells others (its status)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kubenode.model.journal import Attempt, Poisoned
from kubenode.model.observed import Observed


@dataclass(frozen=True)
class Seed:
    """What a machine needs before its first contact; `anchor` is the commit it trusts from the start (40 hex)."""

    fleet_url: str
    fleet_id: str
    anchor: str
    node: str
    branch: str = "main"


@dataclass(frozen=True)
class Stamp:
    """What a valid head.json says: at `issued` the newest commit was `head` (40 hex), and this holds until `expires`.

    `serial` counts upwards with every stamp. Times are aware, in UTC. `key` is the fingerprint of the SSH key whose
    signature was checked.
    """

    head: str
    serial: int
    issued: datetime
    expires: datetime
    key: str


@dataclass(frozen=True)
class TrustState:
    """What is never rebuilt: the last trusted commit (and its fleet), the poisoned releases, the newest stamp."""

    fleet_id: str
    commit: str
    poisoned: tuple[Poisoned, ...] = ()
    stamp: Stamp | None = None


@dataclass(frozen=True)
class Condition:
    """A condition as Kubernetes defines them: type, True/False/Unknown, CamelCase reason, one sentence."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class NodeStatus:
    """The report of one tick, written to /var/lib/kubenode/status.json. `phase` is derived, for people only.

    `poisoned`, `attempts` and `superseded` are the journal's: a laptop decides by them as the node does.
    """

    node: str
    at: datetime
    commit: str | None
    phase: str
    message: str
    hint: str = ""
    observed: Observed | None = None
    target: str | None = None
    conditions: tuple[Condition, ...] = ()
    poisoned: tuple[Poisoned, ...] = ()
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    superseded: str | None = None
