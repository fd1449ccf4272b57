"""What keeps the spare slot from being attached. That it is attached, tests/kubernetes shows on a real machine."""

from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host.spare import attached
from tests.contract.host_machine import FolderMachine, make_release

NEW = make_release("2.0")


def test_a_slot_with_something_else_is_refused(tmp_path: Path) -> None:
    machine = FolderMachine.installed(tmp_path, "1.0")
    with (
        pytest.raises(HostError, match=rf"^slot b does not hold the release with the root hash {NEW.root_hash[:16]}"),
        attached(NEW.root_hash, machine.paths),
    ):
        pytest.fail("it was attached")
