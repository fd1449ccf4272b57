"""Why sigstore-python refused a bundle: its errors, sorted into reason codes.

Only the reason depends on the wording, never the verdict: what no row knows is refused all the same, as BundleInvalid.
Each row has its test in tests/unit/test_bundle_attacks.py, so that a new version of sigstore-python which says it in
other words is noticed.
"""

import re

from kubenode.errors import Untrusted
from kubenode.trust.reasons import Reason

_ROWS = tuple(
    (re.compile(pattern), reason, hint)
    for pattern, reason, hint in (
        (
            "timestamp certificate chain",
            Reason.CERTIFICATE_UNTRUSTED,
            "was it signed by the Sigstore instance whose trusted_root.json is in trust/sigstore/?",
        ),
        (
            "not enough sources of verified time|Invalid Timestamp Response|duplicate timestamp|too many signed",
            Reason.TIMESTAMP_INVALID,
            "the timestamp must be over this signature, by a timestamp authority of the trusted root",
        ),
        ("failed to verify SCT", Reason.SCT_INVALID, "the certificate was changed, or logged by somebody else"),
        ("SET: ", Reason.LOG_PROMISE_INVALID, "the log's signature does not cover this entry, time and position"),
        (
            "inclusion proof (contains invalid root hash|has wrong size)",
            Reason.LOG_PROOF_INVALID,
            "the entry is not where the bundle says, or it was changed",
        ),
        (
            "[Cc]heckpoint|malformed Note|note must contain|invalid root hash signature",
            Reason.CHECKPOINT_INVALID,
            "the log entry's checkpoint must be signed by the log that the trusted root names",
        ),
        ("DSSE: invalid signature", Reason.SIGNATURE_INVALID, "the payload or the signature was changed after signing"),
        (
            "log entry payload hash|log entry signatures|transparency log entry is inconsistent|invalid DSSE log entry"
            "|Unsupported DSSE log entry type|Integrated time only supported|validation errors? for (Dsse|Entry)",
            Reason.LOG_ENTRY_MISMATCH,
            "the log entry is of another artifact, signature or signer",
        ),
    )
)  # fmt: skip


def refusal_of(error: BaseException) -> Untrusted:
    """Return the refusal that an error of sigstore-python, or of a library below it, stands for."""
    text = " ".join(str(part) for part in error.args) or str(error)
    for pattern, reason, hint in _ROWS:
        if pattern.search(text):
            return Untrusted(reason, f"the bundle does not verify: {first_line(error)}", hint=hint)
    return Untrusted(Reason.BUNDLE_INVALID, f"the bundle does not verify: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error, short and printable: messages quote hostile input."""
    lines = str(error).strip().splitlines()
    # What follows are dumps of whole structures.
    text = lines[0].partition(": expected")[0] if lines else type(error).__name__
    return text[:300].encode("ascii", "backslashreplace").decode()
