"""Verification needs no network, no home folder and no cache: the kernel itself refuses every socket here."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cliworld import OLD, World, prepared

__all__ = ["prepared"]

# seccomp(2): from here on, in this process and all that it starts, socket(2) and socketpair(2) fail with EACCES.
NO_SOCKETS = """
import ctypes, errno, os, struct, sys
numbers = {"x86_64": (41, 53), "aarch64": (198, 199)}[os.uname().machine]
allow, deny = 0x7FFF0000, 0x00050000 | errno.EACCES
program = [(0x20, 0, 0, 0), (0x15, 1, 0, numbers[0]), (0x15, 0, 1, numbers[1]), (6, 0, 0, deny), (6, 0, 0, allow)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *it) for it in program))
header = struct.pack("HL", len(program), ctypes.addressof(filters))
libc = ctypes.CDLL(None, use_errno=True)
for words in ((38, 1, 0, 0, 0), (22, 2, ctypes.c_char_p(header), 0, 0)):
    if libc.prctl(*words) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
"""


def run(script: str, home: Path) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", NO_SOCKETS + script]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=root, env=environment, timeout=120)


pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="system call numbers are known for x86_64 and aarch64 only"
)


def test_sockets_are_really_blocked(tmp_path: Path) -> None:
    done = run("import socket\nsocket.socket(socket.AF_INET)", tmp_path)
    assert (done.returncode, "PermissionError" in done.stderr) == (1, True), done.stderr
    done = run(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import socket; socket.socketpair()'])", tmp_path
    )
    assert "PermissionError" in done.stderr


def verify(world: World, release: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    words = ["kubenode", "verify", str(release), "-C", str(world.fleet), "--channel", "beta"]
    return run(f"sys.argv = {words!r}\nfrom kubenode.cli.main import main\nmain()", home)


def test_a_release_is_verified_without_sockets_home_or_cache(prepared: World, tmp_path: Path) -> None:
    home = tmp_path / "home"  # Does not exist, and nothing may make it.
    done = verify(prepared, prepared.out / OLD, home)
    assert done.returncode == 0, done.stderr
    assert "is what beta accepts" in done.stderr
    assert not home.exists()


def test_a_refusal_needs_no_sockets_either(prepared: World, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / OLD
    shutil.copytree(prepared.out / OLD, copy)
    bundle = copy / "manifest.sigstore.json"
    bundle.write_text(bundle.read_text().replace('"tlogEntries":[', '"tlogEntries":[{},'))
    done = verify(prepared, copy, tmp_path / "home")
    assert (done.returncode, "Refused (LogEntryExtra)." in done.stderr) == (3, True), done.stderr
