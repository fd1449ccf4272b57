"""`kubenode plan`: decisions about recorded observations, exit codes, observations that are none."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cliworld import NEW, OLD, Done, World, kubenode


def plan(world: World, document: object, *words: str) -> Done:
    path = world.top / "status.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return world.run("plan", "--observed", path, *words)


def decision(done: Done) -> dict[str, Any]:
    assert done.out, done.err
    (node,) = done.json["nodes"]
    assert node["node"] == "edge-1"
    return node["decision"]


def test_nothing_to_do(world: World) -> None:
    done = plan(world, world.status(OLD), "-o", "json", "--detailed-exitcode")
    assert (done.code, decision(done)["kind"]) == (0, "Converged")
    assert done.json["commit"] == world.head
    assert "of 1 node 0 have work, 1 is done, 0 stuck." in done.last


def test_changes(world: World) -> None:
    status = world.status(OLD)
    for channel in ("nightly", "beta"):
        assert world.run("promote", NEW, channel).code == 0
    done = plan(world, [status], "-o", "json")
    assert (done.code, decision(done)["action"]["kind"]) == (0, "FetchRelease")
    assert plan(world, status, "-o", "json", "--detailed-exitcode").code == 2
    table = plan(world, status)
    assert "FetchRelease" in table.out
    assert max(map(len, table.out.splitlines())) <= 100


def test_an_older_commit_can_be_planned_for(world: World) -> None:
    before = world.head
    for channel in ("nightly", "beta"):
        world.run("promote", NEW, channel)
    done = plan(world, world.status(OLD), "-o", "json", "--revision", before)
    assert decision(done)["kind"] == "Converged"


def test_a_declared_member_is_planned_as_its_agent_decides(world: World) -> None:
    """Its image has no kubelet, so the agent would not join; a laptop must not show a join that nobody will do."""
    fleet = world.fleet / "fleet.yaml"
    cluster = "cluster: {endpoint: 'k8s.example.net:6443', bootstrapNode: worker-1, initBefore: 2026-12-01T00:00:00Z}"
    fleet.write_text(fleet.read_text().replace("spec:\n", f"spec:\n  {cluster}\n", 1))
    (world.fleet / "nodes" / "worker-1.yaml").write_text(
        "apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: worker-1}\nspec: {pool: workers}\n"
    )
    pool = world.fleet / "pools" / "workers.yaml"
    pool.write_text(pool.read_text().replace("channel: stable", "channel: beta"))
    world.git("add", "--all")
    world.git("commit", "--quiet", "--message", "A worker")
    done = plan(world, world.status(OLD, node="worker-1"), "-o", "json")
    assert done.code == 4, done.err
    (node,) = done.json["nodes"]
    assert node["decision"]["reason"] == "NoKubernetes", node


def test_stuck(world: World) -> None:
    status = world.status(NEW)
    status["observed"]["entries"] = []
    done = plan(world, status, "-o", "json", "--detailed-exitcode")
    assert (done.code, decision(done)["kind"]) == (4, "Stuck")


def test_from_stdin(world: World) -> None:
    words = ("plan", "-C", world.fleet, "--observed", "-", "-o", "json")
    assert kubenode(*words, stdin=json.dumps(world.status(OLD)).encode()).code == 0


def test_uncommitted_changes_are_named(world: World) -> None:
    (world.fleet / "nodes" / "new.yaml").write_text("")
    assert "not committed" in plan(world, world.status(OLD)).err


def test_unknown_node(world: World) -> None:
    done = plan(world, world.status(OLD, node="edge-2"), "-o", "json")
    assert (done.code, done.out) == (1, "")
    assert "nodes/edge-2.yaml" in done.err and "edge-1" in done.err


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"{}", b"[1]", b"null", b"7", b'{"node": "edge-1"}'],
)
def test_no_observation(world: World, content: bytes) -> None:
    done = plan(world, content, "-o", "json")
    assert (done.code, done.out) == (64, "")
    assert "status.json" in done.err


def test_two_observations_of_one_node(world: World) -> None:
    done = plan(world, [world.status(OLD), world.status(NEW)])
    assert (done.code, "two observations" in done.err) == (64, True)


@pytest.mark.parametrize("path", ["nosuch", "."])
def test_no_file(world: World, path: str) -> None:
    done = world.run("plan", "--observed", world.top / path)
    assert (done.code, "cannot be read" in done.err) == (64, True)


def leaves(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(found for key, inner in items for found in leaves(inner, (*at, key)))]


def test_wrong_fields_are_never_a_traceback(prepared: World, tmp_path: Path) -> None:
    status = {name: prepared.status(OLD)[name] for name in ("node", "observed")} | {"poisoned": [], "superseded": None}
    path = tmp_path / "status.json"
    for at in leaves(status)[1:]:
        for wrong in (None, 7, "x", [], {}, [7], {"a": 1}):
            broken = copy.deepcopy(status)
            inner: Any = broken
            for key in at[:-1]:
                inner = inner[key]
            inner[at[-1]] = wrong
            path.write_text(json.dumps(broken))
            done = prepared.run("plan", "--observed", path)
            assert done.code in (0, 1, 4, 64), (at, wrong, done.err)
