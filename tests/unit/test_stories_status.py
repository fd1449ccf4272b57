"""Stories of an operator who looks at a cluster: each is something that went wrong for somebody, here or elsewhere.

Issues of other tools that a story comes from are named where it is told.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cliworld import NEW, OLD, Done, World, kubenode
from clusterworld import KUBERNETES, Cluster

from kubenode.errors import TryLater
from kubenode.host.kube.names import LEASES, NODES
from kubenode.model.observed import Slot

STUCK = f"Release {NEW} failed its trial on this node, so it is not tried again; release {OLD} keeps running."


def lines(done: Done) -> dict[str, list[str]]:
    """Return the table's lines by their first word."""
    return {line.split()[0]: line.split() for line in done.out.splitlines() if line and not line.startswith(" ")}


def standing(done: Done, node: str) -> str:
    return str(next(it["standing"] for it in done.json["nodes"] if it["node"] == node))


def rolled_out(cluster: Cluster) -> None:
    cluster.promote()
    cluster.push()


def test_a_fleet_that_is_done_says_so_in_one_screen(cluster: Cluster) -> None:
    done = cluster.run("status")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split() == [
        "NODE",
        "POOL",
        "SLOT",
        "RELEASE",
        "KUBERNETES",
        "STATE",
        "WAVE",
        "SEEN",
    ]
    assert lines(done)["worker-1"][:8] == ["worker-1", "workers", "a", OLD, KUBERNETES, "Up", "to", "date"]
    assert done.last == f"At commit {cluster.pushed[:12]}, of 4 nodes 4 done."
    assert max(map(len, done.out.splitlines())) <= 100


def test_a_stuck_node_comes_first_with_its_reason_and_what_to_do(cluster: Cluster) -> None:
    """Flux #1760, #3630: the tool knew that it failed, and nobody was told why."""
    rolled_out(cluster)
    cluster.tell_all(NEW)
    cluster.tell("worker-2", OLD, "Stuck", STUCK, poisoned=(NEW,))
    done = cluster.run("status")
    assert done.code == 4
    text = " ".join(done.out.split())
    assert text.startswith(f"worker-2 is stuck: {STUCK} Next: Look for the failed boots in the journal")
    table = done.out[done.out.index("NODE") :].splitlines()
    assert table[1].split()[:6] == ["worker-2", "workers", "a", OLD, "->", NEW]
    assert done.last.endswith("of 4 nodes 3 done, 1 stuck.")


def test_an_api_that_does_not_answer_is_not_a_fleet_that_is_fine(cluster: Cluster) -> None:
    """Argo #3588: the same exit code for a difference and for a server that is away."""
    with cluster.silent():
        done = cluster.run("status", "-o", "json")
    assert (done.code, done.out) == (75, "")
    assert cluster.run("status").code == 0


def test_a_kubeconfig_that_is_wrong_fails_and_does_not_guess(cluster: Cluster, tmp_path: Path) -> None:
    """Argo #15164: an error on the way was swallowed, and the rest looked like an answer."""
    done = cluster.run("status", "--kubeconfig", tmp_path / "nosuch")
    assert (done.code, done.out) == (1, "") and "cannot be read" in done.err


def test_a_node_that_is_not_declared_is_an_error(cluster: Cluster) -> None:
    """Flux #5330: `get` of something that does not exist ended with 0."""
    done = cluster.run("status", "worker-9")
    assert (done.code, done.out) == (64, "")
    assert "no node 'worker-9' is declared" in done.err and "Did you mean 'worker-" in done.err
    done = cluster.run("status", "worker-2", "cp-1")
    assert done.code == 0 and set(lines(done)) == {"NODE", "worker-2", "cp-1"}


def test_declared_and_never_joined_is_named(cluster: Cluster) -> None:
    """Flux #4066: what was missing did not count as a difference."""
    cluster.kube.admin.delete(f"{NODES}/worker-3")
    done = cluster.run("status")
    assert done.code == 75
    assert "worker-3 is silent: the cluster has no such Node: it has not joined, or was removed" in done.out
    assert lines(done)["worker-3"][2:5] == ["-", "?", "->"]


