"""`kubenode publish`, `promote` and `verify` on releases that were signed but are no images."""

import json
import shutil
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cliworld import NEW, OLD, Done, World, build_release, kubenode

from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME


def verify(world: World, release: str | Path, channel: str = "beta") -> tuple[int, dict[str, Any]]:
    done = world.run("verify", release, "--channel", channel, "--output", "json")
    return done.code, json.loads(done.out)


# Where a release may be.


@pytest.mark.parametrize("place", ["out/{}", "out/{}/", "store/{}", "./store/../out/{}"])
def test_verify_folders(prepared: World, place: str) -> None:
    done = kubenode("verify", place.format(OLD), "-C", "homelab", "--channel", "beta", "-o", "json", cwd=prepared.top)
    assert done.code == 0, done.err
    assert (done.json["verdict"], done.json["reason"]) == ("trusted", "Trusted")
    assert "builder@homelab.internal" in done.json["message"]
    assert done.json["documents"] == "working tree, not authenticated"


def test_verify_from_inside_the_release(prepared: World) -> None:
    done = kubenode("verify", ".", "-C", prepared.fleet, "--channel", "beta", cwd=prepared.out / OLD)
    assert done.code == 0, done.err
    assert "nothing authenticates" in done.err.splitlines()[0]


@pytest.mark.parametrize("slash", ["", "/"])
def test_verify_urls(prepared: World, slash: str) -> None:
    assert verify(prepared, (prepared.store / OLD).as_uri() + slash)[0] == 0
    handler = partial(QuietHandler, directory=str(prepared.store))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            assert verify(prepared, f"{base}/{OLD}{slash}")[0] == 0
            done = prepared.run("verify", f"{base}/2026.11.3", "--channel", "beta")
            assert done.code == 64
            assert "no releases/2026.11.3.yaml" in done.err
        finally:
            server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_verify_a_store_that_does_not_answer(prepared: World) -> None:
    done = prepared.run("verify", f"http://127.0.0.1:9/{OLD}", "--channel", "beta", "-o", "json")
    assert (done.code, done.out) == (75, "")


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("nosuch/2026.11.1", "is not a release"),
        ("", "is not a release"),
        ("ftp://host/2026.11.1", "not an http://"),
        ("https://", "does not end in a release version"),
        ("http://host/latest", "does not end in a release version"),
        ("file:///nosuch/2026.11.1", "is not a release"),
    ],
)
def test_verify_what_is_no_release(prepared: World, release: str, said: str) -> None:
    done = prepared.run("verify", release, "--channel", "beta", "-o", "json")
    assert (done.code, done.out) == (64, "")
    assert said in done.err


def test_verify_unknown_channel(prepared: World) -> None:
    done = prepared.run("verify", prepared.out / OLD, "--channel", "nigthly")
    assert done.code == 64
    assert "Known channels: beta, nightly, stable." in done.err


# What is refused.


def flip(folder: Path) -> None:
    path = next(folder.glob("*.root.raw"))
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = next(folder.glob("*.efi"))
    path.write_bytes(path.read_bytes()[:-1])


def remove(pattern: str, folder: Path) -> None:
    next(folder.glob(pattern)).unlink()


def garbage(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"\xff\x00garbage")


def other_manifest(folder: Path) -> None:
    for name in (MANIFEST_NAME, BUNDLE_NAME):
        shutil.copy(folder.parent / NEW / name, folder / name)


TAMPERING: list[tuple[Callable[[Path], None], str]] = [
    (flip, "ArtifactDigestMismatch"),
    (truncate, "ArtifactSizeMismatch"),
    (partial(remove, "*.efi"), "ArtifactMissing"),
    (partial(remove, BUNDLE_NAME), "BundleMissing"),
    (partial(garbage, "notes.txt"), "ArtifactExtra"),
    (partial(garbage, BUNDLE_NAME), "BundleInvalid"),
    (partial(garbage, MANIFEST_NAME), "ManifestDigestMismatch"),
    (other_manifest, "ManifestDigestMismatch"),
]


