"""Stories of an operator who asks `kubenode plan` before anything happens: what it must say, and must never say."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cliworld import Done, kubenode

from docs.generate.pictures import on_a_terminal
from kubenode.errors import UsageError
from kubenode.fleet.load import load_fleet
from kubenode.model.documents import Release
from kubenode.model.journal import Poisoned
from kubenode.model.kubernetes import ClusterNode, KubernetesVersion, Lease, NodeReport
from kubenode.model.observed import BootedSlot, BootEntry, Slot, StagedImage
from kubenode.model.plain import plain
from kubenode.model.version import Version
from kubenode.plan.observations import digest
from kubenode.plan.saved import SavedPlan, decode, stale
from tests.bench.plan_fleet import NEW, OLD
from tests.planworld import PlanWorld, documented, half_way, planworld

WIDTH = 100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlanWorld]:
    """Three control planes and five workers that run OLD, healthy; the newest commit moves `stable` to NEW."""
    with planworld(tmp_path_factory.mktemp("plan")) as world:
        git(world, "tag", "start")
        yield world


@pytest.fixture
def world(made: PlanWorld) -> Iterator[PlanWorld]:
    """The same for each test: what one of them changes is put back."""
    before = made.view, dict(made.statuses), made.server.version
    document = made.server.store.objects["", "configmaps", "kube-system", "kubeadm-config"]
    kept = json.loads(json.dumps(document))
    yield made
    git(made, "reset", "--quiet", "--hard", "start")
    made.view, made.statuses, made.server.version = before[0], before[1], before[2]
    made.server.rude = None
    document.clear()
    document.update(kept)
    made.serve()


def git(world: PlanWorld, *words: str) -> str:
    argv = ["git", "-C", str(world.fleet), "-c", "user.name=x", "-c", "user.email=x@example.net", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def commit(world: PlanWorld, **documents: str | None) -> str:
    """Commit documents, `pools/x.yaml` as pools__x; None removes one."""
    for name, text in documents.items():
        path = world.fleet / f"{name.replace('__', '/').replace('_', '-')}.yaml"
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    git(world, "add", "--all")
    git(world, "commit", "--quiet", "--message", "a change")
    return git(world, "rev-parse", "HEAD")


def plan(world: PlanWorld, *words: str | Path) -> Done:
    return kubenode("plan", "-C", world.fleet, "--kubeconfig", world.kubeconfig, *words)


def decided(done: Done) -> dict[str, dict[str, Any]]:
    return {it["node"]: it for it in done.json["nodes"]}


def release(world: PlanWorld, version: str) -> Release:
    files = {it.relative_to(world.fleet).as_posix(): it.read_bytes() for it in world.fleet.rglob("*.yaml")}
    return load_fleet(files).releases[Version(version)]


def settle(world: PlanWorld) -> None:
    """Take the channel back to what every node runs, so that there is nothing to do."""
    channel = world.fleet / "channels" / "stable.yaml"
    commit(world, channels__stable=channel.read_text().replace(f"[{NEW}, {OLD}]", f"[{OLD}]"))


def test_a_quiet_fleet_makes_no_noise(world: PlanWorld) -> None:
    """Terraform #28803, #29808: what changes all the time and means nothing is no drift."""
    settle(world)
    for name in list(world.statuses):
        world.status(name, message=f"This node is as it should be, says {name}.", phase="Up to date")
    world.node("w-00001", boot_id="another-boot")
    world.observed("w-00001", boot_id="another-boot")
    world.view = replace(world.view, leases=(*world.view.leases, Lease("slot-pool-other-0", "w-00002", why="x")))
    world.serve()
    first = plan(world, "--detailed-exitcode")
    assert (first.code, first.out.count("Drift"), first.out.count("Change")) == (0, 0, 0), first.out
    assert "Nothing to do (8 nodes)" in first.out
    assert first.last.endswith("of 8 nodes 0 have work, 8 are done, 0 stuck.")
    world.serve(at=datetime.now(UTC) - timedelta(minutes=40))
    assert plan(world).out == first.out


