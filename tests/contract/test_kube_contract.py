"""The suite against the fake API server, and against a real one where its binary is."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.contract import kube_real
from tests.contract.kube_suite import KubeSuite, world
from tests.contract.kube_world import World
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer

__all__ = ["world"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kube_real.RealApiServer]:
    server = kube_real.RealApiServer(tmp_path_factory.mktemp("kube"), "v1.20.2")
    yield server
    server.close()


class TestFakeApiServer(KubeSuite):
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[FakeApiServer]:
        fake = FakeApiServer(Authority(), tmp_path)
        yield fake
        fake.close()


@pytest.mark.skipif(bool(kube_real.missing()), reason=kube_real.missing() or "-")
class TestRealApiServer(KubeSuite):
    @pytest.fixture
    def server(self, real: kube_real.RealApiServer) -> kube_real.RealApiServer:
        return real

    def test_a_control_plane_sees_etcd_and_saves_it(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("kubenode.host.kube.apiservers._SECONDS", 0.2)
        monkeypatch.setattr("kubenode.host.kube.apiservers._CONNECT_SECONDS", 0.2)
        etcd = world.server.etcd
        world.founded("192.0.2.11")
        world.node("cp-1", labels={"node-role.kubernetes.io/control-plane": ""})
        boss = world.machine(tmp_path, "cp-1", "control-plane", datetime.now(UTC), etcd_server=etcd.url)
        pki = tmp_path / "etc/kubernetes/pki"
        (pki / "etcd").mkdir(parents=True)
        (pki / "etcd/ca.crt").write_bytes(etcd.authority.pair.certificate)
        etcd.client.write(pki, "apiserver-etcd-client")
        seen = boss.view()
        assert seen.etcd is not None
        assert [(it.name, it.healthy) for it in seen.etcd.members] == [("cp-1", True)]
        assert seen.apiservers == (("cp-1", None),)
        assert boss.snapshot_etcd(tmp_path / "snapshot.db") > 20_000
