"""Stories of an operator who changes a cluster: `kubenode apply` at its boundary, with a real git remote and nodes that
say what a test lets them say.

Issues of other tools that a story comes from are named where it is told.
"""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cliworld import NEW, OLD, Done, World, kubenode
from clusterworld import POOLS, Cluster

from docs.generate.pictures import on_a_terminal, screens
from kubenode.cli import applyfollow, statuslook
from kubenode.model.observed import Slot

Step = Callable[[], object]
EVERY = [node for members in POOLS.values() for node in members]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What happens before each look while a rollout is followed; after the last, looks go on as they are."""
    steps: list[Step] = []
    real = statuslook.live_sight

    def sight(*args: object) -> object:
        if steps:
            steps.pop(0)()
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(statuslook, "live_sight", sight)
    return steps


def apply(cluster: Cluster, *words: str | Path, answer: str = "y\n") -> Done:
    return kubenode("apply", "-C", cluster.world.fleet, *words, stdin=answer.encode())


def arrive(cluster: Cluster) -> None:
    for node in EVERY:
        cluster.tell(node, NEW, slot=Slot.B)


def nothing() -> None:
    pass


def pushed_nothing(cluster: Cluster, before: str) -> bool:
    return cluster.pushed == before != cluster.world.head


def test_the_ordinary_day(cluster: Cluster, script: list[Step]) -> None:
    """A release is promoted, the plan is read, and the command ends when the last node runs it."""
    cluster.promote()
    script += [
        nothing,
        lambda: cluster.tell("cp-1", OLD, "Draining", "cp-1 is emptied before it restarts.", staged=NEW),
        lambda: cluster.tell("cp-1", NEW, slot=Slot.B),
        lambda: arrive(cluster),
    ]
    done = apply(cluster)
    assert (done.code, cluster.pushed) == (0, cluster.world.head), done.err
    assert done.last == f"Every node is what commit {cluster.pushed[:12]} says."
    assert "2 commits for origin/main, every one authenticated:" in done.err
    assert f"Promote {NEW} to beta (operator)" in done.err
    assert "Nothing can push nodes: each looks by itself every 6m" in done.err
    assert "cp-1: Draining" in done.err
    assert NEW in done.out, "the plan is on stdout"


def test_saying_no_pushes_nothing(cluster: Cluster) -> None:
    before = cluster.pushed
    cluster.promote()
    done = apply(cluster, answer="n\n")
    assert done.code == 130 and done.last.endswith("Nothing was pushed.")
    assert pushed_nothing(cluster, before)


def test_a_script_that_forgot_yes_is_told(cluster: Cluster) -> None:
    before = cluster.pushed
    cluster.promote()
    done = apply(cluster, answer="")
    assert done.code == 64 and "nobody answered, so nothing was pushed" in done.err and "--yes" in done.err
    assert pushed_nothing(cluster, before)


def test_very_many_commits_are_not_a_wall(cluster: Cluster) -> None:
    for number in range(23):
        cluster.world.git("commit", "--quiet", "--allow-empty", "-m", f"Change {number}")
    done = apply(cluster, answer="n\n")
    assert "23 commits for origin/main" in done.err and "... 3 earlier ones: git -C" in done.err
    assert "Change 2 (" not in done.err and "Change 22 (" in done.err


def test_running_it_again_only_follows(cluster: Cluster, script: list[Step]) -> None:
    done = apply(cluster, answer="")
    assert done.code == 0, done.err
    assert f"origin/main has commit {cluster.pushed[:12]} already." in done.err
    assert done.last == f"Every node is what commit {cluster.pushed[:12]} says."


def test_success_is_never_said_before_every_node_is_there(cluster: Cluster, script: list[Step]) -> None:
    """Flux #1760: the revision before was shown as applied, and the command had ended well."""
    cluster.promote()
    stale = dict.fromkeys(EVERY, "Up to date")
    script += [lambda: [cluster.tell(it, OLD, phase) for it, phase in stale.items()], lambda: arrive(cluster)]
    done = apply(cluster, "--yes")
    assert done.code == 0
    said = [line for line in done.err.splitlines() if line[:2].isdigit()]
    assert any("4 waiting" in line for line in said), done.err


