"""The checks against this machine: real mounts where it allows them, a real socket, a stand-in for systemctl."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubenode.host.clock import SystemClock
from kubenode.host.health import HostHealth, Runtime
from tests.contract.host_machine import FolderMachine

RUNTIME = Runtime()


@pytest.fixture
def machine(tmp_path: Path) -> FolderMachine:
    return FolderMachine.installed(tmp_path / "m", "1.0")


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `systemctl is-active` says is in a file."""
    said = tmp_path / "said"
    said.write_text("active\n")
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/systemctl"
    tool.write_text(f"#!/bin/sh\nexec cat {said}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return said


def results(machine: FolderMachine, **options: object) -> dict[str, tuple[bool, str]]:
    checks = HostHealth(machine.paths, machine.dm_table, seconds=2, **options).checks()  # type: ignore[arg-type]
    return {check.name: (check.ok, check.message) for check in checks}


@pytest.fixture
def mounted(machine: FolderMachine) -> Iterator[FolderMachine]:
    """The machine with file systems of their own at /var and /var/lib/kubenode, as tmpfs."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folders = (machine.paths.data, machine.paths.state)
    mounts: list[Path] = []
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this machine does not let tmpfs be mounted")
        mounts.append(folder)
    yield machine
    for folder in reversed(mounts):
        subprocess.run(["umount", folder], check=True)


def test_without_mounts_nothing_is_precious(machine: FolderMachine):
    found = results(machine)
    assert not found["state"][0] and "not a mount of its own" in found["state"][1]
    assert not found["data"][0] and "not a mount of its own" in found["data"][1]


def test_own_writable_mounts_pass(mounted: FolderMachine):
    found = results(mounted)
    assert found["state"][0] and found["data"][0]
    assert list(mounted.paths.state.iterdir()) == []


def test_a_mount_that_cannot_be_written_fails(mounted: FolderMachine):
    subprocess.run(["mount", "-o", "remount,ro", mounted.paths.state], check=True)
    found = results(mounted)
    assert not found["state"][0] and "Read-only" in found["state"][1] and found["data"][0]


def test_a_state_folder_on_the_data_partition_fails(mounted: FolderMachine):
    subprocess.run(["umount", mounted.paths.state], check=True)
    mounted.paths.state.mkdir(parents=True, exist_ok=True)
    found = results(mounted)
    assert not found["state"][0] and found["data"][0]
    subprocess.run(["mount", "-t", "tmpfs", "none", mounted.paths.state], check=True)


def test_a_clock_before_the_image_was_made_is_wrong(machine: FolderMachine):
    machine.paths.clock_epoch.touch()
    os.utime(machine.paths.clock_epoch, (1_700_000_000, 1_700_000_000))
    assert results(machine, now=lambda: 1_700_000_000.0)["clock"] == (True, "the clock says 2023-11-14 22:13:20 UTC")
    assert not results(machine, now=lambda: 1_699_999_999.0)["clock"][0]
    assert results(machine)["clock"][0]
    machine.paths.clock_epoch.unlink()
    assert not results(machine, now=lambda: 0.0)["clock"][0]


def test_the_root_must_be_read_only(machine: FolderMachine):
    assert results(machine)["root"] == (False, "the root file system can be written")
    if os.geteuid() == 0:
        bind = subprocess.run(
            ["mount", "--bind", machine.paths.root, machine.paths.root], check=False, capture_output=True
        )
        if bind.returncode == 0:
            try:
                subprocess.run(["mount", "-o", "remount,bind,ro", machine.paths.root], check=True)
                assert results(machine)["root"][0]
            finally:
                subprocess.run(["umount", machine.paths.root], check=True)


def test_the_root_hash_must_be_that_of_the_entry(machine: FolderMachine):
    assert results(machine)["verity"][0]
    machine.paths.cmdline.write_text("roothash=" + "0" * 64)
    assert not results(machine)["verity"][0]


def test_the_runtime_must_be_active_and_answer(
    machine: FolderMachine, systemctl: Path, monkeypatch: pytest.MonkeyPatch
):
    # Addresses of sockets are short: 107 bytes.
    monkeypatch.chdir(machine.paths.root)
    short = Runtime(socket="c.sock")
    assert not results(machine, runtime=short)["runtime"][0]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("c.sock")
        assert "refused" in results(machine, runtime=short)["runtime"][1]
        server.listen()
        assert results(machine, runtime=short)["runtime"] == (True, "containerd.service runs and its socket answers")
        systemctl.write_text("activating\n")
        assert results(machine, runtime=short)["runtime"] == (False, "containerd.service is activating")
    assert "runtime" not in results(machine, runtime=None)


def test_a_check_that_hangs_is_a_failure(machine: FolderMachine, systemctl: Path):
    begun = time.monotonic()

    def never() -> str:
        time.sleep(20)
        return ""

    checks = {check.name: check for check in HostHealth(machine.paths, never, seconds=0.2).checks()}
    assert not checks["verity"].ok and "no answer within" in checks["verity"].message
    assert time.monotonic() - begun < 5


def test_nothing_is_raised_on_a_machine_that_is_no_node(tmp_path: Path):
    machine = FolderMachine(tmp_path)
    assert not any(ok for ok, _ in results(machine).values())


def test_the_clock_is_aware_and_in_utc():
    now = SystemClock().now()
    assert now.utcoffset() is not None and now.utcoffset().total_seconds() == 0  # type: ignore[union-attr]
