"""Restarts static pods of a control plane, one after the other, without ever taking a manifest away.

The kubelet makes a pod anew when its manifest changes, so an annotation with the time is enough: whoever is killed in
between leaves every manifest whole. kubeadm writes manifests anew at the next upgrade, without it.
"""

import io
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kubenode.errors import HostError
from kubenode.host import podhealth
from kubenode.host.files import write_atomically
from kubenode.host.paths import Paths

ANNOTATION = "kubenode.dev/restarted"
ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SECONDS = 600.0
"""For one static pod to come back; the kubelet looks for changed manifests every 20 seconds by default."""
NEVER_AFTER = 900.0
"""Seconds after which a kubelet has long made what it will make of a manifest, also in emulation."""
PATIENCE = 60.0
_POLL = 2.0


def uptime() -> float:
    """Return the seconds since this machine started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def rejected(paths: Paths, *, up: Callable[[], float] = uptime, now: Callable[[], float] = time.time) -> frozenset[str]:
    """Return the static pods of which the kubelet has made nothing, not even a sandbox, for `NEVER_AFTER` seconds.

    A kubelet that has just started knows neither storage nor what ends beside it, may reject a static pod for that, and
    does not try again (kubernetes#99305, #138391). One whose container fails has a sandbox, and is tried again.
    """
    # Without the folder nobody knows of any container: it is another runtime's machine, or none has run yet.
    if up() < NEVER_AFTER or not paths.containers.is_dir():
        return frozenset()
    due = set()
    for name in ORDER:
        # One that has gone meanwhile, or is empty after a power cut, is no pod.
        with suppress(OSError):
            said = (paths.kubernetes / f"manifests/{name}.yaml").stat()
            if said.st_size and now() - said.st_mtime >= NEVER_AFTER:
                due.add(name)
    # Every bundle is read for that: not on workers, which have many and no static pods.
    pods = podhealth.sandboxes(paths) if due else {}
    return frozenset(name for name in due if not any(pod.startswith(f"{name}-") for pod in pods))


def revive(
    paths: Paths,
    names: frozenset[str],
    *,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
    up: Callable[[], float] = uptime,
    now: Callable[[], float] = time.time,
) -> None:
    """Restart those of these pods of which nothing is made for `patience` seconds more. Raises HostError.

    One whose sandbox the kubelet has just lost is made anew by itself, and would only be disturbed.
    """
    deadline = time.monotonic() + patience
    while left := names & rejected(paths, up=up, now=now):
        if time.monotonic() >= deadline:
            restart(paths, left, sleep=sleep)
            return
        sleep(_POLL)


def restart(
    paths: Paths,
    names: Collection[str] = ORDER,
    *,
    seconds: float = SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.time,
) -> None:
    """Restart these static pods and wait until each runs anew. Raises HostError naming the first that does not."""
    for name in ORDER:
        path = paths.kubernetes / f"manifests/{name}.yaml"
        if name in names and path.exists():
            before = podhealth.containers(paths).get(name, frozenset())
            _touch(path, str(int(now())))
            _wait(paths, name, before, seconds, sleep)


def _touch(path: Path, stamp: str) -> None:
    """Write the annotation. Raises HostError for a manifest that is no pod."""
    yaml = YAML()
    yaml.width = 4096
    try:
        pod = yaml.load(path.read_bytes())
        pod["metadata"].setdefault("annotations", {})[ANNOTATION] = stamp
    except (YAMLError, TypeError, KeyError, AttributeError) as error:
        raise HostError(f"{path} is no manifest of a pod", hint="kubeadm writes it: `kubeadm upgrade node`.") from error
    out = io.BytesIO()
    yaml.dump(pod, out)
    write_atomically(path, out.getvalue(), 0o600)


def _wait(paths: Paths, name: str, before: frozenset[int], seconds: float, sleep: Callable[[float], None]) -> None:
    deadline = time.monotonic() + seconds
    while not podhealth.containers(paths).get(name, frozenset()) - before:
        if time.monotonic() >= deadline:
            raise HostError(
                f"the static pod {name} was not started anew in {seconds:.0f} s",
                hint="journalctl -u kubelet, and the container's log in /var/log/pods, say why.",
            )
        sleep(_POLL)
