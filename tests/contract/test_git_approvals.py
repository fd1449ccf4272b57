"""Approvals in real repositories, signed by real ssh-keygen: what an attacker can do with them, and what people can."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kubenode.errors import Untrusted
from kubenode.trust.approvals import NAMESPACE, TRAILER, payload, value_of
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from tests.gitrepo import FLEET_ID, Rules, SigningKey, World, policy_yaml, unsigned_commit, with_signature

Keys = Mapping[str, SigningKey]
TWO: Rules = [
    (["trust/**"], ["alice", "bob"], 2),
    (["releases/**"], ["ci"], 1),
    (["nodes/**", "fleet.yaml"], ["alice", "bob"], 2),
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return {name: SigningKey.make(folder, name) for name in ("alice", "alice2", "bob", "ci", "mallory")}


@pytest.fixture
def team(tmp_path: Path, keys: Keys) -> World:
    """A fleet in which alice and bob decide together; the commit that says so is the anchor."""
    world = World(tmp_path, keys)
    people = {name: [keys[name]] for name in ("alice", "bob", "ci")} | {"alice": [keys["alice"], keys["alice2"]]}
    world.remote.write(POLICY_PATH, policy_yaml(people, TWO))
    world.anchor = world.commit("two people", "alice")
    assert world.follow().oid == world.anchor
    return world


def approves(world: World, who: str, *, parent: str = "", tree: str = "", fleet: str = FLEET_ID) -> str:
    """Return a person's trailer for the index (or `tree`) on top of the head (or `parent`), signed by ssh-keygen."""
    world.remote.git("add", "--all")
    parent, tree = parent or world.remote.head, tree or world.remote.git("write-tree")
    argv = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(world.keys[who].path)]
    signed = subprocess.run(argv, input=payload(fleet, parent, tree), check=True, capture_output=True).stdout
    return f"{TRAILER}: {value_of(parent, tree, signed)}"


def change(world: World, name: str = "b") -> None:
    world.remote.write(f"nodes/{name}.yaml", "a: 1\n")


def message(*lines: str) -> str:
    return "\n".join(("a change", "", *lines))


# What an attacker may try.


def threshold_by_two_keys(world: World) -> None:
    change(world)
    world.commit(message(approves(world, "alice"), approves(world, "alice2")), "alice")


def replayed_on_another_parent(world: World) -> None:
    """alice's change was approved, taken and taken back; she brings it again on her own."""
    change(world)
    line = approves(world, "bob")
    world.commit(message(line), "alice")
    (world.remote.path / "nodes" / "b.yaml").unlink()
    world.commit(message(approves(world, "bob")), "alice")
    assert world.follow().oid == world.remote.head
    change(world)
    world.commit(message(line), "alice")


def replayed_on_another_tree(world: World) -> None:
    change(world)
    line = approves(world, "bob")
    world.remote.write("nodes/b.yaml", "a: evil\n")
    world.commit(message(line), "alice")


def moved_between_fleets(world: World) -> None:
    """Both fleets began as one repo: parent and files are the same."""
    change(world)
    world.commit(message(approves(world, "bob", fleet="7" + FLEET_ID[1:])), "alice")


def approval_in_the_middle(world: World) -> None:
    change(world)
    world.commit(f"a change\n\n{approves(world, 'bob')}\n\nand more words", "alice")


def strangers_approval(world: World) -> None:
    change(world)
    world.commit(message(approves(world, "mallory")), "alice")


def forge_merges_alone(world: World) -> None:
    """The forge's own OpenPGP signature, and one approval of two."""
    change(world)
    line = approves(world, "bob")
    tree = world.remote.git("write-tree")
    pgp = b"-----BEGIN PGP SIGNATURE-----\n\niQEzBAAB\n-----END PGP SIGNATURE-----"
    raw = with_signature(unsigned_commit(tree, (world.remote.head,), message(line)), pgp)
    world.remote.point(world.remote.store(raw))


def unsigned_with_stale_approvals(world: World) -> None:
    change(world)
    lines = [approves(world, who) for who in ("alice", "bob")]
    world.remote.write("nodes/b.yaml", "a: evil\n")
    world.commit(message(*lines), None)


