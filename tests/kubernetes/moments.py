"""What the API server said of itself and of all kubelets, again and again while something happens."""

import itertools
import json
from contextlib import suppress
from dataclasses import dataclass

from kubenode.errors import HostError
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.kubernetes.story import ClusterStory
from kubenode.lab.watch import Watch
from kubenode.model.kubernetes import KubernetesVersion


@dataclass(frozen=True)
class Moment:
    """One instant: the API server's version, and of each node its kubelet's and its boot id."""

    apiserver: str
    kubelets: tuple[str, ...]
    boots: tuple[str, ...]


class Moments(Watch):
    """Asks `of` a control plane; its API server may be away for a while. Nodes are in the order of their names."""

    def __init__(self, story: ClusterStory, of: ClusterNode, pause: float = 5) -> None:
        super().__init__("the upgrade", pause)
        self._story, self._of = story, of
        self.seen: list[Moment] = []

    def once(self) -> None:
        with suppress(HostError, ValueError, KeyError):
            apiserver = json.loads(self._story.kubectl(self._of, "get", "--raw", "/version"))["gitVersion"]
            nodes = sorted(self._story.objects(self._of, "nodes"), key=lambda it: str(it["metadata"]["name"]))
            infos = [it["status"]["nodeInfo"] for it in nodes]
            kubelets, boots = (tuple(it[key] for it in infos) for key in ("kubeletVersion", "bootID"))
            self.seen.append(Moment(apiserver, kubelets, boots))


def no_kubelet_was_newer(moments: list[Moment]) -> None:
    """Check the rule of version skew at every instant that was seen."""
    assert moments
    for it in moments:
        assert all(KubernetesVersion(kubelet) <= KubernetesVersion(it.apiserver) for kubelet in it.kubelets), it


def order_was_kept(moments: list[Moment], old: str, new: str) -> None:
    """Check two passes: the API server first, under the old kubelets in their old boots; then node after node.

    The first node by name is the control plane.
    """
    no_kubelet_was_newer(moments)
    seen = list(dict.fromkeys((it.apiserver, it.kubelets) for it in moments))
    nodes = len(moments[0].kubelets)
    steps = [(old,) * nodes, *((new,) * done + (old,) * (nodes - done) for done in range(nodes + 1))]
    assert seen == list(zip((old, *(new,) * (nodes + 1)), steps, strict=True)), seen
    for before, after in itertools.pairwise(moments):
        for number in range(nodes):
            restarted = before.boots[number] != after.boots[number]
            assert restarted == (before.kubelets[number] != after.kubelets[number]), (before, after)
