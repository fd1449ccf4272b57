"""`kubenode plan --simulate` as an operator meets it: before a push, on a Monday, at three in the morning."""

import json
import re
from typing import Any

import pytest
from cliworld import NEW as NEXT
from cliworld import OLD as FIRST
from cliworld import Done, World
from simulateworld import NEW, OLD, Lab

from kubenode.model.decision import Act, Uncordon
from kubenode.plan.simulate import run


def lines(done: Done, what: str) -> list[str]:
    return [line for line in done.out.splitlines() if what in line]


def assert_readable(done: Done) -> None:
    assert done.out and max(map(len, done.out.splitlines())) <= 100
    assert "\x1b" not in done.out
    assert done.err.strip().splitlines()[-1].startswith("At commit ") and done.last.endswith(".")


def test_on_a_monday_it_is_told_that_workers_wait_for_saturday(lab: Lab) -> None:
    """Control planes move at once, workers on the weekend, one of them first; the last sentence says when it ends."""
    done = lab.plan()
    assert done.code == 0, done.err
    assert_readable(done)
    (upgrade,) = lines(done, "kubeadm upgrade apply to v1.34.1")
    assert upgrade.split()[0] == "t+00:03"
    first, later = (line.split("t+")[1].split()[0] for line in lines(done, f"restart into release {NEW}")[-2:])
    assert "110:00" < first < later
    assert len(lines(done, "wait until Sat 2026-11-28 02:00 UTC")) == 2
    assert len(lines(done, "soak")) == 1
    assert "until Sat 2026-11-28 02:4" in done.last and "(windows: Sat 2026-11-28 02:00 UTC)" in done.last
    assert "6 of 6 nodes arrive, 0 stuck, 0 held back." in done.last
    assert "Durations are assumptions" in done.err


def test_a_worker_that_nobody_observed_is_named_with_those_who_wait_for_it(lab: Lab) -> None:
    del lab.statuses["worker-1"]
    done = lab.plan()
    assert done.code == 0, done.err
    assert_readable(done)
    assert "Not observed, so not simulated: worker-1" in done.out
    assert f"Held back on release {OLD} (WaitsForWave): worker-2" in done.out
    assert "4 of 5 nodes arrive, 0 stuck, 1 held back." in done.last


def test_a_script_reads_the_timeline_and_what_was_assumed(lab: Lab) -> None:
    done = lab.plan("--output", "json", "--detailed-exitcode")
    assert done.code == 2, done.err
    document = done.json
    assert (document["kind"], document["endless"], document["unseen"]) == ("Simulation", "", [])
    times = [event["at"] for event in document["events"]]
    assert times == sorted(times)
    assert document["seconds"] == max(event["at"] + event["lasts"] for event in document["events"])
    restarts = [event for event in document["events"] if event["action"] == "Reboot"]
    assert {event["lasts"] for event in restarts} == {document["assumed"]["seconds"]["Reboot"]}
    assert [event["node"] for event in restarts if event["pool"] == "workers"] == ["worker-1", "worker-2"]
    assert {node["decision"]["kind"] for node in document["nodes"]} == {"Converged"}
    waits = {(pause["reason"], pause["until"]) for pause in document["pauses"]}
    assert ("OutsideWindow", "2026-11-28T02:00:00+00:00") in waits


def test_a_chart_for_the_change_request(lab: Lab) -> None:
    done = lab.plan("--graph", "mermaid")
    assert done.code == 0, done.err
    head, *body = done.out.splitlines()
    assert head == "gantt"
    assert "    section workers 1/2" in body
    tasks = [line for line in body if re.search(r"\d{2}:\d{2}:\d{2}$", line)]
    assert len(tasks) > 15
    for task in tasks:
        # Mermaid splits a name from its times at the first colon.
        name, times = task.split(" :", 1)
        assert ":" not in name and "#" not in name and ";" not in name
        stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
        assert re.fullmatch(rf"(done, )?{stamp}, {stamp}", times)


