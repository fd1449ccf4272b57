"""A fleet in memory for the simulation: signed commits and signed releases, all with real evidence.

Commits are signed by an SSH key in this process, releases by a local Sigstore instance. Nothing is faked: the agent
authenticates and verifies them as it would on a machine.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kubenode.errors import Untrusted
from kubenode.image import sigstore_local
from kubenode.model.version import Version
from kubenode.trust.chain import TrustedCommit, TrustedTree
from kubenode.trust.commit import object_id
from kubenode.trust.evidence import ChangedPath, CommitEvidence, TreeEvidence
from kubenode.trust.manifest import Artifact, Manifest, Provenance, encode
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from kubenode.trust.tree import trusted_tree
from tests.gitrepo import SigningKey, _store_tree, policy_yaml, signed_commit

FLEET_ID = "6f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11"
NODE = "n1"
ISSUER, IDENTITY = "https://issuer.example.net", "ci@example.net"
BEGIN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SIGNED = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
"""The real clock, which sigstore asks, must be later."""
VERSIONS = ("1.0", "2.0", "3.0", "4.0")
FLOORS = {"4.0": "2.0"}
"""Release 4.0 can't be reached from 1.0 in one hop."""


def root_hash(version: str) -> str:
    return hashlib.sha256(f"root of {version}".encode()).hexdigest()


@dataclass(frozen=True)
class SignedRelease:
    """What a store keeps of a release."""

    version: Version
    manifest: bytes
    bundle: bytes
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.manifest).hexdigest()


@dataclass
class Fleet:
    """The fleet repo with its whole history, and the releases."""

    key: SigningKey
    stranger: SigningKey
    trusted_root: bytes
    releases: dict[str, SignedRelease]
    evidence: dict[str, CommitEvidence] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    objects: dict[str, TreeEvidence] = field(default_factory=dict)
    _contents: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _made: dict[object, str] = field(default_factory=dict)
    _trees: dict[str, TrustedTree] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path) -> "Fleet":
        instance = folder / "sigstore"
        trusted_root = sigstore_local.create(instance, issuer=ISSUER, now=SIGNED).read_bytes()
        key, stranger = SigningKey.make(folder, "alice"), SigningKey.make(folder, "mallory")
        return cls(key, stranger, trusted_root, {version: _release(instance, version) for version in VERSIONS})

    def commit(
        self,
        parent: str | None,
        *channel: str,
        halted: bool = False,
        window: str = "",
        builder: str = IDENTITY,
        signer: str = "alice",
        extra: Mapping[str, str] | None = None,
        fresh: str = "",
    ) -> str:
        """Return the id of a commit that says this; the same words give the same commit."""
        words = (parent, channel, halted, window, builder, signer, tuple((extra or {}).items()), fresh)
        if words not in self._made:
            files = {path: text.encode() for path, text in self._files(channel, halted, window, builder).items()}
            if fresh:
                # `fresh` is the maxAge.
                line = f'  freshness: {{maxAge: {fresh}, keys: ["{self.key.public}"]}}\n'
                files[POLICY_PATH] += line.encode()
            files |= {path: text.encode() for path, text in (extra or {}).items()}
            files["trust/sigstore/trusted_root.json"] = self.trusted_root
            self._made[words] = self._store(parent, files, self.key if signer == "alice" else self.stranger)
        return self._made[words]

    def chain(self, trusted: str, head: str) -> Iterator[CommitEvidence]:
        line = [head]
        while (parent := self.parents[line[-1]]) is not None and line[-1] != trusted:
            line.append(parent)
        if line[-1] != trusted:
            raise Untrusted(Reason.NOT_DESCENDANT, f"{head[:12]} does not follow {trusted[:12]}", subject=head)
        return (self.evidence[oid] for oid in reversed(line[:-1]))

    def tree(self, commit: TrustedCommit) -> TrustedTree:
        if commit.oid not in self._trees:
            self._trees[commit.oid] = trusted_tree(commit, self.objects[commit.oid])
        return self._trees[commit.oid]

    def _store(self, parent: str | None, files: Mapping[str, bytes], key: SigningKey) -> str:
        trees: dict[str, bytes] = {}
        blobs: dict[str, bytes] = {}
        root = _store_tree(files, trees, blobs)
        raw = signed_commit(key, root, [parent] if parent else [], "change")
        oid = object_id("commit", raw)
        before = self._contents[parent] if parent else {}
        changed = [
            ChangedPath(path.encode(), 0o100644, object_id("blob", data))
            for path, data in files.items()
            if before.get(path) != data
        ]
        changed += [ChangedPath(path.encode(), 0, "0" * 40) for path in before if path not in files]
        self.evidence[oid] = CommitEvidence(oid, raw, tuple(changed) if parent else (), files[POLICY_PATH])
        self.parents[oid] = parent
        self.objects[oid] = TreeEvidence(trees, blobs)
        self._contents[oid] = dict(files)
        return oid

    def _files(self, channel: tuple[str, ...], halted: bool, window: str, builder: str) -> dict[str, str]:
        head = "apiVersion: kubenode.dev/v1alpha1\n"
        windows = f"  rollout: {{windows: [{window}]}}\n" if window else ""
        files = {
            POLICY_PATH: policy_yaml({"alice": [self.key]})
            + f'  builders: {{stable: [{{issuer: "{ISSUER}", identity: "{builder}"}}]}}\n',
            "fleet.yaml": head + f"kind: Fleet\nmetadata: {{name: homelab}}\nspec:\n  id: {FLEET_ID}\n"
            f"  stores: [https://one.example.net, https://two.example.net]\n"
            f"  rollout: {{halted: {str(halted).lower()}}}\n",
            "channels/stable.yaml": head + "kind: Channel\nmetadata: {name: stable}\n"
            f"spec: {{releases: [{', '.join(f'{version!r}' for version in channel)}]}}\n",
            "pools/machines.yaml": head + "kind: Pool\nmetadata: {name: machines}\n"
            f"spec:\n  role: standalone\n  channel: stable\n  image: node\n{windows}",
            f"nodes/{NODE}.yaml": head + f"kind: Node\nmetadata: {{name: {NODE}}}\nspec: {{pool: machines}}\n",
        }
        for version, release in self.releases.items():
            floor = f"  floor: {FLOORS[version]!r}\n" if version in FLOORS else ""
            files[f"releases/{version}.yaml"] = (
                head + f"kind: Release\nmetadata: {{name: {version!r}}}\nspec:\n  version: {version!r}\n"
                f"  manifest: {release.digest}\n  rootHash: {root_hash(version)}\n{floor}"
            )
        return files


def _release(instance: Path, version: str) -> SignedRelease:
    files = {f"node_{version}.{role}": f"the {role} of {version}".encode() * 3 for role in ("root", "verity", "uki")}
    artifacts = tuple(
        Artifact(name, name.rpartition(".")[2], hashlib.sha256(data).hexdigest(), len(data))
        for name, data in sorted(files.items())
    )
    manifest = encode(
        Manifest("node", Version(version), None, None, ("kubenode.dev/v1alpha1",), root_hash(version), artifacts),
        Provenance("01" * 32, "02" * 32, "03" * 20, "https://builder.example.net", "build-1", SIGNED),
    )
    return SignedRelease(Version(version), manifest, sigstore_local.sign(instance, manifest, IDENTITY, SIGNED), files)
