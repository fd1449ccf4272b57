"""A virtual machine: QEMU with UEFI firmware, a disk that starts as a release's image, and a seed.

The seed goes in as SMBIOS strings, which systemd reads as credentials. A power cut is SIGKILL: the host's page cache
survives it, so what the guest flushed is on the disk and what it did not flush is lost, as on real hardware.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kubenode.errors import HostError
from kubenode.host.process import run, spawn
from kubenode.host.seed import smbios_string
from kubenode.lab.failed import LabFailed

if TYPE_CHECKING:
    from subprocess import Popen  # noqa: TID251 - the type only

FIRMWARE_FOLDERS = ("/usr/share/OVMF", "/usr/share/edk2/x64", "/usr/share/edk2/ovmf", "/usr/share/qemu")
FIRMWARE_NAMES = (("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"))
HOST_ADDRESS = "10.0.2.2"
"""Under this address QEMU's user network shows the host's loopback to the guest (QEMU manual, -netdev user)."""
PROBE_PORT = "dev.kubenode.lab"
RESTART_SECONDS = 45.0
"""A restart reaches the firmware's first words within 15 s, also under emulation on a busy machine."""
KVM_PROBE_SECONDS = 12.0
TCG_CPU = "Nehalem"
"""Slower is `max`: it offers AVX2, and the kernel's AVX2 SHA-256 under dm-verity runs at half speed when emulated."""


@dataclass(frozen=True)
class SharedNetwork:
    """A layer 2 network that machines share: every frame is a datagram to a multicast group on the host's loopback.

    QEMU joins and sends by the interface of `localaddr`, so this needs no route, no other interface and no program
    beside the machines, in a container that has only `lo` too; and machines may come and go in any order.
    """

    group: str
    port: int

    @classmethod
    def of(cls, folder: Path) -> "SharedNetwork":
        """Return the network of a lab folder: another folder's has another group and port, so they never meet."""
        digest = hashlib.sha256(str(folder.resolve()).encode()).digest()
        # 230.0.0.0/8 is reserved: nobody uses these groups (RFC 5771).
        return cls("230." + ".".join(map(str, digest[:3])), 20000 + int.from_bytes(digest[3:5]) % 10000)


def mac_address(name: str) -> str:
    """Return the address of a machine's card on the shared network: locally administered, always the same."""
    return ":".join(f"{octet:02x}" for octet in (0x02, *hashlib.sha256(name.encode()).digest()[:5]))


@dataclass(frozen=True)
class MachineConfig:
    """A machine to run: `image` is a release's disk image (never written), `work` the folder of its own files.

    `credentials` are systemd credentials by name; `kernel_extra` is added to the kernel command line by the firmware.
    Sizes are in MiB. `forward` maps ports of the host's loopback to ports of the guest; `disks` are further disks that
    the guest only reads. With `shared` the machine has a second network card, with `mac_address(name)`. `clock` (UTC)
    is what its hardware clock shows at power-on, instead of the true time.
    """

    name: str
    image: Path
    work: Path
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    kernel_extra: tuple[str, ...] = ()
    memory_mib: int = 2048
    cpus: int = 2
    disk_mib: int = 6144
    forward: Mapping[int, int] = field(default_factory=dict)
    disks: tuple[Path, ...] = ()
    shared: SharedNetwork | None = None
    clock: datetime | None = None

    @property
    def serial_log(self) -> Path:
        """What the machine wrote to its serial console, over all its boots."""
        return self.work / "serial.log"

    @property
    def disk(self) -> Path:
        """The machine's disk: a qcow2 overlay of the image."""
        return self.work / "disk.qcow2"

    @property
    def probe_socket(self) -> Path:
        """The host's end of the probe's virtio-serial port. Kept short: socket paths end at 107 bytes."""
        return self.work / "probe.sock"


