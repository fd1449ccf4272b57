"""The made-up fleet that the pictures show: fleet-example with keys that are always the same, and a release."""

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kubenode.host.clock import SystemClock
from kubenode.image import sigstore_local
from kubenode.image.sign import LocalSigner
from kubenode.model.version import Version
from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, Artifact, Manifest, encode
from kubenode.trust.provenance import Provenance

ROOT = Path(__file__).parents[2]
PEOPLE = ("alice", "bob", "ci")
AT = datetime(2026, 11, 23, 9, tzinfo=UTC)
STRANGER = "intern@example.net"
ISSUER = "https://issuer.example.net"
RELEASE = "2026.11.3"


def make_example(folder: Path) -> None:
    """Make `homelab` (a signed fleet), `clone` (of it), `draft` (with mistakes) and `out/RELEASE`."""
    fleet = folder / "homelab"
    copy_fleet(fleet)
    instance = folder / "sigstore"
    sigstore_local.create(instance, issuer=ISSUER, now=AT)
    manifest = _make_release(folder / "out" / RELEASE, instance)
    _pin(fleet, hashlib.sha256(manifest).hexdigest())
    begin(fleet, folder / "alice")
    _make_draft(fleet, folder / "draft")
    # An instance's keys are never the same twice: it is no part of the commit, whose id is shown.
    shutil.copytree(fleet, folder / "clone")
    shutil.copy(instance / "trusted_root.json", folder / "clone" / "trust" / "sigstore" / "trusted_root.json")


def copy_fleet(fleet: Path) -> None:
    """Copy the example fleet; its people get keys that are always the same, which lie beside it."""
    shutil.copytree(ROOT / "fleet-example", fleet)
    policy = fleet / "trust" / "policy.yaml"
    text = policy.read_text()
    for person in PEOPLE:
        public = _make_key(fleet.parent / person, person)
        # The first place only: what secrets are sealed to stays, or they would have to be sealed again.
        text = re.sub(rf"ssh-ed25519 \S+ ({person}@\S+)", rf"{public} \1", text, count=1)
    policy.write_text(text)


def _make_key(path: Path, person: str) -> str:
    """Write a key that follows from the person's name; return its public half without a comment."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"kubenode example {person}".encode()).digest())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path.with_suffix(".pub").write_text(f"{public} {person}\n")
    return public


def _make_release(folder: Path, instance: Path) -> bytes:
    """Lay out a release that somebody signed who may not; return its manifest."""
    folder.mkdir(parents=True)
    artifacts = []
    for role, ending in (("root", "root.raw"), ("verity", "verity.raw"), ("uki", "efi")):
        name = f"kubenode_{RELEASE}.{ending}"
        content = f"{role} of {RELEASE}\n".encode()
        (folder / name).write_bytes(content)
        artifacts.append(Artifact(name, role, hashlib.sha256(content).hexdigest(), len(content)))
    manifest = encode(
        Manifest("node", Version(RELEASE), None, None, ("kubenode.dev/v1alpha1",), "5e" * 32, tuple(artifacts)),
        Provenance("0" * 64, "0" * 64, "0" * 40, "https://builder.example.net", "example", AT),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest)
    (folder / BUNDLE_NAME).write_bytes(LocalSigner(instance, STRANGER, SystemClock()).sign(manifest))
    return manifest


def _pin(fleet: Path, digest: str) -> None:
    """Add the release's document."""
    document = (fleet / "releases" / "2026.11.2.yaml").read_text()
    document = document.replace("2026.11.2", RELEASE).replace("  kubernetes: v1.34.2\n", "")
    document = re.sub(r"manifest: \S+", f"manifest: sha256:{digest}", document)
    (fleet / "releases" / f"{RELEASE}.yaml").write_text(
        re.sub(r'rootHash: "\w+"', f'rootHash: "{"5e" * 32}"', document)
    )


def begin(fleet: Path, key: Path) -> None:
    """Make the fleet a git repository with one commit, signed with a key; its id is always the same."""
    settings = {
        "user.name": "alice",
        "user.email": "alice@example.net",
        "gpg.format": "ssh",
        "user.signingKey": str(key),
        "commit.gpgSign": "true",
    }
    git(fleet, "init", "--quiet", "--initial-branch=main")
    for name, value in settings.items():
        git(fleet, "config", name, value)
    commit(fleet, "The fleet")


def commit(fleet: Path, message: str) -> None:
    """Commit everything, at the time that is always the same."""
    git(fleet, "add", "--all")
    git(fleet, "commit", "--quiet", "--message", message)


def git(fleet: Path, *words: str | Path) -> None:
    """Run git in the fleet."""
    date = f"{int(AT.timestamp())} +0000"
    env = {**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", fleet, *words], check=True, env=env)


def _make_draft(fleet: Path, draft: Path) -> None:
    """Copy the fleet and make the mistakes that people make."""
    shutil.copytree(fleet, draft, ignore=shutil.ignore_patterns(".git"))
    for path, good, bad in (
        ("nodes/worker-1.yaml", "pool: workers", "pool: worker"),
        ("pools/workers.yaml", "maxUnavailable: 10%", "maxUnavailible: 10%"),
        ("channels/stable.yaml", "[2026.11.1, 2026.10.4]", "[2026.10.4, 2026.11.1]"),
        ("fleet.yaml", "halted: false", "halted: no"),
    ):
        text = (draft / path).read_text()
        assert good in text, f"{path} has no {good!r} any more"
        (draft / path).write_text(text.replace(good, bad))
