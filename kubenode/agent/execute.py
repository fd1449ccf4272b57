"""Does one action. Nothing is decided here, and success is not judged here either: `postcondition` looks again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kubenode.agent.execute_cluster import execute_in_cluster
from kubenode.errors import HostError, NoSpace, TryLater, Untrusted
from kubenode.fleet.layout import TRUSTED_ROOT_PATH
from kubenode.model.decision import (
    Action,
    ActivateSlot,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    WriteSlot,
)
from kubenode.model.documents import Release
from kubenode.ports import Cluster, Kubeadm, Machine, Progress, ReleaseStore, Slots, Staging
from kubenode.trust.bundle import ArtifactVerifier, VerifiedRelease, verify_release
from kubenode.trust.chain import TrustedTree
from kubenode.trust.manifest import Artifact, check_document
from kubenode.trust.reasons import Reason

MAX_STORES = 16
"""Stores that are asked in one attempt; more in the fleet repo are left to the next."""


@dataclass(frozen=True)
class Hands:
    """What an action may touch; `tree` and `channel` say what a release is verified by.

    `cluster` and `kubeadm` are None on a standalone machine.
    """

    machine: Machine
    slots: Slots
    staging: Staging
    stores: ReleaseStore
    tree: TrustedTree
    channel: str
    progress: Progress
    cluster: Cluster | None = None
    kubeadm: Kubeadm | None = None


def execute(action: Action, hands: Hands) -> None:
    """Do the action, from the start or from where it was interrupted. Raise Untrusted, TryLater or HostError.

    PoisonRelease is remembered, not done: `kubenode.agent.memory` keeps it.
    """
    match action:
        case FetchRelease(release):
            _fetch(release, hands)
        case WriteSlot(release, slot):
            _staged(release, hands, lambda verified: hands.slots.write(verified, slot, hands.progress))
        case ActivateSlot(release, supersede):
            _staged(release, hands, lambda verified: hands.slots.activate(verified, supersede))
        case RetireEntry(entry):
            hands.slots.retire(entry)
        case RestoreEntry(entry):
            hands.slots.restore(entry)
        case PruneStaging(downloads, staged):
            hands.staging.prune(downloads)
            if staged:
                hands.slots.prune_staged()
        case Reboot():
            hands.machine.reboot()
        case PoisonRelease():
            pass
        case _:
            if hands.cluster is None or hands.kubeadm is None:
                raise HostError(
                    f"{type(action).__name__} is nothing for a machine that is no part of a cluster",
                    hint="This is a mistake in kubenode: report it with the journal of kubenode-reconcile.service.",
                )
            execute_in_cluster(action, hands.cluster, hands.kubeadm)


def _verify(release: Release, manifest: bytes, bundle: bytes, hands: Hands) -> VerifiedRelease:
    """Verify a release as the trusted commit demands it now: a policy may have changed since it was downloaded."""
    if TRUSTED_ROOT_PATH not in hands.tree:
        raise Untrusted(
            Reason.TRUSTED_ROOT_INVALID,
            f"the fleet repo has no {TRUSTED_ROOT_PATH}, so no release can be verified",
            subject=str(release.version),
            hint="Add the trusted root of the Sigstore instance that signs the releases.",
        )
    verified = verify_release(
        manifest,
        bundle,
        expected_manifest_sha256=release.manifest,
        trusted_root_json=hands.tree[TRUSTED_ROOT_PATH],
        builders=hands.tree.policy.builders_of(hands.channel),
        version=release.version,
    )
    check_document(verified.manifest, release)
    return verified


def _staged(release: Release, hands: Hands, use: Callable[[VerifiedRelease], None]) -> None:
    """Verify a release from its download and use it. A download that is not what was signed is thrown away."""
    broken = frozenset({release.manifest})
    try:
        manifest, bundle = hands.staging.evidence(release.manifest)
    except HostError:
        hands.staging.prune(broken)
        raise
    try:
        use(_verify(release, manifest, bundle, hands))
    except Untrusted:
        # So that the next attempt begins with a new download instead of failing on the same bytes.
        hands.staging.prune(broken)
        raise


def _fetch(release: Release, hands: Hands) -> None:
    """Download and verify a release, store after store; what one began honestly the next continues."""
    for asked in range(1, MAX_STORES + 1):
        try:
            _fetch_once(release, hands)
            return
        except (TryLater, Untrusted):
            if asked == MAX_STORES or not hands.stores.refuse(release.version):
                raise
        except NoSpace:
            # The state of this machine lives on the same disk and needs the room more than a download does.
            hands.staging.prune(frozenset({release.manifest}))
            raise


def _fetch_once(release: Release, hands: Hands) -> None:
    digest = release.manifest
    manifest, bundle = hands.stores.manifest(release.version)
    verified = _verify(release, manifest, bundle, hands).manifest
    artifacts = (verified.root, verified.verity, verified.uki)
    hands.staging.require_space(digest, sum(artifact.size for artifact in artifacts))
    hands.staging.put_evidence(digest, manifest, bundle)
    for artifact in artifacts:
        _download(release, artifact, hands)
    hands.staging.complete(digest)


def _download(release: Release, artifact: Artifact, hands: Hands) -> None:
    """Complete the download of one artifact; what is there already is hashed again before more is asked for."""
    resumed = _resume(release, artifact, hands)
    if resumed is None:
        return
    hands.staging.discard(release.manifest, artifact.name)
    if not resumed.from_start:
        # The bad bytes may be those that were there before, from another store: this one gets a chance of its own.
        resumed = _resume(release, artifact, hands)
        if resumed is None:
            return
        hands.staging.discard(release.manifest, artifact.name)
    raise resumed.refusal


@dataclass(frozen=True)
class _Refused:
    refusal: Untrusted
    from_start: bool


def _resume(release: Release, artifact: Artifact, hands: Hands) -> _Refused | None:
    """Download the rest of an artifact. Return why its bytes were refused, None when all are right."""
    digest, name = release.manifest, artifact.name
    verifier = ArtifactVerifier(artifact)
    kept = 0
    try:
        for chunk in hands.staging.partial(digest, name):
            kept += len(chunk)
            verifier.update(chunk)
        if kept < artifact.size:
            rest = hands.stores.artifact(release.version, name, kept)
            hands.staging.append(digest, name, _checked(rest, artifact, verifier, hands.progress))
        if verifier.size < artifact.size:
            raise TryLater(
                f"the download of {name} ended at {verifier.size} of {artifact.size} bytes",
                hint="The store or something before it cut the answer short; the next tick goes on where it ended.",
            )
        verifier.finish()
    except Untrusted as refusal:
        return _Refused(refusal, from_start=kept == 0)
    return None


def _checked(
    chunks: Iterator[bytes], artifact: Artifact, verifier: ArtifactVerifier, progress: Progress
) -> Iterator[bytes]:
    for chunk in chunks:
        verifier.update(chunk)
        progress(artifact.name, verifier.size, artifact.size)
        yield chunk
