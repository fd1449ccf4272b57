"""Times one decision of a node in clusters of 10, 100 and 1,000 nodes, as a ratio to the smallest in the same run.

Usage: python -m tests.bench.plan [NODES ...]

Every view is made anew, as an agent does: nothing is kept from one decision to the next. Situations: a worker that
may take a lease (every rule is asked), one that has nothing to do, and a control plane before pass one.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from kubenode.model.desired import Peer
from kubenode.model.documents import Role, Rollout
from kubenode.model.kubernetes import ClusterNode, Lease
from tests.sim.situations import NEW, OLD, R1, Situation, _report, plane, worker

REPEATS = 30
SITUATIONS: dict[str, Callable[[], Situation]] = {
    "a worker takes its lease": lambda: worker("prepared"),
    "a worker has converged": lambda: worker("running").wants(releases=(R1,)),
    "a control plane takes its lease": lambda: plane("pulled"),
}


def enlarged(situation: Situation, nodes: int) -> Situation:
    """The same situation with workers up to this number of nodes, a fifth of which may be away."""
    view, want = situation.view, situation.want.cluster
    assert want is not None
    names = [f"x-{number:05}" for number in range(5, nodes - len(view.nodes) + 5)]
    peers = (*want.peers, *(Peer(name, Role.WORKER, "workers", want.peers[0].target) for name in names))
    rollouts = {**want.rollouts, "workers": Rollout("20%", ("1", "10%", "100%"))}
    worker_version = OLD if situation.want.role is Role.WORKER else min(OLD, NEW)
    more = tuple(ClusterNode(name, True, worker_version, "boot", report=_report(R1)) for name in names)
    held = {f"slot-pool-workers-{number}" for number in range(max(1, (nodes - 3) // 5))}
    leases = (Lease("slot-control-plane-0"), *(Lease(name) for name in sorted(held)))
    cluster = replace(want, peers=tuple(sorted(peers, key=lambda it: it.name)), rollouts=rollouts)
    situation = situation.wants(cluster=cluster).cluster(nodes=(*view.nodes, *more), leases=leases)
    assert len(situation.view.nodes) == nodes
    return situation


def seconds(situation: Situation) -> tuple[float, str]:
    """Return the median time of a decision, and what was decided."""
    taken = []
    for _ in range(REPEATS):
        view = replace(situation.view, version=situation.view.version)
        fresh = situation.sees(cluster=view).wants(cluster=replace(situation.want.cluster))  # type: ignore[type-var]
        start = time.process_time()
        decision = fresh.decide()
        taken.append(time.process_time() - start)
    return statistics.median(taken), type(getattr(decision, "action", decision)).__name__


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [10, 100, 1000]
    for what, make in SITUATIONS.items():
        base = None
        for nodes in sizes:
            found, decided = seconds(enlarged(make(), nodes))
            base = base or found
            print(f"{what:<32} {nodes:>6} nodes {found * 1000:8.2f} ms {found / base:6.1f} x  {decided}", flush=True)


if __name__ == "__main__":
    main()