def test_a_node_that_is_stuck_ends_it_with_a_code_of_its_own(cluster: Cluster, script: list[Step]) -> None:
    """Flux #2365, #3425: failing, differing and succeeding were told apart by nobody."""
    cluster.promote()
    message = f"Release {NEW} failed its trial on this node, so it is not tried again; release {OLD} keeps running."
    script += [
        lambda: arrive(cluster),
        lambda: cluster.tell("worker-2", OLD, "Stuck", message, poisoned=(NEW,)),
    ]
    cluster.ready("worker-3", False)
    done = apply(cluster, "--yes")
    assert done.code == 4, done.err
    assert f"worker-2 is stuck: {message}" in " ".join(done.err.split())
    assert "Next: Look for the failed boots" in done.err
    assert "A person is needed for worker-2" in done.last and "kubenode halt" in done.last


def test_others_at_work_are_waited_for_although_one_is_stuck(cluster: Cluster, script: list[Step]) -> None:
    cluster.promote()

    def first() -> None:
        arrive(cluster)
        cluster.tell("worker-2", OLD, "Stuck", "It failed.", poisoned=(NEW,))
        cluster.tell("worker-3", OLD, "Restarting", "The machine restarts.")

    script += [first, nothing, lambda: cluster.tell("worker-3", NEW)]
    done = apply(cluster, "--yes")
    assert done.code == 4
    assert f"worker-3: Up to date, release {NEW}" in done.err


