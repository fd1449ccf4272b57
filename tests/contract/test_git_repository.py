"""The fleet repo reader against real git: fetch, failure, damage, and the chain it hands to trust."""

import fcntl
import time
from pathlib import Path

import pytest

from kubenode.errors import HostError, NoSpace, TryLater, Untrusted, UsageError
from kubenode.host import process
from kubenode.host.git import DAMAGED, FleetRepository, commit_all, init_repository
from kubenode.host.git_run import fetch_error
from kubenode.host.remote import RemoteFleet
from kubenode.trust.chain import TrustedTree, authenticate
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from tests.gitrepo import FLEET_ID, GitRepo, SigningKey, policy_yaml, signed_commit


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.make(tmp_path_factory.mktemp("keys"), "alice")


@pytest.fixture
def remote(tmp_path: Path, alice: SigningKey) -> GitRepo:
    repo = GitRepo.init(tmp_path / "remote")
    repo.write(POLICY_PATH, policy_yaml({"alice": [alice]}))
    repo.write("fleet.yaml", "spec: {id: one}\n")
    repo.commit("start", alice)
    return repo


@pytest.fixture
def copy(tmp_path: Path) -> FleetRepository:
    return FleetRepository(tmp_path / "state" / "fleet.git")


def grow(remote: GitRepo, key: SigningKey, count: int = 1) -> str:
    for number in range(count):
        remote.write(f"nodes/{time.monotonic_ns()}.yaml", f"n: {number}\n")
        remote.commit(f"node {number}", key)
    return remote.head


def trust(copy: FleetRepository, anchor: str, head: str) -> TrustedTree:
    commit = authenticate(copy.anchor(anchor), copy.first_parent_chain(anchor, head), fleet_id=FLEET_ID, head=head)
    tree = RemoteFleet(copy, "").tree(commit)
    copy.accept(commit.oid)
    return tree


def take(copy: FleetRepository, remote: GitRepo) -> str:
    """Fetch and accept, as if everything had been authenticated."""
    head = copy.fetch(remote.url)
    copy.accept(head)
    return head


def test_fetch_authenticate_read(remote: GitRepo, copy: FleetRepository, alice: SigningKey) -> None:
    anchor = remote.head
    assert copy.stored_head() is None
    assert copy.fetch(remote.url) == anchor
    head = grow(remote, alice, 3)
    assert copy.stored_head() == anchor
    assert copy.fetch(remote.url) == head == copy.stored_head()
    tree = trust(copy, anchor, head)
    assert tree.commit.verified == 3
    assert tree["fleet.yaml"] == b"spec: {id: one}\n"
    assert len(tree) == 5


def test_the_port(remote: GitRepo, copy: FleetRepository, alice: SigningKey) -> None:
    anchor, head = remote.head, grow(remote, alice)
    fleet = RemoteFleet(copy, remote.url, fleet_id="one")
    assert fleet.fetch() == head == fleet.stored_head()
    commit = authenticate(fleet.anchor(anchor), fleet.chain(anchor, head), fleet_id=FLEET_ID, head=head)
    assert "fleet.yaml" in fleet.tree(commit)
    with pytest.raises(Untrusted) as caught:
        RemoteFleet(copy, remote.url, fleet_id="two").tree(commit)
    assert caught.value.reason == Reason.FLEET_ID_MISMATCH


def test_changes_are_reported_path_by_path(remote: GitRepo, copy: FleetRepository, alice: SigningKey) -> None:
    anchor = remote.head
    remote.write("a b\nc/é", "x\n")
    remote.write("run.sh", "x\n")
    remote.commit("add", alice)
    remote.git("mv", "run.sh", "stop.sh")
    (remote.path / "stop.sh").chmod(0o755)
    remote.commit("rename", alice)
    remote.commit("nothing", alice)
    remote.git("rm", "-q", "-r", "a b\nc")
    (remote.path / "stop.sh").unlink()
    (remote.path / "stop.sh").symlink_to("fleet.yaml")
    remote.commit("remove", alice)
    head = copy.fetch(remote.url)
    seen = [[(c.path, oct(c.mode)) for c in e.changed] for e in copy.first_parent_chain(anchor, head)]
    assert seen == [
        [("a b\nc/é".encode(), "0o100644"), (b"run.sh", "0o100644")],
        [(b"run.sh", "0o0"), (b"stop.sh", "0o100755")],
        [],
        [("a b\nc/é".encode(), "0o0"), (b"stop.sh", "0o120000")],
    ]


