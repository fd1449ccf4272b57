"""Where every declared node stands, from what git says, what the node said last, and what the cluster shows of it.

The node's own word counts for why it does what it does; nothing is decided anew here. A node of which nothing usable is
known is silent, never fine.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import ClusterNode, KubernetesVersion
from kubenode.model.observed import Slot
from kubenode.model.version import Version

LOOKS_EVERY = timedelta(minutes=6)
"""At the latest after so long a node looks again: five minutes after a tick, half a minute of jitter, and the tick."""
OLD_AFTER = timedelta(minutes=45)
"""A node repeats its report every 15 minutes; one that is older says what was, not what is."""
_FREE = "and others wait for that: if the machine is dead, `kubenode lease break` frees it"
AT_WORK = frozenset(
    ("Fetching", "Staging", "Activating", "Restarting", "Joining", "Preparing", "Upgrading", "Draining", "Trial boot")
)
"""Phases (`kubenode.agent.report.phase`) in which a node is getting on."""


class Standing(IntEnum):
    """Where a node stands, worst first."""

    STUCK = 0
    """It says itself that only a person can help."""
    SILENT = 1
    """Nothing usable is known of it now."""
    BUSY = 2
    """It is at work, or holds a lease."""
    WAITING = 3
    """It has something to do, and waits."""
    UNSEEN = 4
    """A machine outside the cluster, of which nobody here can know anything."""
    DONE = 5
    """It runs what the commit says."""


@dataclass(frozen=True)
class Wanted:
    """What git says of a node. `wave` is (its own, how many) in its pool; `configuration` the kubeadm documents'."""

    pool: str
    role: Role
    target: Release
    configuration: str = ""
    wave: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Word:
    """What a node said last; fields that it did not say are empty or None.

    `refused`: why it refuses newer commits. `at` is aware, in UTC.
    """

    release: Version | None = None
    root_hash: str = ""
    slot: Slot | None = None
    kubelet: KubernetesVersion | None = None
    trial: bool = False
    phase: str = ""
    message: str = ""
    hint: str = ""
    refused: str = ""
    commit: str = ""
    configuration: str | None = None
    poisoned: frozenset[str] = frozenset()
    at: datetime | None = None


@dataclass(frozen=True)
class Seen:
    """What can be seen of a node. `silent`: why there is no usable word. `member`: its Node object.

    `since`: when it took the first of its leases. `outside`: it is no member of a cluster, so that no Node is missed.
    """

    word: Word = Word()
    member: ClusterNode | None = None
    leases: tuple[str, ...] = ()
    since: datetime | None = None
    silent: str = ""
    outside: bool = False


@dataclass(frozen=True)
class Row:
    """A node in a status. `lags`: it follows another commit than the one that is asked about.

    `notes`: what a person should know besides, also of a node that is done.
    """

    node: str
    wanted: Wanted
    seen: Seen
    standing: Standing
    lags: bool = False
    why: str = ""
    notes: tuple[str, ...] = ()
    age: timedelta | None = None

    @property
    def word(self) -> Word:
        """What it said last."""
        return self.seen.word

    @property
    def kubelet(self) -> KubernetesVersion | None:
        """Its kubelet's version, as the cluster shows it or as it said itself."""
        return self.seen.member.kubelet if self.seen.member is not None else self.word.kubelet

    @property
    def phase(self) -> str:
        """One or two words for a table."""
        if self.standing is Standing.DONE:
            return "Up to date"
        if self.standing in (Standing.STUCK, Standing.SILENT, Standing.UNSEEN):
            return self.standing.name.capitalize()
        # What it said of an older commit is not the answer to this one.
        return self.word.phase if self.word.phase not in ("", "Up to date", "Stuck") else "Behind"


@dataclass(frozen=True)
class Commits:
    """The commit that nodes should follow, and how many commits older ones are behind it (by id; 0 is itself)."""

    head: str
    behind: Mapping[str, int] = field(default_factory=dict)


def rows(wanted: Mapping[str, Wanted], seen: Mapping[str, Seen], commits: Commits, now: datetime) -> tuple[Row, ...]:
    """Return every declared node, worst first, then by pool and name. `now` is aware, in UTC."""
    found = [_row(node, what, seen.get(node, Seen()), commits, now) for node, what in wanted.items()]
    return tuple(sorted(found, key=lambda it: (it.standing, not it.notes, it.wanted.pool, it.node)))