def test_a_limit_of_time_is_no_success(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flux #1163: a command that ran out of time ended with 0."""
    cluster.promote()
    done = apply(cluster, "--yes", "--timeout", "0s")
    assert (done.code, cluster.pushed) == (75, cluster.world.head)
    assert "0s are over, and it is not done: cp-1, worker-1, worker-2, worker-3." in done.last
    assert "Look again: kubenode status --watch" in done.last


def test_a_limit_of_time_also_ends_it_when_the_cluster_is_gone(
    cluster: Cluster, script: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that never comes back must not keep a script for ever."""
    from types import SimpleNamespace

    from kubenode.errors import TryLater

    hours: list[int] = []

    def away() -> None:
        hours.append(1)
        assert len(hours) < 9, "nothing ends it"
        raise TryLater("https://k8s.example.net:6443 cannot be reached")

    monkeypatch.setattr(applyfollow, "time", SimpleNamespace(monotonic=lambda: 3600.0 * len(hours)))
    cluster.promote()
    script += [nothing, *[away] * 9]
    done = apply(cluster, "--yes", "--timeout", "2h")
    assert (done.code, len(hours)) == (75, 3)
    assert "2h are over" in done.last and "cannot be seen now" in done.last


def test_who_left_git_is_waited_for_until_it_has_left_the_cluster(cluster: Cluster, script: list[Step]) -> None:
    """`every node is what the commit says` is not true while a node is there that the commit took out."""
    (cluster.world.fleet / "nodes/worker-3.yaml").unlink()
    cluster.world.git("commit", "--quiet", "--all", "--message", "worker-3 goes")
    others = [it for it in EVERY if it != "worker-3"]
    seen: list[str] = []

    def arrived() -> None:
        seen.append("arrived")
        for node in others:
            cluster.tell(node, OLD)

    def gone() -> None:
        seen.append("gone")
        cluster.kube.admin.delete("/api/v1/nodes/worker-3")

    script += [arrived, nothing, gone]
    done = apply(cluster, "--yes")
    assert (done.code, seen) == (0, ["arrived", "gone"]), done.err
    assert "worker-3 is not in git any more, and still in the cluster" in done.err


def test_who_does_not_leave_is_named_when_time_is_over(cluster: Cluster, script: list[Step]) -> None:
    (cluster.world.fleet / "nodes/worker-3.yaml").unlink()
    cluster.world.git("commit", "--quiet", "--all", "--message", "worker-3 goes")
    for node in EVERY:
        cluster.tell(node, OLD, commit=cluster.world.head)
    done = apply(cluster, "--yes", "--timeout", "0s")
    assert done.code == 75 and "it is not done: worker-3 (to leave the cluster)." in done.last


def test_a_node_of_somebody_else_keeps_nobody_waiting(cluster: Cluster) -> None:
    cluster.join("stranger")
    assert apply(cluster, answer="").code == 0


def test_ctrl_c_detaches_and_the_rollout_goes_on(cluster: Cluster, script: list[Step]) -> None:
    cluster.promote()

    def interrupt() -> None:
        raise KeyboardInterrupt

    script += [nothing, interrupt]
    done = apply(cluster, "--yes")
    assert (done.code, cluster.pushed) == (75, cluster.world.head)
    assert done.last.startswith("Stopped looking (4 waiting). The rollout goes on: nodes follow git, not this command.")
    assert f"kubenode status --watch -C '{cluster.world.fleet}'" in done.last


def test_an_api_that_restarts_in_between_does_not_end_it(cluster: Cluster, script: list[Step]) -> None:
    """A control plane that restarts takes its API server with it: that is the rollout, not its end."""
    from kubenode.errors import TryLater

    def away() -> None:
        raise TryLater("https://k8s.example.net:6443 cannot be reached")

    cluster.promote()
    script += [nothing, away, away, lambda: arrive(cluster)]
    done = apply(cluster, "--yes")
    assert done.code == 0, done.err
    assert done.err.count("The cluster cannot be seen now") == 1


def test_a_silent_node_is_waited_for_and_then_named(
    cluster: Cluster, script: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    monkeypatch.setattr(applyfollow, "PATIENCE", timedelta(milliseconds=50))
    cluster.ready("worker-3", False)
    script += [lambda: arrive(cluster)]
    cluster.promote()
    done = apply(cluster, "--yes")
    assert done.code == 75
    assert "nothing is heard of worker-3" in done.last


# What it refuses.


def test_uncommitted_files_are_named(cluster: Cluster) -> None:
    (cluster.world.fleet / "nodes" / "worker-9.yaml").write_text("x")
    (cluster.world.fleet / "fleet.yaml").write_text("y")
    done = apply(cluster)
    assert done.code == 64 and "fleet.yaml\n" in done.err and "  nodes/worker-9.yaml" in done.err
    assert "--commit MESSAGE" in done.err


def test_commit_takes_them_along_signed(cluster: Cluster, script: list[Step]) -> None:
    node = "apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: worker-9}\nspec: {pool: workers}\n"
    (cluster.world.fleet / "nodes" / "worker-9.yaml").write_text(node)
    done = apply(cluster, "--commit", "A new worker", "--yes", "--no-follow")
    assert (done.code, cluster.world.dirty, cluster.pushed) == (0, "", cluster.world.head), done.err
    assert "Committed 1 file as" in done.err and "nodes/worker-9.yaml" in done.err
    assert cluster.run("trust", "verify", "--anchor", cluster.world.anchor).code == 0


def test_a_commit_that_nodes_would_refuse_is_taken_back_with_the_index(cluster: Cluster) -> None:
    world = cluster.world
    key = world.top / "stranger"
    kubenode("new", world.top / "other", "--store", "https://x.example.net", "--signing-key", key)
    world.git("config", "user.signingKey", key)
    (world.fleet / "README.md").write_text("staged")
    world.git("add", "README.md")
    (world.fleet / "files" / "motd").write_text("not staged")
    before, head, index = world.dirty, world.head, world.git("diff", "--cached", "--name-only")
    done = apply(cluster, "--commit", "x", "--yes")
    assert done.code == 3 and "nodes would refuse this commit, so it was taken back" in done.err
    assert (world.dirty, world.head, world.git("diff", "--cached", "--name-only")) == (before, head, index)


def test_an_unsigned_head_is_refused_before_anything_is_pushed(cluster: Cluster) -> None:
    before = cluster.pushed
    cluster.world.git("-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "-m", "quick fix")
    done = apply(cluster, "--yes")
    assert done.code == 3 and "nodes would refuse commit" in done.err
    assert pushed_nothing(cluster, before)


def test_documents_with_mistakes_are_refused(cluster: Cluster) -> None:
    before = cluster.pushed
    path = cluster.world.fleet / "nodes" / "worker-1.yaml"
    path.write_text(path.read_text().replace("pool: workers", "pool: worker"))
    cluster.world.git("commit", "--quiet", "--all", "-m", "typo")
    done = apply(cluster, "--yes")
    assert done.code == 1 and "nodes/worker-1.yaml:4:" in done.err and "Did you mean 'workers'?" in done.err
    assert pushed_nothing(cluster, before)


def colleague(cluster: Cluster) -> World:
    """Return another operator's clone of the same fleet."""
    other = World(cluster.world.top / "colleague")
    other.top.mkdir()
    cluster.world.git("clone", "--quiet", f"file://{cluster.origin}", other.fleet)
    for name in ("user.name", "user.email", "gpg.format", "user.signingKey", "commit.gpgSign"):
        other.git("config", name, cluster.world.git("config", name))
    return other


def commit_something(world: World, text: str) -> str:
    (world.fleet / "files" / "motd").write_text(text)
    world.git("commit", "--quiet", "--all", "-m", text)
    return world.head


def test_a_branch_that_is_behind_names_what_it_lacks(cluster: Cluster) -> None:
    other = colleague(cluster)
    commit_something(other, "From a colleague")
    other.git("push", "--quiet", "origin", "main")
    done = apply(cluster, "--yes")
    assert done.code == 64 and "From a colleague (operator)" in done.err and "pull --ff-only" in done.err
    cluster.promote()
    done = apply(cluster, "--yes")
    assert done.code == 64 and "pull --rebase" in done.err
    assert cluster.pushed == other.head


def test_two_operators_at_once_and_one_of_them_wins(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other pushes between the plan and the answer."""
    from kubenode.cli import apply as module

    other = colleague(cluster)
    theirs = commit_something(other, "From a colleague")
    monkeypatch.setattr(module, "_confirm", lambda _: other.git("push", "--quiet", "origin", "main"))
    cluster.promote()
    done = apply(cluster)
    assert (done.code, cluster.pushed) == (75, theirs)
    assert "somebody else pushed to origin/main meanwhile" in done.err and "nothing was pushed" in done.err


def test_a_colleague_who_pushes_while_it_is_followed_is_named(cluster: Cluster, script: list[Step]) -> None:
    other = colleague(cluster)

    def supersede() -> None:
        other.git("pull", "--quiet", "--rebase", "origin", "main")
        theirs = commit_something(other, "From a colleague")
        other.git("push", "--quiet", "origin", "main")
        cluster.tell("cp-1", OLD, commit=theirs)

    script += [nothing, supersede]
    cluster.promote()
    done = apply(cluster, "--yes")
    assert done.code == 75
    assert "origin/main has moved on, and nodes follow its newest commit now" in done.last
    assert "From a colleague" in done.last


def test_a_merge_that_nodes_take_for_a_fork_is_refused(cluster: Cluster) -> None:
    """git calls it a fast-forward; nodes follow first parents, and the remote's head is the second."""
    other = colleague(cluster)
    theirs = commit_something(other, "From a colleague")
    other.git("push", "--quiet", "origin", "main")
    cluster.promote()
    cluster.world.git("pull", "--quiet", "--no-rebase", "--no-edit", "origin", "main")
    done = apply(cluster, "--yes")
    assert (done.code, cluster.pushed) == (3, theirs), done.err


def test_a_remote_that_refuses_is_quoted(cluster: Cluster) -> None:
    hook = cluster.origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'main is protected: open a merge request' >&2\nexit 1\n")
    hook.chmod(0o755)
    before = cluster.pushed
    cluster.promote()
    done = apply(cluster, "--yes")
    assert done.code == 1 and "main is protected: open a merge request" in done.err
    assert pushed_nothing(cluster, before)


def test_a_remote_that_is_away_is_worth_another_try(cluster: Cluster) -> None:
    cluster.promote()
    cluster.origin.rename(cluster.origin.with_name("away"))
    assert apply(cluster, "--yes").code == 75


def test_without_sight_of_the_cluster_nothing_is_pushed_unless_asked(cluster: Cluster) -> None:
    before = cluster.pushed
    cluster.promote()
    with cluster.silent():
        done = apply(cluster, "--yes")
        assert done.code == 75 and "nothing was pushed" in done.err and "--no-follow" in done.err
        assert pushed_nothing(cluster, before)
        # The cure of an API that is down may be in git.
        done = apply(cluster, "--yes", "--no-follow")
    assert (done.code, cluster.pushed) == (0, cluster.world.head), done.err
    assert NEW in done.out


def test_nothing_is_pushed_from_another_branch(cluster: Cluster) -> None:
    cluster.world.git("switch", "--quiet", "--create", "try")
    done = apply(cluster, "--yes")
    assert done.code == 64 and "is on branch try, and nodes follow main" in done.err


# Saved plans.


def test_a_saved_plan_that_still_holds_is_applied(cluster: Cluster, tmp_path: Path) -> None:
    cluster.promote()
    saved = tmp_path / "plan.json"
    assert cluster.run("plan", "--save", saved).code == 0
    done = apply(cluster, saved, "--yes", "--no-follow")
    assert (done.code, cluster.pushed) == (0, cluster.world.head), done.err


def test_a_saved_plan_for_another_commit_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """Talos #8885: what was applied was not what had been shown."""
    before = cluster.pushed
    saved = tmp_path / "plan.json"
    assert cluster.run("plan", "--save", saved).code == 0
    cluster.promote()
    done = apply(cluster, saved, "--yes")
    assert done.code == 1 and "is stale, so nothing was pushed: It was made for commit" in done.err
    assert pushed_nothing(cluster, before)


def test_a_saved_plan_of_nodes_that_moved_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.promote()
    saved = tmp_path / "plan.json"
    assert cluster.run("plan", "--save", saved).code == 0
    cluster.tell("worker-1", OLD, staged=NEW)
    done = apply(cluster, saved, "--yes")
    assert done.code == 1 and "worker-1" in done.err and "kubenode plan --save FILE" in done.err


def test_a_file_that_is_no_plan_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"kind": "Plan"}))
    assert apply(cluster, tmp_path / "plan.json", "--yes").code == 64
    assert apply(cluster, tmp_path / "nosuch", "--yes").code == 64
    assert apply(cluster, tmp_path / "plan.json", "--commit", "x").code == 64


