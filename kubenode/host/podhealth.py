"""Whether this machine's part of its cluster runs: the kubelet, and on control planes the static pods.

Only what can be seen without the API server: an API server that cannot be reached must never roll back a release.
"""

import http.client
import json
import time
from collections.abc import Callable
from contextlib import suppress

from kubenode.errors import HostError
from kubenode.host.paths import Paths

HEALTHZ_PORT = 10248
"""Default of healthzPort in KubeletConfiguration; it listens on loopback."""
KUBELET_SECONDS = 150.0
PODS_SECONDS = 240.0
"""How long static pods may take to start after the kubelet; much less on real hardware than in emulation."""
_NAMESPACE = "kube-system"


def is_member(paths: Paths) -> bool:
    """Say whether kubeadm has made this machine part of a cluster."""
    return (paths.kubernetes / "kubelet.conf").exists()


def kubelet(seconds: float = KUBELET_SECONDS, port: int = HEALTHZ_PORT) -> str:
    """Wait until the kubelet calls itself healthy. Raises HostError with what it said last."""

    def attempt() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            text = answer.read(200).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return f"the kubelet does not answer on port {port}: {error}"
        finally:
            connection.close()
        return "" if answer.status == http.client.OK else f"the kubelet says {answer.status}: {text}"

    _patiently(attempt, seconds)
    return "the kubelet answers /healthz"


def static_pods(paths: Paths, seconds: float = PODS_SECONDS) -> str:
    """Wait until the container of every static pod runs: running, not ready. Raises HostError naming what does not."""
    names: list[str] = []

    def attempt() -> str:
        names[:] = sorted(path.stem for path in (paths.kubernetes / "manifests").glob("*.yaml"))
        missing = set(names) - set(containers(paths))
        return f"no container runs of {', '.join(sorted(missing))}" if missing else ""

    _patiently(attempt, seconds)
    return f"the static pods run: {', '.join(names)}" if names else "there are no static pods"


def _patiently(attempt: Callable[[], str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while said := attempt():
        if time.monotonic() >= deadline:
            raise HostError(
                f"{said}, after {seconds:.0f} s",
                hint="See why: journalctl -u kubelet; crictl ps -a; crictl logs CONTAINER",
            )
        time.sleep(min(1.0, seconds))


def containers(paths: Paths) -> dict[str, frozenset[int]]:
    """Return the process ids of running containers of kube-system by their names, as containerd's bundles say.

    Each bundle (containerd, runtime v2) has the OCI configuration with the annotations of containerd's CRI plugin,
    and the process id of the container. kubeadm names pod, container and manifest of a component alike.
    """
    return _running(paths, "container", "io.kubernetes.cri.container-name")


def sandboxes(paths: Paths) -> dict[str, frozenset[int]]:
    """Return the same of the pods of kube-system, by their names: what is there of a pod whose container waits, too."""
    return _running(paths, "sandbox", "io.kubernetes.cri.sandbox-name")


def _running(paths: Paths, kind: str, named: str) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    for bundle in paths.containers.glob("*/config.json"):
        # Containers come and go while one looks.
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(bundle.read_bytes())["annotations"]
            pid = int((bundle.parent / "init.pid").read_text())
            if (
                said["io.kubernetes.cri.container-type"] == kind
                and said["io.kubernetes.cri.sandbox-namespace"] == _NAMESPACE
                and (paths.root / "proc" / str(pid)).exists()
            ):
                name = str(said[named])
                found[name] = found.get(name, frozenset()) | {pid}
    return found
