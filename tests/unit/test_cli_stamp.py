"""`kubenode trust stamp` and `kubenode publish --fleet` at the command's boundary, and a node that reads the result."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from cliworld import Done, World

from kubenode.cli.wire import _fleet
from kubenode.host.clock import SystemClock
from kubenode.host.paths import Paths
from kubenode.host.remote import RemoteFleet
from kubenode.host.static import StaticFleet
from kubenode.model.state import Seed
from kubenode.trust import headfile
from kubenode.trust.freshness import judge
from kubenode.trust.policyfile import parse_policy
from tests.gitrepo import SigningKey


@pytest.fixture
def stamp_key(tmp_path: Path) -> SigningKey:
    return SigningKey.make(tmp_path, "stamp")


def demand(world: World, *keys: SigningKey, age: str = "7d") -> None:
    """Let the fleet's policy ask for freshness."""
    policy = world.fleet / "trust" / "policy.yaml"
    text = policy.read_text().partition("  freshness:")[0]
    listed = ", ".join(f'"{key.public}"' for key in keys)
    policy.write_text(f"{text}  freshness: {{maxAge: {age}, keys: [{listed}]}}\n")
    world.git("commit", "--quiet", "--all", "--message", "Ask for freshness")


def stamp(world: World, *words: str | Path) -> Done:
    return world.run("trust", "stamp", *words)


def read(store: Path) -> headfile.Head:
    return headfile.read((store / "head.json").read_bytes())


def test_stamps_count_up_and_need_an_anchor_once(world: World, stamp_key: SigningKey) -> None:
    demand(world, stamp_key)
    store = world.top / "fleet"
    words = ("--key", stamp_key.path, "--store", store)
    done = stamp(world, *words)
    assert done.code == 64 and "says which history to trust" in done.err and "--anchor" in done.err
    assert not (store / "head.json").exists()
    done = stamp(world, *words, "--anchor", world.anchor, "--expires", "12h")
    assert done.code == 0, done.err
    first = read(store)
    assert (first.head, first.expires - first.issued) == (world.head, timedelta(hours=12))
    assert f"Stamp {first.serial} vouches for commit {world.head[:12]} until" in done.last
    done = stamp(world, *words)
    assert done.code == 0, done.err
    second = read(store)
    assert second.serial > first.serial and second.expires - second.issued == timedelta(days=7)
    policy = parse_policy((world.fleet / "trust" / "policy.yaml").read_bytes())
    data = (store / "head.json").read_bytes()
    verdict = judge(policy.freshness, second.fleet_id, None, data, SystemClock().now(), lambda it: it == world.head)
    assert verdict.fresh is True


def test_an_untrusted_head_is_never_stamped(world: World, stamp_key: SigningKey) -> None:
    demand(world, stamp_key)
    store = world.top / "fleet"
    words = ("--key", stamp_key.path, "--store", store)
    assert stamp(world, *words, "--anchor", world.anchor).code == 0
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    world.git("-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "--message", "unsigned")
    for anchor in ((), ("--anchor", world.anchor)):
        done = stamp(world, *words, *anchor)
        assert done.code == 3 and "nothing is published: commit" in done.err and "is not signed" in done.err
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no key is named"),
        (("--key", "stamp.key"), "has to be published somewhere"),
        (("--key", "stamp.key", "--store", "STORE"), "has no public key stamp.key.pub beside it"),
        (("--key", "KEY", "--store", "STORE", "--expires", "soon"), "'soon' is not a duration"),
        (("--key", "KEY", "--store", "STORE", "--anchor", "main"), "not a full commit id"),
        (("--key", "KEY", "--store", "STORE", "--branch", "none"), "has no commit"),
    ],
)
def test_wrong_usage(world: World, stamp_key: SigningKey, words: tuple[str, ...], said: str) -> None:
    places = {"KEY": str(stamp_key.path), "STORE": str(world.top / "fleet")}
    done = stamp(world, *(places.get(word, word) for word in words))
    assert done.code == 64 and said in done.err and "Hint: " in done.err


def test_keys_that_nodes_would_not_accept(world: World, stamp_key: SigningKey, tmp_path: Path) -> None:
    store, other = world.top / "fleet", SigningKey.make(tmp_path, "other")
    words = ("--store", store, "--anchor", world.anchor)
    done = stamp(world, "--key", stamp_key.path, *words)
    assert done.code == 64 and "asks for no freshness" in done.err
    demand(world, stamp_key)
    done = stamp(world, "--key", other.path, *words)
    assert done.code == 64 and "is not among spec.freshness.keys" in done.err
    # While keys change, both sign.
    done = stamp(world, "--key", other.path, "--key", stamp_key.path, *words)
    assert done.code == 0 and len(read(store).signatures) == 2
    stamp_key.path.unlink()
    done = stamp(world, "--key", stamp_key.path, *words)
    assert done.code == 1 and "signing with" in done.err


