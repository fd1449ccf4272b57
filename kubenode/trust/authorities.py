"""Who vouches for a bundle, and whether they may for that moment: stricter than sigstore-python, never instead of it.

sigstore-python (4.5) takes a certificate authority or a log of the trusted root whose validity has ended as if it had
not: whoever finds a retired key could go on signing. The trusted root's own format says otherwise (sigstore_trustroot
.proto: "the time this authority was valid"), and so do we: every authority must have been valid at every moment at
which the bundle claims to have been signed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from kubenode.errors import Untrusted
from kubenode.trust.bundleshape import Shape
from kubenode.trust.reasons import Reason

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle

_ROOT_HINT = "was it signed by the Sigstore instance whose trusted_root.json is in trust/sigstore/?"


@dataclass(frozen=True)
class Moment:
    """A time at which a bundle claims to have been signed, and who says so (for messages)."""

    at: datetime
    source: str

    def __str__(self) -> str:
        return f"{_shown(self.at)} (says {self.source})"


@dataclass(frozen=True)
class _Authority:
    """An authority of the trusted root: what it is called in messages, and from when to when it was valid."""

    name: str
    start: datetime | None
    end: datetime | None


def check_authorities(bundle: "Bundle", shape: Shape, root: Any) -> None:
    """Check who vouches for a bundle; what they signed is left to sigstore-python.

    `root` is the trusted root message of sigstore-models. Raise Untrusted with TimeNotProven, TimestampInvalid,
    CertificateNotValidThen, CertificateUntrusted, SctMissing, SctInvalid, CheckpointInvalid, TrustedRootExpired or
    TrustedRootNotYetValid.
    """
    certificate = bundle.signing_certificate
    moments = _moments(bundle, shape, root)
    for moment in moments:
        if not certificate.not_valid_before_utc <= moment.at <= certificate.not_valid_after_utc:
            _refuse(
                Reason.CERTIFICATE_NOT_VALID_THEN,
                f"the bundle was signed at {moment}, but the signer's certificate is valid from "
                f"{_shown(certificate.not_valid_before_utc)} to {_shown(certificate.not_valid_after_utc)}",
                "sign it again: a signing certificate lives for minutes and is of no use before or after",
            )
    _demand_valid(_issuers(certificate, root), moments)
    _demand_valid(*_certificate_log(certificate, root))
    entry = bundle.log_entry._inner
    logs = [_log("transparency log", log) for log in root.tlogs if log.log_id.key_id == entry.log_id.key_id]
    if not logs:
        names = ", ".join(log.base_url for log in root.tlogs)
        _refuse(
            Reason.CHECKPOINT_INVALID, f"the log entry is in a log that the trusted root does not name ({names})",
            _ROOT_HINT,
        )  # fmt: skip
    _demand_valid(logs, moments)


def _moments(bundle: "Bundle", shape: Shape, root: Any) -> list[Moment]:
    """Return every time that the bundle claims; sigstore-python verifies that at least one of them is true."""
    moments: list[Moment] = []
    if shape.timestamps and not root.timestamp_authorities:
        _refuse(
            Reason.TIMESTAMP_INVALID,
            "the bundle is timestamped, but the trusted root names no timestamp authority that could have done it",
            _ROOT_HINT,
        )
    if root.timestamp_authorities:
        if not shape.timestamps:
            _refuse(
                Reason.TIME_NOT_PROVEN,
                "no RFC 3161 timestamp proves when the bundle was signed, though the trusted root has an authority",
                "sign it again, with a timestamp; the log's word alone is not taken where an authority exists",
            )
        data = bundle.verification_material.timestamp_verification_data
        stamped = [] if data is None else [response.tst_info.gen_time for response in data.rfc3161_timestamps]
        moments = [Moment(at, "its timestamp") for at in stamped]
        names = [_authority("timestamp authority", it.uri or "", it.valid_for) for it in root.timestamp_authorities]
        _demand_valid(names, moments)
    seconds = bundle.log_entry._inner.integrated_time
    if shape.log_time and seconds is not None:
        moments.append(Moment(datetime.fromtimestamp(seconds, tz=UTC), "the transparency log"))
    return moments


def _issuers(certificate: "Certificate", root: Any) -> list[_Authority]:
    from cryptography import x509

    found = []
    for authority in root.certificate_authorities:
        for link in authority.cert_chain.certificates:
            try:
                certificate.verify_directly_issued_by(x509.load_der_x509_certificate(link.raw_bytes))
            except Exception:  # Not this one: a wrong name, another kind of key or a wrong signature.
                continue
            found.append(_authority("certificate authority", authority.uri or "", authority.valid_for))
    if not found:
        _refuse(
            Reason.CERTIFICATE_UNTRUSTED,
            "no certificate authority of the trusted root issued the signer's certificate",
            _ROOT_HINT,
        )
    return found


def _certificate_log(certificate: "Certificate", root: Any) -> tuple[list[_Authority], list[Moment]]:
    """Return the certificate transparency logs that may have signed the one embedded SCT, and when it was signed."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
        scts = list(extension.value)
    except x509.ExtensionNotFound:
        scts = []
    if len(scts) != 1:
        _refuse(
            Reason.SCT_INVALID if scts else Reason.SCT_MISSING,
            f"the signer's certificate holds {len(scts) or 'no'} signed certificate timestamps (SCT), it takes one",
            "only a certificate that its authority has logged counts",
        )
    logs = [_log("certificate transparency log", log) for log in root.ctlogs if log.log_id.key_id == scts[0].log_id]
    if not logs:
        _refuse(
            Reason.SCT_INVALID, "the SCT is of a certificate transparency log that the trusted root does not name",
            _ROOT_HINT,
        )  # fmt: skip
    return logs, [Moment(scts[0].timestamp.replace(tzinfo=UTC), "the SCT in the signer's certificate")]


def _demand_valid(authorities: Sequence[_Authority], moments: Iterable[Moment]) -> None:
    """Demand for every moment one of these authorities (which are the same one, several times) that was valid."""
    for moment in moments:
        if any(_state(authority, moment.at) == 0 for authority in authorities):
            continue
        authority = authorities[-1]
        early = _state(authority, moment.at) < 0
        _refuse(
            Reason.TRUSTED_ROOT_NOT_YET_VALID if early else Reason.TRUSTED_ROOT_EXPIRED,
            f"the bundle was signed at {moment}, but the trusted root's {authority.name} "
            + (f"is valid from {_shown(authority.start)} on" if early else f"was valid until {_shown(authority.end)}"),
            "what counts is the time of signing, not this machine's clock; sign it again with an instance that is "
            "valid, or correct validFor in trust/sigstore/trusted_root.json",
        )  # fmt: skip


def _state(authority: _Authority, at: datetime) -> int:
    """Return -1 before, 0 during, 1 after its validity, which includes both ends (sigstore_common.proto, TimeRange)."""
    if authority.start is not None and at < authority.start:
        return -1
    return 1 if authority.end is not None and at > authority.end else 0


def _log(what: str, log: Any) -> _Authority:
    return _authority(what, log.base_url, log.public_key.valid_for)


def _authority(what: str, where: str, valid: Any) -> _Authority:
    name = f"{what} {where}".strip()
    return _Authority(name, None, None) if valid is None else _Authority(name, valid.start, valid.end)


def _shown(at: datetime | None) -> str:
    return "always" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _refuse(reason: Reason, message: str, hint: str = "") -> NoReturn:
    raise Untrusted(reason, message, hint=hint)
