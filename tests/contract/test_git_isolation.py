"""What could make git show other content than was signed: replaced objects, grafts, attributes, odd objects."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from kubenode.errors import Untrusted
from kubenode.host.git import FleetRepository
from kubenode.trust.reasons import Reason
from tests.gitrepo import IDENTITY, GitRepo, SigningKey, World, signed_commit

Keys = Mapping[str, SigningKey]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return {name: SigningKey.make(folder, name) for name in ("alice", "bob", "ci", "mallory")}


@pytest.fixture
def world(tmp_path: Path, keys: Keys) -> World:
    return World(tmp_path, keys)


def test_replaced_objects_and_grafts_have_no_effect(world: World) -> None:
    """Neither on the remote nor in what the node keeps."""
    world.follow()
    evil = world.node("b", None)
    good = world.remote.store(signed_commit(world.keys["alice"], world.tree, (world.anchor,), "good"))
    world.remote.git("replace", evil, good)
    with pytest.raises(Untrusted) as caught:
        world.follow()
    assert caught.value.reason == Reason.UNSIGNED_COMMIT
    candidate = GitRepo(world.copy.path.with_name("fleet.git.candidate"))
    candidate.git("fetch", "-q", world.remote.url, "refs/replace/*:refs/replace/*")
    assert candidate.git("cat-file", "commit", evil) == candidate.git("cat-file", "commit", good)
    world.copy.close()
    with pytest.raises(Untrusted) as caught:
        world.follow(fetch=False)
    assert caught.value.reason == Reason.UNSIGNED_COMMIT

    orphan = world.remote.store(signed_commit(world.keys["alice"], world.tree, (), "orphan"))
    world.remote.point(orphan)
    grafts = f"{orphan} {world.anchor}\n"
    for repo in (world.remote.path / ".git", world.copy.path):
        (repo / "info").mkdir(exist_ok=True)
        (repo / "info" / "grafts").write_text(grafts)
    world.copy.fetch(world.remote.url)
    (candidate.path / "info").mkdir(exist_ok=True)
    (candidate.path / "info" / "grafts").write_text(grafts)
    with pytest.raises(Untrusted) as caught:
        world.follow(fetch=False)
    assert caught.value.reason == Reason.NOT_DESCENDANT


def test_attributes_of_the_repo_have_no_effect(world: World) -> None:
    world.policy([(["**"], ["alice"], 1)])
    world.commit("alice may do everything", "alice")
    world.remote.write(".gitattributes", "* text eol=crlf ident export-ignore filter=x diff=x\n")
    world.remote.write("nodes/i", "$Id$\n")
    world.commit("attributes", "alice")
    assert world.follow()["nodes/i"] == b"$Id$\n"


def test_objects_that_fsck_refuses_are_not_fetched(world: World) -> None:
    bad = f"tree {world.tree}\nparent {world.anchor}\nauthor {IDENTITY}\ncommitter broken\n\nx\n".encode()
    head = world.copy.fetch(world.remote.url)
    world.remote.point(world.remote.store(bad))
    with pytest.raises(Untrusted) as caught:
        world.copy.fetch(world.remote.url)
    assert caught.value.reason == Reason.COMMIT_MALFORMED
    assert world.copy.stored_head() == head

    dotdot = b"40000 ..\0" + bytes.fromhex(world.tree)
    tree = world.remote.store(dotdot, "tree")
    world.remote.point(world.remote.store(signed_commit(world.keys["alice"], tree, (world.anchor,), "x")))
    with pytest.raises(Untrusted) as caught:
        world.copy.fetch(world.remote.url)
    assert caught.value.reason == Reason.COMMIT_MALFORMED


def test_sha256_repos_are_told_apart(tmp_path: Path, keys: Keys) -> None:
    remote = GitRepo.init(tmp_path / "remote", "sha256")
    remote.write("a", "x\n")
    oid = remote.commit("start", keys["alice"])
    copy = FleetRepository(tmp_path / "fleet.git")
    with pytest.raises(Untrusted) as caught:
        copy.fetch(remote.url)
    assert caught.value.reason == Reason.UNSUPPORTED_OBJECT_FORMAT
    with pytest.raises(Untrusted) as caught:
        copy.anchor(oid)
    assert caught.value.reason == Reason.UNSUPPORTED_OBJECT_FORMAT


def test_git_itself_agrees_with_our_verdict(world: World, tmp_path: Path) -> None:
    head = world.node("b")
    allowed = tmp_path / "allowed"
    allowed.write_text(f'alice@example.net namespaces="git" {world.keys["alice"].public}\n')
    shown = world.remote.git(
        "log", "-1", "--format=%G? %GF", head, options={"gpg.ssh.allowedSignersFile": str(allowed)}
    )
    assert shown == f"G {world.keys['alice'].key.fingerprint}"
    assert world.follow().commit.signer == "alice"