def old_policy_with_its_old_approvals(world: World) -> None:
    """A policy that root people once approved, put back with their approvals (gittuf CVE-2026-44544)."""
    old = (world.remote.path / POLICY_PATH).read_text()
    world.remote.write(POLICY_PATH, old.replace("[ci]", "[alice]"))
    first = message(approves(world, "bob"))
    world.commit(first, "alice")
    world.remote.write(POLICY_PATH, old)
    lines = [approves(world, who) for who in ("alice", "bob")]
    world.commit(message(*lines), None)
    world.remote.write(POLICY_PATH, old.replace("[ci]", "[bob]"))
    world.commit(message(approves(world, "bob")), "alice")
    assert world.follow().oid == world.remote.head
    world.remote.write(POLICY_PATH, old)
    world.commit(message(*lines), "ci")


def approver_only_in_the_new_policy(world: World) -> None:
    old = (world.remote.path / POLICY_PATH).read_text()
    world.remote.write(POLICY_PATH, old.replace(world.keys["bob"].public, world.keys["mallory"].public))
    world.commit(message(approves(world, "mallory")), "alice")


ATTACKS: dict[Callable[[World], None], tuple[Reason, str]] = {
    threshold_by_two_keys: (Reason.THRESHOLD_NOT_MET, "counts as one person"),
    replayed_on_another_parent: (Reason.THRESHOLD_NOT_MET, "bob approved another version of this change: the same"),
    replayed_on_another_tree: (Reason.THRESHOLD_NOT_MET, "bob approved another version of this change: other files"),
    moved_between_fleets: (Reason.THRESHOLD_NOT_MET, "made for another fleet"),
    approval_in_the_middle: (Reason.THRESHOLD_NOT_MET, "missing: bob"),
    strangers_approval: (Reason.THRESHOLD_NOT_MET, "belongs to nobody in the policy of its parent"),
    forge_merges_alone: (Reason.THRESHOLD_NOT_MET, "signed in a way that is not supported and approved by bob"),
    unsigned_with_stale_approvals: (Reason.UNSIGNED_COMMIT, "nobody whom the policy of its parent knows approved it"),
    old_policy_with_its_old_approvals: (Reason.NOT_ALLOWED, "approved another version"),
    approver_only_in_the_new_policy: (Reason.THRESHOLD_NOT_MET, "a key that only the new policy lists"),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attack(team: World, attack: Callable[[World], None]) -> None:
    attack(team)
    with pytest.raises(Untrusted) as caught:
        team.follow()
    reason, words = ATTACKS[attack]
    assert caught.value.reason == reason, caught.value.message
    assert words in caught.value.message
    assert caught.value.subject == team.remote.head


# What people may do.


def test_real_approvals_count(team: World) -> None:
    change(team)
    team.commit(message(approves(team, "bob")), "alice")
    commit = team.follow().commit
    assert (commit.signer, commit.approvers) == ("alice", {"bob"})


def test_a_forges_merge_with_every_approval(team: World) -> None:
    """A squash or merge commit that nobody signed, of files that two people approved on top of this very parent."""
    start = team.remote.head
    team.remote.git("checkout", "-q", "-b", "side")
    change(team)
    lines = [approves(team, who) for who in ("alice", "bob")]
    team.commit("work", None)
    team.remote.git("checkout", "-q", "main")
    assert team.remote.head == start
    team.remote.merge(message(*lines), None, "side")
    commit = team.follow().commit
    assert (commit.signer, commit.approvers, commit.verified) == (None, {"alice", "bob"}, 1)


def test_a_local_merge_carries_the_approval_of_the_other(team: World) -> None:
    team.remote.git("checkout", "-q", "-b", "side")
    change(team)
    line = approves(team, "bob", parent=team.anchor)
    team.commit("work", None)
    team.remote.git("checkout", "-q", "main")
    team.remote.merge(message(line), team.keys["alice"], "side")
    assert team.follow().commit.signer == "alice"


def test_git_shows_the_approvals_that_count(team: World) -> None:
    change(team)
    line = approves(team, "bob")
    team.commit(message(line, "Signed-off-by: A <a@example.net>"), "alice")
    shown = team.remote.git("log", "-1", f"--format=%(trailers:key={TRAILER})")
    assert shown == line
