"""A thousand nodes over three minors with random failures: `python -m tests.sim.test_sim_large [nodes] [seed]`."""

import random
import sys
import time

import pytest

from kubenode.errors import HostError
from kubenode.model.decision import Converged, Reboot
from kubenode.model.documents import Rollout
from tests.sim.rollouts import PLANES, WORKERS, Fleet, Killed, PowerCut, _code, release

RELEASES = tuple(release(f"{minor}.0", f"v1.3{minor}.2") for minor in (4, 3, 2, 1))


def simulate(workers: int, seed: int) -> Fleet:
    """Move a whole cluster over three minors; every invariant of `tests.sim` is asserted on the way."""
    dice = random.Random(seed)
    fleet = Fleet.create(3, workers, RELEASES[-1:], RELEASES[-1])
    fleet.rollouts = {PLANES: Rollout(), WORKERS: Rollout("20%", ("1", "10%", "100%"), max_failures=workers // 20)}
    fleet.run(dice=dice, asked=0.2)
    fleet.cluster.pods = {f"app-{it % 50}/{it}": f"worker-{it % workers + 1:04}" for it in range(min(3 * workers, 300))}
    fleet.releases = RELEASES
    names = [name for name, machine in fleet.machines.items() if machine.pool == WORKERS]
    fleet.bad = {(name, "4.0") for name in dice.sample(names, workers // 50)}
    steps = 25 * workers
    for crash in (Killed, HostError, PowerCut):
        fleet.crash, fleet.crash_at = (
            crash,
            frozenset(dice.sample(range(len(fleet.trace), len(fleet.trace) + steps), 8)),
        )
        for _ in range(12):
            fleet.round(dice, 0.2)
    fleet.run(4000, dice, asked=0.2)
    return fleet


def check(fleet: Fleet) -> dict[str, int]:
    """Check the end, and return how many nodes ended how."""
    bad = {name for name, _ in fleet.bad}
    for name, machine in fleet.machines.items():
        code, runs = _code(machine.last), str(machine.booted.version)
        assert (code, runs) == (("ReleasePoisoned", "1.0") if name in bad else ("Converged", "4.0")), (name, code, runs)
    assert all(lease.holder is None for lease in fleet.cluster.leases.values())
    assert not any(it.cordoned or not it.ready for it in fleet.cluster.objects.values())
    return {
        "converged": sum(isinstance(it.last, Converged) for it in fleet.machines.values()),
        "fell back": len(bad),
        "restarts": sum(isinstance(action, Reboot) for _, action in fleet.log),
    }


@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_nodes_over_three_minors(seed):
    fleet = simulate(100, seed)
    assert check(fleet)["fell back"] == 2


def test_a_schedule_is_reproducible_by_its_seed():
    one, other = simulate(20, 7), simulate(20, 7)
    assert one.log == other.log and one.trace == other.trace
    assert simulate(20, 8).log != one.log


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    start, cpu = time.monotonic(), time.process_time()
    fleet = simulate(workers, seed)
    print(
        f"{workers} workers and 3 control planes over 3 minors, seed {seed}: {check(fleet)}, {len(fleet.log)} actions, "
        f"{fleet.rounds} rounds, {time.monotonic() - start:.0f} s ({time.process_time() - cpu:.0f} s of CPU)"
    )


if __name__ == "__main__":
    main()