def test_a_thousand_equal_nodes_are_one_group_and_all_can_be_named(world: PlanWorld) -> None:
    """Terraform #21639: a thousand lines that say the same hide the one that does not."""
    done = plan(world)
    assert done.code == 0
    assert len(done.out.splitlines()) < 50
    assert "workers, 5 nodes: w-00000, w-00001, w-00002 and 2 more" in done.out
    assert max(map(len, done.out.splitlines())) <= WIDTH
    assert "w-00000, w-00001, w-00002, w-00003, w-00004" in plan(world, "--all").out
    world.node("w-00003", cordoned=True)
    world.serve()
    assert "Node w-00003" in plan(world).out


def test_drift_names_the_object_and_the_field(world: PlanWorld) -> None:
    """Terraform #30641: what has changed must be found without guessing."""
    settle(world)
    world.node("w-00002", cordoned=True)
    world.node("w-00003", ready=False)
    world.serve()
    done = plan(world, "--detailed-exitcode")
    assert done.code == 2
    drift = done.out.partition("Drift: what moved without git (2)")[2]
    assert re.search(r"Node w-00002\n +Cordoned +spec\.unschedulable is true, by a person; git: false\.", drift), drift
    assert re.search(r"Node w-00003\n +NotReady +status\.conditions\[Ready\] is not True; git: True\.", drift), drift
    found = [it for node in decided(plan(world, "-o", "json")).values() for it in node["drift"]]
    assert {(it["code"], it["object"], it["field"]) for it in found} == {
        ("Cordoned", "Node w-00002", "spec.unschedulable"),
        ("NotReady", "Node w-00003", "status.conditions[Ready]"),
    }


def test_git_that_moved_is_change_and_a_machine_that_moved_is_drift(world: PlanWorld) -> None:
    """What an older commit wanted is no drift; what no commit ever wanted is, whatever its version says."""
    assert plan(world).out.count("Drift") == 0
    # The release that runs has left git altogether: still some commit's.
    (world.fleet / "releases" / f"{OLD}.yaml").unlink()
    channel = world.fleet / "channels" / "stable.yaml"
    commit(world, channels__stable=channel.read_text().replace(f"[{NEW}, {OLD}]", f"[{NEW}]"))
    assert plan(world).out.count("Drift") == 0
    foreign = BootedSlot(Slot.A, Version(OLD), "f" * 64)
    world.observed("w-00001", booted=foreign, entries=(BootEntry(Version(OLD), "f" * 64),))
    world.serve()
    done = plan(world)
    assert re.search(r"node w-00001\n +ForeignRelease\n? +booted\.rootHash is 2026\.10\.4 \(ffffffffffff\)", done.out)
    assert decided(plan(world, "-o", "json"))["w-00001"]["drift"][0]["code"] == "ForeignRelease"


def test_kubeadm_documents_that_git_changed_are_change_and_others_are_drift(world: PlanWorld) -> None:
    settle(world)
    kubeadm = world.fleet / "kubeadm" / "cluster.yaml"
    commit(world, kubeadm__cluster=kubeadm.read_text() + "# a comment counts, too\n")
    done = plan(world, "-o", "json")
    assert done.json["drift"] == [] and done.json["summary"]["drift"] == 0
    assert [it["kind"] for it in decided(done)["cp-1"]["steps"]] == ["acquire", "configure", "release"]
    assert decided(done)["w-00000"]["decision"]["reason"] == "WaitsForConfiguration"
    seen = world.statuses["w-00001"].observed
    assert seen is not None and seen.kubernetes is not None
    world.observed("w-00001", kubernetes=replace(seen.kubernetes, configuration="d" * 64))
    world.view = replace(world.view, configuration="e" * 64)
    config = world.server.store.objects["", "configmaps", "kube-system", "kubeadm-config"]
    config["metadata"]["annotations"]["kubenode.dev/configuration"] = "e" * 64
    world.serve()
    done = plan(world)
    assert "ConfigMap kube-system/kubeadm-config" in done.out and "eeeeeeeeeeee" in done.out
    assert re.search(r"node w-00001\n +ForeignConfiguration\n +kubernetes\.configuration is dddddddddddd", done.out)


