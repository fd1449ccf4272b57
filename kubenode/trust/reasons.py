"""Stable codes that say why evidence was refused; they appear in status documents, logs and tests."""

from enum import StrEnum

_ASK_AUTHOR = (
    "The branch's author takes the commit back, mends it and signs it again; nodes wait at the last trusted one."
)
_REBUILD = "Build and publish the release again, under a new version; do not promote this one."
_STORE = "Compare the store with out/VERSION and publish again; nodes ask the other stores meanwhile."
_TRUSTED_ROOT = (
    "Compare trust/sigstore/trusted_root.json with the instance that signed: `kubenode verify` says who that was."
)
_STAMP = "See who holds the stamping keys: `kubenode trust show`; stamp again with `kubenode trust stamp`."
_STAMPING = "Does the timer of `kubenode trust stamp` still run, and can nodes reach what it writes? See docs/trust.md."


class Reason(StrEnum):
    """Why evidence was accepted (`Trusted`) or refused; the values never change once released.

    `meaning` says in a sentence what was found, `advice` what to do next; docs/errors.md is made from both.
    """

    meaning: str
    advice: str

    def __new__(cls, code: str, meaning: str = "", advice: str = "") -> "Reason":
        """Make a member of a code, what it means and what to do."""
        it = str.__new__(cls, code)
        it._value_ = code
        it.meaning = meaning
        it.advice = advice
        return it

    TRUSTED = "Trusted", "The newest commit was accepted.", "Nothing to do."

    # One commit and its signature.
    COMMIT_MALFORMED = (
        "CommitMalformed",
        "A commit object is not as git writes it: repeated headers, two signatures, NUL bytes.",
        _ASK_AUTHOR,
    )
    OBJECT_MISMATCH = (
        "ObjectMismatch",
        "An object has other bytes than its id says.",
        "The remote, or the disk, is damaged or hostile: compare with another clone (`git fsck`).",
    )
    UNSIGNED_COMMIT = (
        "UnsignedCommit",
        "A commit has no signature, and approvals alone do not meet its rules.",
        "Its author signs it: git commit --amend --no-edit --gpg-sign; or others approve it: `kubenode trust approve`.",
    )
    UNSUPPORTED_SIGNATURE = (
        "UnsupportedSignature",
        "A commit is signed in a format that counts as no signature: OpenPGP, X.509, an SSH certificate.",
        "Sign with an SSH key: git config gpg.format ssh.",
    )
    BAD_SIGNATURE = (
        "BadSignature",
        "A signature does not match the content, or was made for another purpose.",
        _ASK_AUTHOR,
    )
    UNKNOWN_SIGNER = (
        "UnknownSigner",
        "A commit is signed with a key that the policy of its parent does not list.",
        "Add the key to trust/policy.yaml in a commit before, or sign with a listed key: `kubenode trust show`.",
    )
    UNSUPPORTED_OBJECT_FORMAT = (
        "UnsupportedObjectFormat",
        "The repo uses git's SHA-256 object format, which is not read yet.",
        "Make the repo with git's SHA-1 format: git init --object-format=sha1.",
    )

    # The history between the trusted commit and the new head.
    ANCHOR_MISSING = (
        "AnchorMissing",
        "The commit that is trusted already is not in the repo.",
        "Is it the right repo, and a full clone? git fetch --unshallow; a rewritten repo needs the old history back.",
    )
    NOT_DESCENDANT = (
        "NotDescendant",
        "The new head does not follow the trusted commit on the first-parent line: a rewind, a fork, a swapped merge.",
        "Push the old head again, and take changes back by a new commit (`git revert`), never by a forced push.",
    )
    TOO_MUCH_EVIDENCE = (
        "TooMuchEvidence",
        "More commits, larger objects or more approvals than a node reads.",
        "Take large files out of the fleet repo, or bring the change in smaller steps; docs/trust.md lists the limits.",
    )

    # What the policy says about a change.
    NOT_ALLOWED = (
        "NotAllowed",
        "Nobody who vouches for the change may change that path.",
        "Somebody of the rule approves it: `kubenode trust show PATH` names them, `kubenode trust approve` adds it.",
    )
    NO_RULE_MATCHES = (
        "NoRuleMatches",
        "A path was changed that no rule of the policy speaks about.",
        "Add a rule to trust/policy.yaml first, or leave the path alone: `kubenode trust show PATH`.",
    )
    THRESHOLD_NOT_MET = (
        "ThresholdNotMet",
        "Too few different people of the rule vouch for the change.",
        "The others approve it: `kubenode trust request`, then `kubenode trust approve`.",
    )
    POLICY_INVALID = (
        "PolicyInvalid",
        "trust/policy.yaml cannot be read, or breaks a rule of its own.",
        "Put a valid policy in its place: `kubenode validate` says where it is wrong.",
    )
    POLICY_LOCKS_OUT = (
        "PolicyLocksOut",
        "A policy that nobody could change again.",
        "Keep a rule for trust/** whose threshold its people can reach.",
    )

    # The tree of a trusted commit.
    UNSAFE_ENTRY = (
        "UnsafeEntry",
        "The tree holds a symbolic link, a submodule, or names that differ only in case.",
        "Replace it by a plain file in a new commit: `kubenode validate` names it.",
    )
    FLEET_ID_MISMATCH = (
        "FleetIdMismatch",
        "The repo belongs to another fleet.",
        "Put spec.id of fleet.yaml back; a machine changes its fleet only by being installed again.",
    )

    # Release manifests and artifacts.
    ARTIFACT_DIGEST = "ArtifactDigestMismatch", "A file of the release has other bytes than the manifest says.", _STORE
    ARTIFACT_EXTRA = (
        "ArtifactExtra",
        "The release folder holds a file that nobody signed.",
        "Remove it, and find out where it came from.",
    )
    ARTIFACT_MISSING = "ArtifactMissing", "A file that the manifest names is not there.", _STORE
    ARTIFACT_SIZE = "ArtifactSizeMismatch", "A file of the release is shorter or longer than the manifest says.", _STORE
    MANIFEST_DIGEST_MISMATCH = (
        "ManifestDigestMismatch",
        "The manifest is not the one that releases/VERSION.yaml pins.",
        _STORE,
    )
    MANIFEST_INVALID = "ManifestInvalid", "The manifest cannot be read.", _REBUILD
    PREDICATE_TYPE = "WrongPredicateType", "What was signed is no SLSA provenance v1.", _REBUILD
    PROVENANCE_INVALID = "ProvenanceInvalid", "The provenance in the manifest cannot be read.", _REBUILD
    PROVENANCE_MISMATCH = (
        "ProvenanceMismatch",
        "The provenance says other things than the release, its document or the fleet's history.",
        "Find out what was built from what; build again from a commit of the fleet repo.",
    )
    RELEASE_MISMATCH = (
        "ReleaseMismatch",
        "The manifest is of another version, root hash, Kubernetes or floor than releases/VERSION.yaml says.",
        "Let `kubenode publish` write the document; never edit it by hand.",
    )
    STATEMENT_TYPE = "WrongStatementType", "What was signed is no in-toto statement v1.", _REBUILD
    SUBJECT_EXTRA = "SubjectExtra", "The manifest names an artifact, or a role, more often than once.", _REBUILD
    SUBJECT_MISSING = "SubjectMissing", "The manifest names no root, verity or UKI.", _REBUILD

    # Sigstore bundles: who signed a manifest, and what vouches for it.
    BUILDER_NOT_ALLOWED = (
        "BuilderNotAllowed",
        "The release was signed by somebody who is no builder of this channel.",
        "Compare the signer with the builders of `kubenode trust show`; do not promote what you do not know.",
    )
    BUNDLE_INVALID = "BundleInvalid", "The Sigstore bundle cannot be read, or is not of v0.3.", _REBUILD
    BUNDLE_MISSING = (
        "BundleMissing",
        "The release has no Sigstore bundle.",
        "Call `kubenode build` again for this version: it signs what is built already; then publish.",
    )
    BUNDLE_PAYLOAD_MISMATCH = "BundlePayloadMismatch", "The bundle signs another manifest.", _STORE
    CERTIFICATE_MISSING = "CertificateMissing", "The bundle has no certificate, or more than one.", _REBUILD
    CERTIFICATE_NOT_VALID_THEN = (
        "CertificateNotValidThen",
        "The certificate was not valid when the release was signed.",
        "Is the clock of the builder right? Build and sign again.",
    )
    CERTIFICATE_UNTRUSTED = (
        "CertificateUntrusted",
        "The certificate was not issued by an authority of the trusted root.",
        _TRUSTED_ROOT,
    )
    CHECKPOINT_INVALID = (
        "CheckpointInvalid",
        "The log's checkpoint is not signed by a log of the trusted root.",
        _TRUSTED_ROOT,
    )
    CHECKPOINT_MISSING = "CheckpointMissing", "The log entry has no signed checkpoint.", _REBUILD
    ENVELOPE_MISSING = "EnvelopeMissing", "The bundle has no DSSE envelope.", _REBUILD
    LOG_ENTRY_EXTRA = "LogEntryExtra", "The bundle has more than one log entry.", _REBUILD
    LOG_ENTRY_MISMATCH = "LogEntryMismatch", "The log entry is of another artifact, signature or signer.", _REBUILD
    LOG_ENTRY_MISSING = "LogEntryMissing", "The bundle has no log entry.", _REBUILD
    LOG_PROMISE_INVALID = (
        "LogPromiseInvalid",
        "The log's promise does not cover this entry, time and position.",
        _TRUSTED_ROOT,
    )
    LOG_PROOF_INVALID = "LogProofInvalid", "The entry is not in the log where the bundle says.", _REBUILD
    LOG_PROOF_MISSING = "LogProofMissing", "The log entry has no inclusion proof.", _REBUILD
    PAYLOAD_TYPE = "WrongPayloadType", "What was signed is of another type than an in-toto statement.", _REBUILD
    SCT_INVALID = (
        "SctInvalid",
        "The certificate's log timestamp is not valid: it was changed, or logged by somebody else.",
        _TRUSTED_ROOT,
    )
    SCT_MISSING = "SctMissing", "The certificate has no log timestamp (SCT).", _TRUSTED_ROOT
    SIGNATURE_EXTRA = "SignatureExtra", "The envelope has more than one signature.", _REBUILD
    SIGNATURE_INVALID = "SignatureInvalid", "Payload or signature was changed after signing.", _STORE
    SIGNATURE_MISSING = "SignatureMissing", "The envelope has no signature.", _REBUILD
    TIME_NOT_PROVEN = "TimeNotProven", "Nothing proves when the release was signed.", _TRUSTED_ROOT
    TIMESTAMP_INVALID = "TimestampInvalid", "The timestamp is not over this signature, or by a stranger.", _TRUSTED_ROOT
    TRUSTED_ROOT_EXPIRED = (
        "TrustedRootExpired",
        "An authority's validity had ended when the release was signed.",
        "Put the instance's new trusted root into the fleet repo, then build and sign again.",
    )
    TRUSTED_ROOT_INVALID = (
        "TrustedRootInvalid",
        "trust/sigstore/trusted_root.json cannot be read, or lacks an authority.",
        "Copy it again from the Sigstore instance; `kubenode validate` says what is wrong.",
    )
    TRUSTED_ROOT_NOT_YET_VALID = (
        "TrustedRootNotYetValid",
        "An authority is not valid yet at this machine's time.",
        "Check the clock of this machine (timedatectl).",
    )

    # The stamp on the newest head (head.json).
    HEAD_EQUIVOCATION = (
        "HeadEquivocation",
        "Two stamps have one serial: somebody else holds the stamping key.",
        "Replace the stamping key in trust/policy.yaml; then find out who has the old one.",
    )
    HEAD_EXPIRED = "HeadExpired", "The newest stamp has expired.", _STAMPING
    HEAD_INVALID = "HeadInvalid", "head.json cannot be read.", _STAMP
    HEAD_MISSING = "HeadMissing", "No stamp was ever seen, and the policy asks for one.", _STAMPING
    HEAD_OTHER_FLEET = "HeadOtherFleet", "The stamp is of another fleet.", _STAMP
    HEAD_REWOUND = (
        "HeadRewound",
        "An older stamp than one that was seen before is offered.",
        "A mirror lags behind or plays back: bring it up to date, or take it out of the machine's fleetUrl.",
    )
    HEAD_SIGNATURE = "HeadSignature", "The stamp's signature does not match.", _STAMP
    HEAD_STALE = "HeadStale", "The newest stamp is older than maxAge.", _STAMPING
    HEAD_UNKNOWN_KEY = "HeadUnknownKey", "The stamp is signed by no key of the policy.", _STAMP
    HEAD_WITHHELD = (
        "HeadWithheld",
        "The stamp is for a commit that this node was not given, or refused.",
        "Push the branch to where nodes fetch it; if it is there, somebody withholds it: compare the remotes.",
    )