def test_a_halted_fleet_downloads_and_waits(lab: Lab) -> None:
    lab.write("fleet.yaml", lambda text: text.replace("halted: false", "halted: true"))
    done = lab.plan()
    assert done.code == 0, done.err
    assert_readable(done)
    assert lines(done, f"write release {NEW}") and not lines(done, "restart")
    assert "(Halted)" in done.out and "0 of 6 nodes arrive, 0 stuck, 6 held back." in done.last


def test_a_release_that_leads_nowhere_is_stuck(lab: Lab) -> None:
    """etcd 3.6 is entered from 3.5.26 on only, and this fleet has an older one."""
    for name in ("cp-1", "cp-2", "cp-3"):
        for member in lab.statuses[name]["observed"]["cluster"]["etcd"]["members"]:
            member["version"] = "3.5.21"
    done = lab.plan()
    assert done.code == 4, done.err
    assert_readable(done)
    assert f"Stuck on release {OLD} (EtcdTooOld): cp-1, cp-2, cp-3" in done.out
    assert "3 stuck, 2 held back." in done.last


def test_a_thousand_workers_are_a_few_lines(lab: Lab) -> None:
    """Shown with sixty, which have the same lines: nodes that do the same are one line."""
    for number in range(3, 61):
        path = lab.folder / "nodes" / f"worker-{number}.yaml"
        head = f"apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {{name: worker-{number}}}\n"
        path.write_text(head + "spec: {pool: workers}\n")
    lab.write("fleet.yaml", lambda text: text + "\n")
    lab.observe()
    done = lab.plan()
    assert done.code == 0, done.err
    assert_readable(done)
    assert len(done.out.splitlines()) < 50
    assert re.search(r"restart into release 2026\.11\.1 +worker-\d+(, worker-\d+)? and \d+ more", done.out)
    assert "64 of 64 nodes arrive" in done.last


def test_a_simulation_without_an_end_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "decide", lambda want, *_words, **_options: Act(Uncordon(want.node), "For ever."))
    done = lab.plan()
    assert done.code == 1
    assert "was given up" in done.err and done.last.endswith("the simulation has no end.")


def test_two_of_a_node_and_no_observation_are_refused_as_ever(lab: Lab) -> None:
    lab.statuses = {"one": lab.statuses["cp-1"], "two": lab.statuses["cp-1"]}
    assert lab.plan().code == 64
    lab.statuses = {}
    assert lab.plan().code == 64


def test_another_language_of_charts_is_refused(lab: Lab) -> None:
    done = lab.plan("--graph", "dot")
    assert (done.code, done.out) == (64, "")
    assert "mermaid" in done.err


def simulated(world: World, status: Any, *words: str) -> Done:
    path = world.top / "status.json"
    path.write_text(json.dumps(status))
    return world.run("plan", "--simulate", "--observed", path, *words)


def test_nothing_to_do_is_not_said_to_a_script_when_a_machine_was_not_seen(world: World) -> None:
    seen = (world.fleet / "nodes/edge-1.yaml").read_text()
    (world.fleet / "nodes/edge-2.yaml").write_text(seen.replace("edge-1", "edge-2"))
    world.git("add", "--all")
    world.git("commit", "--quiet", "--message", "Another machine")
    assert simulated(world, world.status(FIRST), "--detailed-exitcode").code == 75
    assert simulated(world, world.status(FIRST)).code == 0


def test_one_machine_before_and_after_a_promotion(world: World) -> None:
    before = simulated(world, world.status(FIRST))
    assert (before.code, before.out) == (0, "")
    assert "nothing will be done: 1 of 1 nodes arrive" in before.last
    for channel in ("nightly", "beta"):
        assert world.run("promote", NEXT, channel).code == 0
    after = simulated(world, world.status(FIRST))
    assert after.code == 0, after.err
    assert [line.split("t+")[-1].split(maxsplit=1)[1].split("  ")[0] for line in after.out.splitlines()[1:]] == [
        f"download release {NEXT}", f"write release {NEXT}", f"restart into release {NEXT}",
    ]  # fmt: skip
    assert "about 4 min" in after.last
