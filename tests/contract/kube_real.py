"""A real etcd and a real kube-apiserver on loopback, with throwaway certificates; RBAC and the node authorizer are on.

`kubenode lab kubernetes` builds kube-apiserver; etcd lies beside it or comes with Debian's etcd-server. There is no
controller manager: tests sign requests, end pods and fill in the status of budgets as the others would.
"""

import os
import shutil
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from kubenode.errors import KubenodeError
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed
from kubenode.host.kube.kubeconfig import Access
from kubenode.host.process import spawn
from tests.fakes.kubeapi.pki import Authority

BINARIES = Path(os.environ.get("KUBENODE_KUBERNETES") or Path.home() / ".cache/kubenode/kubernetes")
START_SECONDS = 600


def etcd_binary() -> Path | None:
    """Return an etcd that this machine has."""
    built = sorted(BINARIES.glob("v*/etcd"))
    installed = shutil.which("etcd")
    return built[0] if built else Path(installed) if installed else None


def missing() -> str:
    """Return why no real API server can run here, or nothing."""
    if not any(BINARIES.glob("v*/kube-apiserver")):
        return f"no kube-apiserver below {BINARIES}: `kubenode lab kubernetes` builds one"
    return "" if etcd_binary() else "no etcd: apt-get install etcd-server"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def patient(access: Access) -> Api:
    """Return the API for tests: a busy machine must not fail them."""
    return Api(access, connect_seconds=120, seconds=120)


class RealEtcd:
    """One etcd member; clients need a certificate of `authority`."""

    def __init__(self, folder: Path) -> None:
        binary = etcd_binary()
        assert binary is not None
        folder.mkdir(parents=True)
        self.folder = folder
        self.authority = Authority("etcd-ca")
        self.authority.issue("member", hosts=("127.0.0.1", "localhost")).write(folder, "server")
        self.client = self.authority.issue("client")
        self.client.write(folder, "client")
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self.authority.pair.certificate)
        port, peers = free_port(), free_port()
        self.url = f"https://127.0.0.1:{port}"
        self._process = spawn(
            [binary, "--name", "cp-1", "--data-dir", folder / "data", "--listen-client-urls", self.url,
             "--advertise-client-urls", self.url, "--listen-peer-urls", f"http://127.0.0.1:{peers}",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peers}",
             "--initial-cluster", f"cp-1=http://127.0.0.1:{peers}", "--client-cert-auth", "--trusted-ca-file", self.ca,
             "--cert-file", folder / "server.crt", "--key-file", folder / "server.key", "--unsafe-no-fsync"],
            log=folder / "log",
        )  # fmt: skip
        with patient(self.authority.access(self.url, self.client)) as api:
            _wait(lambda: api.send("GET", "/health"), self._process, folder / "log")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


class RealApiServer:
    """A kube-apiserver with its etcd; the newest version that was built unless `version` says which."""

    def __init__(self, folder: Path, version: str | None = None) -> None:
        found = sorted(BINARIES.glob(f"{version or 'v*'}/kube-apiserver"))
        self.authority = Authority()
        self._stack = ExitStack()
        with ExitStack() as stack:
            self.etcd = etcd = RealEtcd(folder / "etcd")
            stack.callback(etcd.close)
            self.authority.issue("kube-apiserver", hosts=("127.0.0.1", "localhost", "10.0.0.1")).write(folder, "server")
            Authority("sa").issue("sa").write(folder, "sa")
            (folder / "ca.crt").write_bytes(self.authority.pair.certificate)
            port = free_port()
            self.url = f"https://127.0.0.1:{port}"
            self._process = spawn(
                [found[-1], f"--etcd-servers={etcd.url}", f"--etcd-cafile={etcd.ca}",
                 f"--etcd-certfile={etcd.folder / 'client.crt'}", f"--etcd-keyfile={etcd.folder / 'client.key'}",
                 f"--client-ca-file={folder / 'ca.crt'}", f"--tls-cert-file={folder / 'server.crt'}",
                 f"--tls-private-key-file={folder / 'server.key'}", f"--secure-port={port}", "--bind-address=127.0.0.1",
                 "--endpoint-reconciler-type=none",
                 "--service-account-issuer=https://test", f"--service-account-key-file={folder / 'sa.crt'}",
                 f"--service-account-signing-key-file={folder / 'sa.key'}", "--service-cluster-ip-range=10.0.0.0/24",
                 "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
                 "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition", f"--cert-dir={folder}"],
                log=folder / "log",
            )  # fmt: skip
            stack.callback(self._end)
            with patient(self.authority.access(self.url, self.authority.issue("admin", ("system:masters",)))) as api:
                _wait(lambda: _ready(api), self._process, folder / "log")
                # Ready means that the default roles are there, too.
                _wait(lambda: api.get("/api/v1/namespaces/kube-system"), self._process, folder / "log")
                roles = "/apis/rbac.authorization.k8s.io/v1"
                _wait(lambda: api.get(f"{roles}/clusterroles/system:node"), self._process, folder / "log")
                _wait(lambda: api.get(f"{roles}/clusterrolebindings/system:discovery"), self._process, folder / "log")
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(30)


def _ready(api: Api) -> None:
    """Raise unless /readyz says ok, which is text and therefore Malformed; every failing check is a 500."""
    try:
        api.get("/readyz")
    except Malformed as error:
        if not str(error).endswith("did not send JSON: b'ok'"):
            raise


def _wait(ready: object, process: object, log: Path) -> None:
    """Wait for a real server, which says in no other way that it is ready."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            ready()  # type: ignore[operator]
            return
        except KubenodeError as error:
            if process.poll() is not None or time.monotonic() > end:  # type: ignore[attr-defined]
                tail = log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"{log} did not become ready: {error}\n{tail}") from error
        time.sleep(0.1)
