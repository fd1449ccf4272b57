"""etcd through its HTTP gateway: a real member, and canned answers for what one member cannot show."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubenode.errors import HostError, TryLater
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed
from kubenode.host.kube.etcd import Etcd
from kubenode.host.process import run
from tests.contract import kube_real
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer, Handler


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kube_real.RealEtcd]:
    etcd = kube_real.RealEtcd(tmp_path_factory.mktemp("etcd") / "member")
    yield etcd
    etcd.close()


@pytest.mark.skipif(kube_real.etcd_binary() is None, reason="no etcd: apt-get install etcd-server")
class TestRealMember:
    def test_a_member_that_does_not_answer_is_passed_over(self, member: kube_real.RealEtcd):
        access = member.authority.access(member.url, member.client)
        view = Etcd([replace(access, server="https://127.0.0.1:1"), access]).view()
        (one,) = view.members
        assert (one.name, one.healthy, one.learner, str(one.version)) == ("cp-1", True, False, "3.4.23")
        assert one.id.isdigit() and view.alarms == () and len(one.peers) == 1
        with pytest.raises(TryLater, match=r"127\.0\.0\.1:1 cannot be reached"):
            Etcd([replace(access, server="https://127.0.0.1:1")]).view()

    def test_without_a_client_certificate_nothing_is_told(self, member: kube_real.RealEtcd):
        with pytest.raises((TryLater, HostError)):
            Etcd([member.authority.access(member.url)]).view()

    def test_the_last_member_is_not_removed(self, member: kube_real.RealEtcd):
        etcd = Etcd([member.authority.access(member.url, member.client)])
        etcd.remove("1")
        with pytest.raises(HostError, match="the etcd member cp-1 is not removed: it is the only one"):
            etcd.remove(etcd.view().members[0].id)

    def test_a_snapshot_is_whole_and_etcd_takes_it(self, member: kube_real.RealEtcd, tmp_path: Path):
        access = member.authority.access(member.url, member.client)
        with Api(access) as api:
            for number in range(50):
                key, value = (b64encode(it).decode() for it in (b"key %d" % number, b"x" * 20_000))
                api.send("POST", "/v3/kv/put", {"key": key, "value": value})
        target = tmp_path / "snapshot.db"
        size = Etcd([access]).snapshot(target)
        data = target.read_bytes()
        assert size == len(data) > 1_000_000
        assert data[-32:] == hashlib.sha256(data[:-32]).digest()
        assert target.stat().st_mode & 0o777 == 0o600
        try:
            done = run(
                ["etcdctl", "snapshot", "status", target, "--write-out=json"], timeout=60, env={"ETCDCTL_API": "3"}
            )
        except HostError as error:
            pytest.skip(f"no etcdctl: {error}")
        assert json.loads(done.stdout)["totalKey"] >= 50

    def test_a_member_that_was_added_and_never_started_is_not_healthy(self, tmp_path: Path):
        etcd = kube_real.RealEtcd(tmp_path / "member")
        try:
            access = etcd.authority.access(etcd.url, etcd.client)
            with Api(access) as api:
                api.send("POST", "/v3/cluster/member/add", {"peerURLs": ["https://127.0.0.1:1"], "isLearner": True})
            one, ghost = sorted(Etcd([access]).view().members, key=lambda it: it.name, reverse=True)
            assert (one.name, one.healthy) == ("cp-1", True)
            assert (ghost.name, ghost.healthy, ghost.learner, ghost.version) == ("", False, True, None)
            Etcd([access]).remove(ghost.id)
            assert [it.name for it in Etcd([access]).view().members] == ["cp-1"]
        finally:
            etcd.close()


# Canned answers.


class Canned:
    """Answers of etcd's gateway; `removed` is what was asked to go."""

    def __init__(
        self, fake: FakeApiServer, members: dict[str, bool], alarms: list[dict[str, str]] | None = None
    ) -> None:
        self.fake = fake
        self.members = members
        self.alarms = alarms or []
        self.removed: list[str] = []
        fake.rude = self
        pair = fake.authority.issue("client")
        self.etcd = Etcd([fake.authority.access(fake.url, pair)])

    def __call__(self, handler: Handler) -> bool:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length", "0"))) or b"{}")
        answer: Any = {}
        match handler.path:
            case "/v3/cluster/member/list":
                answer = {"members": [self._member(it, number) for number, it in enumerate(self.members)]}
            case "/v3/maintenance/alarm":
                answer = {"alarms": self.alarms}
            case "/v3/cluster/member/remove":
                self.removed.append(body["ID"])
            case "/health":
                answer = {"health": "true"}
            case "/version":
                answer = {"etcdserver": "3.5.21", "etcdcluster": "3.5.0"}
        handler.reply(200, json.dumps(answer).encode())
        return True

    def _member(self, name: str, number: int) -> dict[str, Any]:
        return {
            "name": name,
            "ID": str(number),
            "clientURLs": [self.fake.url if self.members[name] else "https://127.0.0.1:1"],
        }


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeApiServer]:
    fake = FakeApiServer(Authority(), tmp_path)
    yield fake
    fake.close()


