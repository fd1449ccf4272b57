"""A forge that wants to hurt: it fills disks and memory, wastes time, lies, and is bounded in all of it."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kubenode.errors import NoSpace, TryLater, Untrusted, UsageError
from kubenode.host import git_fetch, git_run
from kubenode.host.git import DAMAGED, FleetRepository
from kubenode.host.git_fetch import disk_usage
from kubenode.trust.commit import object_id
from kubenode.trust.reasons import Reason
from tests.gitrepo import SigningKey, World, pack, signed_commit
from tests.hostile import BLOB, COMMIT, TREE, bundle, delta_bomb, entry, line, raw_pack, server, zeros

Keys = Mapping[str, SigningKey]
MIB = 1 << 20


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


def with_nodes(world: World, mode: bytes, oid: str) -> tuple[str, list[bytes]]:
    """Return a commit by alice in which `nodes` is that object, and the pack entries of the commit and its tree."""
    policy = bytes.fromhex(world.remote.git("rev-parse", "HEAD:trust"))
    tree = mode + b" nodes\0" + bytes.fromhex(oid) + b"40000 trust\0" + policy
    raw = signed_commit(world.keys["alice"], object_id("tree", tree), (world.anchor,), "x")
    return object_id("commit", raw), [entry(COMMIT, raw), entry(TREE, tree)]


def refused(world: World, bundle: Path) -> Untrusted:
    """Fetch a bundle, authenticate, and return the refusal; the node goes on with what it trusted."""
    with pytest.raises(Untrusted) as caught:
        world.copy.fetch_bundle(bundle)
        world.follow(fetch=False)
    assert caught.value.hint
    assert world.copy.anchor(world.anchor).oid == world.anchor
    assert not (world.copy.path / DAMAGED).exists(), "a remote must not be able to make a good copy look damaged"
    assert not list(world.copy.path.parent.glob("*.fetch-*"))
    return caught.value


# Memory and processor time.


def test_a_blob_that_inflates_is_streamed_and_never_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_fetch, "MEMORY", 192 * MIB)
    bomb, oid = zeros(BLOB, 257 * MIB)
    assert len(bomb) < MIB
    head, entries = with_nodes(world, b"100644", oid)
    error = refused(world, bundle(tmp_path / "b", head, raw_pack([*entries, bomb]), world.anchor))
    assert error.reason in (Reason.TOO_MUCH_EVIDENCE, Reason.NO_RULE_MATCHES)


@pytest.mark.parametrize("kind", [TREE, COMMIT])
def test_other_objects_that_inflate_end_at_the_memory_limit(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    monkeypatch.setattr(git_fetch, "MEMORY", 128 * MIB)
    bomb, oid = zeros(kind, 200 * MIB)
    head, entries = with_nodes(world, b"40000", oid)
    error = refused(world, bundle(tmp_path / "b", head, raw_pack([*entries, bomb]), world.anchor))
    assert error.reason == Reason.TOO_MUCH_EVIDENCE
    assert "MiB of memory" in error.message


def test_a_delta_that_inflates_ends_at_the_memory_limit(world: World, tmp_path: Path) -> None:
    base = os.urandom(1 << 16)
    bomb = delta_bomb(object_id("blob", base), 2 << 30)
    assert len(bomb) < 1024
    head, entries = with_nodes(world, b"100644", "1" * 40)
    error = refused(world, bundle(tmp_path / "b", head, raw_pack([*entries, entry(BLOB, base), bomb]), world.anchor))
    assert error.reason == Reason.TOO_MUCH_EVIDENCE


def test_a_pack_that_claims_four_billion_objects(world: World, tmp_path: Path) -> None:
    head, entries = with_nodes(world, b"100644", "1" * 40)
    error = refused(world, bundle(tmp_path / "b", head, raw_pack(entries, claimed=0xFFFFFFFF), world.anchor))
    assert error.reason == Reason.TOO_MUCH_EVIDENCE


def test_a_tree_of_trees_that_never_ends(world: World, tmp_path: Path) -> None:
    blob = b"x"
    entries = [entry(BLOB, blob)]
    mode, oid = b"100644", object_id("blob", blob)
    for _ in range(12):
        tree = b"".join(mode + b" %02d\0" % number + bytes.fromhex(oid) for number in range(40))
        entries.append(entry(TREE, tree))
        mode, oid = b"40000", object_id("tree", tree)
    head, more = with_nodes(world, b"40000", oid)
    error = refused(world, bundle(tmp_path / "b", head, raw_pack([*entries, *more]), world.anchor))
    assert error.reason == Reason.TOO_MUCH_EVIDENCE
    assert error.subject == head


def test_folders_in_folders_without_end(world: World, tmp_path: Path) -> None:
    tree = b"100644 a\0" + bytes.fromhex(object_id("blob", b"x"))
    objects = [(BLOB, b"x")]
    for _ in range(60_000):
        objects.append((TREE, tree))
        tree = b"40000 a\0" + bytes.fromhex(object_id("tree", tree))
    objects.append((TREE, tree))
    policy = bytes.fromhex(world.remote.git("rev-parse", "HEAD:trust"))
    top = b"40000 nodes\0" + bytes.fromhex(object_id("tree", tree)) + b"40000 trust\0" + policy
    raw = signed_commit(world.keys["alice"], object_id("tree", top), (world.anchor,), "x")
    made = bundle(tmp_path / "b", object_id("commit", raw), pack([*objects, (TREE, top), (COMMIT, raw)]), world.anchor)
    assert refused(world, made).reason == Reason.TOO_MUCH_EVIDENCE


def test_a_name_without_end(world: World, tmp_path: Path) -> None:
    tree = b"100644 " + b"a" * (3 * MIB) + b"\0" + bytes.fromhex(object_id("blob", b"x"))
    head, entries = with_nodes(world, b"40000", object_id("tree", tree))
    made = bundle(tmp_path / "b", head, raw_pack([*entries, entry(TREE, tree), entry(BLOB, b"x")]), world.anchor)
    error = refused(world, made)
    assert error.reason == Reason.TOO_MUCH_EVIDENCE
    assert len(error.message) < 200


def test_too_many_objects(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_fetch, "MAX_OBJECTS", 1000)
    blobs = [(BLOB, b"%d" % number) for number in range(2000)]
    tree = b"".join(b"100644 %04d\0" % at + bytes.fromhex(object_id("blob", raw)) for at, (_, raw) in enumerate(blobs))
    head, entries = with_nodes(world, b"40000", object_id("tree", tree))
    entries += [entry(kind, content) for kind, content in [*blobs, (TREE, tree)]]
    error = refused(world, bundle(tmp_path / "b", head, raw_pack(entries), world.anchor))
    assert error.reason == Reason.TOO_MUCH_EVIDENCE
    assert "2,003 objects" in error.message
    assert world.copy.stored_head() == world.anchor


# Disk.


def test_a_large_pack_is_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_fetch, "MAX_FETCH", MIB)
    world.remote.write("nodes/large", os.urandom(3 * MIB))
    world.commit("large", "alice")
    with pytest.raises(Untrusted) as caught:
        world.copy.fetch(world.remote.url)
    assert caught.value.reason == Reason.TOO_MUCH_EVIDENCE
    assert "stopped at 1 MiB" in caught.value.message
    assert world.copy.stored_head() == world.anchor
    assert disk_usage(world.copy.path.parent) - disk_usage(world.remote.path) < MIB


def test_refused_heads_do_not_pile_up(world: World) -> None:
    """Tick after tick another head that is refused: the disk holds the last one, and an accepted one nothing of it."""
    for _ in range(4):
        world.remote.git("checkout", "-q", "-f", "-B", "main", world.anchor)
        world.remote.write("nodes/large", os.urandom(MIB))
        world.commit("rubbish", None)
        with pytest.raises(Untrusted):
            world.follow()
        assert disk_usage(world.copy._candidate.path) < 1.5 * MIB
    world.remote.git("checkout", "-q", "-f", "-B", "main", world.anchor)
    head = world.node("b")
    assert world.follow().oid == head
    assert disk_usage(world.copy.path) < MIB
    assert not world.copy._candidate.path.exists()


def test_objects_that_nobody_asked_for_are_not_accepted(world: World, tmp_path: Path) -> None:
    """A pack may hold more than the branch needs."""
    head = world.node("b")
    objects = world.remote.git("rev-list", "--objects", "--no-object-names", head, f"^{world.anchor}").split()
    kinds = {"commit": COMMIT, "tree": TREE, "blob": BLOB}
    named = [(world.remote.git("cat-file", "-t", oid), oid) for oid in objects]
    entries = [entry(kinds[kind], world.remote.raw(oid, kind)) for kind, oid in named]
    rubbish = os.urandom(2 * MIB)
    made = bundle(tmp_path / "b", head, raw_pack([*entries, entry(BLOB, rubbish)]), world.anchor)
    world.copy.fetch_bundle(made)
    assert world.copy._candidate.has(object_id("blob", rubbish))
    assert world.follow(fetch=False).oid == head
    assert not world.copy._main.has(object_id("blob", rubbish))
    assert world.copy._main.has(head)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("reserve", [0, 4 * MIB])
def test_a_full_disk(world: World, small_disk: Path, monkeypatch: pytest.MonkeyPatch, reserve: int) -> None:
    """Fetching and accepting end with NoSpace, and the previous state stays; with more room they work."""
    monkeypatch.setattr(git_fetch, "RESERVE", reserve)
    with FleetRepository(small_disk / "fleet.git") as copy:
        world.copy = copy
        world.follow()
        for size in (20 * MIB, 7 * MIB):  # The second fits once, not twice.
            world.remote.git("checkout", "-q", "-f", "-B", "main", world.anchor)
            world.remote.write("nodes/large", os.urandom(size))
            world.commit("large", "alice")
            with pytest.raises(NoSpace) as caught:
                world.follow()
            assert caught.value.hint
            assert copy.anchor(world.anchor).oid == world.anchor
            assert world.follow(world.anchor, fetch=False) if copy.stored_head() == world.anchor else True
        world.remote.git("checkout", "-q", "-f", "-B", "main", world.anchor)
        head = world.node("b")
        assert world.follow().oid == head
        (small_disk / "filler").write_bytes(bytes(copy_room(small_disk)))
        with pytest.raises(NoSpace):
            copy.fetch(world.remote.url)
        assert copy.stored_head() == head


def copy_room(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


# Servers that lie or dawdle.


def advertise(connection: socket.socket, head: str) -> None:
    connection.sendall(line(head.encode() + b" refs/heads/main\0side-band-64k ofs-delta\n") + b"0000")
    received = b""
    while b"done\n" not in received:
        received += connection.recv(65536) or b"done\n"
    connection.sendall(line(b"NAK\n"))


def test_a_flood_of_messages_is_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_fetch, "MAX_FETCH", MIB)

    def flood(connection: socket.socket) -> None:
        advertise(connection, "1" * 40)
        while True:
            connection.sendall(line(b"\x02" + b"No space left on device\n" * 2000))

    with server(flood) as url, pytest.raises(Untrusted) as caught:
        world.copy.fetch(url, timeout=30)
    assert caught.value.reason == Reason.TOO_MUCH_EVIDENCE
    assert not list(world.copy.path.parent.glob("*.fetch-*"))


def test_what_a_server_says_decides_nothing(world: World) -> None:
    """Neither does it reach a terminal as it is."""

    def lie(connection: socket.socket) -> None:
        connection.sendall(line(b"ERR \x1b[2Jsorry\nfatal: write error: No space left on device"))

    with server(lie) as url, pytest.raises(TryLater, match=r"refuses: .*sorry") as caught:
        world.copy.fetch(url)
    assert caught.value.message.isprintable()

    def whisper(connection: socket.socket) -> None:
        advertise(connection, "1" * 40)
        connection.sendall(line(b"\x02fsck error: No space left on device\n") + line(b"\x03gone\n"))

    with server(whisper) as url, pytest.raises(TryLater):
        world.copy.fetch(url)


def test_many_names_of_branches(world: World) -> None:
    """git keeps them in memory, so their number ends at its limit; the client cannot ask for one of them alone."""
    monster = b"".join(line(b"1" * 40 + b" refs/heads/b%07d" % number + b"x" * 900) for number in range(1000))

    def advertise_all(connection: socket.socket) -> None:
        connection.sendall(line(b"1" * 40 + b" HEAD\0side-band-64k\n"))
        for _ in range(2000):
            connection.sendall(monster)
        connection.sendall(b"0000")

    with server(advertise_all) as url, pytest.raises(Untrusted) as caught:
        world.copy.fetch(url)
    assert caught.value.reason == Reason.TOO_MUCH_EVIDENCE


def test_a_server_that_stops_talking_is_left_with_all_children(world: World) -> None:
    def hang(connection: socket.socket) -> None:
        advertise(connection, "1" * 40)
        connection.sendall(line(b"\x01" + b"PACK" + (2).to_bytes(4, "big") + (9).to_bytes(4, "big")))
        connection.recv(1)

    start = time.monotonic()
    with server(hang) as url, pytest.raises(TryLater, match="takes too long"):
        world.copy.fetch(url, timeout=1)
    assert time.monotonic() - start < 60
    words = [(path / "cmdline").read_bytes() for path in Path("/proc").glob("[0-9]*") if (path / "cmdline").exists()]
    assert not [it for it in words if str(world.copy.path).encode() in it and b"fetch" in it]


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=id/x", "-oProxyCommand=id@host:x", "git@-oProxyCommand=id:x"])
def test_addresses_that_are_options(world: World, url: str) -> None:
    with pytest.raises(UsageError):
        world.copy.fetch(url)


def test_shallow_remotes_are_refused(world: World, tmp_path: Path) -> None:
    """They could hide that the trusted commit is not below their head; git does not take over their border."""
    world.node("b")
    world.node("c")
    shallow = tmp_path / "shallow"
    world.remote.git("clone", "-q", "--bare", "--depth=1", world.remote.url, str(shallow))
    with FleetRepository(tmp_path / "other.git") as copy, pytest.raises(TryLater, match="shallow clone"):
        copy.fetch(f"file://{shallow}")


def test_configuration_that_others_rely_on_is_said() -> None:
    environment = git_run.git_environment()
    said = {
        environment[f"GIT_CONFIG_KEY_{number}"]: environment[f"GIT_CONFIG_VALUE_{number}"]
        for number in range(int(environment["GIT_CONFIG_COUNT"]))
    }
    assert said["transfer.bundleURI"] == said["submodule.recurse"] == "false"
    assert said["http.followRedirects"] == "initial"
    assert environment["GIT_NO_LAZY_FETCH"] == "1"
    assert "ForwardAgent=no" in environment["GIT_SSH_COMMAND"]
