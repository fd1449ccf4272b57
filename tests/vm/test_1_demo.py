"""The demo, by its command, as the README says. It comes first: the other stories use its fleet and its releases."""

import sys
from pathlib import Path
from subprocess import run

import pytest

pytestmark = pytest.mark.vm


def test_demo(folder: Path) -> None:
    if (folder / "demo" / "vm").exists():
        pytest.skip("KUBENODE_VM_DIR holds a demo that ran already")
    words = [sys.executable, "-m", "kubenode", "demo", "--yes", "--keep", "--dir", str(folder / "demo")]
    done = run(words, check=False, stdout=-1, text=True, timeout=2400)
    print(done.stdout)
    assert done.returncode == 0
    assert "FAILED" not in done.stdout
    assert done.stdout.count(" ok ") >= 7
