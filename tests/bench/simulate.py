"""Times `kubenode plan --simulate` without reading: a rollout of one minor through clusters of some sizes.

Usage: python -m tests.bench.simulate [WORKERS ...]

Once with a tenth of the workers away at a time, once one by one. The seconds are CPU time of the simulation alone.
"""

import sys
import time

from tests.unit.test_plan_simulate import large, simulated


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [10, 100, 1000]
    for amount in ("10%", "1"):
        for workers in sizes:
            fleet = large(workers, amount)
            start = time.process_time()
            timeline = simulated(fleet)
            spent = time.process_time() - start
            assert len(timeline.done) == workers + 3
            print(
                f"{workers:>5} workers, {amount:>3} away at most {spent:8.2f} s of CPU  "
                f"{len(timeline.events):>6} actions in {timeline.length}",
                flush=True,
            )


if __name__ == "__main__":
    main()
