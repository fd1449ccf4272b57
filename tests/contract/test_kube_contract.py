"""The suite against the fake API server, and against a real one where its binary is."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host.kube import drain, rbac
from kubenode.model.kubernetes import EvictablePod
from kubenode.model.version import Version
from tests.contract import kube_real
from tests.contract.kube_suite import SLOT, KubeSuite, world
from tests.contract.kube_world import KnownSecrets, World, peers, write_kubeconfig
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer

__all__ = ["world"]


TOKENS = {"w1": "abcdef.0123456789abcdef"}


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

    @pytest.mark.parametrize(("version", "group"), [("v1.21.14", "policy/v1beta1"), ("v1.34.2", "policy/v1")])
    def test_evictions_are_asked_for_as_the_server_offers(
        self, server: FakeApiServer, world: World, version: str, group: str
    ):
        server.version = version
        world.node("w1")
        world.pod("web", "w1", owner="ReplicaSet")
        own = world.kubelet("w1")
        assert drain.eviction_version(own) == group
        assert [it.ending for it in drain.evict_some(own, "w1")] == [True]


@pytest.mark.skipif(bool(kube_real.missing()), reason=kube_real.missing() or "-")
class TestRealApiServer(KubeSuite):
    @pytest.fixture
    def server(self, real: kube_real.RealApiServer) -> kube_real.RealApiServer:
        return real

    @pytest.mark.parametrize("minted", [True, False])
    def test_a_control_plane_sees_etcd_too(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minted: bool
    ):
        etcd = world.server.etcd
        monkeypatch.setattr("kubenode.host.kube.apiservers.places", lambda api: ())
        monkeypatch.setattr("kubenode.host.kube.access.ETCD_PORT", int(etcd.url.rpartition(":")[2]))
        world.founded("192.0.2.11")
        world.namespace()
        world.node("cp-1", labels={"node-role.kubernetes.io/control-plane": ""})
        world.node("old")
        world.pod("web", "old", owner="ReplicaSet")
        boss = world.machine(
            tmp_path, "cp-1", peers(cp_1="control-plane", w1="workers"), datetime.now(UTC), secrets=KnownSecrets(TOKENS)
        )
        folder = tmp_path / "etc/kubernetes"
        (folder / "manifests").mkdir()
        (folder / "manifests/etcd.yaml").touch()
        (folder / "pki/etcd").mkdir()
        (folder / "pki/etcd/ca.crt").write_bytes(etcd.authority.pair.certificate)
        if minted:
            etcd.authority.pair.write(folder / "pki/etcd", "ca")
        else:
            # An external CA: kubeadm's own files are used.
            etcd.client.write(folder / "pki", "apiserver-etcd-client")
            (folder / "pki/ca.key").unlink()
            admin = world.server.authority.issue("kubernetes-admin", ("system:masters",))
            write_kubeconfig(folder / "admin.conf", world.server.url, world.server.authority, admin)
        boss.create_leases(frozenset({"slot-control-plane-0", SLOT, "slot-pool-gone-0"}))
        rbac.install(world.admin, {"gone": frozenset({"slot-pool-gone-0"})})
        boss.set_tokens(frozenset(TOKENS))
        seen = boss.view()
        assert seen is not None and seen.etcd is not None, boss.unseen
        assert [(it.name, it.healthy, it.version) for it in seen.etcd.members] == [("cp-1", True, Version("3.4.23"))]
        assert seen.pods == {"cp-1": (), "old": (EvictablePod("default", "web"),)}
        assert (seen.tokens, seen.configuration, len(seen.leases)) == (frozenset({"w1"}), None, 3)
        # The rules were those of another pool: looking repaired them.
        assert rbac.allowed(world.admin) == {"workers": {SLOT}}
        boss.cordon("old")
        assert [it.ending for it in boss.evict_some("old", force=False)] == [True]
        with pytest.raises(HostError, match="the etcd member cp-1 is not removed: it is the only one"):
            boss.remove_etcd_member(seen.etcd.members[0].id)
        boss.remove_etcd_member("1")
