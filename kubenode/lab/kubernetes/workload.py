"""A workload that must stay up while nodes change: two pods behind a PodDisruptionBudget, and who watches them.

The pods run the pause image, which every node has; nothing is pulled. They tolerate control planes, so that a cluster
of one worker can move them away, and they prefer to be on different nodes.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kubenode.errors import HostError
from kubenode.lab.failed import LabFailed
from kubenode.lab.kubernetes.images import PAUSE
from kubenode.lab.watch import Watch

NAME = "steady"
REPLICAS, MIN_AVAILABLE = 2, 1
_LABELS = {"app": NAME}
_CONTROL_PLANES = ("node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane")
"""The taint of control planes before 1.24, and since 1.24."""

Kubectl = Callable[..., str]
"""Runs kubectl with these arguments and returns its standard output; raises HostError when it fails."""


def manifests() -> list[dict[str, Any]]:
    """Return the Deployment and its PodDisruptionBudget (policy/v1beta1: 1.20 has no other, 1.25 has it no more)."""
    spread = {
        "weight": 100,
        "podAffinityTerm": {"labelSelector": {"matchLabels": _LABELS}, "topologyKey": "kubernetes.io/hostname"},
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [spread]}},
        "tolerations": [{"key": it, "operator": "Exists", "effect": "NoSchedule"} for it in _CONTROL_PLANES],
        "containers": [{"name": "pause", "image": PAUSE, "imagePullPolicy": "Never"}],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "labels": _LABELS},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }
    budget = {
        "apiVersion": "policy/v1beta1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": NAME},
        "spec": {"minAvailable": MIN_AVAILABLE, "selector": {"matchLabels": _LABELS}},
    }
    return [deployment, budget]


def apply(kubectl: Kubectl, folder: Path) -> None:
    """Give the workload to the cluster; its manifests are written below `folder`. Raises HostError."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{NAME}.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests()}, indent=1))
    kubectl("apply", "--filename", str(file))


@dataclass(frozen=True)
class Seen:
    """One answer of the API server: on which nodes pods of the workload are ready, one entry for each pod."""

    nodes: tuple[str, ...]

    @property
    def ready(self) -> int:
        """How many pods are ready."""
        return len(self.nodes)


def look(kubectl: Kubectl, since: datetime | None = None) -> Seen:
    """Ask which pods are ready, those on their way out left aside. Raises HostError when nobody answers.

    With `since` (aware) only pods whose containers were started later count: after its nodes were off, the API server
    calls a pod ready until its kubelet has looked at it again.
    """
    text = kubectl("get", "pods", "--selector", f"app={NAME}", "--output", "json")
    try:
        pods = json.loads(text)["items"]
        return Seen(tuple(sorted(it["spec"]["nodeName"] for it in pods if _is_ready(it, since))))
    except (ValueError, KeyError, TypeError) as error:
        raise LabFailed(f"kubectl said something else than a list of pods: {text[:200]}") from error


def _is_ready(pod: dict[str, Any], since: datetime | None) -> bool:
    """The endpoints controller's rule: ready, and not being deleted."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    if since is not None:
        running = [it["state"].get("running") for it in pod["status"].get("containerStatuses", ())]
        if not running or any(it is None or datetime.fromisoformat(it["startedAt"]) < since for it in running):
            return False
    return any(it["type"] == "Ready" and it["status"] == "True" for it in pod["status"].get("conditions", ()))


class Watcher(Watch):
    """Looks every `pause` seconds, from `with` to its end, and keeps the fewest ready pods that it ever saw.

    While no API server answers nothing is known about the pods, which run on: that is counted, and is no minimum.
    """

    def __init__(self, kubectl: Kubectl, pause: float = 2.0) -> None:
        super().__init__("the workload", pause)
        self._kubectl = kubectl
        self.minimum: int | None = None
        """The fewest ready pods, None before the first answer."""
        self.history: list[tuple[float, tuple[str, ...]]] = []
        """When (seconds, monotonic) the ready pods were on other nodes than before, and on which."""
        self.answers = 0
        self.silent = 0
        """How often there was no answer."""

    def once(self) -> None:
        """Look once."""
        try:
            seen = look(self._kubectl)
        except HostError:
            self.silent += 1
            return
        self.answers += 1
        self.minimum = seen.ready if self.minimum is None else min(self.minimum, seen.ready)
        if not self.history or self.history[-1][1] != seen.nodes:
            self.history.append((time.monotonic(), seen.nodes))
