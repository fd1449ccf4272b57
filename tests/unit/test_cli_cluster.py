"""`kubenode kubeconfig` and `kubenode lease`, against the fake API server."""

import getpass
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cliworld import kubenode
from cryptography import x509

from kubenode.errors import HostError
from kubenode.host.kube.client import Api
from kubenode.host.kube.kubeconfig import load_kubeconfig
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.mint import mint, signer_of
from kubenode.host.kube.names import LEASES, NODES
from tests.contract.kube_world import NOW, World, write_kubeconfig
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer

SLOT = "slot-pool-workers-0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeApiServer]:
    fake = FakeApiServer(Authority(), tmp_path)
    yield fake
    fake.close()


@pytest.fixture
def cluster(server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two leases, one held by w1; $KUBECONFIG leads there."""
    world = World(server)
    world.namespace()
    world.node("w1")
    leases = Leases(world.admin)
    leases.ensure(frozenset({SLOT, "slot-control-plane-0"}))
    leases.acquire(SLOT, "w1", "update to 2026.11.2", None, NOW)
    admin = server.authority.issue("kubernetes-admin", ("system:masters",))
    write_kubeconfig(tmp_path / "admin.conf", server.url, server.authority, admin)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "admin.conf"))
    yield world
    world.close()


def test_leases_are_listed(cluster: World) -> None:
    done = kubenode("lease", "list")
    assert (done.code, done.last) == (0, "1 of 2 leases are held.")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["LEASE", "HOLDER", "SINCE", "(UTC)", "WHY"]
    assert lines[1] == ["slot-control-plane-0", "-", "-", "-"]
    assert lines[2] == [SLOT, "w1", "2026-11-25", "12:00", "update", "to", "2026.11.2"]


def test_a_holder_that_is_gone_is_told(cluster: World) -> None:
    cluster.admin.delete(f"{NODES}/w1")
    assert "w1 (no such node)" in " ".join(kubenode("lease", "list").out.split())
    listed = kubenode("lease", "list", "-o", "json").json
    assert listed["kind"] == "LeaseList"
    assert listed["leases"][1] == {
        "name": SLOT,
        "holder": "w1",
        "since": "2026-11-25T12:00:00+00:00",
        "why": "update to 2026.11.2",
        "holderGone": True,
    }


def test_without_leases_it_says_so(cluster: World) -> None:
    for it in list(cluster.admin.list(LEASES)):
        cluster.admin.delete(f"{LEASES}/{it['metadata']['name']}")
    done = kubenode("lease", "list")
    assert (done.code, done.out) == (0, "")
    assert done.last == "There are no leases: no control plane has made any yet."


def test_a_lease_is_broken_with_a_reason_that_stays(cluster: World) -> None:
    done = kubenode("lease", "break", SLOT, "--reason", "disk is dead", "--yes")
    assert (done.code, done.last) == (0, f"{SLOT} was taken from w1 since 2026-11-25 12:00 UTC.")
    assert [it.holder for it in Leases(cluster.admin).all()] == [None, None]
    note = cluster.admin.get(f"{LEASES}/{SLOT}")["metadata"]["annotations"]["kubenode.dev/broken"]
    assert f"from w1 by {getpass.getuser()}@" in note and note.endswith(": disk is dead")
    done = kubenode("lease", "break", SLOT, "--reason", "again", "--yes")
    assert (done.code, done.last) == (0, f"{SLOT} is free already.")


def test_breaking_asks_first(cluster: World) -> None:
    done = kubenode("lease", "break", SLOT, "--reason", "x", stdin=b"n\n")
    assert done.code == 130
    assert f"{SLOT} is held by w1 since 2026-11-25 12:00 UTC for: update to 2026.11.2." in done.err
    assert Leases(cluster.admin).all()[1].holder == "w1"
    assert kubenode("lease", "break", SLOT, "--reason", "x", stdin=b"y\n").code == 0
    assert Leases(cluster.admin).all()[1].holder is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("slot-pool-x-0", "--reason", "x", "--yes"), 64, f"there are: slot-control-plane-0, {SLOT}"),
        ((SLOT, "--reason", " ", "--yes"), 64, "the reason is empty"),
        ((SLOT, "--yes"), 64, "Missing option '--reason'"),
        ((SLOT, "--reason", "x", "--kubeconfig", "gone.conf"), 1, "gone.conf cannot be read"),
        ((SLOT, "--reason", "x", "--context", "there"), 1, "no context is called 'there'"),
    ],
)
def test_mistakes_are_told(cluster: World, words: tuple[str, ...], code: int, said: str) -> None:
    done = kubenode("lease", "break", *words)
    assert done.code == code, done.err
    assert said in " ".join(done.err.split())
    assert Leases(cluster.admin).all()[1].holder == "w1"


def test_a_cluster_that_does_not_answer(cluster: World, server: FakeApiServer, tmp_path: Path) -> None:
    pair = server.authority.issue("x")
    write_kubeconfig(tmp_path / "gone.conf", "https://127.0.0.1:1", server.authority, pair)
    done = kubenode("lease", "list", "--kubeconfig", tmp_path / "gone.conf")
    assert (done.code, done.out) == (75, "")
    assert "127.0.0.1:1 cannot be reached" in done.err


def test_somebody_without_rights(cluster: World, server: FakeApiServer, tmp_path: Path) -> None:
    write_kubeconfig(tmp_path / "jane.conf", server.url, server.authority, server.authority.issue("jane"))
    done = kubenode("lease", "list", "--kubeconfig", tmp_path / "jane.conf")
    assert done.code == 1
    assert 'User "jane" cannot list resource "leases"' in done.err
    assert "docs/cluster.md" in done.err


# A way in.


def test_a_kubeconfig_is_made_and_works(cluster: World, server: FakeApiServer, tmp_path: Path) -> None:
    server.authority.pair.write(tmp_path, "ca")
    address = server.url.removeprefix("https://")
    done = kubenode("kubeconfig", "--user", "jane", "--hours", "8", "--ca", tmp_path, "--server", address)
    assert done.code == 0, done.err
    assert done.last.startswith(f"jane is in the group system:masters at {server.url} until ")
    path = tmp_path / "jane.conf"
    path.write_text(done.out)
    access = load_kubeconfig(path)
    assert json.loads(done.out)["current-context"] == "jane@kubernetes"
    certificate = x509.load_pem_x509_certificate(access.certificate or b"")
    assert certificate.subject.rfc4514_string() == "CN=jane,O=system:masters"
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(hours=7, minutes=59) < left <= timedelta(hours=8)
    with Api(access) as api:
        assert len(list(api.list(NODES))) == 1


def test_the_administrators_of_newer_clusters(cluster: World, server: FakeApiServer, tmp_path: Path) -> None:
    server.authority.pair.write(tmp_path, "ca")
    folder = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    body = {"metadata": {"name": "kubeadm:cluster-admins"}, "roleRef": role}
    cluster.admin.create(folder, {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", **body})
    done = kubenode("kubeconfig", "--user", "jane", "--ca", tmp_path, "--server", server.url)
    assert "jane is in the group kubeadm:cluster-admins" in done.err


def test_a_kubeconfig_with_few_rights_needs_no_cluster(tmp_path: Path) -> None:
    Authority().pair.write(tmp_path, "ca")
    done = kubenode("kubeconfig", "--user", "jane", "--group", "dev", "--ca", tmp_path, "--server", "127.0.0.1:1")
    assert done.code == 0, done.err
    assert json.loads(done.out)["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--server", "127.0.0.1:1"), 1, "has no ca.crt with ca.key"),
        (("--hours", "0"), 64, "greater than or equal to 1"),
        (("--server", "http://x:1", "--group", "dev"), 64, "is no address: HOST:PORT"),
        (("--server", "a b", "--group", "dev"), 64, "is no address: HOST:PORT"),
    ],
)
def test_mistakes_with_kubeconfigs(tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = kubenode("kubeconfig", "--ca", tmp_path, *words)
    assert (done.code, done.out) == (code, ""), done.err
    assert said in " ".join(done.err.split())


# Minting.


def test_a_minted_certificate_never_outlives_its_ca(tmp_path: Path) -> None:
    authority = Authority()
    authority.pair.write(tmp_path, "ca")
    signer = signer_of(tmp_path / "ca")
    assert signer is not None
    _, pem, _ = mint(signer, "x", ("g",), datetime.now(UTC), timedelta(days=3650))
    ca = x509.load_pem_x509_certificate(authority.pair.certificate)
    assert x509.load_pem_x509_certificate(pem).not_valid_after_utc == ca.not_valid_after_utc


def test_ca_files_that_are_none(tmp_path: Path) -> None:
    Authority().pair.write(tmp_path, "ca")
    (tmp_path / "ca.key").write_bytes(Authority().pair.key)
    signer = signer_of(tmp_path / "ca")
    assert signer is not None
    with pytest.raises(HostError, match="certificate and key do not belong together") as refused:
        mint(signer, "x", (), datetime.now(UTC))
    assert "sealed secrets" in refused.value.hint
    (tmp_path / "ca.key").write_bytes(b"nothing")
    signer = signer_of(tmp_path / "ca")
    assert signer is not None
    with pytest.raises(HostError, match=r"the CA .*ca.crt with ca.key is not usable"):
        mint(signer, "x", (), datetime.now(UTC))
    (tmp_path / "ca.key").unlink()
    assert signer_of(tmp_path / "ca") is None