def test_a_fleet_with_nothing_to_do_is_told_apart_from_a_command_that_failed_silently(world: PlanWorld) -> None:
    """Argo #27705: no difference, no word, exit code 0: had it looked at all?"""
    settle(world)
    done = plan(world)
    assert done.code == 0 and done.last.endswith("of 8 nodes 0 have work, 8 are done, 0 stuck.")
    assert "Nothing to do (8 nodes)" in done.out
    answer = plan(world, "-o", "json")
    assert answer.code == 0 and answer.json["summary"] == {"work": 0, "drift": 0, "unseen": 0, "done": 8, "stuck": 0}
    failed = kubenode("plan", "-C", world.kubeconfig.parent)
    assert (failed.code, failed.out) == (64, "") and "is not a git repository" in failed.err


def test_a_node_that_cannot_be_seen_is_never_counted_as_done(world: PlanWorld) -> None:
    """Flux #2365, #4066, #3425, #5330: an exit code that says all is well must mean that somebody looked."""
    settle(world)
    commit(world, nodes__w_new="apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: w-new}\n"
           "spec: {pool: workers}\n")  # fmt: skip
    world.node("w-00003", report=None)
    world.serve()
    done = plan(world, "--detailed-exitcode")
    assert done.code == 75, done.out
    assert "w-00003: no agent has reported there" in done.out
    assert "w-new: the cluster has no Node of this name" in done.out
    assert done.last.endswith("7 are done, 0 stuck. Not seen, so nobody knows: w-00003, w-new.")
    answer = plan(world, "-o", "json", "--detailed-exitcode")
    assert (answer.code, sorted(answer.json["unseen"]), answer.json["summary"]["done"]) == (75, ["w-00003", "w-new"], 7)
    # Asked about the others only, the answer is known.
    assert plan(world, "--only", "control-plane", "--detailed-exitcode").code == 0


def test_a_dry_run_that_saw_nothing_does_not_say_that_nothing_changes(world: PlanWorld) -> None:
    """Talos #8885: "No changes", and then it applied some. Every agent here is older than accounts."""
    for node in world.view.nodes:
        assert node.report is not None
        world.node(node.name, report=replace(node.report, at=datetime.now(UTC)))
    world.serve()
    for words in ((), ("--detailed-exitcode",)):
        done = plan(world, *words)
        assert done.code == 75
        assert "Nothing to do" not in done.out and "Not seen: nothing is known of these (8 nodes)" in done.out
        assert f"the agent of release {OLD} does not tell what it sees" in done.out.replace("\n    ", " ")


def test_a_cluster_that_does_not_answer_is_no_plan(world: PlanWorld, tmp_path: Path) -> None:
    text = world.kubeconfig.read_text().replace(world.server.url, "https://127.0.0.1:1")
    (tmp_path / "nobody").write_text(text)
    done = kubenode("plan", "-C", world.fleet, "--kubeconfig", tmp_path / "nobody", "--detailed-exitcode")
    assert (done.code, done.out) == (75, "") and "cannot be reached" in done.err
    done = kubenode("plan", "-C", world.fleet, "--kubeconfig", tmp_path / "missing")
    assert (done.code, done.out) == (64, "") and "--observed" in done.err and "--since" in done.err