def test_long_chains_come_in_batches(remote: GitRepo, copy: FleetRepository, alice: SigningKey) -> None:
    anchor = tip = remote.head
    tree = remote.git("rev-parse", "HEAD^{tree}")
    for number in range(600):
        tip = remote.store(signed_commit(alice, tree, (tip,), f"change {number}"))
    head = copy.fetch((remote.point(tip), remote.url)[1])
    chain = copy.first_parent_chain(anchor, head)
    commit = authenticate(copy.anchor(anchor), chain, fleet_id=FLEET_ID, head=head)
    assert commit.verified == 600
    assert list(copy.first_parent_chain(head, head)) == []


def test_policy_bytes_follow_the_commits(remote: GitRepo, copy: FleetRepository, alice: SigningKey) -> None:
    anchor = remote.head
    first = (remote.path / POLICY_PATH).read_bytes()
    grow(remote, alice)
    second = first + b"# changed\n"
    remote.write(POLICY_PATH, second)
    remote.commit("policy", alice)
    grow(remote, alice)
    (remote.path / POLICY_PATH).unlink()
    remote.commit("gone", alice)
    head = copy.fetch(remote.url)
    assert [e.policy for e in copy.first_parent_chain(anchor, head)] == [first, second, second, None]


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c id", "--upload-pack=id", "relative/path", "ftp://x/y", "", "file://a b", "https://x\ny", "fd::0"],
)
def test_other_transports_are_refused(copy: FleetRepository, url: str) -> None:
    with pytest.raises(UsageError):
        copy.fetch(url)


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/x", "git://127.0.0.1:1/x", "ssh://127.0.0.1:1/x", "file:///none"])
def test_unreachable_remotes_change_nothing(remote: GitRepo, copy: FleetRepository, url: str) -> None:
    head = copy.fetch(remote.url)
    with pytest.raises(TryLater) as caught:
        copy.fetch(url)
    assert url in caught.value.message
    assert copy.stored_head() == head
    assert not (copy.path / DAMAGED).exists()


def test_missing_branch_and_odd_names(remote: GitRepo, copy: FleetRepository) -> None:
    with pytest.raises(TryLater, match="has no branch stable"):
        copy.fetch(remote.url, "stable")
    with pytest.raises(UsageError, match="not a branch name"):
        copy.fetch(remote.url, "a..b")


def test_passwords_never_show(copy: FleetRepository) -> None:
    with pytest.raises(TryLater) as caught:
        copy.fetch("https://user:secret@127.0.0.1:1/x")
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


def test_a_slow_remote_is_tried_later(remote: GitRepo, copy: FleetRepository) -> None:
    copy.fetch(remote.url)
    with pytest.raises(TryLater, match="takes too long"):
        copy.fetch(remote.url, timeout=0.001)
    assert copy.stored_head() == remote.head


def test_a_full_disk_is_said() -> None:
    done = process.Completed(128, b"", b"fatal: write error: No space left on device\n")
    error = fetch_error(process.ProcessFailed(["git"], "failed", done), "https://example.net/x", "main")
    assert isinstance(error, NoSpace)


