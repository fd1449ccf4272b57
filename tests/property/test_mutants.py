"""The tests of the planner notice when it is broken."""

import subprocess
import sys
from pathlib import Path

from tests import mutants


def test_every_mutant_is_killed():
    assert len(mutants.MUTANTS) >= 10
    root = Path(mutants.__file__).resolve().parent.parent
    # A process of its own, because it forks and runs pytest.
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants"], check=False, cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
