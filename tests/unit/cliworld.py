"""A fleet made by the command itself, with two small signed releases, for tests at the command's boundary.

conftest.py hands the fixtures out, so that the fleet is made once. The commands run in this process: an exception
that would be a traceback for people fails the test.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kubenode.cli.main import main
from kubenode.host.clock import SystemClock
from kubenode.image.sign import LocalSigner
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot
from kubenode.model.plain import plain
from kubenode.model.state import NodeStatus
from kubenode.model.version import Version
from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, Artifact, Manifest, encode
from kubenode.trust.provenance import Provenance

OLD, NEW = "2026.11.1", "2026.11.2"
STORE = "https://images.example.net/kubenode"
ROOT_HASHES = {OLD: "ab" * 32, NEW: "cd" * 32}
NODE = "apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: edge-1}\nspec: {pool: standalone}\n"


@dataclass(frozen=True)
class Done:
    """A finished command: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last(self) -> str:
        return self.err.strip().splitlines()[-1]


def kubenode(*words: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> Done:
    """Run a command line in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    argv, given = sys.argv, sys.stdin
    sys.argv = ["kubenode", *map(str, words)]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    code: object = None
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
            stack.enter_context(contextlib.redirect_stdout(streams[0]))
            stack.enter_context(contextlib.redirect_stderr(streams[1]))
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv, sys.stdin = argv, given
    assert isinstance(code, int)
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return Done(code, out, err)


@dataclass(frozen=True)
class World:
    """A folder with a fleet repo (`fleet`), its `key`, its `sigstore`, built releases (`out`) and a `store`."""

    top: Path

    fleet = property(lambda self: self.top / "homelab")
    key = property(lambda self: self.top / "homelab.key")
    sigstore = property(lambda self: self.top / "homelab.sigstore")
    out = property(lambda self: self.top / "out")
    store = property(lambda self: self.top / "store")

    def git(self, *words: str | Path, cwd: Path | None = None) -> str:
        argv = ["git", "-C", str(cwd or self.fleet), *map(str, words)]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def anchor(self) -> str:
        return self.git("rev-list", "--max-parents=0", "HEAD")

    @property
    def dirty(self) -> str:
        return self.git("status", "--porcelain")

    def run(self, *words: str | Path) -> Done:
        """Run a command for this fleet."""
        return kubenode(*words, "-C", self.fleet)

    def status(self, version: str, node: str = "edge-1") -> dict[str, Any]:
        """Return what the node would report that runs a release, blessed."""
        root = ROOT_HASHES[version]
        observed = Observed(
            "boot-1", BootedSlot(Slot.A, Version(version), root), entries=(BootEntry(Version(version), root),)
        )
        at = datetime(2026, 11, 23, tzinfo=UTC)
        report = plain(NodeStatus(node, at, self.head, "Up to date", "", observed=observed))
        assert isinstance(report, dict)
        return report


def build_release(
    world: World, version: str, identity: str = "builder@homelab.internal", kubernetes: str | None = None
) -> Path:
    """Sign a release of a few bytes, laid out as `kubenode build` does."""
    folder = world.out / version
    folder.mkdir(parents=True)
    artifacts = []
    for role, ending in (("root", "root.raw"), ("verity", "verity.raw"), ("uki", "efi")):
        content = os.urandom(4096)
        name = f"kubenode_{version}.{ending}"
        (folder / name).write_bytes(content)
        artifacts.append(Artifact(name, role, hashlib.sha256(content).hexdigest(), len(content)))
    root = ROOT_HASHES.get(version, "ef" * 32)
    recipe = hashlib.sha256((world.fleet / "images" / "node.yaml").read_bytes()).hexdigest()
    statement = encode(
        Manifest("node", Version(version), kubernetes, None, ("kubenode.dev/v1alpha1",), root, tuple(artifacts)),
        Provenance(recipe, "0" * 64, world.head, "https://builder.test", "test", datetime(2026, 11, 23, tzinfo=UTC)),
    )
    (folder / MANIFEST_NAME).write_bytes(statement)
    (folder / BUNDLE_NAME).write_bytes(LocalSigner(world.sigstore, identity, SystemClock()).sign(statement))
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Both releases are published and committed; the first is in nightly and beta; one machine runs from beta."""
    world = World(tmp_path_factory.mktemp("cli") / "with space")
    world.top.mkdir()
    done = kubenode("new", world.fleet, "--store", STORE)
    assert (done.code, done.out) == (0, ""), done.err
    for version in (OLD, NEW):
        build_release(world, version)
        done = world.run("publish", world.out / version, "--store", world.store, "--commit")
        assert done.code == 0, done.err
    for channel in ("nightly", "beta"):
        done = world.run("promote", OLD, channel)
        assert done.code == 0, done.err
    (world.fleet / "nodes").mkdir()
    (world.fleet / "nodes" / "edge-1.yaml").write_text(NODE)
    pool = world.fleet / "pools" / "standalone.yaml"
    pool.write_text(pool.read_text().replace("channel: stable", "channel: beta"))
    world.git("add", "--all")
    world.git("commit", "--quiet", "--message", "A machine")
    return world


@pytest.fixture
def world(prepared: World, tmp_path: Path) -> Iterator[World]:
    """A copy of the prepared fleet of this test's own."""
    copy = World(tmp_path / "with space")
    shutil.copytree(prepared.top, copy.top, symlinks=True)
    yield copy
