"""One node of the lab: a virtual machine that runs a real image, and what its agent says of itself."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kubenode.errors import HostError, KubenodeError
from kubenode.host.process import Completed, run
from kubenode.host.seed import SEED
from kubenode.host.statefiles import encode_seed
from kubenode.lab import probe
from kubenode.lab.failed import LabFailed
from kubenode.lab.qemu import MachineConfig, VirtualMachine
from kubenode.model.state import Seed

STATUS = "/var/lib/kubenode/status.json"
AGENT = "kubenode-reconcile.service"
KERNEL = ("console=ttyS0", "systemd.show_status=no")
SLOW_TIMER = b"[Timer]\nOnBootSec=\nOnUnitInactiveSec=\nRandomizedDelaySec=0\nOnBootSec=1d\n"
FAST_TIMER = b"[Timer]\nOnBootSec=\nOnUnitInactiveSec=\nRandomizedDelaySec=0\nOnBootSec=5s\nOnUnitInactiveSec=10s\n"

Status = Mapping[str, Any]


class LabNode:
    """A node whose seed comes from the hypervisor; its agent ticks by a fast timer or, with `manual`, when told to."""

    def __init__(
        self,
        name: str,
        image: Path,
        work: Path,
        seed: Seed,
        *,
        manual: bool = False,
        hardware: Mapping[str, Any] | None = None,
        more: Mapping[str, bytes] | None = None,
    ) -> None:
        """`hardware` changes sizes, ports, disks and network of the machine, see `MachineConfig`.

        `more` are credentials besides, such as its identity.
        """
        credentials = {
            **(more or {}),
            **probe.credentials(),
            SEED: encode_seed(seed),
            "system.hostname": seed.node.encode(),
            "system.machine_id": hashlib.sha256(seed.node.encode()).hexdigest()[:32].encode(),
            "systemd.unit-dropin.kubenode-reconcile.timer~lab": SLOW_TIMER if manual else FAST_TIMER,
        }
        self.name = name
        self.machine = VirtualMachine(
            MachineConfig(
                name=name, image=image, work=work, credentials=credentials, kernel_extra=KERNEL, **hardware or {}
            )
        )
        self.probe = probe.Probe(self.machine.config.probe_socket)

    def start(self, timeout: float = 300) -> None:
        """Power on and wait until the guest is up: the probe answers and systemd has reached multi-user.target."""
        self.machine.start()
        self.probe.wait(timeout)
        self.wait_up(timeout)

    def wait_up(self, timeout: float = 300) -> None:
        """Wait until systemd has reached multi-user.target."""
        words = ["/usr/bin/systemctl", "is-active", "--quiet", "multi-user.target"]
        self.wait_until(lambda: (done := self._asked(words)) is not None and done.returncode == 0, timeout)

    def cut_power(self) -> None:
        """Cut the power, as a pulled plug does."""
        self.machine.kill()
        self.probe.close()

    def stop(self) -> None:
        """Switch off, cleanly if the guest obeys."""
        try:
            self.machine.shutdown()
        except HostError:
            self.machine.kill()
        self.probe.close()

    def status(self) -> Status:
        """The agent's last report; empty before the first."""
        try:
            document: Status = json.loads(self.probe.read(STATUS, timeout=20))
        except (HostError, OSError, ValueError):
            return {}
        return document

    def tick(self, timeout: float = 600) -> Status:
        """Run one tick now and return its report. The unit's failure is part of the report, not an error here."""
        self.probe.run(["/usr/bin/systemctl", "start", AGENT], timeout, check=False)
        return self.status()

    def tick_until(self, phase: str, timeout: float) -> Status:
        """Tick until the report has this phase; a step that failed is retried only after its backoff."""
        status = self.tick()
        deadline = time.monotonic() + timeout
        while status.get("phase") != phase:
            if time.monotonic() > deadline:
                raise LabFailed(f"{self.name} is not {phase} but {status.get('phase')}: {status.get('message')}")
            time.sleep(10)
            status = self.tick()
        return status

    def begin_tick(self) -> None:
        """Start a tick and return at once."""
        self.probe.run(["/usr/bin/systemctl", "start", "--no-block", AGENT])

    def dry_run(self) -> Status:
        """Return what the agent would do now, as `kubenode reconcile --dry-run --output json` says on the node."""
        script = ["/usr/bin/systemd-run", "--quiet", "--pipe", "--wait", "--property=ImportCredential=kubenode.*"]
        command = ["/usr/bin/kubenode", "reconcile", "--dry-run", "--output", "json"]
        done = self.probe.run([*script, *command], 120, check=False)
        try:
            document: Status = json.loads(done.stdout)
        except ValueError as error:
            raise LabFailed(f"the dry run on {self.name} said: {done.stderr.decode(errors='replace')}") from error
        return document

    def wait_until(self, true: Callable[[], bool], timeout: float) -> None:
        """Ask again and again until the answer is yes. Raises HostError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not true():
            if time.monotonic() > deadline:
                raise LabFailed(f"{self.name} did not get there within {timeout:.0f} s")
            time.sleep(0.2)

    def root_is_read_only(self) -> bool:
        """Try to write below /usr and say whether that was refused as it must be."""
        done = self.probe.run(["/usr/bin/python3", "-c", "open('/usr/x', 'w')"], check=False)
        return done.returncode != 0 and b"Read-only file system" in done.stderr

    def flip_byte(self, label: str, position: float = 0.95) -> None:
        """Change one byte of a partition of the machine that is switched off; `position` is 0 to 1 within it."""
        disk = self.machine.config.disk
        raw = disk.with_suffix(".raw")
        run(["qemu-img", "convert", "-O", "raw", disk, raw], timeout=300)
        table = json.loads(run(["sfdisk", "--json", raw], timeout=30).text)["partitiontable"]
        part = next(it for it in table["partitions"] if it.get("name") == label)
        superblock = 1024
        with raw.open("r+b") as file:
            start = part["start"] * table.get("sectorsize", 512)
            file.seek(start + superblock)
            size = _erofs_size(file.read(128))
            file.seek(start + int(size * position))
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 0xFF]))
        run(["qemu-img", "convert", "-O", "qcow2", raw, disk], timeout=300)
        raw.unlink()

    def wait_status(self, wanted: Callable[[Status], bool], timeout: float, seen: Callable[[Status], None]) -> Status:
        """Poll the report until it is as wanted; calls `seen` whenever it changes. Raises HostError after `timeout`."""
        deadline = time.monotonic() + timeout
        last: Status = {}
        while time.monotonic() < deadline:
            now = self.status()
            if now and (now["phase"], now["message"]) != (last.get("phase"), last.get("message")):
                seen(now)
                last = now
            if now and wanted(now):
                return now
            if not self.machine.is_running():
                raise HostError(f"{self.name} went off by itself", hint=f"see {self.machine.config.serial_log}")
            time.sleep(1)
        raise HostError(
            f"{self.name} did not get there within {timeout:.0f} s; its last report: {last.get('message', 'none')}",
            hint=f"see {self.machine.config.serial_log}",
        )

    def wait_blessed(self, timeout: float = 300) -> None:
        """Wait until a boot that is no trial (any more) runs: the one after it when this one's gate gives it up."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            done = self._asked(["/usr/lib/systemd/systemd-bless-boot", "status"])
            if done is not None and done.text.strip() in ("good", "clean"):
                return
            time.sleep(1)
        raise LabFailed(f"the boot of {self.name} was not blessed within {timeout:.0f} s")

    def _asked(self, words: Sequence[str], timeout: float = 30) -> Completed | None:
        """Run a command in the guest; None when there is no answer, as in the middle of a restart."""
        with suppress(KubenodeError, OSError):
            return self.probe.run(words, timeout, check=False)
        return None

    def entries(self) -> list[str]:
        """The UKIs in the ESP, by file name."""
        return sorted(self.probe.python("import os; print(*os.listdir('/efi/EFI/Linux'), sep='\\n')").split())

    def release(self) -> str:
        """The version of the running release, as its own os-release says."""
        for line in self.probe.read("/usr/lib/os-release").decode().splitlines():
            if line.startswith("IMAGE_VERSION="):
                return line.split("=", 1)[1].strip('"')
        raise LabFailed("os-release has no IMAGE_VERSION")


def _erofs_size(superblock: bytes) -> int:
    """Size of an EROFS file system in bytes: blkszbits at 12, blocks at 36 (kernel, fs/erofs/erofs_fs.h)."""
    return int.from_bytes(superblock[36:40], "little") << superblock[12]
