"""A machine of the lab that becomes part of a cluster: imports images, runs scripts beside other questions."""

import base64
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from kubenode.errors import KubenodeError
from kubenode.host.kube.cluster import API_PORT
from kubenode.lab.failed import LabFailed
from kubenode.lab.kubernetes.network import Member, system_credentials
from kubenode.lab.node import AGENT, LabNode, Status
from kubenode.lab.qemu import SharedNetwork
from kubenode.model.documents import Role
from kubenode.model.state import Seed

MEMORY_MIB = {Role.CONTROL_PLANE: 4096, Role.WORKER: 2048}
IMAGES = {Role.CONTROL_PLANE: "*.tar", Role.WORKER: "pause_*.tar"}
"""Which archives a machine needs, as a glob: importing is slow."""
NO_TIME_SERVER = "systemd.unit-dropin.systemd-timesyncd.service~lab"
"""A credential of systemd: where the host reaches the internet, a guest would soon find the true time."""
NEVER = b"[Unit]\nConditionPathExists=!/\n"
WORK = "/run/kubenode-lab"
PRELUDE = 'import sys\nsys.path.insert(0, "/usr/lib/kubenode")\n'
IMPORT = """
import pathlib, subprocess
at = pathlib.Path("/run/kubenode-lab/images")
at.mkdir(parents=True, exist_ok=True)
subprocess.run(["mount", "-o", "ro", "/dev/vdb", at], check=True)
for archive in sorted(at.glob(wanted)):
    print("importing", archive.name, flush=True)
    subprocess.run([at / "ctr", "--namespace", "k8s.io", "images", "import", "--local", archive], check=True)
subprocess.run(["umount", at], check=True)
"""


class ClusterNode(LabNode):
    """A LabNode whose scripts may run for long beside other questions to it; its agent ticks when told to."""

    def __init__(
        self,
        member: Member,
        disk: Path,
        work: Path,
        seed: Seed,
        *,
        images: Path,
        shared: SharedNetwork,
        credentials: Mapping[str, bytes],
        api_port: int | None,
        clock: datetime | None = None,
    ) -> None:
        """`disk` is a release's disk image, `images` a disk with image archives.

        `credentials` are those that `kubenode seed` made; `api_port` is where the host reaches this node's API server.
        """
        hardware = {
            "memory_mib": MEMORY_MIB[member.role],
            "cpus": 2,
            "disk_mib": 16384,
            "forward": {} if api_port is None else {api_port: API_PORT},
            "disks": (images,),
            "shared": shared,
            "clock": clock,
        }
        more = {**credentials, **system_credentials(member)}
        if clock is not None:
            more[NO_TIME_SERVER] = NEVER
        super().__init__(member.name, disk, work, seed, manual=True, hardware=hardware, more=more)
        self.member = member
        self.api_port = api_port

    def tick_through(self, timeout: float) -> Status:
        """Let the agent tick once and return its report; a restart that it asked for is waited for.

        Raises HostError when neither ends within `timeout` seconds.
        """
        boot, last = self.probe.boot_id(), self.status().get("at")
        self.begin_tick()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            time.sleep(2)
            if self._restarted(boot):
                # In this order: a release that fails its trial goes down again, and only what comes back is to be up.
                self.wait_blessed(timeout)
                self.wait_up(timeout)
                return {**self.status(), "phase": "Restarted"}
            if self._ticks():
                continue
            # Of a tick that has not begun yet, or in the middle of a restart, there is no new report.
            status = self.status()
            if status.get("at") not in (None, last) and status.get("phase") != "Restarting":
                return status
        raise LabFailed(f"the tick of {self.name} did not end within {timeout:.0f} s: {self.status()}")

    def _restarted(self, boot: str) -> bool:
        """Say whether the guest answers and runs another boot; while it does not answer nobody knows."""
        with suppress(KubenodeError, OSError):
            return self.probe.boot_id() != boot
        return False

    def _ticks(self) -> bool:
        words = ["/usr/bin/systemctl", "show", "--value", "--property=ActiveState", AGENT]
        done = self._asked(words, 300)
        return done is None or done.text.strip() in ("activating", "deactivating", "active")

    def script(self, name: str, code: str, timeout: float, **values: object) -> str:
        """Run Python code in the guest as a unit of its own and return what it printed.

        The code sees the agent's packages and `values`, which are handed over as JSON. Raises HostError with the end
        of its output when it fails or takes longer than `timeout` seconds.
        """
        unit, file, out = f"lab-{name}.service", f"{WORK}/{name}.py", f"{WORK}/{name}.out"
        given = f"import json\nglobals().update(json.loads({json.dumps(values)!r}))\n"
        source = base64.b64encode((PRELUDE + given + code).encode()).decode()
        self.probe.python(
            f"import base64, pathlib\np = pathlib.Path({file!r})\np.parent.mkdir(exist_ok=True)\n"
            f"p.write_bytes(base64.b64decode({source!r}))\npathlib.Path({out!r}).unlink(missing_ok=True)"
        )
        self.probe.run(["/usr/bin/systemctl", "reset-failed", unit], check=False)
        begin = ["/usr/bin/systemd-run", "--quiet", f"--unit={unit}", "--property=RemainAfterExit=yes"]
        begin += ["--property=ImportCredential=kubenode.*"]
        begin += [f"--property=StandardOutput=file:{out}", f"--property=StandardError=file:{out}"]
        self.probe.run([*begin, "/usr/bin/python3", "-I", "-B", file])
        deadline = time.monotonic() + timeout
        while (state := self._sub_state(unit)) == "running" and time.monotonic() < deadline:
            time.sleep(2)
        said = self.probe.read(out).decode(errors="replace")
        self.probe.run(["/usr/bin/systemctl", "stop", unit], check=False)
        if state != "exited":
            raise LabFailed(f"the script {name} on {self.name} is {state}: {said[-4000:]}")
        return said

    def import_images(self) -> None:
        """Import the archives that its role needs from the images disk into containerd's store."""
        self.script("import", IMPORT, 1800, wanted=IMAGES[self.member.role])

    def _sub_state(self, unit: str) -> str:
        words = ["/usr/bin/systemctl", "show", "--value", "--property=SubState", unit]
        # A restart of the guest's services must not look like the end of the script.
        state = self.probe.run(words, 120, check=False).text.strip()
        return state if state in ("exited", "failed", "dead") else "running"
