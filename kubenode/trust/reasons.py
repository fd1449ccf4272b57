"""Stable codes that say why evidence was refused; they appear in status documents, logs and tests."""

from enum import StrEnum


class Reason(StrEnum):
    """Why evidence was accepted (`Trusted`) or refused; the values never change once released."""

    TRUSTED = "Trusted"

    # One commit and its signature.
    COMMIT_MALFORMED = "CommitMalformed"
    OBJECT_MISMATCH = "ObjectMismatch"
    UNSIGNED_COMMIT = "UnsignedCommit"
    UNSUPPORTED_SIGNATURE = "UnsupportedSignature"
    BAD_SIGNATURE = "BadSignature"
    UNKNOWN_SIGNER = "UnknownSigner"
    UNSUPPORTED_OBJECT_FORMAT = "UnsupportedObjectFormat"

    # The history between the trusted commit and the new head.
    ANCHOR_MISSING = "AnchorMissing"
    NOT_DESCENDANT = "NotDescendant"
    TOO_MUCH_EVIDENCE = "TooMuchEvidence"

    # What the policy says about a change.
    NOT_ALLOWED = "NotAllowed"
    NO_RULE_MATCHES = "NoRuleMatches"
    THRESHOLD_NOT_MET = "ThresholdNotMet"
    POLICY_INVALID = "PolicyInvalid"
    POLICY_LOCKS_OUT = "PolicyLocksOut"

    # The tree of a trusted commit.
    UNSAFE_ENTRY = "UnsafeEntry"
    FLEET_ID_MISMATCH = "FleetIdMismatch"

    # Release manifests and Sigstore bundles.
    ARTIFACT_DIGEST = "ArtifactDigestMismatch"
    ARTIFACT_SIZE = "ArtifactSizeMismatch"
    BUILDER_NOT_ALLOWED = "BuilderNotAllowed"
    BUNDLE_INVALID = "BundleInvalid"
    BUNDLE_PAYLOAD_MISMATCH = "BundlePayloadMismatch"
    MANIFEST_DIGEST_MISMATCH = "ManifestDigestMismatch"
    MANIFEST_INVALID = "ManifestInvalid"
    PREDICATE_TYPE = "WrongPredicateType"
    RELEASE_MISMATCH = "ReleaseMismatch"
    SUBJECT_EXTRA = "SubjectExtra"
    SUBJECT_MISSING = "SubjectMissing"
    TRUSTED_ROOT_INVALID = "TrustedRootInvalid"

    # The stamp on the newest head (head.json).
    HEAD_EQUIVOCATION = "HeadEquivocation"
    HEAD_EXPIRED = "HeadExpired"
    HEAD_INVALID = "HeadInvalid"
    HEAD_MISSING = "HeadMissing"
    HEAD_OTHER_FLEET = "HeadOtherFleet"
    HEAD_REWOUND = "HeadRewound"
    HEAD_SIGNATURE = "HeadSignature"
    HEAD_STALE = "HeadStale"
    HEAD_UNKNOWN_KEY = "HeadUnknownKey"
    HEAD_WITHHELD = "HeadWithheld"