@pytest.mark.parametrize(("attack", "reason"), TAMPERING)
def test_verify_refuses(world: World, attack: Callable[[Path], None], reason: str) -> None:
    attack(world.out / OLD)
    code, verdict = verify(world, world.out / OLD)
    assert (code, verdict["verdict"], verdict["reason"]) == (3, "refused", reason)
    done = world.run("verify", world.out / OLD, "--channel", "beta")
    assert done.last == f"Refused ({reason})."


def test_verify_refuses_another_builder(world: World) -> None:
    folder = build_release(world, "2026.11.9", "mallory@example.net")
    assert world.run("publish", folder, "--store", world.store).code == 0
    code, verdict = verify(world, folder)
    assert (code, verdict["reason"]) == (3, "BuilderNotAllowed")


def test_verify_compares_the_root_hash_as_nodes_do(world: World) -> None:
    path = world.fleet / "releases" / f"{OLD}.yaml"
    path.write_text(path.read_text().replace("ab" * 32, "ac" * 32))
    code, verdict = verify(world, world.out / OLD)
    assert (code, verdict["reason"]) == (3, "ReleaseMismatch")


# publish


def publish(world: World, version: str, *words: str) -> Done:
    return world.run("publish", world.out / version, "--store", world.store, *words)


def test_publish_again_changes_nothing(world: World) -> None:
    head = world.head
    for _ in range(2):
        done = publish(world, OLD, "--commit")
        assert done.code == 0, done.err
        assert "was in" in done.last and "committed already" in done.last
    assert (world.head, world.dirty) == (head, "")


def test_publish_then_commit(world: World) -> None:
    build_release(world, "2026.11.3")
    assert "not committed" in publish(world, "2026.11.3").last
    done = world.run("promote", "2026.11.3", "nightly")
    assert (done.code, "not committed" in done.err) == (64, True)
    assert publish(world, "2026.11.3", "--commit").code == 0
    assert world.dirty == ""
    assert world.run("trust", "verify", "--anchor", world.anchor).code == 0


def test_publish_never_rewrites_a_release(world: World) -> None:
    shutil.rmtree(world.out / OLD)
    build_release(world, OLD)
    done = world.run("publish", world.out / OLD, "--store", world.top / "other")
    assert done.code == 64
    assert "names another manifest" in done.err
    assert not (world.top / "other").exists()
    assert world.dirty == ""


def test_publish_never_replaces_what_a_store_has(world: World) -> None:
    build_release(world, "2026.11.3")
    assert publish(world, "2026.11.3").code == 0
    kept = (world.store / "2026.11.3" / MANIFEST_NAME).read_bytes()
    (world.fleet / "releases" / "2026.11.3.yaml").unlink()
    shutil.rmtree(world.out / "2026.11.3")
    build_release(world, "2026.11.3")
    done = publish(world, "2026.11.3", "--commit")
    assert (done.code, done.out) == (1, "")
    assert "Hint: " in done.err
    assert (world.store / "2026.11.3" / MANIFEST_NAME).read_bytes() == kept
    assert world.dirty == ""


def test_publish_keeps_notes_in_the_document(world: World) -> None:
    path = world.fleet / "releases" / f"{OLD}.yaml"
    path.write_text(path.read_text() + "  notes: Linux 6.12\n")
    assert publish(world, OLD).code == 0
    assert "notes: Linux" in path.read_text()


@pytest.mark.parametrize("fleet", ["nosuch", "store"])
def test_publish_without_a_fleet_touches_no_store(world: World, fleet: str) -> None:
    done = kubenode("publish", world.out / OLD, "--store", world.top / "s2", "-C", world.top / fleet, "--commit")
    assert done.code == 64
    assert not (world.top / "s2").exists()


