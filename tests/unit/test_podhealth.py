import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host import podhealth
from kubenode.host.paths import Paths
from tests.bundles import write_bundle


def container(paths: Paths, name: str, pid: int, **changes: str) -> None:
    write_bundle(paths, f"{name}-{pid}", pid, **{"container_type": "container", "container_name": name, **changes})


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    manifests = paths.kubernetes / "manifests"
    manifests.mkdir(parents=True)
    for name in ("etcd", "kube-apiserver"):
        (manifests / f"{name}.yaml").touch()
    (tmp_path / "proc/41").mkdir(parents=True)
    return paths


def test_static_pods_run_when_each_has_a_living_container(paths: Paths) -> None:
    container(paths, "etcd", 41)
    container(paths, "kube-apiserver", 41)
    assert podhealth.static_pods(paths, 0) == "the static pods run: etcd, kube-apiserver"


@pytest.mark.parametrize(
    ("pid", "changes"),
    [(42, {}), (41, {"container_type": "sandbox"}), (41, {"sandbox_namespace": "default"})],
    ids=["dead", "only its sandbox", "of a user's pod"],
)
def test_a_static_pod_without_one_is_named(paths: Paths, pid: int, changes: dict[str, str]) -> None:
    container(paths, "etcd", 41)
    container(paths, "kube-apiserver", pid, **changes)
    (paths.containers / "half-made").mkdir()
    (paths.containers / "half-made/config.json").write_text("{")
    with pytest.raises(HostError, match=r"^no container runs of kube-apiserver, after 0 s$"):
        podhealth.static_pods(paths, 0)


def test_workers_have_no_static_pods(tmp_path: Path) -> None:
    assert podhealth.static_pods(Paths(tmp_path), 0) == "there are no static pods"


class Kubelet(BaseHTTPRequestHandler):
    answers: list[tuple[int, bytes]]

    def do_GET(self) -> None:
        assert self.path == "/healthz"
        code, text = self.answers.pop(0)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(("answers", "said"), [([(200, b"ok")], None), ([(500, b"syncloop")], "says 500: syncloop")])
def test_the_kubelet_is_asked(answers: list[tuple[int, bytes]], said: str | None) -> None:
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Kubelet,), {"answers": answers}))
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        if said is None:
            assert podhealth.kubelet(0, server.server_port) == "the kubelet answers /healthz"
        else:
            with pytest.raises(HostError, match=said):
                podhealth.kubelet(0, server.server_port)
    finally:
        thread.join()
        server.server_close()
    with pytest.raises(HostError, match="does not answer on port"):
        podhealth.kubelet(0, server.server_port)