# Halted fleets, machines outside the cluster.


def test_a_halted_fleet_is_not_waited_for(cluster: Cluster, script: list[Step]) -> None:
    assert cluster.run("halt", "--reason", "test").code == 0
    cluster.promote()
    script += [lambda: [cluster.tell(it, OLD, "Staged", "The fleet is halted.", staged=NEW) for it in EVERY]]
    done = apply(cluster, "--yes")
    assert done.code == 75
    assert "nothing restarts until `kubenode resume`" in done.err
    assert "Every node knows the commit, and the fleet is halted" in done.last


def test_a_machine_outside_the_cluster_is_not_called_done(cluster: Cluster, script: list[Step]) -> None:
    node = "apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: edge-1}\nspec: {pool: standalone}\n"
    (cluster.world.fleet / "nodes" / "edge-1.yaml").write_text(node)
    cluster.promote()
    script += [lambda: arrive(cluster)]
    done = apply(cluster, "--commit", "An edge machine", "--yes")
    assert done.code == 75
    assert "Every node that can be seen from here is there; not seen: edge-1." in done.last


def test_a_fleet_of_machines_without_a_cluster_is_pushed_and_not_followed(world: World) -> None:
    origin = world.top / "origin.git"
    world.git("clone", "--quiet", "--bare", ".", origin)
    world.git("remote", "add", "origin", f"file://{origin}")
    for channel in ("nightly", "beta"):
        world.run("promote", NEW, channel)
    done = world.run("apply", "--yes")
    assert (done.code, world.git("rev-parse", "main", cwd=origin)) == (75, world.head)
    assert NEW in done.out
    assert "nobody can see from here" in done.last
    assert world.run("apply", "--yes", "--no-follow").code == 0


