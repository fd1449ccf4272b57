"""What an agent remembers because it cannot be observed."""

from dataclasses import dataclass, field
from datetime import datetime

from kubenode.model.version import Version


@dataclass(frozen=True)
class Attempt:
    """How often a step failed in a row for one release, when last (UTC) and how (one sentence).

    A step that may kill the machine counts from its start. `reason`: the code when evidence was refused, else "".
    """

    failures: int
    last: datetime
    error: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Poisoned:
    """A release that failed its trial on this node. `manifest` is None when only its root hash is known."""

    version: Version
    root_hash: str
    manifest: str | None
    reason: str


@dataclass(frozen=True)
class Journal:
    """The agent's memory.

    `attempts`: by "<step>:<manifest digest>". `superseded`: root hash of the newer entry that was marked bad only so
    that an older release can be tried; it is not poisoned. `poisoned` is kept with the trust state, twice.
    """

    attempts: dict[str, Attempt] = field(default_factory=dict)
    superseded: str | None = None
    poisoned: tuple[Poisoned, ...] = ()