def test_hostile_accounts_make_their_own_node_silent_and_no_other(world: PlanWorld) -> None:
    """Whoever owns one node writes its annotation; it must not stop a plan, nor move the operator's terminal."""
    good = plan(world, "-o", "json")
    evil = "\x1b[2J\x1b]0;all is well\x07"
    world.status("w-00000", message=evil)
    seen = world.statuses["w-00001"].observed
    assert seen is not None and seen.kubernetes is not None
    world.observed("w-00001", kubernetes=replace(seen.kubernetes, configuration=evil))
    deep = "[" * 7_000
    wrong = json.dumps({"node": "w-00003", "observed": {"boot_id": "x", "booted": {"slot": "c"}}})
    accounts = {"w-00002": deep, "w-00003": wrong, "w-00004": "x" * 9_000}
    for name, text in accounts.items():
        node = world.view.by_name[name]
        assert node.report is not None
        world.node(name, report=replace(node.report, account=digest(text), at=datetime.now(UTC)))
    world.serve(accounts)
    done, answer = plan(world, "--all"), plan(world, "-o", "json")
    assert done.code == 0 and "\x1b" not in done.out + done.err
    assert sorted(answer.json["unseen"]) == ["w-00002", "w-00003", "w-00004"]
    for name in ("cp-1", "cp-2", "cp-3", "w-00000"):
        assert decided(answer)[name]["decision"] == decided(good)[name]["decision"]


def test_an_agent_that_fell_back_is_not_believed_what_a_newer_one_told(world: PlanWorld) -> None:
    """The old agent writes its report and knows nothing of accounts: the newer one's is still there, and is history."""
    node = world.view.by_name["w-00001"]
    assert node.report is not None
    older = NodeReport(Version(OLD), node.report.root_hash, node.report.since, commit="c" * 40)
    told = plain(older)
    assert isinstance(told, dict)
    world.serve()
    annotations = world.server.store.objects["", "nodes", "", "w-00001"]["metadata"]["annotations"]
    annotations["kubenode.dev/status"] = json.dumps({k: v for k, v in told.items() if k not in ("account", "at")})
    done = plan(world, "-o", "json")
    assert list(done.json["unseen"]) == ["w-00001"]
    world.serve()
    world.node("w-00001", boot_id="a-new-boot")
    world.serve()
    assert "has restarted since" in plan(world, "-o", "json").json["unseen"]["w-00001"]
    world.serve(at=datetime.now(UTC) - timedelta(hours=7))
    assert "has said nothing since" in plan(world, "-o", "json").json["unseen"]["w-00002"]


def test_who_left_git_leaves_and_a_stranger_is_drift(world: PlanWorld) -> None:
    settle(world)
    commit(world, nodes__w_00004=None)
    world.add(ClusterNode("gpu-1", True, KubernetesVersion("v1.33.6"), "boot"))
    world.serve()
    done = plan(world)
    assert "w-00004 is not in git any more: a control plane drains it and removes it from the cluster." in done.out
    assert re.search(r"Node gpu-1\n +NotInGit +metadata\.name is gpu-1; git: nodes/gpu-1\.yaml\.\n", done.out), done.out
    assert "it never reported" in done.out
    answer = plan(world, "-o", "json").json
    assert (answer["leaving"], [it["object"] for it in answer["drift"]]) == (["w-00004"], ["Node gpu-1"])


