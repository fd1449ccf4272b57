"""Everything a node must refuse, on a real node: each with its reason in the status, and nothing written."""

import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubenode.host.clock import SystemClock
from kubenode.image.sign import LocalSigner
from kubenode.lab.node import LabNode, Status
from kubenode.lab.serve import Faults
from kubenode.lab.story import CHANNELS, FIRST
from kubenode.lab.workshop import Workshop
from kubenode.model.version import Version
from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, Artifact, Manifest, Provenance, encode

pytestmark = pytest.mark.vm

BUILDER = "builder@fleet.internal"
FILL = """
import os
free = os.statvfs('/var/lib/kubenode')
size = free.f_bavail * free.f_frsize - {left}
with open('/var/lib/kubenode/filler', 'wb') as file:
    os.posix_fallocate(file.fileno(), 0, size)
"""
TOO_LITTLE_FOR_A_RELEASE = 40 << 20
"""Bytes left free: a fetch of the fleet repo leaves 16 MiB, a download 64 MiB."""
TOO_LITTLE_FOR_A_FETCH = 1 << 20


def condition(status: Status, kind: str) -> dict[str, str]:
    return next(it for it in status["conditions"] if it["type"] == kind)


def small_release(workshop: Workshop, version: str, identity: str = BUILDER) -> Path:
    """Sign and publish a release of a few bytes; it is never booted, so it need not be an image."""
    folder = workshop.out / version
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    artifacts = []
    for role, ending in (("root", "root.raw"), ("verity", "verity.raw"), ("uki", "efi")):
        content = os.urandom(256 << 10)
        name = f"kubenode_{version}.{ending}"
        (folder / name).write_bytes(content)
        artifacts.append(Artifact(name, role, hashlib.sha256(content).hexdigest(), len(content)))
    statement = encode(
        Manifest("node", Version(version), None, None, ("kubenode.dev/v1alpha1",), "ab" * 32, tuple(artifacts)),
        Provenance("0" * 64, "0" * 64, "0" * 40, "https://builder.test", "test", datetime(2026, 11, 23, tzinfo=UTC)),
    )
    (folder / MANIFEST_NAME).write_bytes(statement)
    (folder / BUNDLE_NAME).write_bytes(LocalSigner(workshop.sigstore, identity, SystemClock()).sign(statement))
    workshop.publish(version)
    return workshop.store / version


def test_refusals(node: LabNode, workshop: Workshop) -> None:
    workshop.set_channels((FIRST,), CHANNELS)
    with workshop.serving() as faults:
        node.start()
        assert node.tick()["phase"] == "Up to date"
        refuse_commits(node, workshop)
        refuse_releases(node, workshop, faults)
        refuse_to_fetch_onto_a_full_disk(node, workshop)


def refuse_commits(node: LabNode, workshop: Workshop) -> None:
    good = workshop.head

    def unsigned() -> None:
        workshop.git("-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "--message", "unsigned")

    def stranger() -> None:
        key = workshop.keys / "stranger"
        if not key.exists():
            workshop.git("--version")
            from subprocess import run

            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        workshop.git("-c", f"user.signingKey={key}", "commit", "--quiet", "--allow-empty", "--message", "stranger")

    def rewound() -> None:
        workshop.git("reset", "--quiet", "--hard", f"{good}~1")

    attacks: tuple[tuple[Callable[[], None], str], ...] = (
        (unsigned, "UnsignedCommit"),
        (stranger, "UnknownSigner"),
        (rewound, "NotDescendant"),
    )
    for attack, reason in attacks:
        attack()
        workshop.push()
        status = node.tick()
        trusted = condition(status, "Trusted")
        print(f"{attack.__name__}: {trusted['reason']}: {trusted['message']}")
        assert (trusted["status"], trusted["reason"]) == ("False", reason)
        assert status["commit"] == good, "the node must stay with what it trusts"
        nothing_written(node, status)
        workshop.git("reset", "--quiet", "--hard", good)
        workshop.push()
        assert condition(node.tick(), "Trusted")["status"] == "True"


def refuse_releases(node: LabNode, workshop: Workshop, faults: Faults) -> None:
    def other_digest(folder: Path) -> None:
        other = small_release(workshop, "2026.11.90")
        for name in (MANIFEST_NAME, BUNDLE_NAME):
            shutil.copy(other / name, folder / name)

    def one_byte(folder: Path) -> None:
        path = next(folder.glob("*.root.raw"))
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)

    def truncating(_: Path) -> None:
        faults.truncate = 100_000

    def garbage(_: Path) -> None:
        faults.garbage = True

    def full_disk(_: Path) -> None:
        node.probe.python(FILL.format(left=TOO_LITTLE_FOR_A_RELEASE))

    def nothing(_: Path) -> None:
        pass

    cases: tuple[tuple[str, str, Callable[[Path], None], str], ...] = (
        ("2026.11.91", BUILDER, other_digest, "ManifestDigestMismatch"),
        ("2026.11.92", "mallory@example.net", nothing, "BuilderNotAllowed"),
        ("2026.11.93", BUILDER, one_byte, "ArtifactDigestMismatch"),
        ("2026.11.94", BUILDER, truncating, "kubenode_2026.11.94"),
        ("2026.11.95", BUILDER, garbage, "ManifestDigestMismatch"),
        ("2026.11.96", BUILDER, full_disk, "free"),
    )
    for version, identity, attack, expected in cases:
        folder = small_release(workshop, version, identity)
        attack(folder)
        workshop.set_channels((version, FIRST), CHANNELS)
        status = node.tick()
        stalled = condition(status, "Stalled")
        print(f"{attack.__name__}: {stalled['reason']}: {stalled['message']}")
        assert stalled["status"] == "True", status
        assert expected in stalled["reason"] + " " + stalled["message"]
        nothing_written(node, status)
        faults.truncate, faults.garbage = None, False
        node.probe.run(["/usr/bin/rm", "-f", "/var/lib/kubenode/filler"])
    workshop.set_channels((FIRST,), CHANNELS)
    assert node.tick()["phase"] == "Up to date"


def refuse_to_fetch_onto_a_full_disk(node: LabNode, workshop: Workshop) -> None:
    before = node.tick()["commit"]
    node.probe.python(FILL.format(left=TOO_LITTLE_FOR_A_FETCH))
    workshop.git("commit", "--quiet", "--allow-empty", "--message", "news")
    workshop.push()
    status = node.tick()
    trusted = condition(status, "Trusted")
    print(f"full disk: {trusted['reason']}: {trusted['message']}")
    assert status["commit"] == before, "what cannot be kept cannot be followed"
    assert "/var/lib/kubenode is too full" in trusted["message"]
    nothing_written(node, status)
    node.probe.run(["/usr/bin/rm", "-f", "/var/lib/kubenode/filler"])
    assert node.tick()["commit"] == workshop.head, "the disk has room again"


def nothing_written(node: LabNode, status: Status) -> None:
    observed = status["observed"]
    assert observed["booted"]["version"] == FIRST
    assert (observed["spare"], observed["staged"]) == (None, None)
    assert node.entries() == [f"kubenode_{FIRST}.efi"]
