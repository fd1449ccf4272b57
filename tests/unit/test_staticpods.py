"""Static pods restart when their manifest changes, and no manifest is ever away."""

import time
from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host import staticpods
from kubenode.host.paths import Paths
from kubenode.host.staticpods import ANNOTATION
from tests.bundles import write_bundle

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  name: {name}
spec:
  containers:
  - name: {name}
    image: registry.k8s.io/{name}:v1.34.2
    command: [{name}, --client-ca-file=/etc/kubernetes/pki/ca.crt]
"""


class Kubelet:
    """Starts a container anew when a manifest has changed, one poll later."""

    def __init__(self, paths: Paths, names: tuple[str, ...]) -> None:
        self.paths, self.pids, self.restarted = paths, 100, list[str]()
        self.seen: dict[str, str] = {}
        self.broken = ""
        for name in names:
            path = paths.kubernetes / f"manifests/{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(MANIFEST.format(name=name))
        self.poll(0)
        self.restarted.clear()

    def poll(self, _seconds: float) -> None:
        for path in sorted((self.paths.kubernetes / "manifests").glob("*.yaml")):
            if self.seen.get(path.stem) == path.read_text() or path.stem == self.broken:
                continue
            self.seen[path.stem] = path.read_text()
            self.restarted.append(path.stem)
            self.bundle(path.stem, container_type="container", container_name=path.stem)
            self.bundle(f"{path.stem}-sandbox", container_type="sandbox", sandbox_name=f"{path.stem}-cp-1")

    def bundle(self, name: str, **said: str) -> None:
        self.pids += 1
        write_bundle(self.paths, name, self.pids, **said)
        (self.paths.root / f"proc/{self.pids}").mkdir(parents=True)


def test_every_static_pod_restarts_in_order(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    kubelet = Kubelet(paths, ("etcd", "kube-apiserver", "kube-scheduler"))
    staticpods.restart(paths, sleep=kubelet.poll, now=lambda: 1_700_000_000.9)
    assert kubelet.restarted == ["etcd", "kube-apiserver", "kube-scheduler"]
    text = (paths.kubernetes / "manifests/etcd.yaml").read_text()
    assert "kubenode.dev/restarted: '1700000000'" in text
    assert "image: registry.k8s.io/etcd:v1.34.2" in text, "the rest stays as kubeadm wrote it"


def test_one_that_does_not_come_back_stops_it(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    kubelet = Kubelet(paths, ("etcd", "kube-apiserver", "kube-scheduler"))
    kubelet.broken = "kube-apiserver"
    with pytest.raises(HostError, match="the static pod kube-apiserver was not started anew"):
        staticpods.restart(paths, seconds=0.2, sleep=kubelet.poll)
    assert "kube-scheduler" not in kubelet.restarted


def test_a_manifest_that_is_none_is_left_alone(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    Kubelet(paths, ())
    path = paths.kubernetes / "manifests/etcd.yaml"
    path.parent.mkdir(parents=True)
    for text in ("[", "", "7", "metadata: 7"):
        path.write_text(text)
        with pytest.raises(HostError, match=r"etcd\.yaml is no manifest of a pod"):
            staticpods.restart(paths)
        assert path.read_text() == text


def late(paths: Paths, up: float = 1000.0, age: float = 1000.0) -> frozenset[str]:
    """Return what is rejected on a machine that started `up` seconds ago and whose manifests are `age` seconds old."""
    return staticpods.rejected(paths, up=lambda: up, now=lambda: time.time() + age)


def revive(paths: Paths, kubelet: Kubelet, patience: float) -> None:
    """Revive what is rejected on such a machine, with so many seconds of patience."""
    staticpods.revive(
        paths, late(paths), patience=patience, sleep=kubelet.poll, up=lambda: 1000.0, now=lambda: time.time() + 1000
    )


def test_a_pod_of_which_the_kubelet_has_made_nothing_is_rejected_after_a_while(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    kubelet = Kubelet(paths, ("etcd", "kube-apiserver"))
    kubelet.broken = "kube-scheduler"
    path = paths.kubernetes / "manifests/kube-scheduler.yaml"
    path.write_text(MANIFEST.format(name="kube-scheduler"))
    kubelet.poll(0)
    assert late(paths) == {"kube-scheduler"}
    assert late(paths, up=60) == frozenset(), "the machine has just started"
    assert late(paths, age=60) == frozenset(), "kubeadm has just written it"
    kubelet.broken = ""
    revive(paths, kubelet, 0)
    assert kubelet.restarted == ["kube-scheduler"], "and no other one"
    assert ANNOTATION in path.read_text() and late(paths) == frozenset()


def test_a_pod_that_is_being_made_is_not_disturbed(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    kubelet = Kubelet(paths, ("etcd",))
    path = paths.kubernetes / "manifests/kube-scheduler.yaml"
    path.write_text(MANIFEST.format(name="kube-scheduler"))
    assert late(paths) == {"kube-scheduler"}
    revive(paths, kubelet, 60)
    assert kubelet.restarted == ["kube-scheduler"] and ANNOTATION not in path.read_text()


def test_a_pod_whose_container_fails_is_not_rejected(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    Kubelet(paths, ("etcd", "kube-apiserver"))
    (paths.containers / "etcd/init.pid").unlink()
    assert late(paths) == frozenset(), "it has a sandbox: the kubelet tries again"
    (paths.containers / "etcd-sandbox/init.pid").unlink()
    assert late(paths) == {"etcd"}
    (paths.kubernetes / "manifests/etcd.yaml").write_text("")
    assert late(paths) == frozenset(), "a power cut left it empty: that is no pod"


def test_where_nobody_knows_of_containers_none_is_rejected(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert late(paths) == frozenset(), "a worker"
    path = paths.kubernetes / "manifests/etcd.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(MANIFEST.format(name="etcd"))
    assert late(paths) == frozenset()
    paths.containers.mkdir(parents=True)
    assert late(paths) == {"etcd"}
