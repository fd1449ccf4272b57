"""Restarts the static pods of a control plane, one after the other, without ever taking a manifest away.

The kubelet makes a pod anew when its manifest changes, so an annotation with the time is enough: whoever is killed in
between leaves every manifest whole. kubeadm writes manifests anew at the next upgrade, without it.
"""

import io
import time
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kubenode.errors import HostError
from kubenode.host.files import write_atomically
from kubenode.host.paths import Paths
from kubenode.host.podhealth import containers

ANNOTATION = "kubenode.dev/restarted"
ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SECONDS = 600.0
"""For one static pod to come back; the kubelet looks for changed manifests every 20 seconds by default."""
_POLL = 2.0


def restart_all(
    paths: Paths,
    *,
    seconds: float = SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.time,
) -> None:
    """Restart every static pod and wait until each runs anew. Raises HostError naming the first that does not."""
    for name in ORDER:
        path = paths.kubernetes / f"manifests/{name}.yaml"
        if path.exists():
            before = containers(paths).get(name, frozenset())
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
    while not containers(paths).get(name, frozenset()) - before:
        if time.monotonic() >= deadline:
            raise HostError(
                f"the static pod {name} was not started anew in {seconds:.0f} s",
                hint="journalctl -u kubelet, and the container's log in /var/log/pods, say why.",
            )
        sleep(_POLL)