def test_alarms_name_their_member(fake: FakeApiServer) -> None:
    raised = [{"memberID": "1", "alarm": "NOSPACE"}, {"memberID": "77", "alarm": "CORRUPT"}]
    view = Canned(fake, {"cp-1": True, "cp-2": True}, raised).etcd.view()
    assert view.alarms == ("CORRUPT on member 77", "NOSPACE on cp-2")


def test_a_stale_member_of_three_is_removed(fake: FakeApiServer) -> None:
    canned = Canned(fake, {"cp-1": True, "cp-2": True, "cp-3": False})
    canned.etcd.remove("2")
    assert canned.removed == ["2"]
    canned.etcd.remove("77")
    assert canned.removed == ["2"]


@pytest.mark.parametrize(
    ("members", "name", "said"),
    [
        ({"cp-1": True, "cp-2": False, "cp-3": False}, "cp-3", "1 of 3 members would be healthy"),
        ({"cp-1": True, "cp-2": True, "cp-3": False}, "cp-2", "1 of 2 members would be healthy"),
        ({"cp-1": True, "cp-2": False}, "cp-2", "1 of 2 members would be healthy"),
    ],
)
def test_no_removal_costs_the_quorum(fake: FakeApiServer, members: dict[str, bool], name: str, said: str) -> None:
    canned = Canned(fake, members)
    with pytest.raises(HostError, match=f"the etcd member {name} is not removed: {said}"):
        canned.etcd.remove(str(list(members).index(name)))
    assert canned.removed == []


def blob(data: bytes) -> bytes:
    return json.dumps({"result": {"blob": b64encode(data).decode()}}).encode() + b"\n"


DATA = b"etcd" * 3000
WHOLE = DATA + hashlib.sha256(DATA).digest()


def test_a_snapshot_in_any_pieces_is_put_together(fake: FakeApiServer, tmp_path: Path) -> None:
    pieces = [blob(WHOLE[start : start + 999]) for start in range(0, len(WHOLE), 999)]
    fake.rude = lambda handler: handler.reply(200, b"".join(pieces).rstrip(b"\n")) is None
    assert Etcd([fake.authority.access(fake.url)]).snapshot(tmp_path / "s.db") == len(WHOLE)
    assert (tmp_path / "s.db").read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (blob(WHOLE[:5000]), "is not whole: its checksum differs"),
        (b"", "is not whole"),
        (blob(WHOLE[:-1] + b"x"), "is not whole"),
        (blob(WHOLE[:500]) + b'{"error": {"message": "etcdserver: too slow"}}\n', "broke the snapshot off.*too slow"),
        (b'{"result": {"blob": "%%%"}}\n', "not base64"),
        (b"<html>\n", "did not send JSON"),
        (b"x" * (2 << 20), "sends a line of more than 1048576 bytes"),
    ],
)
def test_a_broken_snapshot_leaves_no_file(fake: FakeApiServer, tmp_path: Path, body: bytes, said: str) -> None:
    target = tmp_path / "snapshots" / "s.db"
    target.parent.mkdir()
    target.write_bytes(b"the one before")
    fake.rude = lambda handler: handler.reply(200, body) is None
    with pytest.raises(Malformed, match=said):
        Etcd([fake.authority.access(fake.url)]).snapshot(target)
    assert target.read_bytes() == b"the one before"
    assert [it.name for it in target.parent.iterdir()] == ["s.db"]


def test_a_snapshot_that_etcd_refuses_is_tried_later(fake: FakeApiServer, tmp_path: Path) -> None:
    fake.rude = lambda handler: handler.reply(503, b'{"error": "etcdserver: no leader", "code": 14}') is None
    with pytest.raises(TryLater, match="etcdserver: no leader"):
        Etcd([fake.authority.access(fake.url)]).snapshot(tmp_path / "s.db")