class VirtualMachine:
    """A machine that can be started, cut from power and started again; its disk stays."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.accelerator = "unknown"
        self._process: Popen[bytes] | None = None
        self._swap = threading.Lock()

    def start(self) -> None:
        """Power on. Raises HostError when QEMU or the firmware is missing or QEMU stops at once."""
        if self.is_running():
            raise LabFailed(f"machine {self.config.name} is running already")
        config = self.config
        config.work.mkdir(parents=True, exist_ok=True)
        code, variables = firmware()
        own_variables = config.work / "vars.fd"
        if not own_variables.exists():
            shutil.copyfile(variables, own_variables)
        if not config.disk.exists():
            run(
                ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", config.image.resolve(), config.disk,
                 f"{config.disk_mib}M"],
                timeout=60,
            )  # fmt: skip
        self.accelerator = accelerator()
        words = command_line(config, self.accelerator, code, own_variables, self._monitor)
        self._process = self._launch(words)
        threading.Thread(target=self._guard_restarts, args=(self._process, words), daemon=True).start()
        with contextlib.suppress(TimeoutError):
            self._wait_gone(1.0)
            raise LabFailed(
                f"QEMU for {config.name} stopped at once: {(config.work / 'qemu.log').read_text()[-600:].strip()}"
            )

    def is_running(self) -> bool:
        """Tell whether the machine has power."""
        with self._swap:
            return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Cut the power."""
        with self._swap:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait(timeout=30)

    def _launch(self, words: list[str]) -> "Popen[bytes]":
        for stale in (self.config.probe_socket, self._monitor):
            stale.unlink(missing_ok=True)
        return spawn(words, log=self.config.work / "qemu.log")

    def _guard_restarts(self, process: "Popen[bytes]", words: list[str]) -> None:
        """Start QEMU anew when it hangs in a guest's restart, as QEMU 7.2 was seen to do under emulation.

        By then the guest has flushed everything and given up control, so nothing of it is lost.
        """
        started = time.time()
        while True:
            time.sleep(2)
            with self._swap:
                if process is not self._process or process.poll() is not None:
                    return
                if hangs_in_restart(self.config.serial_log, started, time.time()):
                    process.kill()
                    process.wait(timeout=30)
                    process = self._process = self._launch(words)
                    started = time.time()

    def shutdown(self, timeout: float = 180.0) -> None:
        """Press the power button and wait for the machine to go off; raises HostError after `timeout` seconds."""
        if not self.is_running():
            return
        self.monitor("system_powerdown")
        try:
            self._wait_gone(timeout)
        except TimeoutError as error:
            raise LabFailed(f"machine {self.config.name} did not go off within {timeout:.0f} s") from error

    def monitor(self, command: str, **arguments: object) -> object:
        """Send one command to QEMU's monitor (QMP) and return its answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._monitor))
            lines = connection.makefile("rb")
            lines.readline()
            for execute, values in (("qmp_capabilities", {}), (command, arguments)):
                connection.sendall(json.dumps({"execute": execute, "arguments": values}).encode() + b"\n")
                while "event" in (answer := json.loads(lines.readline())):
                    pass
                if "error" in answer:
                    raise LabFailed(f"QEMU refused {execute}: {answer['error'].get('desc')}")
        return answer["return"]

    @property
    def _monitor(self) -> Path:
        return self.config.work / "qmp.sock"

    def _wait_gone(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.is_running():
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.1)


def hangs_in_restart(log: Path, started: float, now: float) -> bool:
    """Say whether a guest's last words were those of a restart, and nothing was heard of its machine since.

    `started` is when QEMU was started: the log is kept over all boots, so it may be older. Times in seconds (time(2)).
    """
    if not log.exists() or now - max(started, log.stat().st_mtime) < RESTART_SECONDS:
        return False
    return log.read_bytes()[-200:].rstrip().endswith(b"reboot: Restarting system")


def firmware() -> tuple[Path, Path]:
    """Find UEFI firmware and its variable store, as distributions install them."""
    for folder in FIRMWARE_FOLDERS:
        for code, variables in FIRMWARE_NAMES:
            if (Path(folder) / code).exists() and (Path(folder) / variables).exists():
                return Path(folder) / code, Path(folder) / variables
    raise HostError("no UEFI firmware for QEMU was found", hint="install OVMF (Debian: apt install ovmf)")


def smbios_strings(config: MachineConfig) -> list[str]:
    """Return the SMBIOS strings of a machine: its credentials and its additions to the kernel command line."""
    strings = [smbios_string(name, value) for name, value in config.credentials.items()]
    if config.kernel_extra:
        strings.append("io.systemd.stub.kernel-cmdline-extra=" + " ".join(config.kernel_extra))
    return strings


def command_line(config: MachineConfig, accel: str, code: Path, variables: Path, monitor: Path) -> list[str]:
    """Return QEMU's arguments; the SMBIOS strings are written to files, for they may be large and secret."""
    cpu = ["-accel", "kvm", "-cpu", "host"] if accel == "kvm" else ["-accel", "tcg,thread=multi", "-cpu", TCG_CPU]
    network = ["user", "id=net", *(f"hostfwd=tcp:127.0.0.1:{own}-:{guest}" for own, guest in config.forward.items())]
    words = [
        "qemu-system-x86_64", "-name", config.name, "-nodefaults", "-display", "none",
        "-machine", "q35,smbios-entry-point-type=64", *cpu,
        "-smp", str(config.cpus), "-m", str(config.memory_mib),
        "-drive", f"if=pflash,format=raw,readonly=on,file={code}",
        "-drive", f"if=pflash,format=raw,file={variables}",
        "-drive", f"if=none,id=disk,format=qcow2,cache=writeback,discard=unmap,file={config.disk}",
        "-device", "virtio-blk-pci,drive=disk,bootindex=0",
        "-netdev", ",".join(network), "-device", "virtio-net-pci,netdev=net,romfile=",
        "-chardev", f"file,id=serial,append=on,path={config.serial_log}", "-serial", "chardev:serial",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=probe,server=on,wait=off,path={config.probe_socket}",
        "-device", f"virtserialport,chardev=probe,name={PROBE_PORT}",
        "-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
        "-qmp", f"unix:{monitor},server=on,wait=off",
    ]  # fmt: skip
    if config.clock is not None:
        words += ["-rtc", f"base={config.clock:%Y-%m-%dT%H:%M:%S}"]
    if config.shared is not None:
        words += ["-netdev", f"socket,id=shared,mcast={config.shared.group}:{config.shared.port},localaddr=127.0.0.1"]
        # Large frames, so fewer of them: emulation pays for every packet.
        card = f"virtio-net-pci,netdev=shared,romfile=,host_mtu=9000,mac={mac_address(config.name)}"
        words += ["-device", card]
    for number, disk in enumerate(config.disks):
        words += ["-drive", f"if=none,id=more{number},format=raw,readonly=on,file={disk}"]
        words += ["-device", f"virtio-blk-pci,drive=more{number}"]
    folder = config.work / "smbios"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for number, text in enumerate(smbios_strings(config)):
        file = folder / f"{number:02}"
        file.write_text(text)
        words += ["-smbios", f"type=11,path={file}"]
    return words


@functools.cache
def accelerator() -> str:
    """Return `kvm` when it really runs 64 bit code here, else `tcg`; found by starting the firmware under KVM."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    code, variables = firmware()
    with tempfile.TemporaryDirectory(prefix="kubenode-kvm-") as name:
        folder = Path(name)
        shutil.copyfile(variables, folder / "vars.fd")
        serial = folder / "serial"
        process = spawn(
            ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "kvm",
             "-cpu", "host", "-m", "256", "-drive", f"if=pflash,format=raw,readonly=on,file={code}",
             "-drive", f"if=pflash,format=raw,file={folder}/vars.fd",
             "-chardev", f"file,id=s,path={serial}", "-serial", "chardev:s"],
            log=folder / "log",
        )  # fmt: skip
        try:
            deadline = time.monotonic() + KVM_PROBE_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                if serial.exists() and b"Bds" in serial.read_bytes():
                    return "kvm"
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait(timeout=30)
    return "tcg"
