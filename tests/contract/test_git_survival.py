"""What is kept stays usable: killed processes, flipped bits, hostile remotes while the copy is damaged, bundles."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kubenode.errors import HostError, TryLater, Untrusted, UsageError
from kubenode.host.git import DAMAGED, FleetRepository
from kubenode.trust.chain import authenticate, trust_anchor
from kubenode.trust.reasons import Reason
from tests.gitrepo import FLEET_ID, GitRepo, SigningKey, World, long_history, signed_commit

Keys = Mapping[str, SigningKey]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return {name: SigningKey.make(folder, name) for name in ("alice", "ci")}


@pytest.fixture
def world(tmp_path: Path, keys: Keys) -> Iterator[World]:
    world = World(tmp_path, keys)
    world.follow()
    yield world
    world.copy.close()


KILLED = """
import sys
from pathlib import Path
from kubenode.host.git import FleetRepository
with FleetRepository(Path(sys.argv[1])) as copy:
    copy.accept(copy.fetch(sys.argv[2]))
"""


def test_killed_at_any_moment_the_previous_state_stays(world: World) -> None:
    """The agent is killed while git, which may go on by itself, is fetching or copying; or both are."""
    chance = random.Random(3)
    trusted = world.anchor
    killed = 0
    longest = 0.0
    for number in range(13):
        world.remote.write(f"nodes/{number}.yaml", "a: " + "x" * 200_000)
        head = world.commit(f"node {number}", "alice")
        words = [sys.executable, "-c", KILLED, str(world.copy.path), world.remote.url]
        begun = time.monotonic()
        child = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            # The first is left alone, and says how long one takes on this machine.
            child.wait(chance.uniform(0.05, 0.9) * longest if number else None)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            killed += 1
        longest = max(longest, time.monotonic() - begun)
        if number % 2:
            kill_git_of(world.copy.path)
        world.copy.close()
        assert not (world.copy.path / DAMAGED).exists()
        assert world.copy.stored_head() in (trusted, head)
        assert trust_anchor(world.copy.anchor(trusted)).oid == trusted
        assert world.follow(trusted).oid == head
        trusted = head
    assert killed


def test_objects_without_the_name_that_keeps_them_are_not_accepted_yet(world: World) -> None:
    """Seen after a kill between both: the head stayed at the commit before, and nothing kept the newer one."""
    head = world.commit("one more", "alice")
    assert world.copy.fetch(world.remote.url) == head
    words = ["git", "-C", world.copy.path, "fetch", "--quiet", "--no-write-fetch-head", world.remote.url, head]
    subprocess.run(words, check=True)
    assert world.copy.accepted_head() != head
    world.copy.accept(head)
    assert world.copy.accepted_head() == world.copy.stored_head() == head


def kill_git_of(path: Path) -> None:
    """Kill what is left of a killed agent's git, which is told apart by the copy in its environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"GIT_DIR=" + str(path).encode() in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def test_flipped_bits_are_damage_and_never_accepted(world: World) -> None:
    """In any file of the copy: it is told as damage and fetched again, or it does not matter."""
    chance = random.Random(7)
    told = 0
    for number in range(20):
        if number % 10 == 0:
            world.node(f"n{number}")
        head = world.follow().oid
        world.anchor = head
        world.copy.close()
        files = sorted(path for path in world.copy.path.rglob("*") if path.is_file() and path.stat().st_size)
        victim = chance.choice([path for path in files if path.suffix in (".pack", ".idx")] or files)
        data = bytearray(victim.read_bytes())
        if number % 3:
            at = chance.randrange(len(data))
            data[at] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        victim.chmod(0o600)
        victim.write_bytes(data)
        for attempt in range(3):
            try:
                assert world.follow().oid == head
                break
            except HostError as error:
                told += 1
                assert "damaged" in error.message
                assert attempt < 2, error.message
    assert told


def test_a_damaged_copy_and_a_hostile_remote(world: World, tmp_path: Path) -> None:
    """What the remote has without the trusted commit never takes the place of the damaged copy that still has it."""
    (world.copy.path / DAMAGED).touch()
    other = GitRepo.init(tmp_path / "other")
    other.write("a", "x")
    other.commit("another history", world.keys["alice"])
    head = world.copy.fetch(other.url)
    evidence = world.copy.anchor(world.anchor)
    with pytest.raises(Untrusted) as caught:
        chain = world.copy.first_parent_chain(world.anchor, head)
        authenticate(evidence, chain, fleet_id=FLEET_ID, head=head)
    assert caught.value.reason == Reason.NOT_DESCENDANT
    assert world.copy.read_tree(world.anchor).blobs
    world.copy.accept(world.anchor)
    assert (world.copy.path / DAMAGED).exists()
    assert world.copy.anchor(world.anchor).oid == world.anchor
    head = world.node("b")
    assert world.follow().oid == head
    assert not (world.copy.path / DAMAGED).exists()