@pytest.mark.parametrize("release", ["nosuch", "homelab", "homelab/fleet.yaml"])
def test_publish_what_is_no_release(world: World, release: str) -> None:
    done = world.run("publish", world.top / release, "--store", world.store)
    assert done.code == 64
    assert "is not a release" in done.err


def test_publish_into_a_store_that_cannot_be_written(world: World) -> None:
    build_release(world, "2026.11.3")
    done = world.run("publish", world.out / "2026.11.3", "--store", "/proc/store")
    assert done.code == 1
    assert world.dirty == ""


# promote


def test_promote_changes_one_line_and_nodes_accept_it(world: World) -> None:
    path = world.fleet / "channels" / "nightly.yaml"
    path.write_text(path.read_text() + "# a comment at the end\n")
    world.git("commit", "--quiet", "--all", "--message", "A comment")
    before = path.read_text()
    done = world.run("promote", NEW, "nightly", "--message", "Tonight")
    assert (done.code, done.out) == (0, ""), done.err
    assert path.read_text() == before.replace(f"[{OLD}]", f"[{NEW}, {OLD}]")
    assert world.git("log", "-1", "--format=%s") == "Tonight"
    assert world.git("show", "--format=", "--name-only") == "channels/nightly.yaml"
    assert world.dirty == ""
    assert world.run("trust", "verify", "--anchor", world.anchor).code == 0
    assert world.run("promote", NEW, "beta").code == 0


@pytest.mark.parametrize(
    ("version", "channel", "code", "said"),
    [
        (OLD, "nigthly", 64, "Known channels: beta, nightly, stable."),
        (OLD, "../fleet", 64, "there is no channel"),
        ("2026.11.7", "nightly", 64, "has no releases/2026.11.7.yaml"),
        ("../fleet", "nightly", 64, "has no releases/"),
        (OLD, "nightly", 64, "already"),
        (NEW, "stable", 1, "without being in beta"),
    ],
)
def test_promote_refuses(world: World, version: str, channel: str, code: int, said: str) -> None:
    head = world.head
    done = world.run("promote", version, channel)
    assert done.code == code
    assert said in done.err
    assert (world.head, world.dirty) == (head, "")


def test_promote_does_not_sweep_up_other_changes(world: World) -> None:
    path = world.fleet / "channels" / "nightly.yaml"
    path.write_text(path.read_text() + "# unfinished\n")
    done = world.run("promote", NEW, "nightly")
    assert done.code == 64
    assert "channels/nightly.yaml has changes that are not committed" in done.err
    (world.fleet / "notes.txt").write_text("mine")
    world.git("checkout", "--quiet", "--", "channels")
    assert world.run("promote", NEW, "nightly").code == 0
    assert world.dirty == "?? notes.txt"


def test_promote_with_a_key_that_nodes_refuse(world: World) -> None:
    import subprocess

    stranger = world.top / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    head = world.head
    for key, code, said in ((stranger, 3, "taken back"), (world.top / "nokey", 1, "ssh-keygen")):
        world.git("config", "user.signingKey", key)
        done = world.run("promote", NEW, "nightly")
        assert done.code == code
        assert said in done.err or "nokey" in done.err
        assert (world.head, world.dirty) == (head, "")
    world.git("config", "--unset", "user.signingKey")
    done = world.run("promote", NEW, "nightly")
    assert (done.code, "no signing key" in done.err) == (64, True)
    assert (world.head, world.dirty) == (head, "")


def test_build_refuses_a_dirty_tree_and_unknown_recipes(world: World) -> None:
    words = ("--version", "2026.12.1", "--sigstore", world.sigstore, "--output", world.top / "new")
    assert "Known recipes: node." in world.run("build", "nosuch", *words).err
    assert world.run("build", "node", "--version", "1.x", "--sigstore", world.sigstore).code == 64
    (world.fleet / "fleet.yaml").open("a").write("# x\n")
    done = world.run("build", "node", *words)
    assert (done.code, "fleet.yaml" in done.err) == (64, True)
    assert not (world.top / "new").exists()