def test_a_node_whose_kubelet_is_away_is_silent_unless_it_holds_a_lease(cluster: Cluster) -> None:
    cluster.ready("worker-1", False)
    done = cluster.run("status", "-o", "json")
    assert (done.code, standing(done, "worker-1")) == (75, "silent")
    cluster.hold("worker-1", "slot-pool-workers-0", f"restart into release {NEW}")
    done = cluster.run("status", "-o", "json")
    assert (done.code, standing(done, "worker-1")) == (0, "busy")
    assert "worker-1 is at work (slot-pool-workers-0)" in cluster.run("status").out


def test_a_machine_that_died_with_a_lease_is_not_at_work_for_ever(cluster: Cluster) -> None:
    cluster.ready("worker-1", False)
    cluster.hold("worker-1", "slot-pool-workers-0", f"restart into release {NEW}", ago=timedelta(hours=3))
    done = cluster.run("status")
    assert done.code == 75
    assert "It has held slot-pool-workers-0 for 3h" in " ".join(done.out.split())
    assert "`kubenode lease break` frees it" in " ".join(done.out.split())


def test_an_old_report_is_not_news(cluster: Cluster) -> None:
    """Argo #542: what the last operation had said was shown as the present."""
    cluster.tell("worker-2", ago=timedelta(hours=2))
    done = cluster.run("status")
    assert done.code == 75
    assert "worker-2 is silent: it last told 2h ago (Up to date)." in done.out
    cluster.tell("worker-2", ago=timedelta(hours=7))
    assert "said nothing since" in cluster.run("status").out


def test_stuck_with_an_older_commit_is_not_stuck_with_its_cure(cluster: Cluster) -> None:
    before = cluster.pushed
    rolled_out(cluster)
    cluster.tell_all(NEW)
    cluster.tell("worker-1", OLD, "Stuck", "Something else.", commit=before)
    done = cluster.run("status", "-o", "json")
    assert (done.code, standing(done, "worker-1")) == (0, "waiting")
    assert "worker-1: at commit" in cluster.run("status").out


def test_a_commit_that_this_clone_lacks_is_said_to_be_lacking(cluster: Cluster) -> None:
    cluster.tell("worker-1", commit="ab" * 20)
    done = cluster.run("status")
    assert "which this clone does not have (git fetch)" in done.out
    assert lines(done)["worker-1"][5] == "Behind"


def test_what_is_not_pushed_does_not_count(cluster: Cluster) -> None:
    cluster.promote()
    done = cluster.run("status")
    assert (done.code, f"At commit {cluster.pushed[:12]}, of 4 nodes 4 done." == done.last) == (0, True)
    assert "commits of this clone that are not pushed do not count here" in done.err
    done = cluster.run("status", "--revision", "HEAD", "-o", "json")
    assert {it["target"] for it in done.json["nodes"]} == {NEW} and standing(done, "cp-1") == "waiting"


def test_a_person_s_cordon_is_told_also_of_a_node_that_is_done(cluster: Cluster) -> None:
    cluster.cordon("worker-1")
    done = cluster.run("status")
    assert done.code == 0
    assert "worker-1: cordoned by a person" in done.out


def test_a_halted_fleet_says_that_it_is(cluster: Cluster) -> None:
    assert cluster.run("halt", "--reason", "test", "--push").code == 0
    done = cluster.run("status")
    assert done.out.startswith("The fleet is halted: ")
    assert cluster.run("status", "-o", "json").json["halted"] is True


def test_the_remote_that_apply_pushes_to_is_the_one_that_counts(cluster: Cluster) -> None:
    git = cluster.world.git
    git("remote", "add", "nodes", str(cluster.origin))
    cluster.promote()
    git("push", "--quiet", "--set-upstream", "nodes", "main")
    assert cluster.run("status", "-o", "json").json["commit"] == cluster.world.head == cluster.pushed


def test_nodes_that_git_does_not_know_are_named(cluster: Cluster) -> None:
    cluster.join("stranger")
    done = cluster.run("status")
    assert "Nodes that git does not know: stranger." in done.out
    assert cluster.run("status", "-o", "json").json["strangers"] == ["stranger"]


def test_a_damaged_report_harms_one_line_only(cluster: Cluster) -> None:
    cluster.kube.admin.patch(f"{NODES}/worker-1", {"metadata": {"annotations": {"kubenode.dev/account": "\x1b[2J{"}}})
    cluster.kube.admin.patch(f"{NODES}/worker-2", {"metadata": {"annotations": {"kubenode.dev/status": "[[["}}})
    done = cluster.run("status")
    assert done.code == 75 and done.last.endswith("2 done, 2 silent.")
    assert "\x1b" not in done.out


