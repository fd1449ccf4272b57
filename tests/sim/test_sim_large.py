"""A thousand nodes over three minors with random failures: `python -m tests.sim.test_sim_large [WORKERS [SEED]]`.

Machines are killed, lose their power or get errors at random steps, and lose their network for some rounds. Every
invariant of `tests.sim` is asserted at the step that could break it; what concerns everybody, after each round.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from kubenode.model.decision import Reboot
from kubenode.model.documents import Release, Rollout
from kubenode.model.kubernetes import KubernetesVersion
from tests.sim.facts import _plain
from tests.sim.rollouts import PLANES, WORKERS, Fleet, _code, converged, release

MINORS = tuple(release(f"{minor}.0", f"v1.3{minor}.2") for minor in (4, 3, 2, 1))
BROKEN = release("4.1", "v1.34.3")
HEALED = release("4.2", "v1.34.4")


@dataclass
class Story:
    """What happens to a cluster: three minors, a release that breaks on workers, one that heals."""

    workers: int
    seed: int
    chance: float = 0.002

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.fleet = fleet = Fleet.create(3, self.workers, MINORS[-1:], MINORS[-1])
        self.max_failures = max(1, self.workers // 20)
        rollout = Rollout("20%", ("1", "10%", "100%"), max_failures=self.max_failures)
        fleet.rollouts = {PLANES: Rollout(), WORKERS: rollout}
        fleet.cluster.watch_quorum = True
        self.began = fleet.now
        self.cut_off: dict[str, int] = {}

    def run(self) -> "Story":
        fleet, names = self.fleet, [f"worker-{number:04}" for number in range(1, self.workers + 1)]
        self._go(MINORS[-1:])
        assert converged(fleet), fleet.summary()
        # Five replicas of each app, four of which must always run.
        apps = max(1, min(self.workers, 1000) // 10)
        fleet.cluster.pods = {f"app-{it % apps}/{it}": names[it % len(names)] for it in range(5 * apps)}
        fleet.cluster.at_least = {f"app-{app}": 4 for app in range(apps)}
        fleet.chaos, fleet.chance = random.Random(self.seed + 1), self.chance
        self.weak = set(self.dice.sample(names, self.workers // 50))
        fleet.bad = {(name, "4.0") for name in self.weak}
        self._go(MINORS)
        self._ended(dict.fromkeys(self.weak, ("ReleasePoisoned", "1.0")), "4.0")
        fleet.bad = {(name, "4.1") for name in names}
        self._go((BROKEN, *MINORS))
        self._closed(names)
        self._go((HEALED, BROKEN, *MINORS))
        self._ended({}, "4.2")
        return self

    def _go(self, releases: tuple[Release, ...]) -> None:
        """Change the channel, and run until nothing moves any more."""
        fleet = self.fleet
        fleet.releases = releases
        idle = 0
        for _ in range(1000):
            if fleet.chaos is not None:
                self._network(idle)
            idle = 0 if fleet.round(self.dice, 1.0 if idle else 0.2) else idle + 1
            self._check()
            waits = any(getattr(it.last, "until", None) for it in fleet.machines.values())
            if idle >= 3 and not waits and not self.cut_off:
                return
        raise AssertionError(f"no end: {Counter(_code(it.last) for it in fleet.machines.values() if it.last)}")

    def _network(self, idle: int) -> None:
        """Cut machines off for some rounds, at random."""
        fleet = self.fleet
        for name in [name for name, until in self.cut_off.items() if until <= fleet.rounds or idle]:
            del self.cut_off[name]
            fleet.machines[name].host.cut_off = False
            fleet.cluster.changed()
        if not idle and self.dice.random() < 0.2:
            name = self.dice.choice(list(fleet.machines))
            self.cut_off[name] = fleet.rounds + self.dice.randint(1, 8)
            fleet.machines[name].host.cut_off = True
            fleet.injected["cut off"] += 1
            fleet.cluster.changed()

    def _check(self) -> None:
        """Assert what must be true of everybody at any time."""
        cluster = self.fleet.cluster
        serving = [host.manifests["kube-apiserver"] for host in cluster.planes() if host.manifests]
        kubelets = {host.kubelet for host in cluster.hosts.values() if host.joined is not None}
        assert not kubelets or not serving or max(kubelets) <= min(serving), (kubelets, serving)
        assert all(it.host.root_hash in self.fleet.known for it in self.fleet.machines.values())
        held = Counter(lease.holder for lease in cluster.leases.values() if lease.holder is not None)
        assert not held or max(held.values()) == 1, f"two leases in one hand: {held}"
        for pool in (PLANES, WORKERS):
            ours = [cluster.objects.get(it.name) for it in self.fleet.machines.values() if it.pool == pool]
            emptied = sum(it is not None and it.cordoned_by_us for it in ours)
            assert emptied <= self.fleet.limit(pool), f"{emptied} of {pool} are emptied"

    def _ended(self, exceptions: dict[str, tuple[str, str]], version: str) -> None:
        fleet = self.fleet
        for name, machine in fleet.machines.items():
            found = (_code(machine.last) if machine.last else "", str(machine.booted.version))
            assert found == exceptions.get(name, ("Converged", version)), (name, found, machine.last)
        self._at_rest()

    def _at_rest(self) -> None:
        assert all(lease.holder is None for lease in self.fleet.cluster.leases.values()), "a lease is leaked"
        assert not any(it.cordoned or not it.ready for it in self.fleet.cluster.objects.values())

    def _closed(self, names: list[str]) -> None:
        """The broken release has stopped by itself, and time does not open it again."""
        fleet = self.fleet
        codes = Counter(_code(fleet.machines[name].last) for name in names)  # type: ignore[arg-type]
        assert set(codes) == {"ReleasePoisoned", "RolloutClosed"}, codes
        # At once are away no more than may be; of those some can still fail when the limit is passed.
        assert self.max_failures < codes["ReleasePoisoned"] <= self.max_failures + fleet.limit(WORKERS), codes
        self.fell_back = codes["ReleasePoisoned"]
        self._at_rest()
        before = len(fleet.log)
        for _ in range(50):
            fleet.round(self.dice)
        assert not any(isinstance(action, Reboot) for _, action in fleet.log[before:])

    @property
    def digest(self) -> str:
        """sha256 of all that was done, in its order, and of what it left."""
        fleet = self.fleet
        events = [(name, type(action).__name__, _plain(_words(action))) for name, action in fleet.log]
        end = sorted((it.name, it.reasons, it.host.boot_id) for it in fleet.machines.values())
        return sha256(json.dumps([events, fleet.trace, end, str(fleet.now)]).encode()).hexdigest()

    def __str__(self) -> str:
        fleet = self.fleet
        restarts = sum(isinstance(action, Reboot) for _, action in fleet.log)
        failures = ", ".join(f"{count} {name}" for name, count in sorted(fleet.injected.items()))
        return (
            f"{self.workers} workers and 3 control planes over 3 minors, seed {self.seed}: "
            f"{len(fleet.log)} actions, {restarts} restarts in {fleet.now - self.began} of simulated time; "
            f"injected {failures}; {len(self.weak)} and {self.fell_back} fell back; log {self.digest[:16]}"
        )


def _words(value: object) -> object:
    """Versions of Kubernetes as text: what is cached in them is no part of an event."""
    fields = getattr(value, "__dataclass_fields__", {})
    return tuple(str(it) if isinstance(it, KubernetesVersion) else it for it in (getattr(value, k) for k in fields))


def test_a_thousand_nodes_over_three_minors():
    print(Story(1000, seed=1).run())


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_nodes_over_three_minors(seed):
    """As above, with ten times as many failures for each step."""
    print(Story(100, seed, chance=0.02).run())


def test_a_run_is_reproducible_by_its_seed():
    """In processes of their own: the order of sets and the hashes of texts must not matter."""
    root = Path(__file__).resolve().parents[2]

    def told(seed: int, hashes: str) -> str:
        words = [sys.executable, "-m", "tests.sim.test_sim_large", "20", str(seed)]
        env = {**os.environ, "PYTHONHASHSEED": hashes}
        done = subprocess.run(words, cwd=root, env=env, check=True, capture_output=True, text=True)
        return done.stdout.partition(" [")[0]

    one = told(7, "1")
    assert told(7, "2") == one and "log " in one
    assert told(8, "1") != one


def main() -> None:
    workers, seed = (int(word) for word in (*sys.argv[1:3], *("1000", "1")[len(sys.argv[1:3]) :]))
    cpu = time.process_time()
    story = Story(workers, seed).run()
    print(f"{story} [{time.process_time() - cpu:.0f} s of CPU]")


if __name__ == "__main__":
    main()