def test_two_fetches_at_once(remote: GitRepo, copy: FleetRepository) -> None:
    copy.fetch(remote.url)
    with (copy.path.parent / "fleet.git.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TryLater, match="another process"):
            copy.fetch(remote.url)


def test_leftovers_of_a_killed_fetch_are_cleared(remote: GitRepo, copy: FleetRepository, alice: SigningKey) -> None:
    old = take(copy, remote)
    head = grow(remote, alice)
    (copy.path / "refs" / "kubenode" / "head.lock").touch()
    (copy.path / "packed-refs.lock").touch()
    (copy.path / "objects" / "pack" / "tmp_pack_xyz").write_bytes(b"half")
    copy.path.with_name("fleet.git.fetch-1234").mkdir()
    assert copy.fetch(remote.url) == head
    assert len(trust(copy, old, head)) == 3
    assert not list(copy.path.glob("objects/pack/tmp_*"))
    assert sorted(path.name for path in copy.path.parent.iterdir()) == ["fleet.git", "fleet.git.lock"]


def test_a_swap_that_was_cut_short(remote: GitRepo, copy: FleetRepository) -> None:
    head = take(copy, remote)
    copy.close()
    copy.path.rename(copy.path.with_name("fleet.git.old"))
    copy.path.with_name("fleet.git.new").mkdir()
    assert FleetRepository(copy.path).stored_head() == head
    assert copy.fetch(remote.url) == head


@pytest.mark.parametrize("damage", ["HEAD", "config", "objects", "refs/kubenode/head", "packs", "cut pack"])
def test_a_damaged_copy_is_replaced(
    remote: GitRepo, copy: FleetRepository, alice: SigningKey, damage: str, tmp_path: Path
) -> None:
    anchor = take(copy, remote)
    copy.close()
    if damage == "packs":
        for pack in copy.path.glob("objects/pack/*.pack"):
            pack.unlink()
    elif damage == "cut pack":
        for pack in copy.path.glob("objects/pack/*.pack"):
            pack.chmod(0o600)
            pack.write_bytes(pack.read_bytes()[:60])
    elif damage == "objects":
        (copy.path / "objects").rename(tmp_path / "away")
    else:
        (copy.path / damage).write_text("nonsense")
    head = grow(remote, alice)
    for _ in range(2):
        try:
            assert copy.fetch(remote.url) == head
            assert trust(copy, anchor, head).oid == head
            break
        except HostError as error:
            # Seen only while reading: the next fetch makes a new copy.
            assert "damaged" in error.message
            assert (copy.path / DAMAGED).exists()
    else:
        pytest.fail("not recovered")


def test_damage_found_while_reading_is_told_and_repaired(remote: GitRepo, copy: FleetRepository) -> None:
    head = take(copy, remote)
    for pack in copy.path.glob("objects/pack/*"):
        pack.unlink()
    copy.close()
    with pytest.raises(HostError, match="is damaged"):
        copy.anchor(head)
    assert copy.stored_head() is None
    assert copy.fetch(remote.url) == head
    assert copy.anchor(head).oid == head


def test_damage_without_network_keeps_what_is_there(remote: GitRepo, copy: FleetRepository) -> None:
    """A damaged copy may still hold all that the trusted commit needs: it is read as far as it goes."""
    head = take(copy, remote)
    (copy.path / DAMAGED).touch()
    with pytest.raises(TryLater):
        copy.fetch("file:///none")
    assert copy.stored_head() == head
    assert trust(copy, head, head)["fleet.yaml"]
    assert (copy.path / DAMAGED).exists()
    assert take(copy, remote) == head
    assert not (copy.path / DAMAGED).exists()


def test_a_missing_anchor(remote: GitRepo, copy: FleetRepository) -> None:
    copy.fetch(remote.url)
    with pytest.raises(Untrusted) as caught:
        copy.anchor("1" * 40)
    assert caught.value.reason == Reason.ANCHOR_MISSING
    assert not (copy.path / DAMAGED).exists()
    with pytest.raises(Untrusted) as caught:
        copy.anchor(remote.git("rev-parse", "HEAD^{tree}"))
    assert caught.value.reason == Reason.COMMIT_MALFORMED


def test_huge_blobs_are_not_read(remote: GitRepo, copy: FleetRepository, alice: SigningKey) -> None:
    anchor = remote.head
    remote.write(POLICY_PATH, b"#" * (2 << 20))
    remote.commit("huge policy", alice)
    head = copy.fetch(remote.url)
    with pytest.raises(Untrusted) as caught:
        trust(copy, anchor, head)
    assert caught.value.reason == Reason.POLICY_INVALID
    assert copy.anchor(anchor).oid == anchor


def test_nothing_of_the_environment_reaches_git(
    remote: GitRepo, copy: FleetRepository, alice: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor, marker = remote.head, tmp_path / "ran"
    hostile = tmp_path / "config"
    hostile.write_text(
        f'[core]\n\thooksPath = {tmp_path}\n[alias]\n\tfetch = "!touch {marker}"\n[fetch]\n\tprune = true\n'
    )
    for name, value in {
        "GIT_CONFIG_GLOBAL": str(hostile),
        "GIT_CONFIG": str(hostile),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "GIT_DIR": "/nowhere",
        "GIT_OBJECT_DIRECTORY": "/nowhere",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/nowhere",
        "GIT_COMMON_DIR": "/nowhere",
        "GIT_NAMESPACE": "other",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.useReplaceRefs",
        "GIT_CONFIG_VALUE_0": "true",
        "GIT_CONFIG_PARAMETERS": "'core.useReplaceRefs=true'",
        "GIT_EXTERNAL_DIFF": f"touch {marker}",
        "GIT_SSH_COMMAND": f"touch {marker}",
        "GIT_DEFAULT_HASH": "sha256",
    }.items():
        monkeypatch.setenv(name, value)
    head = copy.fetch(remote.url)
    assert trust(copy, anchor, head).oid == head
    with pytest.raises(TryLater):
        copy.fetch("ssh://127.0.0.1:1/x")
    assert not marker.exists()


# Laptops.


def test_signed_commits_are_made(tmp_path: Path, alice: SigningKey, copy: FleetRepository) -> None:
    work = tmp_path / "fleet"
    init_repository(work)
    (work / "trust").mkdir()
    (work / POLICY_PATH).write_text(policy_yaml({"alice": [alice]}))
    anchor = commit_all(work, "start", alice.path, "Alice Example", "alice@example.net")
    (work / "a file").write_text("x\n")
    (work / POLICY_PATH).write_text(policy_yaml({"alice": [alice]}) + "# more\n")
    head = commit_all(work, "add a file\n\nbecause", alice.path, "Alice Example", "alice@example.net")
    copy.fetch(str(work))
    tree = trust(copy, anchor, head)
    assert tree["a file"] == b"x\n"
    assert tree.commit.signer == "alice"
    with pytest.raises(UsageError, match="nothing to commit"):
        commit_all(work, "again", alice.path, "Alice Example", "alice@example.net")
    with pytest.raises(UsageError, match="no signing key"):
        commit_all(work, "again", tmp_path / "none", "Alice Example", "alice@example.net")
    with pytest.raises(UsageError, match="not the top folder"):
        commit_all(work / "trust", "again", alice.path, "Alice Example", "alice@example.net")
    bad = tmp_path / "bad"
    bad.write_text("not a key")
    (work / "b").write_text("x\n")
    with pytest.raises(HostError):
        commit_all(work, "again", bad, "Alice Example", "alice@example.net")


def test_hooks_and_filters_of_others_do_not_run(tmp_path: Path, alice: SigningKey) -> None:
    work, marker = tmp_path / "fleet", tmp_path / "ran"
    init_repository(work)
    hook = work / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
    hook.chmod(0o755)
    (work / "a").write_bytes(b"x\r\n")
    oid = commit_all(work, "start", alice.path, "Alice Example", "alice@example.net")
    assert not marker.exists()
    assert GitRepo(work).raw(f"{oid}:a", "blob") == b"x\r\n"
