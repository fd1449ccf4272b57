"""`kubenode halt`, `resume` and `rollback`: the edit, the signed commit, the push, and what is said about limits."""

from pathlib import Path

import pytest
from cliworld import NEW, OLD, Done, World, kubenode

from kubenode.errors import FleetInvalid, UsageError
from kubenode.fleet.halt import set_halted
from kubenode.fleet.rollback import roll_back
from kubenode.model.version import Version

FLEET = "apiVersion: kubenode.dev/v1alpha1\nkind: Fleet\nmetadata: {name: x}\n"
CHANNEL = "apiVersion: kubenode.dev/v1alpha1\nkind: Channel\nmetadata: {name: x}\n"


@pytest.fixture
def origin(world: World) -> Path:
    """A bare repository that the fleet's clone calls origin and has pushed to."""
    bare = world.top / "origin.git"
    world.git("clone", "--quiet", "--bare", ".", bare)
    world.git("remote", "add", "origin", f"file://{bare}")
    return bare


def halted(world: World) -> str:
    return next(line for line in world.git("show", "HEAD:fleet.yaml").splitlines() if "halted:" in line).strip()


def halt(world: World, *words: str) -> Done:
    return world.run("halt", "--reason", "disks are full", *words)


def test_a_halt_is_one_signed_commit_with_its_reason(world: World) -> None:
    before = world.git("show", "HEAD:fleet.yaml")
    done = halt(world)
    assert (done.code, done.out) == (0, ""), done.err
    assert halted(world) == "halted: true"
    assert world.git("show", "HEAD:fleet.yaml") == before.replace("halted: false", "halted: true")
    assert world.git("log", "-1", "--format=%s|%b") == "Halt the fleet|disks are full"
    assert world.run("trust", "verify", "--anchor", world.anchor).code == 0
    assert "control planes between two Kubernetes versions finish" in done.err
    # Nobody may go to bed over a halt that no node knows of.
    assert done.last == (
        f"In this clone the fleet is halted (commit {world.head[:12]}; nodes know it once it is pushed: "
        f"git -C '{world.fleet}' push)."
    )


def test_resume_takes_a_halt_back_to_the_letter(world: World) -> None:
    before = world.git("show", "HEAD:fleet.yaml")
    halt(world)
    done = world.run("resume")
    assert (done.code, world.git("show", "HEAD:fleet.yaml")) == (0, before)
    assert done.last.startswith("In this clone the fleet is not halted any more (commit ")


def test_halting_twice_commits_once(world: World) -> None:
    halt(world)
    head = world.head
    done = halt(world)
    assert (done.code, world.head) == (0, head)
    assert "it was so already" in done.last
    assert world.run("resume").code == world.run("resume").code == 0
    assert world.git("rev-list", "--count", f"{head}..HEAD") == "1"


def test_a_halt_is_pushed(world: World, origin: Path) -> None:
    done = halt(world, "--push")
    assert (done.code, world.git("rev-parse", "main", cwd=origin)) == (0, world.head), done.err
    assert done.last == f"The fleet is halted (commit {world.head[:12]}; pushed to origin/main)."
    assert halt(world, "--push").last.endswith("nothing is committed; origin/main has it already).")


def test_what_a_push_takes_along_is_named(world: World, origin: Path) -> None:
    assert world.run("promote", NEW, "nightly").code == 0
    done = halt(world, "--push")
    assert done.code == 0
    assert "This also pushes 1 commit:" in done.err and f"Promote {NEW} to nightly (operator)" in done.err
    assert done.err.count("Halt the fleet (") == 0


@pytest.mark.parametrize("odd", ["\u2028", "\x0c", "\x85", "\x1b[2J"])
def test_an_odd_subject_keeps_no_halt_from_being_pushed(world: World, origin: Path, odd: str) -> None:
    """Python breaks lines where git does not; what others write in a subject must not end an emergency."""
    world.git("commit", "--quiet", "--allow-empty", "--message", f"One{odd}two")
    done = halt(world, "--push")
    assert done.code == 0, done.err
    assert "This also pushes 1 commit:" in done.err and odd not in done.err


def test_an_operator_who_wants_to_see_signatures_in_the_log_can_push(world: World, origin: Path) -> None:
    world.git("config", "log.showSignature", "true")
    assert world.run("promote", NEW, "nightly").code == 0
    done = halt(world, "--push")
    assert done.code == 0 and f"Promote {NEW} to nightly (operator)" in done.err, done.err


