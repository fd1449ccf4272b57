"""Nothing in a bundle can be changed, left out or replaced without a refusal, and nothing but a refusal comes out."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bundle_fixtures import IDENTITY, NOW, STATEMENT, b64, get, leaves, put, signed

from kubenode.errors import Untrusted
from kubenode.image import sigstore_local, sigstore_local_x509
from kubenode.image.sigstore_local import Times
from kubenode.trust import bundle
from kubenode.trust.reasons import Reason

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

BUNDLE = signed().bundle
ENTRY = ("verificationMaterial", "tlogEntries", 0)
CERTIFICATE = ("verificationMaterial", "certificate", "rawBytes")
STAMPS = ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")
STAMP = (*STAMPS, 0, "signedTimestamp")
CHECKPOINT = (*ENTRY, "inclusionProof", "checkpoint", "envelope")
REFUSALS = {
    Reason.BUNDLE_INVALID, Reason.CERTIFICATE_MISSING, Reason.CERTIFICATE_NOT_VALID_THEN, Reason.CERTIFICATE_UNTRUSTED,
    Reason.CHECKPOINT_INVALID, Reason.CHECKPOINT_MISSING, Reason.ENVELOPE_MISSING, Reason.LOG_ENTRY_EXTRA,
    Reason.LOG_ENTRY_MISMATCH, Reason.LOG_ENTRY_MISSING, Reason.LOG_PROMISE_INVALID, Reason.LOG_PROOF_INVALID,
    Reason.LOG_PROOF_MISSING, Reason.SCT_INVALID, Reason.SCT_MISSING, Reason.SIGNATURE_EXTRA, Reason.SIGNATURE_INVALID,
    Reason.SIGNATURE_MISSING, Reason.TIME_NOT_PROVEN, Reason.TIMESTAMP_INVALID, Reason.TRUSTED_ROOT_EXPIRED,
    Reason.TRUSTED_ROOT_NOT_YET_VALID,
}  # fmt: skip
"""What a damaged bundle is refused with; which one, the attacks in test_bundle_attacks.py say."""
BASE64 = {
    "payload", "sig", "rawBytes", "signedTimestamp", "canonicalizedBody", "keyId", "rootHash", "signedEntryTimestamp",
}  # fmt: skip
AT = NOW.replace(microsecond=0)


def outcome(data: bytes) -> str:
    try:
        signed().verify(bundle=data)
    except Untrusted as refusal:
        refusal.message.encode()
        return refusal.reason
    return "accepted"


def is_base64(path: tuple[Any, ...]) -> bool:
    return path[-1] in BASE64 or "hashes" in path


PATHS = [path for path, _ in leaves(json.loads(BUNDLE))]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_every_field_is_covered_by_a_signature(path: tuple[Any, ...]):
    text = get(BUNDLE, path)
    content = base64.b64decode(text) if is_base64(path) else text.encode()
    # Long fields at every seventh byte: all of them were tried once, and this stays quick.
    for place in range(0, len(content), 7 if len(content) > 100 else 1):
        changed = bytearray(content)
        changed[place] ^= 2
        if not is_base64(path) and not bytes(changed).isascii():
            continue
        value = b64(bytes(changed)) if is_base64(path) else changed.decode()
        if harmless(path, place, content):
            continue
        assert outcome(put(BUNDLE, path, value)) in REFUSALS, (path, place)


def harmless(path: tuple[Any, ...], place: int, content: bytes) -> bool:
    """Say whether a byte is a label that no verification of sigstore-python looks at.

    The signer's name before the signature of a checkpoint (the key decides), and the version numbers and the
    algorithm identifier in the timestamp's CMS wrapping (the certificate decides).
    """
    if path == CHECKPOINT:
        return content.index("\N{EM DASH} ".encode()) <= place < content.rindex(b" ")
    if path == STAMP:
        tsa = x509.load_pem_x509_certificate((signed().directory / "certs" / "tsa.pem").read_bytes())
        certificate = tsa.public_bytes(serialization.Encoding.DER)
        after = content.index(certificate) + len(certificate)
        versions = (content.index(bytes.fromhex("02010331")) + 2, content.index(bytes.fromhex("02010130"), after) + 2)
        ecdsa_with_sha256 = bytes.fromhex("06082a8648ce3d040302")
        return place in versions or 0 <= place - content.rindex(ecdsa_with_sha256) < len(ecdsa_with_sha256)
    return False


@pytest.mark.parametrize(
    "path",
    [
        ("mediaType",),
        ("dsseEnvelope",),
        ("dsseEnvelope", "signatures", 0),
        ("verificationMaterial",),
        CERTIFICATE,
        ENTRY,
        (*ENTRY, "inclusionPromise", "signedEntryTimestamp"),
        (*ENTRY, "inclusionProof"),
        (*ENTRY, "inclusionProof", "checkpoint"),
        (*ENTRY, "inclusionProof", "hashes", 0),
        (*ENTRY, "canonicalizedBody"),
        (*ENTRY, "logId"),
        (*ENTRY, "kindVersion"),
        STAMPS[:-1],
        STAMPS,
        (*STAMPS, 0),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_no_part_can_be_left_out(path: tuple[Any, ...]):
    assert outcome(put(BUNDLE, path, None)) in REFUSALS


def test_the_logs_own_time_may_be_missing_because_a_timestamp_proves_it():
    without = put(BUNDLE, (*ENTRY, "inclusionPromise"), None)
    assert outcome(without) == "accepted"


@pytest.mark.parametrize("part", [CERTIFICATE, ENTRY, STAMP, ("dsseEnvelope",), (*ENTRY, "inclusionProof")])
def test_no_part_can_come_from_another_bundle(part: tuple[Any, ...]):
    other = sigstore_local.load(signed().directory).bundle(STATEMENT, IDENTITY, Times(AT, AT, AT))
    assert outcome(other) == "accepted"
    assert outcome(put(BUNDLE, part, get(other, part))) in REFUSALS


@pytest.mark.parametrize("part", [ENTRY[:-1], STAMPS, ("dsseEnvelope", "signatures")])
def test_nothing_is_there_twice(part: tuple[Any, ...]):
    assert outcome(put(BUNDLE, part, get(BUNDLE, part) * 2)) in REFUSALS


def signed_at(issued: int = 0, stamped: int = 0, logged: int = 0) -> str:
    times = Times(*(AT + timedelta(minutes=minutes) for minutes in (issued, stamped, logged)))
    return outcome(sigstore_local.load(signed().directory).bundle(STATEMENT, IDENTITY, times))


@pytest.mark.parametrize("minutes", [{}, {"stamped": 9}, {"logged": 9}, {"issued": 60, "stamped": 61, "logged": 62}])
def test_times_within_the_certificates_ten_minutes(minutes: dict[str, int]):
    assert signed_at(**minutes) == "accepted"


@pytest.mark.parametrize("minutes", [{"stamped": 11}, {"stamped": -1}, {"logged": 11}, {"logged": -1}, {"issued": 60}])
def test_an_expired_certificate_needs_a_timestamp_from_its_lifetime(minutes: dict[str, int]):
    assert signed_at(**minutes) in REFUSALS


def rebuilt(monkeypatch: pytest.MonkeyPatch, issue: Callable[..., Any]) -> str:
    monkeypatch.setattr(sigstore_local_x509, "issue_leaf", issue)
    return signed_at()


def test_a_certificate_without_sct_is_refused(monkeypatch: pytest.MonkeyPatch):
    def issue(key: Any, ca: Any, ca_key: Any, ct_key: Any, **who: Any) -> Any:
        return sigstore_local_x509.leaf_builder(key, ca, **who).sign(ca_key, sigstore_local_x509.hashes.SHA256())

    assert rebuilt(monkeypatch, issue) in REFUSALS


def test_an_sct_of_another_log_is_refused(monkeypatch: pytest.MonkeyPatch):
    genuine = sigstore_local_x509.issue_leaf

    def issue(key: Any, ca: Any, ca_key: Any, ct_key: Any, **who: Any) -> Any:
        return genuine(key, ca, ca_key, sigstore_local_x509.new_key(), **who)

    assert rebuilt(monkeypatch, issue) in REFUSALS


@pytest.mark.parametrize(("oid", "value"), [("ISSUER_V1", b"https://other"), ("ISSUER_V2", b"\x0c\x01x")])
def test_both_issuer_extensions_must_name_the_builders_issuer(monkeypatch: pytest.MonkeyPatch, oid: str, value: bytes):
    plain = x509.UnrecognizedExtension

    def extension(found: Any, content: bytes) -> Any:
        return plain(found, value if found == getattr(sigstore_local_x509, oid) else content)

    monkeypatch.setattr(x509, "UnrecognizedExtension", extension)
    data = sigstore_local.load(signed().directory).bundle(STATEMENT, IDENTITY, Times(AT, AT, AT))
    monkeypatch.undo()
    assert outcome(data) == Reason.BUILDER_NOT_ALLOWED


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"null", b"[]", b"1", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' * 100_000,
        b" " * (bundle.MAX_BUNDLE_BYTES + 1), BUNDLE[:-1], BUNDLE + b"{}", BUNDLE * 2,
        BUNDLE.replace(b'"payload":', b'"payload":"e30=","payload":', 1),
        BUNDLE.replace(b'"mediaType":', b'"extra":1,"mediaType":', 1),
        put(BUNDLE, (*ENTRY, "logIndex"), "9" * 5000),
        put(BUNDLE, (*ENTRY, "inclusionProof", "treeSize"), str(2**64 - 1)),
        put(BUNDLE, (*ENTRY, "integratedTime"), str(2**63)),
        put(BUNDLE, (*ENTRY, "logIndex"), 4),
        put(BUNDLE, CHECKPOINT, "\n\n"), put(BUNDLE, CHECKPOINT, ""),
        put(BUNDLE, CHECKPOINT, "a\nb\nc\n\n\u2014 x y\n"),
        put(BUNDLE, CHECKPOINT, "a\n1\nAA=\n\n\u2014 x AA=\n"),
        put(BUNDLE, STAMP, ""), put(BUNDLE, STAMPS, get(BUNDLE, STAMPS) * 40), put(BUNDLE, CERTIFICATE, "AAAA"),
        put(BUNDLE, (*ENTRY, "canonicalizedBody"), b64(b"{}")), put(BUNDLE, (*ENTRY, "canonicalizedBody"), ""),
        signed().root,
    ],
    ids=range(29),
)  # fmt: skip
def test_garbage_is_refused(data: bytes):
    assert outcome(data) in REFUSALS


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes):
    assert outcome(data) in REFUSALS


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(BUNDLE) - 1), st.integers(0, 3), st.binary(max_size=3))
def test_changed_bytes_are_refused_or_change_nothing(place: int, remove: int, insert: bytes):
    changed = BUNDLE[:place] + insert + BUNDLE[place + remove :]
    found = outcome(changed)
    assert found in {"accepted", *REFUSALS}
    if found == "accepted" and changed != BUNDLE:
        # White space, unused bits of base64 or a label: everything that was signed must be the same.
        for path in (("dsseEnvelope", "payload"), CERTIFICATE, (*ENTRY, "canonicalizedBody")):
            assert base64.b64decode(get(changed, path)) == base64.b64decode(get(BUNDLE, path))


json_values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.lists(st.text(max_size=4), max_size=2)
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), st.integers(0, 3), json_values)
def test_any_value_anywhere_is_refused(path: tuple[Any, ...], up: int, value: Any):
    path = path[: max(1, len(path) - up)]
    same = isinstance(value, str) and value.strip().isdecimal() and str(int(value)) == get(BUNDLE, path)
    if value is not None and get(BUNDLE, path) != value and not same:
        assert outcome(put(BUNDLE, path, value)) in REFUSALS


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(STATEMENT) - 1), st.integers(0, 3), st.binary(max_size=3))
def test_no_other_manifest_is_accepted(place: int, remove: int, insert: bytes):
    changed = STATEMENT[:place] + insert + STATEMENT[place + remove :]
    if changed != STATEMENT:
        with pytest.raises(Untrusted) as caught:
            signed().verify(manifest=changed)
        assert caught.value.reason is Reason.BUNDLE_PAYLOAD_MISMATCH
