"""The machine's part of the local health gate: `kubenode.ports.Health`. Only what can be seen without any network."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host import podhealth, process
from kubenode.host.booted import DmTable, dmsetup_table, running
from kubenode.host.paths import Paths
from kubenode.ports import CheckResult

_ACTIVE = ("active",)


@dataclass(frozen=True)
class Runtime:
    """The container runtime that must answer: its unit, and its socket below the root."""

    unit: str = "containerd.service"
    socket: str = "run/containerd/containerd.sock"


class HostHealth:
    """Implements `kubenode.ports.Health`; each check ends after `seconds`, answered or not."""

    def __init__(
        self,
        paths: Paths = Paths(),  # noqa: B008 - frozen
        dm_table: DmTable = dmsetup_table,
        *,
        runtime: Runtime | None = Runtime(),
        now: Callable[[], float] = time.time,
        seconds: float = 20,
    ) -> None:
        self._paths = paths
        self._dm_table = dm_table
        self._runtime = runtime
        self._now = now
        self._seconds = seconds

    def checks(self) -> tuple[CheckResult, ...]:
        """Run every check; never raises."""
        checks: list[tuple[str, Callable[[], str]]] = [
            ("state", self._state),
            ("data", self._data),
            ("clock", self._clock),
            ("root", self._root),
            ("verity", self._verity),
        ]
        if self._runtime is not None:
            runtime = self._runtime
            checks.append(("runtime", lambda: self._answers(runtime)))
        results = [_bounded(name, check, self._seconds) for name, check in checks]
        if podhealth.is_member(self._paths):
            # These wait by themselves: a kubelet and its pods take their time to start.
            limit = self._seconds + podhealth.KUBELET_SECONDS
            results.append(_bounded("kubelet", podhealth.kubelet, limit))
            limit = self._seconds + podhealth.PODS_SECONDS
            results.append(_bounded("static pods", lambda: podhealth.static_pods(self._paths), limit))
        return tuple(results)

    def _state(self) -> str:
        folder = self._paths.state
        self._own_device(folder, (self._paths.root, self._paths.data))
        _writable(folder)
        return f"{folder} is on a partition of its own and can be written"

    def _data(self) -> str:
        folder = self._paths.data
        self._own_device(folder, (self._paths.root,))
        _writable(folder)
        return f"{folder} is on a partition of its own and can be written"

    def _own_device(self, folder: Path, others: Sequence[Path]) -> None:
        device = folder.stat().st_dev
        for other in others:
            if other.stat().st_dev == device:
                raise HostError(
                    f"{folder} is not a mount of its own, it is part of {other}",
                    hint="Its partition was not mounted: systemctl --failed; journalctl -b -u systemd-repart",
                )

    def _clock(self) -> str:
        # A clock before the image was made is wrong, and certificates are refused by it. Where the image brings no
        # clock-epoch, its other files tell when it was made.
        epoch = self._paths.clock_epoch
        reference = epoch if epoch.exists() else self._paths.os_release
        earliest, now = reference.stat().st_mtime, self._now()
        text = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
        if now < earliest:
            raise HostError(
                f"the clock says {text}, before {reference.name} was made",
                hint="Set the clock (timedatectl), or give the machine a time server: `kubenode seed NODE --ntp`.",
            )
        return f"the clock says {text}"

    def _root(self) -> str:
        if not os.statvfs(self._paths.root).f_flag & os.ST_RDONLY:
            raise HostError(
                "the root file system can be written",
                hint="The image is not as it was built: report it; a kubenode root is read-only, by dm-verity.",
            )
        return "the root file system is read-only"

    def _verity(self) -> str:
        now = running(self._paths, self._dm_table)
        return f"the kernel enforces the root hash that the boot entry names ({now.root_hash[:16]}...)"

    def _answers(self, runtime: Runtime) -> str:
        state = process.run(["systemctl", "is-active", runtime.unit], timeout=self._seconds, check=False).text.strip()
        if state not in _ACTIVE:
            raise HostError(
                f"{runtime.unit} is {state or 'unknown'}",
                hint="See why: systemctl status containerd; journalctl -b -u containerd",
            )
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self._seconds)
            connection.connect(str(self._paths.root / runtime.socket))
        return f"{runtime.unit} runs and its socket answers"


def _bounded(name: str, check: Callable[[], str], seconds: float) -> CheckResult:
    """Run a check in a thread: a dead disk blocks a system call for ever, and then nothing would be said at all."""
    results: list[CheckResult] = []

    def attempt() -> None:
        try:
            results.append(CheckResult(name, True, check()))
        except Exception as error:
            # Whatever it is, the check did not pass, and the other checks must still be made.
            results.append(CheckResult(name, False, str(error) or type(error).__name__))

    thread = threading.Thread(target=attempt, daemon=True, name=f"check {name}")
    thread.start()
    thread.join(seconds)
    return results[0] if results else CheckResult(name, False, f"no answer within {seconds:.0f} s")


def _writable(folder: Path) -> None:
    """Write, flush and remove a file. Raises OSError."""
    path = folder / f".health.{secrets.token_hex(8)}"
    try:
        with path.open("xb") as file:
            file.write(b"written by the health check\n")
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