def test_the_way_names_hops_kubeadm_drain_reboot_waves_windows_and_barriers(world: PlanWorld) -> None:
    pool = world.fleet / "pools" / "control-plane.yaml"
    window = "    windows:\n      - {days: [Mon], start: '09:00', duration: 1m, timezone: UTC}\n"
    commit(world, pools__control_plane=pool.read_text().replace("    drain:", f"{window}    drain:"))
    done = plan(world)
    planes, _, workers = done.out.partition("  workers, 5 nodes")
    flat = " ".join(planes.split())
    for words in (
        f"release {OLD} -> {NEW}",
        "Kubernetes v1.33.6 -> v1.34.1",
        "window opens 20",
        "save etcd > kubeadm upgrade v1.33.6 -> v1.34.1 (apply on the first, node on the others) > give the lease back",
        "barrier after this static pods and etcd stay at v1.34.1",
        "pass two wait until every API server is at v1.34.1",
        f"cordon > drain (up to 10 min, then back into service) > activate release {NEW} > restart on trial",
    ):
        assert words in flat, flat
    flat = " ".join(workers.split())
    assert "kubeadm upgrade" not in flat
    assert "waves 1 of 3: w-00000; 2 of 3: w-00001; 3 of 3: w-00002, w-00003, w-00004" in flat
    assert "take a lease of the pool (maxUnavailable 10%)" in flat
    graph = plan(world, "--graph", "mermaid")
    assert graph.out.startswith("flowchart TD\n") and graph.out.count("subgraph") == graph.out.count("end\n") == 2
    assert '{{"every API server is at v1.34.1"}}' in graph.out and "barrier" not in graph.out
    assert "static pods and etcd stay at v1.34.1" in graph.out


def test_no_line_ends_inside_a_step_or_a_name(world: PlanWorld) -> None:
    """Somebody reads it at three in the morning: a line is wide enough for a step, and begins where its column does."""
    steps = decided(plan(world, "-o", "json"))
    done = plan(world)
    assert max(map(len, done.out.splitlines())) <= WIDTH
    lines = [line.strip() for line in done.out.splitlines()]
    for name in ("cp-1", "w-00000"):
        for step in steps[name]["steps"]:
            assert any(step["text"] in line for line in lines), step
    further = [line for line in done.out.splitlines() if line.lstrip().startswith(">")]
    assert further and {len(line) - len(line.lstrip()) for line in further} == {16}
    half_way(world, release(world, NEW))
    leases = tuple(replace(it, holder="w-00003", why="restart") for it in world.view.leases)
    world.view = replace(world.view, leases=leases)
    world.serve()
    assert "w-00003 holds slot-pool-workers-0" in " ".join(plan(world, "--all").out.split())


def test_what_is_stuck_stands_out_on_a_terminal_and_is_plain_without_colour(world: PlanWorld) -> None:
    new = release(world, NEW)
    world.status("w-00000", poisoned=(Poisoned(new.version, new.root_hash, new.manifest, "it failed"),))
    node = world.view.by_name["w-00000"]
    assert node.report is not None
    world.node("w-00000", report=replace(node.report, poisoned=frozenset({new.root_hash})))
    world.serve()
    argv = ["kubenode", "plan", "-C", str(world.fleet), "--kubeconfig", str(world.kubeconfig)]
    code, text = on_a_terminal(argv, world.fleet)
    assert code == 4 and "\x1b[31m\x1b[1m    stuck       \x1b[0mReleasePoisoned: " in text, text
    plain_text = plan(world).out
    assert "\x1b" not in plain_text and "    stuck       ReleasePoisoned: " in plain_text


def test_what_is_held_back_says_by_whom(world: PlanWorld) -> None:
    half_way(world, release(world, NEW))
    world.serve()
    done = plan(world, "-o", "json")
    assert decided(done)["w-00000"]["decision"]["action"]["kind"] == "AcquireLease"
    assert decided(done)["w-00001"]["decision"]["reason"] == "WaitsForWave"
    assert "for the wave before this node: w-00000." in " ".join(plan(world).out.split())
    # The first one fails there: the rest of the pool does not try.
    new = release(world, NEW)
    for name in ("w-00000", "w-00001"):
        bad = Poisoned(new.version, new.root_hash, new.manifest, "it failed")
        world.status(name, poisoned=(bad,))
        world.observed(name, spare=None, staged=None, fetched=frozenset())
        node = world.view.by_name[name]
        assert node.report is not None
        world.node(name, report=replace(node.report, poisoned=frozenset({new.root_hash})))
    world.serve()
    done = plan(world)
    assert done.code == 4
    assert "RolloutClosed" in done.out and "ReleasePoisoned" in done.out
    fleet = world.fleet / "fleet.yaml"
    commit(world, fleet=fleet.read_text().replace("halted: false", "halted: true"))
    assert "The fleet is halted: nothing that disturbs begins." in plan(world).out


