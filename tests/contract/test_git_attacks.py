"""The attack table of docs/trust.md with real git repositories: each attack has its own reason."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kubenode.errors import Untrusted
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from tests.gitrepo import (
    GitRepo,
    SigningKey,
    World,
    sign_in_process,
    signed_commit,
    unsigned_commit,
    with_signature,
)

Keys = Mapping[str, SigningKey]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return {name: SigningKey.make(folder, name) for name in ("alice", "bob", "ci", "mallory")}


@pytest.fixture
def world(tmp_path: Path, keys: Keys) -> World:
    return World(tmp_path, keys)


def raw_with(world: World, change: Callable[[bytes], bytes]) -> None:
    raw = change(world.remote.raw(world.remote.head))
    world.remote.point(world.remote.store(raw))


def unsigned(world: World) -> None:
    world.node("b", None)


def stranger(world: World) -> None:
    world.node("b", "mallory")


def unsigned_below_a_good_head(world: World) -> None:
    world.node("b", None)
    world.node("c")


def stripped_signature(world: World) -> None:
    world.node("b")
    raw = world.remote.raw(world.remote.head)
    start, end = raw.index(b"gpgsig "), raw.index(b"-----END SSH SIGNATURE-----\n") + 28
    world.remote.point(world.remote.store(raw[:start] + raw[end:]))


def orphan_root(world: World) -> None:
    world.remote.point(world.remote.store(signed_commit(world.keys["alice"], world.tree, (), "new world")))


def rewind(world: World) -> None:
    world.node("b")
    world.anchor = world.node("c")
    world.follow()
    world.remote.git("reset", "-q", "--hard", "HEAD~1")


def fork(world: World) -> None:
    start = world.anchor
    world.anchor = world.node("b")
    world.follow()
    world.remote.git("reset", "-q", "--hard", start)
    world.node("c")


def foxtrot(world: World) -> None:
    start = world.anchor
    world.anchor = world.node("b")
    world.remote.git("checkout", "-q", "-b", "side", start)
    world.node("c")
    world.remote.merge("swapped", world.keys["alice"], "main")
    world.remote.point(world.remote.head)


def moved_signature(world: World) -> None:
    head = world.remote.head
    signature = sign_in_process(world.keys["alice"], unsigned_commit(world.tree, (head,), "good"))
    world.remote.point(world.remote.store(with_signature(unsigned_commit(world.tree, (head,), "evil"), signature)))


def openpgp(world: World) -> None:
    raw = unsigned_commit(world.tree, (world.remote.head,), "x")
    pgp = b"-----BEGIN PGP SIGNATURE-----\n\niQEzBAAB\n-----END PGP SIGNATURE-----"
    world.remote.point(world.remote.store(with_signature(raw, pgp)))


def repeated_tree(world: World) -> None:
    world.node("b")
    raw_with(world, lambda raw: raw.replace(b"\nauthor", b"\ntree " + b"1" * 40 + b"\nauthor", 1))


def second_signature(world: World) -> None:
    world.node("b")
    raw_with(world, lambda raw: with_signature(raw, sign_in_process(world.keys["mallory"], raw)))


def ci_touches_a_node(world: World) -> None:
    world.node("b", "ci")


def rename_across_rules(world: World) -> None:
    world.remote.git("mv", "nodes/a.yaml", "releases/a.yaml")
    world.commit("rename", "ci")


def unmatched_path(world: World) -> None:
    world.remote.write("README.md", "hello\n")
    world.commit("readme", "alice")


def quoted_path(world: World) -> None:
    world.remote.write("releases/\n../nodes é", "hello\n")
    world.commit("fine: it is in releases", "ci")
    world.remote.write("\nreleases/x", "hello\n")
    world.commit("not in releases", "ci")


def signer_only_in_own_policy(world: World) -> None:
    world.policy([(["**"], ["bob"], 1)], "alice", "bob")
    world.commit("bob makes himself a person", "bob")


def policy_by_the_wrong_person(world: World) -> None:
    world.policy([(["**"], ["ci"], 1)])
    world.commit("ci takes over", "ci")


def policy_rollback(world: World) -> None:
    old = (world.remote.path / POLICY_PATH).read_bytes()
    world.policy([(["**"], ["alice", "bob"], 1)], "alice", "bob")
    world.commit("bob joins, ci leaves", "alice")
    world.remote.write(POLICY_PATH, old)
    world.commit("ci puts the old policy back", "ci")


def intermediate_policy(world: World) -> None:
    old = (world.remote.path / POLICY_PATH).read_bytes()
    world.policy([(["**"], ["mallory"], 1)], "mallory")
    world.commit("mallory's policy", "mallory")
    world.remote.write(POLICY_PATH, old)
    world.commit("and back", "mallory")
    world.node("b")


def revoked_in_range(world: World) -> None:
    world.remote.write("releases/2.yaml", "a: 1\n")
    world.commit("release", "ci")
    world.policy([(["**"], ["alice"], 1)], "alice")
    world.commit("ci leaves", "alice")
    world.remote.write("releases/3.yaml", "a: 1\n")
    world.commit("release", "ci")


def policy_removed(world: World) -> None:
    (world.remote.path / POLICY_PATH).unlink()
    world.commit("gone", "alice")


def policy_folder_becomes_a_file(world: World) -> None:
    (world.remote.path / POLICY_PATH).unlink()
    (world.remote.path / "trust").rmdir()
    world.remote.write("trust", "file\n")
    world.commit("gone", "alice")


def policy_becomes_a_link(world: World) -> None:
    (world.remote.path / POLICY_PATH).rename(world.remote.path / "nodes" / "policy.yaml")
    (world.remote.path / POLICY_PATH).symlink_to("../nodes/policy.yaml")
    world.commit("link", "alice")


def policy_locks_out(world: World) -> None:
    world.policy([(["**"], ["alice"], 3)])
    world.commit("nobody", "alice")


def two_people(world: World) -> None:
    world.policy([(["trust/**"], ["alice"], 1), (["**"], ["alice", "ci"], 2)])
    world.commit("two people from now on", "alice")
    world.node("b")


def symlink(world: World) -> None:
    (world.remote.path / "nodes" / "link").symlink_to("../../../etc/passwd")
    world.commit("link", "alice")


def submodule(world: World) -> None:
    world.remote.git("update-index", "--add", "--cacheinfo", f"160000,{world.anchor},nodes/module")
    world.remote._sign_with("commit", "-q", "-m", "module", key=world.keys["alice"])


def hidden_submodule(world: World) -> None:
    """`ignore = all`, wherever it is said, must not hide the change from the rules."""
    world.remote.git("update-index", "--add", "--cacheinfo", f"160000,{world.anchor},nodes/m")
    world.remote._sign_with("commit", "-q", "-m", "module", key=world.keys["ci"])
    GitRepo(world.copy.path).git("config", "diff.ignoreSubmodules", "all")


def case_folding(world: World) -> None:
    world.remote.write("nodes/A.yaml", "a: 2\n")
    world.commit("twin", "alice")


ATTACKS: dict[Callable[[World], None], Reason] = {
    unsigned: Reason.UNSIGNED_COMMIT,
    unsigned_below_a_good_head: Reason.UNSIGNED_COMMIT,
    stripped_signature: Reason.UNSIGNED_COMMIT,
    stranger: Reason.UNKNOWN_SIGNER,
    orphan_root: Reason.NOT_DESCENDANT,
    rewind: Reason.NOT_DESCENDANT,
    fork: Reason.NOT_DESCENDANT,
    foxtrot: Reason.NOT_DESCENDANT,
    moved_signature: Reason.BAD_SIGNATURE,
    openpgp: Reason.UNSUPPORTED_SIGNATURE,
    repeated_tree: Reason.COMMIT_MALFORMED,
    second_signature: Reason.COMMIT_MALFORMED,
    ci_touches_a_node: Reason.NOT_ALLOWED,
    rename_across_rules: Reason.NOT_ALLOWED,
    unmatched_path: Reason.NO_RULE_MATCHES,
    quoted_path: Reason.NO_RULE_MATCHES,
    signer_only_in_own_policy: Reason.UNKNOWN_SIGNER,
    policy_by_the_wrong_person: Reason.NOT_ALLOWED,
    policy_rollback: Reason.UNKNOWN_SIGNER,
    intermediate_policy: Reason.UNKNOWN_SIGNER,
    revoked_in_range: Reason.UNKNOWN_SIGNER,
    policy_removed: Reason.POLICY_LOCKS_OUT,
    policy_folder_becomes_a_file: Reason.POLICY_LOCKS_OUT,
    policy_becomes_a_link: Reason.POLICY_INVALID,
    policy_locks_out: Reason.POLICY_LOCKS_OUT,
    two_people: Reason.THRESHOLD_NOT_MET,
    symlink: Reason.UNSAFE_ENTRY,
    submodule: Reason.UNSAFE_ENTRY,
    hidden_submodule: Reason.NOT_ALLOWED,
    case_folding: Reason.UNSAFE_ENTRY,
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attack(world: World, attack: Callable[[World], None]) -> None:
    assert world.follow().oid == world.anchor
    attack(world)
    with pytest.raises(Untrusted) as caught:
        world.follow()
    assert caught.value.reason == ATTACKS[attack], caught.value.message
    assert caught.value.message
    # A refusal never stops a later good history: the owner takes the bad commits back.
    if attack not in (rewind, fork, foxtrot):
        world.remote.git("checkout", "-q", "-f", "-B", "main", world.anchor)
        assert world.follow().oid == world.anchor


@pytest.mark.parametrize(
    ("attack", "words"), [(rewind, "went back"), (fork, "was rewritten"), (foxtrot, "swapped its parents")]
)
def test_histories_that_do_not_grow_are_told_apart(world: World, attack: Callable[[World], None], words: str) -> None:
    attack(world)
    with pytest.raises(Untrusted, match=words):
        world.follow()


def test_messages_name_commit_key_person_and_rule(world: World) -> None:
    head = world.node("b", "ci")
    with pytest.raises(Untrusted) as caught:
        world.follow()
    for word in (head[:12], world.keys["ci"].key.fingerprint, "signed by ci", "rule 3", "nodes/**", "nodes/b.yaml"):
        assert word in caught.value.message
    assert caught.value.hint.startswith("Still missing: alice. To approve: `kubenode trust approve BRANCH`")


def test_a_local_merge_of_an_unsigned_branch_is_one_signed_change(world: World) -> None:
    world.remote.git("checkout", "-q", "-b", "side")
    world.node("b", None)
    world.remote.git("checkout", "-q", "main")
    world.node("c")
    world.remote.merge("merge side", world.keys["alice"], "side")
    tree = world.follow()
    assert tree.commit.verified == 2
    assert "nodes/b.yaml" in tree


def test_a_merge_is_judged_by_all_it_brings(world: World) -> None:
    world.remote.git("checkout", "-q", "-b", "side")
    world.node("b")
    world.remote.git("checkout", "-q", "main")
    world.remote.merge("merge side", world.keys["ci"], "side")
    with pytest.raises(Untrusted, match=r"nodes/b\.yaml"):
        world.follow()


def test_a_clean_up_makes_an_unsafe_tree_usable_again(world: World) -> None:
    symlink(world)
    with pytest.raises(Untrusted):
        world.follow()
    (world.remote.path / "nodes" / "link").unlink()
    world.commit("remove it", "alice")
    assert world.follow().commit.verified == 2
