"""What a bundle must look like before any cryptography: every part there, once, and under its one name.

Format: Sigstore bundle v0.3 (https://github.com/sigstore/protobuf-specs, sigstore_bundle.proto, in protobuf's JSON
form). sigstore-python reads fields by their JSON name and by their protobuf name (`inclusionPromise` and
`inclusion_promise`); two readers of one bundle could then see different things, so only the JSON names pass.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

from kubenode.errors import Untrusted
from kubenode.trust.reasons import Reason
from kubenode.trust.strictjson import short

MEDIA_TYPES = (
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
)

_TEXT: dict[str, Any] = {}
_ENTRY = {
    "logIndex": _TEXT,
    "logId": {"keyId": _TEXT},
    "kindVersion": {"kind": _TEXT, "version": _TEXT},
    "integratedTime": _TEXT,
    "inclusionPromise": {"signedEntryTimestamp": _TEXT},
    "inclusionProof": {
        "logIndex": _TEXT,
        "rootHash": _TEXT,
        "treeSize": _TEXT,
        "hashes": [_TEXT],
        "checkpoint": {"envelope": _TEXT},
    },
    "canonicalizedBody": _TEXT,
}
_BUNDLE = {
    "mediaType": _TEXT,
    "verificationMaterial": {
        "certificate": {"rawBytes": _TEXT},
        "publicKey": {"hint": _TEXT},
        "x509CertificateChain": {"certificates": [{"rawBytes": _TEXT}]},
        "tlogEntries": [_ENTRY],
        "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": _TEXT}]},
    },
    "dsseEnvelope": {
        "payload": _TEXT,
        "payloadType": _TEXT,
        "signatures": [{"sig": _TEXT, "keyid": _TEXT}],
    },
    "messageSignature": {"messageDigest": {"algorithm": _TEXT, "digest": _TEXT}, "signature": _TEXT},
}


@dataclass(frozen=True)
class Shape:
    """What is counted in a bundle, nothing of it verified: RFC 3161 timestamps, and whether its log gives a time."""

    timestamps: int
    log_time: bool


def check_shape(bundle: object) -> Shape:
    """Check a decoded bundle for missing, surplus and ambiguous parts.

    Raise Untrusted with CertificateMissing, EnvelopeMissing, SignatureMissing, SignatureExtra, LogEntryMissing,
    LogEntryExtra, LogProofMissing, CheckpointMissing, TimeNotProven, or BundleInvalid for what is no bundle v0.3.
    """
    if not isinstance(bundle, dict):
        _refuse(Reason.BUNDLE_INVALID, "the bundle is not an object")
    _check_names(bundle, _BUNDLE, "the bundle")
    if bundle.get("mediaType") not in MEDIA_TYPES:
        _refuse(
            Reason.BUNDLE_INVALID,
            f"this is no Sigstore bundle v0.3 (its mediaType is {short(bundle.get('mediaType'))})",
        )
    material = bundle.get("verificationMaterial") or {}
    if not (material.get("certificate") or {}).get("rawBytes"):
        what = "only a hint at a public key" if material.get("publicKey") else "no signer's certificate"
        _refuse(
            Reason.CERTIFICATE_MISSING,
            f"the bundle holds {what}, so nothing says who signed",
            hint="sign with an identity (`kubenode build --sigstore`): builders are people and CI jobs, not keys",
        )
    if "messageSignature" in bundle or not bundle.get("dsseEnvelope"):
        _refuse(
            Reason.ENVELOPE_MISSING,
            "the bundle signs a file's digest, not a statement in a DSSE envelope",
            hint="sign the manifest as an in-toto statement, as `kubenode build` does",
        )
    _only(bundle["dsseEnvelope"].get("signatures"), Reason.SIGNATURE_MISSING, Reason.SIGNATURE_EXTRA, "signature")
    what = "transparency log entry"
    entry = _only(material.get("tlogEntries"), Reason.LOG_ENTRY_MISSING, Reason.LOG_ENTRY_EXTRA, what)
    proof = entry.get("inclusionProof")
    if not proof:
        _refuse(Reason.LOG_PROOF_MISSING, "nothing proves that the bundle's entry is in the transparency log")
    if not (proof.get("checkpoint") or {}).get("envelope"):
        _refuse(Reason.CHECKPOINT_MISSING, "the proof of the log entry has no checkpoint signed by the log")
    # Rekor v1 counts entries over all its trees and in one of them, v2 has one tree; some clients read one of the two
    # numbers, some the other.
    version = (entry.get("kindVersion") or {}).get("version")
    if version == "0.0.2" and entry.get("logIndex") != proof.get("logIndex"):
        _refuse(
            Reason.LOG_PROOF_INVALID,
            f"the log entry claims position {short(entry.get('logIndex'))}, its proof {short(proof.get('logIndex'))}",
        )
    stamps = (material.get("timestampVerificationData") or {}).get("rfc3161Timestamps") or []
    promise = (entry.get("inclusionPromise") or {}).get("signedEntryTimestamp")
    shape = Shape(timestamps=len(stamps), log_time=bool(promise and entry.get("integratedTime")))
    if not shape.timestamps and not shape.log_time:
        _refuse(
            Reason.TIME_NOT_PROVEN,
            "nothing proves when the bundle was signed: it has no timestamp, and its log entry no signed time",
            hint="sign it again, with a timestamp authority (log entries of Rekor v2 carry no time)",
        )
    return shape


def _check_names(value: object, wanted: Any, where: str) -> None:
    """Refuse unknown names and parts of the wrong kind (an object for a list, and so on); null stands for absence."""
    if value is None:
        return
    if isinstance(wanted, list):
        if not isinstance(value, list):
            _refuse(Reason.BUNDLE_INVALID, f"{where} is not a list")
        for number, item in enumerate(value):
            if item is None:
                _refuse(Reason.BUNDLE_INVALID, f"{where}[{number}] is null")
            _check_names(item, wanted[0], f"{where}[{number}]")
    elif wanted is _TEXT:
        if not isinstance(value, str):
            _refuse(Reason.BUNDLE_INVALID, f"{where} is not a string")
    elif not isinstance(value, dict):
        _refuse(Reason.BUNDLE_INVALID, f"{where} is not an object")
    else:
        for name, item in value.items():
            if name not in wanted:
                _refuse(Reason.BUNDLE_INVALID, f"{where} has an unknown field {short(name)}")
            _check_names(item, wanted[name], name)


def _only(parts: list[dict[str, Any]] | None, missing: Reason, extra: Reason, what: str) -> dict[str, Any]:
    if not parts:
        _refuse(missing, f"the bundle has no {what}")
    if len(parts) > 1:
        _refuse(extra, f"the bundle has more than one {what} ({len(parts)}): which one counts would be anybody's guess")
    return parts[0]


def _refuse(reason: Reason, message: str, hint: str = "") -> NoReturn:
    raise Untrusted(reason, message, hint=hint)