def test_etcd_that_cannot_be_seen_is_not_taken_for_healthy(world: PlanWorld) -> None:
    new = release(world, NEW)
    for name in ("cp-1", "cp-2", "cp-3"):
        seen = world.statuses[name].observed
        assert seen is not None and seen.cluster is not None and seen.kubernetes is not None
        pulled = frozenset({KubernetesVersion("v1.34.1")})
        world.observed(
            name,
            spare=new.root_hash,
            staged=StagedImage(new.version, new.root_hash),
            fetched=frozenset({new.manifest}),
            kubernetes=replace(seen.kubernetes, pulled=pulled),
        )
    world.serve()
    done = plan(world, "-o", "json")
    assert decided(done)["cp-1"]["decision"]["action"]["kind"] == "AcquireLease"
    assert "etcd (taken from what cp-1, cp-2, cp-3 told of it)" in done.json["notes"][0]
    for name in ("cp-1", "cp-2", "cp-3"):
        seen = world.statuses[name].observed
        assert seen is not None and seen.cluster is not None
        world.observed(name, cluster=replace(seen.cluster, etcd=None))
    world.serve()
    done = plan(world, "-o", "json")
    assert decided(done)["cp-1"]["decision"]["reason"] == "EtcdUnknown"
    assert done.json["notes"][0].startswith("Not visible from here: etcd;")


def test_a_pull_request_says_what_it_changes_and_asks_no_machine(world: PlanWorld) -> None:
    since = ("plan", "-C", world.fleet, "--since")
    done = kubenode(*since, "HEAD~1", "--detailed-exitcode")
    assert done.code == 2
    assert re.search(r"workers, changed: w-00000, .*\n +release +2026\.10\.4 -> 2026\.11\.1\n +Kubernetes", done.out)
    assert "Documents: channels/stable.yaml" in done.out
    assert "8 of 8 nodes are to change. What they run now was not looked at." in done.last
    kubeadm = world.fleet / "kubeadm" / "cluster.yaml"
    pool = world.fleet / "pools" / "workers.yaml"
    commit(
        world,
        kubeadm__cluster=kubeadm.read_text() + "# x\n",
        pools__workers=pool.read_text().replace("maxUnavailable: 10%", "maxUnavailable: 2"),
        nodes__w_00004=None,
    )
    done = kubenode(*since, "start", "-o", "json")
    nodes = {it["node"]: it for it in done.json["nodes"]}
    assert (nodes["w-00004"]["kind"], done.json["configuration"]) == ("removed", ["kubeadm/cluster.yaml"])
    assert {it["field"] for it in nodes["cp-1"]["fields"]} == {"configuration"}
    assert {it["field"] for it in nodes["w-00000"]["fields"]} == {"configuration", "rollout"}
    git(world, "tag", "--force", "middle")
    (world.fleet / "README.md").write_text("Only words.\n")
    commit(world)
    done = kubenode(*since, "middle", "--detailed-exitcode")
    assert done.code == 0 and "no node is to become anything else" in done.last and "Documents: README.md" in done.out
    assert kubenode(*since, "middle", "--observed", "-").code == 64
    assert "has no commit 'nowhere'" in kubenode(*since, "nowhere").err


def test_a_broken_commit_is_named(world: PlanWorld) -> None:
    commit(world, channels__stable="nonsense: [")
    done = kubenode("plan", "-C", world.fleet, "--since", "start")
    assert (done.code, done.out) == (1, "") and "channels/stable.yaml:" in done.err and "commit " in done.err


def test_a_clone_that_is_behind_is_noticed(world: PlanWorld) -> None:
    node = world.view.by_name["w-00001"]
    assert node.report is not None
    world.node("w-00001", report=replace(node.report, commit="c" * 40))
    world.node("w-00002", report=replace(node.report, commit=git(world, "rev-parse", "HEAD~1")))
    world.serve()
    notes = " ".join(plan(world, "-o", "json").json["notes"])
    assert "w-00001 follows commit cccccccccccc, which this clone does not have" in notes and "w-00002" not in notes