def test_a_halt_needs_a_reason(world: World) -> None:
    assert world.run("halt").code == 64
    done = world.run("halt", "--reason", " ")
    assert (done.code, "the reason is empty" in done.err) == (64, True)


def test_a_halt_that_nodes_would_refuse_is_taken_back(world: World) -> None:
    """The clone signs with a key that the policy does not list."""
    key = world.top / "stranger"
    world.git("config", "user.signingKey", key)
    kubenode("new", world.top / "other", "--store", "https://x.example.net", "--signing-key", key)
    head = world.head
    done = halt(world, "--push")
    assert (done.code, world.head, world.dirty) == (3, head, ""), done.err


def test_a_halt_leaves_changes_of_others_alone(world: World) -> None:
    (world.fleet / "nodes" / "edge-1.yaml").write_text("half done")
    assert halt(world).code == 0
    assert world.dirty == "M nodes/edge-1.yaml"
    (world.fleet / "fleet.yaml").write_text("half done")
    done = world.run("resume")
    assert (done.code, "fleet.yaml has changes that are not committed" in done.err) == (64, True)


def test_another_branch_is_not_pushed(world: World, origin: Path) -> None:
    world.git("switch", "--quiet", "--create", "try")
    done = halt(world, "--push")
    assert done.code == 64 and "is on branch try, and nodes follow main" in done.err
    assert halted(world) == "halted: true"


def test_a_fleet_without_a_remote_says_how_to_add_one(world: World) -> None:
    done = halt(world, "--push")
    assert done.code == 64 and "remote add origin URL" in done.err


def test_a_remote_that_is_gone_is_worth_another_try(world: World, origin: Path) -> None:
    origin.rename(origin.with_name("away"))
    done = halt(world, "--push")
    assert done.code == 75 and "the remote origin does not answer" in done.err
    origin.with_name("away").rename(origin)
    assert halt(world, "--push").code == 0
    assert world.git("rev-parse", "main", cwd=origin) == world.head


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("spec:\n  id: a  # c\n  stores: [x]\n", "spec:\n  id: a  # c\n  stores: [x]\n  rollout: {halted: true}\n"),
        ("spec: {id: a, stores: [x], rollout: {}}\n", "spec: {id: a, stores: [x], rollout: {halted: true}}\n"),
        (
            "spec:\n  id: a\n  stores: [x]\n  rollout:\n    order: [b]  # c\n",
            "spec:\n  id: a\n  stores: [x]\n  rollout:\n    order: [b]  # c\n    halted: true\n",
        ),
        (
            "spec: {id: a, stores: [x]}\nrollout: {halted: false}\n",
            "spec: {id: a, stores: [x], rollout: {halted: true}}\nrollout: {halted: false}\n",
        ),
    ],
)
def test_the_switch_is_put_in_and_nothing_else_changes(before: str, after: str) -> None:
    assert set_halted((FLEET + before).encode(), True).decode() == FLEET + after
    assert set_halted((FLEET + before).encode(), False).decode() == FLEET + before


def test_what_cannot_be_changed_safely_is_left_to_an_editor() -> None:
    with pytest.raises(FleetInvalid):
        set_halted(b"spec: 7\n", True)
    with pytest.raises(FleetInvalid) as refused:
        set_halted((FLEET + "spec:\n  id: a\n  rollout:\n  stores: [x]\n").encode(), True)
    assert refused.value.hint.startswith("Set spec.rollout.halted to true with an editor")


# Rollback.


@pytest.mark.parametrize(
    ("before", "to", "after"),
    [
        ("spec:\n  releases: [3.0.0, 2.0.0, 1.0.0]  # c\n", None, "spec:\n  releases: [2.0.0, 1.0.0]  # c\n"),
        ("spec:\n  releases: ['3.0.0', '2.0.0', 1.0.0]\n", "1.0.0", "spec:\n  releases: [1.0.0]\n"),
        (
            "spec:\n  releases:\n    # newest first\n    - 3.0.0  # bad\n    - 2.0.0  # good\n",
            None,
            "spec:\n  releases:\n    # newest first\n    - 2.0.0  # good\n",
        ),
        ("spec:\r\n  releases:\r\n  - 3.0.0\r\n  - 2.0.0\r\n", None, "spec:\r\n  releases:\r\n  - 2.0.0\r\n"),
        ("spec: {releases: [3.0.0, 2.0.0]}\n", "3.0.0", "spec: {releases: [3.0.0, 2.0.0]}\n"),
    ],
)
def test_going_back_changes_nothing_else(before: str, to: str | None, after: str) -> None:
    done = roll_back((CHANNEL + before).encode(), Version(to) if to else None)
    assert done.decode() == CHANNEL + after