def _row(node: str, wanted: Wanted, seen: Seen, commits: Commits, now: datetime) -> Row:
    word = seen.word
    age = max(now - word.at, timedelta(0)) if word.at is not None else None
    standing, why = _standing(wanted, seen, commits)
    notes = []
    held = now - seen.since if seen.since is not None else timedelta(0)
    quiet = seen.silent or (seen.member is not None and not seen.member.ready)
    if standing is Standing.BUSY and quiet and held > OLD_AFTER:
        # Leases never expire: whether this machine will come back is for a person to say.
        standing, why = Standing.SILENT, f"{why} It has held {', '.join(seen.leases)} for {shown(held)}, {_FREE}."
    member = seen.member
    if member is not None and member.cordoned and not member.cordoned_by_us:
        notes.append("cordoned by a person: it takes no pods, and counts as away for the others")
    if age is not None and age > OLD_AFTER and standing > Standing.BUSY:
        # It repeats what it tells: what is older says what was, not what is.
        standing, why = Standing.SILENT, f"it last told {shown(age)} ago ({word.phase or 'nothing'}). {why}".strip()
    if word.phase == "Retrying" and standing is Standing.WAITING:
        notes.append("something fails there, and is tried again")
    return Row(node, wanted, seen, standing, commits.behind.get(word.commit) != 0, why, tuple(notes), age)


def _standing(wanted: Wanted, seen: Seen, commits: Commits) -> tuple[Standing, str]:
    word, member, target = seen.word, seen.member, wanted.target
    if seen.outside and seen.silent:
        return Standing.UNSEEN, seen.silent
    if member is None and not seen.outside:
        return Standing.SILENT, seen.silent or "the cluster has no such Node: it has not joined, or was removed"
    working = bool(seen.leases)
    if member is not None and not member.ready:
        if working or word.phase in ("Restarting", "Trial boot"):
            return Standing.BUSY, f"it is away: its kubelet is not ready. {_said(seen)}".strip()
        return Standing.SILENT, f"its kubelet is not ready. {seen.silent or _said(seen)}".strip()
    if seen.silent:
        return (Standing.BUSY if working else Standing.SILENT), seen.silent
    behind = commits.behind.get(word.commit)
    failed = target.root_hash in word.poisoned and word.root_hash != target.root_hash
    if word.refused:
        return Standing.STUCK, word.refused
    # Stuck with an older commit is not stuck with this one, which may be the cure.
    if failed or (word.phase == "Stuck" and (behind == 0 or not word.commit)):
        return Standing.STUCK, word.message or f"release {target.version} failed its trial there"
    if working:
        return Standing.BUSY, word.message
    if behind != 0:
        return Standing.WAITING, _commit(word.commit, behind)
    if _arrived(wanted, word):
        return Standing.DONE, ""
    return (Standing.BUSY if word.phase in AT_WORK else Standing.WAITING), word.message


def _arrived(wanted: Wanted, word: Word) -> bool:
    if word.root_hash != wanted.target.root_hash or word.trial:
        return False
    return not wanted.configuration or word.configuration == wanted.configuration


def _commit(commit: str, behind: int | None) -> str:
    if not commit:
        return "has not said which commit it follows"
    if behind is None:
        return f"at commit {commit[:12]}, which this clone does not have (git fetch)"
    return f"at commit {commit[:12]}, {behind} behind: has not looked since, or refuses the newer ones"


def _said(seen: Seen) -> str:
    return f"It said: {seen.word.message}" if seen.word.message else ""


def shown(span: timedelta) -> str:
    """Return a span of time for people: 40s, 12m, 3h, 5d."""
    seconds = int(span.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size or (size == 60 and seconds >= 60):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@dataclass(frozen=True)
class Fold:
    """A pool in one line: how many nodes stand where, and how many run which release and Kubernetes."""

    pool: str
    target: Release
    nodes: int
    standings: Mapping[Standing, int]
    releases: Mapping[str, int]
    kubelets: Mapping[str, int]


def folded(found: Sequence[Row]) -> tuple[Fold, ...]:
    """Return one line for each pool, by name."""
    pools: dict[str, list[Row]] = {}
    for row in found:
        pools.setdefault(row.wanted.pool, []).append(row)
    return tuple(
        Fold(
            pool,
            members[0].wanted.target,
            len(members),
            Counter(it.standing for it in members),
            Counter(str(it.word.release or "unknown") for it in sorted(members, key=_release, reverse=True)),
            Counter(sorted(str(it.kubelet) for it in members if it.kubelet is not None)),
        )
        for pool, members in sorted(pools.items())
    )


def _release(row: Row) -> tuple[bool, Version]:
    return row.word.release is not None, row.word.release or row.wanted.target.version