def test_names_that_are_none_are_refused(world: PlanWorld) -> None:
    done = plan(world, "--only", "worker")
    assert (done.code, done.out) == (64, "") and "Did you mean 'workers'?" in done.err
    assert plan(world, "--graph", "mermaid", "-o", "json").code == 64


def test_a_saved_plan_is_bound_to_the_commit_and_to_what_was_seen(world: PlanWorld, tmp_path: Path) -> None:
    """It is what somebody has agreed to; when fleet or cluster have moved on, nobody has agreed to that."""
    path = tmp_path / "friday.plan"
    assert plan(world, "--save", path).code == 0
    kept = decode(path.read_bytes(), "it")
    document = json.loads(path.read_text())
    assert (document["kind"], document["plan"]["summary"]["work"]) == ("SavedPlan", 8)
    from jsonschema import Draft202012Validator

    schema = json.loads((Path(__file__).parents[2] / "schemas" / "saved-plan.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert list(Draft202012Validator(schema).iter_errors(document)) == []
    done = plan(world, "--save", path)
    assert (done.code, done.out) == (64, "") and "is not written over" in done.err
    # A quiet hour later it is as good as new: only what decides anything counts.
    world.serve(at=datetime.now(UTC) - timedelta(minutes=1))
    again = saved(world, tmp_path / "again")
    assert stale(kept, again.fleet_id, again.commit, again.facts) == ()
    world.node("w-00002", cordoned=True)
    world.observed("w-00001", fetched=frozenset({"a" * 64}))
    world.serve()
    commit(world, fleet=(world.fleet / "fleet.yaml").read_text() + "# x\n")
    now = saved(world, tmp_path / "now")
    assert stale(kept, now.fleet_id, now.commit, now.facts) == (
        f"It was made for commit {kept.commit[:12]}, and the fleet is at {now.commit[:12]}.",
        "w-00001 is not as it was when it was made.",
        "The cluster is not as it was: its Nodes, API servers, leases or configuration have changed.",
    )
    assert plan(world, "--save", tmp_path / "nowhere" / "x").code == 64
    for wrong in (b"", b"[]", b"{}", b'{"kind": "SavedPlan"}', path.read_bytes().replace(b"v1alpha1", b"v9", 1)):
        with pytest.raises(UsageError, match="it is not a saved plan"):
            decode(wrong, "it")


def saved(world: PlanWorld, path: Path) -> SavedPlan:
    assert plan(world, "--save", path).code == 0
    return decode(path.read_bytes(), str(path))


def test_a_machine_in_no_cluster_is_added_by_its_record(world: PlanWorld, tmp_path: Path) -> None:
    settle(world)
    commit(world, nodes__edge_1="apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: edge-1}\n"
           "spec: {pool: standalone}\n")  # fmt: skip
    assert "give its status.json with --observed" in plan(world, "-o", "json").json["unseen"]["edge-1"]
    status = world.statuses["w-00000"]
    assert status.observed is not None
    own = replace(status, node="edge-1", observed=replace(status.observed, cluster=None, kubernetes=None))
    (tmp_path / "edge.json").write_text(json.dumps(plain(own)))
    done = plan(world, "-o", "json", "--observed", tmp_path / "edge.json", "--detailed-exitcode")
    assert (done.code, done.json["unseen"], done.json["summary"]["done"]) == (0, {}, 9)


def test_the_documentation_shows_what_is_printed(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "plan.md").read_text()
    for name, out in documented(tmp_path, kubenode).items():
        shown = re.search(rf"<!-- {name} -->\n```\n(.*?)```\n", text, re.DOTALL)
        assert shown is not None and shown[1] == out, name