def test_hostile_words_of_a_node_do_not_reach_the_terminal(cluster: Cluster) -> None:
    cluster.tell("worker-1", OLD, "Stuck", "\x1b]0;owned\x07 \x1b[31mred " + "x" * 5000)
    done = cluster.run("status")
    assert "\x1b" not in done.out and "\x07" not in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_a_thousand_nodes_fold_into_their_pools(cluster: Cluster) -> None:
    """Terraform #21639: a thousand lines of which one mattered."""
    many(cluster.world, 1000)
    done = cluster.run("status")
    assert done.code == 75
    assert len(done.out.splitlines()) < 15, done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert lines(done)["workers"][:4] == ["workers", "1003", "3", "1000"]
    assert "w-0000, w-0001, w-0002, w-0003, w-0004, w-0005 and 994 more are silent:" in " ".join(done.out.split())
    assert len(cluster.run("status", "--all").out.splitlines()) > 1000
    assert len(cluster.run("status", "-o", "json").json["nodes"]) == 1004


def many(world: World, number: int) -> None:
    for it in range(number):
        (world.fleet / "nodes" / f"w-{it:04}.yaml").write_text(
            f"apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {{name: w-{it:04}}}\nspec: {{pool: workers}}\n"
        )
    world.git("add", "--all")
    world.git("commit", "--quiet", "--message", "Many")
    world.git("push", "--quiet", "origin", "main")


# Recorded observations.


def recorded(world: World, *statuses: object, words: tuple[str, ...] = ()) -> Done:
    path = world.top / "status.json"
    path.write_text(json.dumps(list(statuses)))
    return world.run("status", "--observed", path, *words)


def fresh(world: World, version: str, **more: object) -> dict[str, object]:
    from clusterworld import now

    return world.status(version) | {"at": now().isoformat()} | more


def test_machines_without_a_cluster_are_shown_from_what_they_recorded(world: World) -> None:
    done = recorded(world, fresh(world, OLD))
    assert (done.code, done.last) == (0, f"At commit {world.head[:12]}, of 1 node 1 done.")
    assert lines(done)["edge-1"][:4] == ["edge-1", "standalone", "a", OLD]


def test_a_record_of_last_week_is_old(world: World) -> None:
    done = recorded(world, world.status(OLD))
    assert done.code == 75 and "edge-1 is silent: it last told" in done.out


def test_a_machine_that_refuses_a_commit_is_stuck(world: World) -> None:
    condition = {
        "type": "Trusted",
        "status": "False",
        "reason": "UnknownSigner",
        "message": "commit ab is a stranger's",
    }
    done = recorded(world, fresh(world, OLD, conditions=[condition], hint="Look at who signed it."))
    assert done.code == 4
    assert "edge-1 is stuck: commit ab is a stranger's" in done.out and "Next: Look at who signed it." in done.out


def test_hostile_words_of_a_record_do_not_reach_the_terminal(world: World) -> None:
    words = "\x1b]0;owned\x07 \x9b2J \u202e"
    done = recorded(world, fresh(world, OLD, node="edge-1", phase="Stuck", message=words, hint=words))
    assert done.code == 4 and "edge-1 is stuck: " in done.out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.out + done.err)


def test_hostile_phases_and_leases_of_a_node_do_not_reach_the_terminal(cluster: Cluster) -> None:
    cluster.promote()
    cluster.push()
    cluster.tell("worker-1", OLD, "\x1b[2Jowned", staged=NEW)
    cluster.hold("worker-2", "pool-workers-1", "\x1b[2Jowned")
    done = cluster.run("status", "-o", "json")
    assert "owned" in done.out
    for it in (done, cluster.run("status"), cluster.run("plan")):
        assert "\x1b" not in it.out + it.err


def test_a_machine_without_a_record_is_silent(world: World) -> None:
    done = recorded(world, fresh(world, OLD, node="other"))
    assert done.code == 75
    assert "edge-1 is silent: no observation of it was given" in done.out
    assert "Nodes that git does not know: other." in done.out


def test_a_fleet_without_a_cluster_says_what_to_give(world: World) -> None:
    done = world.run("status")
    assert done.code == 64 and "--observed" in done.err


