"""The tests of the planner and of commit trust notice when one of them is broken."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutants


@pytest.mark.parametrize("group", mutants.GROUPS)
def test_every_mutant_is_killed(group: str):
    assert len(mutants.GROUPS[group][2]) >= 10
    root = Path(mutants.__file__).resolve().parent.parent
    # A process of its own, because it forks and runs pytest.
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", group],
        check=False,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
