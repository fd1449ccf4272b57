"""Times `kubenode plan`, the whole process, against a live (fake) cluster of 10, 100, 1,000 and 10,000 nodes.

Usage: python -m tests.bench.plan_command [NODES ...]

Printed is the processor time of the command (user and system, the better of three runs) and its ratio to the smallest
fleet of the same run. In each fleet the control planes are done and every worker waits for its wave, so that every rule
is asked about every node. The history has ten commits for each node (of 10,000 nodes: a thousand in all). Nothing is
cached from one run to the next but Python's own compiled files; a first run fills those.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kubenode.fleet.load import load_fleet
from kubenode.model.version import Version
from tests.bench.plan_fleet import NEW
from tests.planworld import PlanWorld, half_way, planworld

RUNS = 3


def seconds(world: PlanWorld, cache: Path) -> tuple[float, float, str]:
    """Return processor time and elapsed time of the best run, and what the command said last."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    argv = [sys.executable, "-m", "kubenode", "plan", "-C", world.fleet, "--kubeconfig", world.kubeconfig]
    found = []
    for _ in range(RUNS + 1):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((used, time.monotonic() - start, done.stderr.strip()))
    return min(found[1:])


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [10, 100, 1_000, 10_000]
    base = None
    with tempfile.TemporaryDirectory() as top:
        for nodes in sizes:
            folder = Path(top) / str(nodes)
            folder.mkdir()
            with planworld(folder, nodes, min(10 * nodes, 10_000_000 // nodes)) as world:
                files = {it.relative_to(world.fleet).as_posix(): it.read_bytes() for it in world.fleet.rglob("*.yaml")}
                half_way(world, load_fleet(files).releases[Version(NEW)])
                world.serve()
                used, elapsed, said = seconds(world, Path(top) / "pyc")
            base = base or used
            print(
                f"{nodes:>6} nodes {used:7.2f} s {used / base:6.1f} x  ({elapsed:.1f} s by the clock)  {said}",
                flush=True,
            )


if __name__ == "__main__":
    main()
