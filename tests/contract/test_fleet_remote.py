"""A fleet from a plain git remote: the branch, and the stamp that travels beside it."""

import shutil
from pathlib import Path

import pytest

from kubenode.errors import TryLater, UsageError
from kubenode.host import process
from kubenode.host.git import FleetRepository
from kubenode.host.remote import STAMP_BRANCH, RemoteFleet
from kubenode.trust.headfile import HEAD_NAME, MAX_BYTES
from kubenode.trust.policy import POLICY_PATH
from tests.gitrepo import GitRepo, SigningKey, policy_yaml


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.make(tmp_path_factory.mktemp("keys"), "alice")


@pytest.fixture
def remote(tmp_path: Path, alice: SigningKey) -> GitRepo:
    repo = GitRepo.init(tmp_path / "remote")
    repo.write(POLICY_PATH, policy_yaml({"alice": [alice]}))
    repo.commit("start", alice)
    return repo


@pytest.fixture
def fleet(tmp_path: Path, remote: GitRepo) -> RemoteFleet:
    return RemoteFleet(FleetRepository(tmp_path / "node" / "fleet.git"), remote.url)


def put_stamp(remote: GitRepo, data: bytes, name: str = HEAD_NAME) -> str:
    blob = remote.git("hash-object", "-w", "--stdin", stdin=data)
    tree = remote.git("mktree", stdin=f"100644 blob {blob}\t{name}\n".encode())
    commit = remote.git("commit-tree", "-m", "Stamp", tree)
    return remote.point(commit, STAMP_BRANCH)


def test_the_stamp_comes_with_the_branch(remote: GitRepo, fleet: RemoteFleet, alice: SigningKey) -> None:
    assert fleet.stamp() is None
    assert fleet.fetch() == remote.head
    assert fleet.stamp() is None
    put_stamp(remote, b"one")
    assert fleet.fetch() == remote.head
    assert fleet.stamp() == b"one"
    remote.write("x", "x")
    remote.commit("next", alice)
    put_stamp(remote, b"two")
    assert (fleet.fetch(), fleet.stamp()) == (remote.head, b"two")
    remote.git("branch", "-D", STAMP_BRANCH)
    assert (fleet.fetch(), fleet.stamp()) == (remote.head, None)
    # Stamps are thrown away: nothing of them piles up in the copy of the repo.
    assert sorted(path.name for path in (fleet.repository.path.parent).iterdir()) == [
        "fleet.git.candidate",
        "fleet.git.lock",
        "fleet.head.json",
    ]
    assert fleet.repository._place(remote.git("hash-object", "--stdin", stdin=b"two")) is None


def test_without_news_nothing_is_fetched(remote: GitRepo, fleet: RemoteFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    put_stamp(remote, b"one")
    fleet.fetch()
    ran = []
    run, watched = process.run, process.run_watched
    monkeypatch.setattr(process, "run", lambda argv, **options: (ran.append(argv), run(argv, **options))[1])
    monkeypatch.setattr(process, "run_watched", lambda argv, **options: (ran.append(argv), watched(argv, **options))[1])
    assert fleet.fetch() == remote.head
    assert [argv for argv in ran if "ls-remote" in argv] and not [argv for argv in ran if "fetch" in argv]


@pytest.mark.parametrize(
    ("data", "name"), [(b" " * (MAX_BYTES + 1), HEAD_NAME), (b"x", "other.json")], ids=["too large", "no file"]
)
def test_a_stamp_branch_without_a_stamp(remote: GitRepo, fleet: RemoteFleet, data: bytes, name: str) -> None:
    put_stamp(remote, data, name)
    assert (fleet.fetch(), fleet.stamp()) == (remote.head, None)


def test_a_stamp_that_is_no_commit(remote: GitRepo, fleet: RemoteFleet) -> None:
    remote.point(remote.git("hash-object", "-w", "--stdin", stdin=b"x"), STAMP_BRANCH)
    assert fleet.fetch() == remote.head
    assert fleet.stamp() is None


def test_no_network_keeps_both(remote: GitRepo, fleet: RemoteFleet) -> None:
    put_stamp(remote, b"one")
    head = fleet.fetch()
    shutil.move(remote.path, remote.path.with_name("away"))
    with pytest.raises(TryLater, match="cannot be fetched"):
        fleet.fetch()
    assert (fleet.stored_head(), fleet.stamp()) == (head, b"one")


def test_a_branch_that_is_not_there(remote: GitRepo, tmp_path: Path) -> None:
    with pytest.raises(TryLater, match="has no branch stable"):
        RemoteFleet(FleetRepository(tmp_path / "n" / "fleet.git"), remote.url, "stable").fetch()
    with pytest.raises(UsageError, match="not an address"):
        RemoteFleet(FleetRepository(tmp_path / "n" / "fleet.git"), "ext::sh -c id").fetch()


def test_on_the_first_parent_line(remote: GitRepo, fleet: RemoteFleet, alice: SigningKey) -> None:
    start = remote.head
    remote.git("checkout", "--quiet", "-b", "side")
    remote.write("side", "x")
    side = remote.commit("side", alice)
    remote.git("checkout", "--quiet", "main")
    remote.write("main", "x")
    middle = remote.commit("main", alice)
    head = remote.merge("merge", alice, "side")
    fleet.fetch()
    for commit, found in {head: True, middle: True, start: True, side: False, "f" * 40: False}.items():
        assert fleet.on_line(commit, head) is found
    assert not fleet.on_line(head, middle)
    assert not fleet.on_line(head, "f" * 40)
    fleet.repository.accept(middle)
    fleet.fetch()
    assert fleet.stored_head() == head
    fleet.repository.drop()
    assert fleet.stored_head() == middle