def test_a_commit_that_is_gone_cannot_be_accepted(world: World) -> None:
    with pytest.raises(HostError, match="is gone"):
        world.copy.accept("1" * 40)
    assert world.copy.stored_head() == world.anchor


# Bundles.


def test_bundles_build_on_what_was_accepted_and_on_each_other(world: World, tmp_path: Path) -> None:
    full, first, second = (tmp_path / name for name in ("full", "first", "second"))
    world.remote.git("bundle", "create", "-q", str(full), "main")
    start = world.anchor
    middle = world.node("b")
    world.remote.git("bundle", "create", "-q", str(first), f"{start}..main", "main")
    head = world.node("c")
    world.remote.git("bundle", "create", "-q", str(second), f"{middle}..main", "main")
    assert world.copy.fetch_bundle(first, second) == head
    assert world.follow(fetch=False).oid == head
    assert world.copy.fetch_bundle(full) == start, "going back is for trust to refuse"
    with pytest.raises(Untrusted):
        world.follow(head, fetch=False)

    with FleetRepository(tmp_path / "new.git") as copy:
        with pytest.raises(TryLater, match="does not have"):
            copy.fetch_bundle(second)
        assert copy.stored_head() is None
        assert copy.fetch_bundle(full, first, second) == head
        copy.accept(head)
        assert copy.anchor(start).oid == start
        with pytest.raises(UsageError, match="no git bundle"):
            copy.fetch_bundle(tmp_path / "none")
        world.node("d")
        world.remote.git("bundle", "create", "-q", str(second), f"{head}..main", "main")
        (tmp_path / "bad").write_bytes(second.read_bytes()[:-30])
        with pytest.raises((Untrusted, TryLater)):
            copy.fetch_bundle(tmp_path / "bad")
        assert copy.stored_head() == head


# HTTP.


@contextmanager
def http(handler: object) -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_plain_http_passes_fsck_when_it_is_accepted(world: World) -> None:
    """git does not check objects that a server without git hands out ("dumb" HTTP); accepting does."""
    world.remote.git("update-server-info")
    with http(partial(Quiet, directory=str(world.remote.path / ".git"))) as address:
        world.node("b")
        world.remote.git("update-server-info")
        assert world.copy.fetch(f"http://{address}/") == world.remote.head
        assert world.follow(fetch=False).oid == world.remote.head

        tree = b"40000 ..\0" + bytes.fromhex(world.tree)
        raw = signed_commit(world.keys["alice"], world.remote.store(tree, "tree"), (world.remote.head,), "x")
        bad = world.remote.point(world.remote.store(raw))
        world.remote.git("update-server-info")
        assert world.copy.fetch(f"http://{address}/") == bad
        with pytest.raises(Untrusted) as caught:
            world.copy.accept(bad)
        assert caught.value.reason == Reason.COMMIT_MALFORMED


def test_redirects_never_carry_the_password(world: World) -> None:
    seen: list[tuple[str, str | None]] = []

    class Second(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(("second", self.headers.get("Authorization")))
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http(Second) as second:

        class First(Second):
            def do_GET(self) -> None:
                seen.append(("first", self.headers.get("Authorization")))
                self.send_response(302)
                self.send_header("Location", f"http://{second.replace('127.0.0.1', 'localhost')}{self.path}")
                self.end_headers()

        with http(First) as first, pytest.raises(TryLater):
            world.copy.fetch(f"http://user:secret@{first}/fleet")
    assert [name for name, _ in seen][:2] == ["first", "second"]
    assert all(sent is None for name, sent in seen if name == "second")


# Memory.

MEASURE = """
import re, sys
from pathlib import Path
from kubenode.host.git import FleetRepository
from kubenode.trust.chain import authenticate
with FleetRepository(Path(sys.argv[1])) as copy:
    chain = copy.first_parent_chain(sys.argv[2], sys.argv[3])
    verified = authenticate(copy.anchor(sys.argv[2]), chain, fleet_id="", head=sys.argv[3]).verified
# Not ru_maxrss, which a new process takes over from the one that started it.
print(verified, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_history(tmp_path: Path, keys: Keys) -> None:
    remote = GitRepo.init(tmp_path / "remote")
    oids = long_history(remote, keys["alice"], 2000)
    path = tmp_path / "fleet.git"
    with FleetRepository(path) as copy:
        copy.fetch(remote.url)
    used = []
    for count in (200, 2000):
        words = [sys.executable, "-c", MEASURE, str(path), oids[0], oids[count]]
        done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
        verified, kib = map(int, done.stdout.split())
        assert verified == count
        used.append(kib)
    # Ten times the commits: the ids of 1,800 more (0.2 MiB) and what the allocator does.
    assert used[1] - used[0] < 4096, used
