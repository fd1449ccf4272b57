"""Run commands in a guest over a virtio-serial port, by a unit that only the hypervisor can inject.

Both the unit and what pulls it in are systemd credentials from SMBIOS (`systemd.extra-unit.*`,
`systemd.unit-dropin.*`, systemd.system-credentials(7)); images hold no part of this.
"""

import base64
import contextlib
import json
import shlex
import socket
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.process import Completed
from kubenode.lab.failed import LabFailed
from kubenode.lab.qemu import PROBE_PORT

SERVER = f"""
import base64, json, os, subprocess, time
path = "/dev/virtio-ports/{PROBE_PORT}"
while True:
    try:
        port = os.open(path, os.O_RDWR)
        break
    except OSError:
        time.sleep(0.2)
def answer(line):
    try:
        ask = json.loads(line)
    except ValueError:
        return
    reply = {{"id": ask["id"], "rc": 0, "stdout": "", "stderr": ""}}
    try:
        if "read_file" in ask:
            out, err = open(ask["read_file"], "rb").read(), b""
        elif "argv" in ask:
            done = subprocess.run(ask["argv"], capture_output=True, stdin=subprocess.DEVNULL, timeout=ask["timeout"])
            reply["rc"], out, err = done.returncode, done.stdout, done.stderr
        else:
            out = err = b""
    except subprocess.TimeoutExpired as error:
        reply["rc"], out, err = -1, error.stdout or b"", b"timed out"
    except OSError as error:
        reply["rc"], out, err = -2, b"", str(error).encode()
    reply["stdout"], reply["stderr"] = (base64.b64encode(part).decode() for part in (out, err))
    data = b"\\n" + json.dumps(reply).encode() + b"\\n"
    while data:
        data = data[os.write(port, data[:32768]):]
buffer = b""
while True:
    data = os.read(port, 65536)
    if not data:
        time.sleep(0.1)
        continue
    buffer += data
    *lines, buffer = buffer.split(b"\\n")
    for line in lines:
        if line.strip():
            answer(line)
"""
UNIT = f"""[Unit]
Description=Lab access over {PROBE_PORT}
DefaultDependencies=no
After=systemd-udevd.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/usr/bin/python3 -I -c "import base64;exec(base64.b64decode('{base64.b64encode(SERVER.encode()).decode()}'))"
Restart=always
RestartSec=1s
"""
FOLLOWED_UNITS = ("kubenode-health.service", "kubenode-reconcile.service", "kubenode-fallback.service")


def credentials(follow: Sequence[str] = FOLLOWED_UNITS) -> dict[str, bytes]:
    """Return the credentials that give the lab its access and copy the output of `follow` units to the console."""
    given = {
        "systemd.extra-unit.kubenode-lab.service": UNIT.encode(),
        "systemd.unit-dropin.sysinit.target~lab": b"[Unit]\nWants=kubenode-lab.service\n",
    }
    for unit in follow:
        given[f"systemd.unit-dropin.{unit}~lab"] = (
            b"[Service]\nStandardOutput=journal+console\nStandardError=journal+console\n"
        )
    return given


class Probe:
    """Commands in the guest; survives its reboots, for answers are matched by id and every call first asks for life."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""

    def wait(self, timeout: float) -> None:
        """Wait until the guest answers; raises HostError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._ping(min(2.0, timeout)):
            if time.monotonic() > deadline:
                raise LabFailed(f"the guest did not answer its probe within {timeout:.0f} s")
            time.sleep(0.3)

    def run(self, argv: Sequence[str], timeout: float = 60.0, *, check: bool = True) -> Completed:
        """Run a command in the guest; raises HostError when there is no answer or, with `check`, when it fails."""
        done = self._call({"argv": list(argv), "timeout": timeout}, timeout)
        if check and done.returncode != 0:
            raise LabFailed(
                f"in the guest, `{shlex.join(argv)[:200]}` exited with {done.returncode}: "
                f"{(done.stderr or done.stdout).decode(errors='replace').strip()[-1500:]}"
            )
        return done

    def python(self, code: str, timeout: float = 60.0) -> str:
        """Run Python code in the guest and return its standard output."""
        return self.run(["/usr/bin/python3", "-I", "-c", code], timeout).text

    def read(self, path: str, timeout: float = 60.0) -> bytes:
        """Return the content of a file of the guest; raises HostError when it cannot be read."""
        return self._checked({"read_file": path}, timeout).stdout

    def boot_id(self, timeout: float = 60.0) -> str:
        """Return the identifier of the guest's present boot."""
        return self.read("/proc/sys/kernel/random/boot_id", timeout).decode().strip()

    def wait_reboot(self, before: str, timeout: float) -> str:
        """Wait until the guest runs another boot than `before`; returns its identifier."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(HostError):
                if (now := self.boot_id(5.0)) != before:
                    return now
            time.sleep(0.5)
        raise LabFailed(f"the guest did not reboot within {timeout:.0f} s")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def _checked(self, question: dict[str, object], timeout: float) -> Completed:
        done = self._call(question, timeout)
        if done.returncode != 0:
            raise LabFailed(f"in the guest: {done.stderr.decode(errors='replace')}")
        return done

    def _call(self, question: dict[str, object], timeout: float) -> Completed:
        self.wait(timeout)
        answer = self._ask(question, timeout + 5)
        if answer is None:
            raise LabFailed(f"the guest gave no answer within {timeout:.0f} s")
        return Completed(
            int(str(answer["rc"])),
            base64.b64decode(str(answer["stdout"])),
            base64.b64decode(str(answer["stderr"])),
        )

    def _ping(self, timeout: float) -> bool:
        try:
            return self._ask({}, timeout) is not None
        except OSError:
            self.close()
            return False

    def _ask(self, question: dict[str, object], timeout: float) -> dict[str, object] | None:
        identifier = uuid.uuid4().hex
        deadline = time.monotonic() + timeout
        try:
            connection = self._connect()
            connection.settimeout(timeout)
            connection.sendall(b"\n" + json.dumps({"id": identifier, **question}).encode() + b"\n")
            while (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                data = connection.recv(65536)
                if not data:
                    raise ConnectionResetError
                self._buffer += data
                *lines, self._buffer = self._buffer.split(b"\n")
                for line in lines:
                    with contextlib.suppress(ValueError):
                        answer = json.loads(line)
                        if isinstance(answer, dict) and answer.get("id") == identifier:
                            return answer
        except TimeoutError:
            return None
        except OSError:
            self.close()
            raise
        return None

    def _connect(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(5)
            self._socket.connect(str(self._path))
            self._buffer = b""
        return self._socket