@pytest.mark.parametrize("releases", ["[]", "[1.0.0]"])
def test_there_must_be_something_to_go_back_to(releases: str) -> None:
    with pytest.raises(UsageError, match="nothing to go back to"):
        roll_back((CHANNEL + f"spec: {{releases: {releases}}}\n").encode())


def kubernetes(world: World, **versions: str) -> None:
    """Give the releases a Kubernetes, and put a worker into the channel beta."""
    for release, version in ((OLD, versions["old"]), (NEW, versions["new"])):
        path = world.fleet / "releases" / f"{release}.yaml"
        path.write_text(path.read_text().rstrip("\n") + f"\n  kubernetes: {version}\n")
    for pool in ("workers", "control-plane"):
        path = world.fleet / "pools" / f"{pool}.yaml"
        path.write_text(path.read_text().replace("channel: stable", "channel: beta"))
    world.git("commit", "--quiet", "--all", "--message", "Kubernetes")


def promoted(world: World) -> None:
    for channel in ("nightly", "beta"):
        assert world.run("promote", NEW, channel).code == 0


def test_a_channel_goes_back_in_one_commit(world: World, origin: Path) -> None:
    promoted(world)
    done = world.run("rollback", "beta", "--reason", "time drifts", "--push")
    assert done.code == 0, done.err
    assert f"beta: {NEW} back to {OLD}, for 1 node of " in done.err
    assert world.git("log", "-1", "--format=%s|%b") == f"Roll beta back from {NEW} to {OLD}|time drifts"
    assert world.git("rev-parse", "main", cwd=origin) == world.head
    assert world.git("diff", "--stat", "HEAD~2", "HEAD~1", "--", "channels/beta.yaml") != ""
    assert world.git("diff", "HEAD~2", "HEAD", "--", "channels/beta.yaml") == ""


def test_going_back_to_a_named_release_twice_commits_once(world: World) -> None:
    promoted(world)
    assert world.run("rollback", "beta", "--to", OLD).code == 0
    head = world.head
    done = world.run("rollback", "beta", "--to", OLD)
    assert (done.code, world.head, done.last) == (0, head, f"beta is at {OLD} already; nothing is committed.")


def test_the_same_minor_says_that_static_pods_stay(world: World) -> None:
    kubernetes(world, old="v1.34.2", new="v1.34.3")
    promoted(world)
    done = world.run("rollback", "beta")
    assert done.code == 0, done.err
    assert "Control planes are never rolled back" in done.err and "v1.34.3 already, they stay there" in done.err


def test_a_minor_back_asks_first(world: World) -> None:
    kubernetes(world, old="v1.33.9", new="v1.34.3")
    promoted(world)
    head = world.head
    done = kubenode("rollback", "beta", "-C", world.fleet, stdin=b"n\n")
    assert (done.code, world.head) == (130, head)
    assert "Kubernetes never goes back by a minor (v1.34.3 to v1.33.9)" in done.err and "kubenode halt" in done.err
    assert world.run("rollback", "beta", "--yes").code == 0
    assert world.head != head


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "Known channels: beta, nightly, stable."),
        (("beta",), f"lists only {OLD}, so there is nothing to go back to"),
        (("beta", "--to", "2020.1.1"), "2020.1.1 is not in channel 'beta'"),
        (("beta", "--to", "x"), "two to four dotted numbers"),
    ],
)
def test_mistakes_are_told(world: World, words: tuple[str, ...], said: str) -> None:
    head = world.head
    done = world.run("rollback", *words)
    assert (done.code, world.head) == (64, head)
    assert said in done.err


def test_a_release_that_another_channel_got_from_here_stays(world: World) -> None:
    """stable takes only what is in beta: beta cannot go back below what stable offers."""
    promoted(world)
    assert world.run("promote", NEW, "stable").code == 0
    done = world.run("rollback", "beta")
    assert done.code == 1 and "stable" in done.err and world.dirty == ""