@pytest.mark.parametrize("content", ["", "7", "[]", "[1]", "{}", '{"node": "edge-1"}', "[" * 100_000])
def test_records_that_are_none(world: World, content: str) -> None:
    path = world.top / "status.json"
    path.write_text(content)
    done = world.run("status", "--observed", path)
    assert (done.code, done.out) == (64, "") and "status.json" in done.err


# Watching.


def test_without_a_terminal_watching_prints_changes_only(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Talos #14242: the tool waited for an event that never came, while the node had long been back. This looks."""
    from kubenode.cli import statuslook

    rolled_out(cluster)
    steps = [
        lambda: None,
        lambda: None,
        lambda: cluster.tell("worker-1", OLD, "Restarting", "The machine restarts."),
        lambda: cluster.tell("worker-1", NEW, slot=Slot.B),
    ]
    real = statuslook.live_sight

    def sight(*args: object) -> object:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(statuslook, "live_sight", sight)
    done = cluster.run("status", "--watch")
    told = [line.split(" ", 1)[1] for line in done.err.splitlines() if line[:2].isdigit()]
    assert told[0].startswith(f"cp-1, worker-1, worker-2, worker-3: Behind, release {OLD} -> {NEW}: at commit")
    assert told[1] == "4 waiting"
    assert len(told) == 4, done.err
    assert told[2].startswith("worker-1: Restarting")
    assert (done.code, done.out, done.last.endswith("3 waiting, 1 at work.")) == (0, "", True), done.err


def test_an_api_that_goes_away_while_watching_is_told_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubenode.host.kube import live

    real, looks = live.look, 0

    def look(*args: object) -> object:
        nonlocal looks
        looks += 1
        if looks > 5:
            raise KeyboardInterrupt
        if looks > 1:
            raise TryLater("https://x cannot be reached")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(live, "look", look)
    done = cluster.run("status", "--watch")
    assert done.code == 75
    assert done.err.count("The cluster cannot be seen now") == 1


def test_on_a_terminal_ctrl_c_ends_a_watch_well(cluster: Cluster) -> None:
    code, text = on_terminal([*RUN, "status", "--watch", "-C", str(cluster.world.fleet)], "Ctrl-C stops looking")
    assert code == 0, text
    assert "of 4 nodes 4 done." in text.splitlines()[-1] and "Traceback" not in text


RUN = [sys.executable, "-m", "kubenode"]


def on_terminal(argv: list[str], until: str, *, columns: int = 100) -> tuple[int, str]:
    """Run a command on a terminal, press Ctrl-C when it has shown a text, and return its end and all that it wrote."""
    parent, child = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"}
    run = subprocess.Popen(argv, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True)
    os.close(child)
    seen, deadline, pressed = b"", time.monotonic() + 60, False
    while time.monotonic() < deadline:
        with suppress(OSError):
            data = os.read(parent, 65536)
            seen += data
            if until.encode() in seen and not pressed:
                pressed = True
                run.send_signal(signal.SIGINT)
            if data:
                continue
        break
    code = run.wait(timeout=30)
    os.close(parent)
    return code, seen.decode(errors="replace").replace("\r", "")


def test_no_color_is_honoured(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    code, text = on_terminal([*RUN, "status", "-C", str(cluster.world.fleet)], "nothing")
    assert code == 0 and "worker-1" in text
    assert "\x1b[3" not in text


def test_a_narrow_terminal_leaves_columns_out_and_wraps_no_line(cluster: Cluster) -> None:
    rolled_out(cluster)
    code, text = on_terminal([*RUN, "status", "-C", str(cluster.world.fleet)], "nothing", columns=60)
    assert code == 0
    table = [line for line in text.splitlines() if OLD in line and NEW in line]
    assert len(table) == 4 and all(len(line) < 90 for line in table)


def test_watching_is_not_for_scripts(cluster: Cluster) -> None:
    done = cluster.run("status", "--watch", "-o", "json")
    assert (done.code, done.out) == (64, "")


def test_leases_that_nobody_declared_holds_do_not_matter(cluster: Cluster) -> None:
    cluster.hold("worker-1", "slot-pool-workers-0", "x")
    cluster.kube.admin.delete(f"{LEASES}/slot-pool-workers-0")
    assert cluster.run("status").code == 0


def test_help_shows_an_example() -> None:
    assert "Example: kubenode status" in kubenode("status", "--help").out
