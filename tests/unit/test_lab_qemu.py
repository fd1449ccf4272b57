"""When QEMU counts as hanging in a guest's restart."""

import os
from pathlib import Path

from kubenode.lab.qemu import RESTART_SECONDS, hangs_in_restart

LAST_WORDS = b"...\r\n[   45.8] reboot: Restarting system\r\n"
LONG = RESTART_SECONDS + 1


def log_of(tmp_path: Path, words: bytes, at: float) -> Path:
    log = tmp_path / "serial.log"
    log.write_bytes(words)
    os.utime(log, (at, at))
    return log


def test_silence_after_the_guests_last_words_is_a_hang(tmp_path: Path) -> None:
    log = log_of(tmp_path, LAST_WORDS, at=1000)
    assert not hangs_in_restart(log, started=900, now=1000 + RESTART_SECONDS - 1)
    assert hangs_in_restart(log, started=900, now=1000 + LONG)


def test_a_machine_just_started_is_given_the_same_time(tmp_path: Path) -> None:
    """The log may be old and end in a restart: by the QEMU that was started anew, or by a cut in that very moment."""
    log = log_of(tmp_path, LAST_WORDS, at=1000)
    assert not hangs_in_restart(log, started=5000, now=5002)
    assert hangs_in_restart(log, started=5000, now=5000 + LONG)


def test_silence_after_anything_else_is_not(tmp_path: Path) -> None:
    assert not hangs_in_restart(log_of(tmp_path, LAST_WORDS + b"BdsDxe: starting", at=1000), started=0, now=1000 + LONG)
    assert not hangs_in_restart(log_of(tmp_path, b"", at=1000), started=0, now=1000 + LONG)
    assert not hangs_in_restart(tmp_path / "none", started=0, now=LONG)
