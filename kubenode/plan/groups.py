"""Equal nodes of a plan together: a thousand nodes that do the same are one line, not a thousand."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kubenode.model.decision import Act, Converged, Decision, Stuck, Wait
from kubenode.plan.drift import Drift
from kubenode.plan.whole import NodePlan

SHOWN = 3


@dataclass(frozen=True)
class Group:
    """Nodes of one pool with the same way ahead of them; `first` speaks for all."""

    members: tuple[NodePlan, ...]

    @property
    def first(self) -> NodePlan:
        """The first of them."""
        return self.members[0]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(it.node for it in self.members)

    @property
    def waves(self) -> dict[int, tuple[str, ...]]:
        """Their names by wave; empty when the pool has one wave."""
        found: dict[int, list[str]] = {}
        for it in self.members:
            if it.wave is not None and it.wave.of > 1:
                found.setdefault(it.wave.number, []).append(it.node)
        return {number: tuple(names) for number, names in sorted(found.items())}

    @property
    def decisions(self) -> tuple["Group", ...]:
        """The same nodes by what they do now: the way is one, and some are held back on it."""
        return _grouped(self.members, _decision)


def groups(plans: Iterable[NodePlan]) -> tuple[Group, ...]:
    """Return the groups in the order of their first nodes."""
    return _grouped(plans, _way)


def _grouped(plans: Iterable[NodePlan], key: Callable[[NodePlan], object]) -> tuple[Group, ...]:
    found: dict[object, list[NodePlan]] = {}
    for it in plans:
        found.setdefault(key(it), []).append(it)
    return tuple(Group(tuple(members)) for members in found.values())


def _way(it: NodePlan) -> object:
    return it.pool, it.releases, it.kubernetes, it.steps, it.window


def _decision(it: NodePlan) -> object:
    # What these wait for is not the same in every wave.
    waits = isinstance(it.decision, Wait) and it.decision.reason in ("WaitsForWave", "Soaking")
    return kind_of(it.decision), it.wave.number if waits and it.wave is not None else 0


def alike(findings: Iterable[Drift]) -> tuple[tuple[Drift, ...], ...]:
    """Return findings that differ only in their object together."""
    found: dict[object, list[Drift]] = {}
    for it in findings:
        same_name = it.found == it.object.removeprefix("Node ")
        found.setdefault((it.code, it.field, "" if same_name else it.found, it.outcome), []).append(it)
    return tuple(tuple(it) for it in found.values())


def kind_of(decision: Decision) -> str:
    """Return a decision in one or two words: the action, or why there is none."""
    match decision:
        case Act(action):
            return type(action).__name__
        case Wait(reason):
            return f"wait ({reason})"
        case Converged():
            return "nothing"
        case Stuck(reason):
            return f"stuck ({reason})"


def names(found: Iterable[str], shown: int = SHOWN) -> str:
    """Return the first few names and how many more there are; `shown` 0 means all of them."""
    every = list(found)
    if not shown or len(every) <= shown + 1:
        return ", ".join(every)
    return f"{', '.join(every[:shown])} and {len(every) - shown:,} more"