@pytest.mark.parametrize("words", [("--timeout", "soon"), ("--anchor", "main")])
def test_options_that_cannot_be_meant(cluster: Cluster, words: tuple[str, str]) -> None:
    assert apply(cluster, "--yes", *words).code == 64


def test_on_a_terminal_the_rollout_is_one_screen_that_changes(cluster: Cluster) -> None:
    """And Ctrl-C leaves it: the commit is pushed, and the way to look again is the last that is said."""
    cluster.promote()
    parent, child = pty.openpty()
    argv = [sys.executable, "-m", "kubenode", "apply", "--yes", "-C", str(cluster.world.fleet)]
    environment = os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    run = subprocess.Popen(argv, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True)
    os.close(child)
    seen: list[bytes] = []

    def read() -> None:
        with suppress(OSError):
            while data := os.read(parent, 65536):
                seen.append(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deadline = time.monotonic() + 60
    while b"Ctrl-C stops looking" not in b"".join(seen) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    code = run.wait(timeout=30)
    reader.join(5)
    text = b"".join(seen).decode(errors="replace")
    assert (code, cluster.pushed) == (75, cluster.world.head), text
    assert "Following commit" in text and "The rollout goes on" in text
    assert "Traceback" not in text


def test_on_a_terminal_the_last_look_stays_when_the_screen_is_put_away(cluster: Cluster) -> None:
    argv = ["kubenode", "apply", "--yes", "-C", str(cluster.world.fleet), "--kubeconfig", os.environ["KUBECONFIG"]]
    code, printed = on_a_terminal(argv, cluster.world.top)
    assert code == 0, printed
    table = screens(printed)[-1]
    assert table[-1] == f"Every node is what commit {cluster.pushed[:12]} says."
    assert [plain_text(line).split()[0] for line in table[-6:-1]] == ["NODE", *EVERY]
    assert "Following commit" in printed and not any("Following commit" in line for line in table)


def plain_text(line: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", line)
