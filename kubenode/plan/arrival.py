"""Whether a rollout has come to an end that somebody who follows it should know of."""

from collections.abc import Sequence
from enum import Enum

from kubenode.plan.status import Row, Standing


class End(Enum):
    """How a rollout ended for whoever follows it."""

    ARRIVED = "every node is what the commit says"
    STUCK = "a node needs a person, and no other is at work"
    UNSEEN = "every node that can be seen is what the commit says"
    HALTED = "every node knows the commit, and the fleet is halted"


def end_of(rows: Sequence[Row], behind: frozenset[str], *, halted: bool, leaving: bool = False) -> End | None:
    """Return how the rollout has ended, None while it goes on. `behind`: nodes that follow an older commit still.

    A node that does not answer ends nothing by itself: it may be restarting. Neither does one that is stuck while
    others get on, or have not looked at the commit yet. `leaving`: whether nodes that git does not want are there.
    """
    standings = {row.standing for row in rows}
    if leaving and standings <= {Standing.DONE, Standing.UNSEEN}:
        return End.HALTED if halted else None
    if standings <= {Standing.DONE}:
        return End.ARRIVED
    if Standing.BUSY in standings or behind:
        return None
    if Standing.STUCK in standings:
        return End.STUCK
    if halted and standings <= {Standing.DONE, Standing.UNSEEN, Standing.WAITING}:
        return End.HALTED
    return End.UNSEEN if standings <= {Standing.DONE, Standing.UNSEEN} else None


def lagging(rows: Sequence[Row]) -> frozenset[str]:
    """Return the nodes that have not looked at the commit yet."""
    return frozenset(row.node for row in rows if row.standing is Standing.WAITING and row.lags)
