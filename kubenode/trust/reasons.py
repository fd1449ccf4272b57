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

    # Release manifests and artifacts.
    ARTIFACT_DIGEST = "ArtifactDigestMismatch"
    ARTIFACT_EXTRA = "ArtifactExtra"
    ARTIFACT_MISSING = "ArtifactMissing"
    ARTIFACT_SIZE = "ArtifactSizeMismatch"
    MANIFEST_DIGEST_MISMATCH = "ManifestDigestMismatch"
    MANIFEST_INVALID = "ManifestInvalid"
    PREDICATE_TYPE = "WrongPredicateType"
    PROVENANCE_INVALID = "ProvenanceInvalid"
    PROVENANCE_MISMATCH = "ProvenanceMismatch"
    RELEASE_MISMATCH = "ReleaseMismatch"
    STATEMENT_TYPE = "WrongStatementType"
    SUBJECT_EXTRA = "SubjectExtra"
    SUBJECT_MISSING = "SubjectMissing"

    # Sigstore bundles: who signed a manifest, and what vouches for it.
    BUILDER_NOT_ALLOWED = "BuilderNotAllowed"
    BUNDLE_INVALID = "BundleInvalid"
    BUNDLE_MISSING = "BundleMissing"
    BUNDLE_PAYLOAD_MISMATCH = "BundlePayloadMismatch"
    CERTIFICATE_MISSING = "CertificateMissing"
    CERTIFICATE_NOT_VALID_THEN = "CertificateNotValidThen"
    CERTIFICATE_UNTRUSTED = "CertificateUntrusted"
    CHECKPOINT_INVALID = "CheckpointInvalid"
    CHECKPOINT_MISSING = "CheckpointMissing"
    ENVELOPE_MISSING = "EnvelopeMissing"
    LOG_ENTRY_EXTRA = "LogEntryExtra"
    LOG_ENTRY_MISMATCH = "LogEntryMismatch"
    LOG_ENTRY_MISSING = "LogEntryMissing"
    LOG_PROMISE_INVALID = "LogPromiseInvalid"
    LOG_PROOF_INVALID = "LogProofInvalid"
    LOG_PROOF_MISSING = "LogProofMissing"
    PAYLOAD_TYPE = "WrongPayloadType"
    SCT_INVALID = "SctInvalid"
    SCT_MISSING = "SctMissing"
    SIGNATURE_EXTRA = "SignatureExtra"
    SIGNATURE_INVALID = "SignatureInvalid"
    SIGNATURE_MISSING = "SignatureMissing"
    TIME_NOT_PROVEN = "TimeNotProven"
    TIMESTAMP_INVALID = "TimestampInvalid"
    TRUSTED_ROOT_EXPIRED = "TrustedRootExpired"
    TRUSTED_ROOT_INVALID = "TrustedRootInvalid"
    TRUSTED_ROOT_NOT_YET_VALID = "TrustedRootNotYetValid"

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