def test_pushing_to_a_git_remote(world: World, stamp_key: SigningKey, tmp_path: Path) -> None:
    demand(world, stamp_key)
    remote = tmp_path / "remote.git"
    world.git("init", "--quiet", "--bare", remote)
    world.git("remote", "add", "origin", remote)
    words = ("--key", stamp_key.path, "--push", "origin", "--anchor", world.anchor)
    done = stamp(world, *words)
    assert done.code == 64 and "does not have commit" in done.err
    world.git("push", "--quiet", "origin", "HEAD:main")
    for _ in range(2):
        done = stamp(world, *words)
        assert done.code == 0, done.err
    listed = world.git("ls-tree", "-r", "--name-only", "kubenode-stamp", cwd=remote)
    assert listed == "head.json"
    assert world.git("rev-list", "--count", "kubenode-stamp", cwd=remote) == "1", "an orphan commit each time"
    seed = Seed(remote.as_uri(), read_id(world), world.anchor, "edge-1")
    source = _fleet(Paths(tmp_path / "node"), seed)
    assert isinstance(source, RemoteFleet)
    assert source.fetch() == world.head
    offered = source.stamp()
    assert offered is not None and headfile.verify(offered, [stamp_key.key], seed.fleet_id).head == world.head


def read_id(world: World) -> str:
    lines = (world.fleet / "fleet.yaml").read_text().splitlines()
    return next(line.split()[-1].strip('"') for line in lines if "  id:" in line)


def test_publishing_without_a_demand_needs_no_key(world: World, tmp_path: Path) -> None:
    store = world.top / "static"
    done = world.run("publish", "--fleet", "--store", store)
    assert done.code == 0 and f"up to commit {world.head[:12]}" in done.last, done.err
    head = read(store)
    assert (head.head, head.signatures, head.issued) == (world.head, (), head.expires)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*") if path.is_file()}
    done = world.run("publish", "--fleet", "--store", store)
    assert done.code == 0 and done.last.endswith("nothing has changed.")
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*") if path.is_file()}
    # git takes no address with a space in it, but this is none of git's.
    seed = Seed(f"static+{store.as_uri()}", read_id(world), world.anchor, "edge-1")
    source = _fleet(Paths(tmp_path / "node"), seed)
    assert isinstance(source, StaticFleet)
    assert source.fetch() == world.head


def test_publishing_with_a_demand(world: World, stamp_key: SigningKey) -> None:
    demand(world, stamp_key)
    store = world.top / "static"
    words = ("publish", "--fleet", "--store", store)
    done = world.run(*words)
    assert done.code == 64 and "has to be signed" in done.err
    assert world.run(*words, "--key", stamp_key.path, "--anchor", world.anchor).code == 0
    first = read(store)
    done = world.run(*words, "--key", stamp_key.path)
    assert done.last.endswith("nothing has changed.") and read(store) == first
    world.git("commit", "--quiet", "--allow-empty", "--message", "next")
    assert world.run(*words, "--key", stamp_key.path).code == 0
    assert read(store).head == world.head and read(store).serial > first.serial


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("out", "--fleet"), "--fleet publishes the fleet repo, without a release"),
        (("--fleet", "--commit"), "--fleet publishes the fleet repo, without a release"),
        ((), "no release is named"),
        (("out", "--key", "k"), "are for --fleet"),
    ],
)
def test_publish_takes_a_release_or_the_fleet(world: World, words: tuple[str, ...], said: str) -> None:
    done = world.run("publish", *words, "--store", world.top / "static")
    assert done.code == 64 and said in done.err


def test_a_head_json_that_cannot_be_read_is_replaced(world: World, stamp_key: SigningKey) -> None:
    demand(world, stamp_key)
    store = world.top / "fleet"
    words = ("--key", stamp_key.path, "--store", store, "--anchor", world.anchor)
    assert stamp(world, *words).code == 0
    serial = read(store).serial
    (store / "head.json").write_bytes(b"torn")
    done = stamp(world, *words)
    assert done.code == 0 and "it is replaced" in done.err
    assert read(store).serial >= serial, "the clock keeps a lost store from counting backwards"


def test_the_plan_of_a_stale_node_waits(world: World, tmp_path: Path) -> None:
    report = world.status("2026.11.1")
    world.run("promote", "2026.11.2", "nightly")
    world.run("promote", "2026.11.2", "beta")
    report["conditions"] = [{"type": "Fresh", "status": "False", "reason": "HeadStale", "message": "it is too old"}]
    path = tmp_path / "status.json"
    path.write_text(json.dumps(report))
    done = world.run("plan", "--observed", path, "-o", "json")
    (node,) = done.json["nodes"]
    assert node["decision"]["reason"] == "Stale" and "it is too old" in node["decision"]["message"]
