"""The attack corpus on bundles and trusted roots: one test each, and each attack gets a reason of its own.

docs/sigstore.md lists them; tests/unit/test_meta_attacks.py keeps that list true.
"""

import base64
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from test_bundle_fixtures import BUILDER, IDENTITY, ISSUER, NOW, STATEMENT, b64, edited, get, put, signed

from kubenode.errors import Untrusted
from kubenode.image import sigstore_local, sigstore_local_x509
from kubenode.image.sigstore_local import Instance, Times
from kubenode.image.sigstore_local_entry import body_of, pae
from kubenode.trust import bundle as bundles
from kubenode.trust.policy import Builder
from kubenode.trust.reasons import Reason

AT = NOW.replace(microsecond=0)
BUNDLE = signed().bundle
MATERIAL = ("verificationMaterial",)
ENTRY = (*MATERIAL, "tlogEntries", 0)
STAMPS = (*MATERIAL, "timestampVerificationData", "rfc3161Timestamps")
CERTIFICATE = (*MATERIAL, "certificate", "rawBytes")
CHECKPOINT = (*ENTRY, "inclusionProof", "checkpoint", "envelope")


def instance() -> Instance:
    return sigstore_local.load(signed().directory)


def fresh(statement: bytes = STATEMENT, **changes: Any) -> bytes:
    """Return a new bundle of the same instance."""
    arguments: dict[str, Any] = {"identity": IDENTITY, "times": Times(AT, AT, AT)}
    return instance().bundle(statement, **(arguments | changes))


def refused(reason: Reason, said: str, bundle: bytes = BUNDLE, **changes: Any) -> Untrusted:
    with pytest.raises(Untrusted) as caught:
        signed().verify(bundle=bundle, **changes)
    assert caught.value.reason == reason, str(caught.value)
    assert re.search(said, caught.value.message), caught.value.message
    return caught.value


# What was signed.


def test_freeze_an_old_manifest_is_served():
    old = edited(lambda d: d["predicate"]["buildDefinition"]["externalParameters"].update(version="2026.10.1"))
    refused(Reason.MANIFEST_DIGEST_MISMATCH, "the fleet repo pins", fresh(old), manifest=old,
            expected_manifest_sha256="ab" * 32)  # fmt: skip


def test_a_bundle_for_another_digest():
    other = edited(lambda d: d["subject"][0]["digest"].update(sha256="0" * 64))
    refused(Reason.BUNDLE_PAYLOAD_MISMATCH, "signs another manifest", fresh(other))


def test_payload_type_confusion():
    for kind in ("text/plain", "application/vnd.in-toto+json; x", "application/json", "APPLICATION/VND.IN-TOTO+JSON"):
        refused(Reason.PAYLOAD_TYPE, "not an in-toto statement", fresh(payload_type=kind))


def test_payload_type_changed_after_signing():
    # DSSE signs the type too: the same payload under another type is another message.
    refused(Reason.SIGNATURE_INVALID, "invalid signature", put(BUNDLE, ("dsseEnvelope", "payloadType"), "text/plain"))


def test_wrong_statement_type():
    other = edited(lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"))
    refused(Reason.STATEMENT_TYPE, "not an in-toto statement v1", fresh(other), manifest=other)


def test_wrong_predicate_type():
    other = edited(lambda d: d.update(predicateType="https://cyclonedx.org/bom"))
    refused(Reason.PREDICATE_TYPE, "cyclonedx", fresh(other), manifest=other)


def test_subject_missing():
    other = edited(lambda d: d["subject"].pop(2))
    refused(Reason.SUBJECT_MISSING, "no artifact with the role", fresh(other), manifest=other)


def test_subject_extra():
    other = edited(lambda d: d["subject"].append(d["subject"][2] | {"name": "second"}))
    refused(Reason.SUBJECT_EXTRA, "2 artifacts with the role", fresh(other), manifest=other)


def test_provenance_of_another_kind_of_build():
    other = edited(lambda d: d["predicate"]["buildDefinition"].update(buildType="https://example.net/other"))
    refused(Reason.PROVENANCE_INVALID, "buildType", fresh(other), manifest=other)


def test_packages_of_another_build():
    def swap(decoded: dict[str, Any]) -> None:
        decoded["predicate"]["buildDefinition"]["resolvedDependencies"][1]["digest"]["sha256"] = "0" * 64

    other = edited(swap)
    refused(Reason.PROVENANCE_MISMATCH, "lock", fresh(other), manifest=other)


# Who signed.


def test_wrong_channels_identity():
    stable = Builder(ISSUER, "release@example.net")
    found = refused(Reason.BUILDER_NOT_ALLOWED, "release@example.net", builders=[stable])
    assert IDENTITY in found.message and "trust/policy.yaml" in found.hint


def test_right_identity_of_another_issuer():
    refused(Reason.BUILDER_NOT_ALLOWED, "issuer.example.net", builders=[Builder("https://other.example.net", IDENTITY)])


def test_key_only_bundle():
    found = refused(Reason.CERTIFICATE_MISSING, "only a hint at a public key",
                    put(put(BUNDLE, CERTIFICATE[:-1], None), (*MATERIAL, "publicKey"), {"hint": "abc"}))  # fmt: skip
    assert "identity" in found.hint


def test_bundle_without_a_signer():
    refused(Reason.CERTIFICATE_MISSING, "no signer's certificate", put(BUNDLE, CERTIFICATE[:-1], None))


def test_a_certificate_of_another_authority():
    other = put(BUNDLE, CERTIFICATE, get(signed(2).bundle, CERTIFICATE))
    found = refused(Reason.CERTIFICATE_UNTRUSTED, "no certificate authority", other)
    assert "trusted_root.json" in found.hint


def test_dsse_with_two_signatures():
    two = [*get(BUNDLE, ("dsseEnvelope", "signatures")), {"sig": b64(b"another")}]
    refused(Reason.SIGNATURE_EXTRA, r"more than one signature \(2\)", put(BUNDLE, ("dsseEnvelope", "signatures"), two))


def test_dsse_without_signature():
    refused(Reason.SIGNATURE_MISSING, "no signature", put(BUNDLE, ("dsseEnvelope", "signatures"), []))


def test_a_message_signature_instead_of_a_statement():
    message = {"messageDigest": {"algorithm": "SHA2_256", "digest": b64(b"x" * 32)}, "signature": b64(b"x")}
    both = put(BUNDLE, ("messageSignature",), message)
    refused(Reason.ENVELOPE_MISSING, "not a statement", both)
    refused(Reason.ENVELOPE_MISSING, "not a statement", put(both, ("dsseEnvelope",), None))


def test_a_changed_payload():
    other = edited(lambda d: d["subject"][0]["digest"].update(sha256="0" * 64))
    refused(Reason.SIGNATURE_INVALID, "invalid signature", put(BUNDLE, ("dsseEnvelope", "payload"), b64(other)))


# Certificate transparency.


def issued_by(monkeypatch: pytest.MonkeyPatch, issue: Callable[..., Any]) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(sigstore_local_x509, "issue_leaf", issue)
        return fresh()


def test_bundle_without_sct(monkeypatch: pytest.MonkeyPatch):
    def issue(key: Any, ca: Any, ca_key: Any, ct_key: Any, **who: Any) -> Any:
        return sigstore_local_x509.leaf_builder(key, ca, **who).sign(ca_key, hashes.SHA256())

    refused(Reason.SCT_MISSING, "holds no signed certificate timestamps", issued_by(monkeypatch, issue))


def test_sct_by_another_ct_log(monkeypatch: pytest.MonkeyPatch):
    genuine = sigstore_local_x509.issue_leaf

    def issue(key: Any, ca: Any, ca_key: Any, ct_key: Any, **who: Any) -> Any:
        return genuine(key, ca, ca_key, sigstore_local_x509.new_key(), **who)

    refused(Reason.SCT_INVALID, "log that the trusted root does not name", issued_by(monkeypatch, issue))


def test_sct_that_claims_to_be_of_the_trusted_log(monkeypatch: pytest.MonkeyPatch):
    genuine = sigstore_local_x509.issue_leaf
    trusted = sigstore_local_x509.key_id(instance().keys["ct"].public_key())
    ca_id = sigstore_local_x509.key_id(instance().keys["ca"].public_key())

    def issue(key: Any, ca: Any, ca_key: Any, ct_key: Any, **who: Any) -> Any:
        with monkeypatch.context() as patch:
            lie = {True: ca_id, False: trusted}
            ca_numbers = ca_key.public_key().public_numbers()
            patch.setattr(sigstore_local_x509, "key_id", lambda it: lie[it.public_numbers() == ca_numbers])
            return genuine(key, ca, ca_key, sigstore_local_x509.new_key(), **who)

    refused(Reason.SCT_INVALID, "failed to verify SCT", issued_by(monkeypatch, issue))


# The transparency log.


def test_bundle_without_log_entry():
    refused(Reason.LOG_ENTRY_MISSING, "no transparency log entry", put(BUNDLE, ENTRY[:-1], []))


def test_two_log_entries():
    two = [get(BUNDLE, ENTRY), get(fresh(), ENTRY)]
    refused(Reason.LOG_ENTRY_EXTRA, r"more than one transparency log entry \(2\)", put(BUNDLE, ENTRY[:-1], two))


def test_bundle_without_log_proof():
    refused(Reason.LOG_PROOF_MISSING, "nothing proves", put(BUNDLE, (*ENTRY, "inclusionProof"), None))


def test_bundle_without_checkpoint():
    refused(Reason.CHECKPOINT_MISSING, "no checkpoint", put(BUNDLE, CHECKPOINT[:-1], None))


def test_log_entry_of_another_artifact():
    other = edited(lambda d: d["subject"][0]["digest"].update(sha256="0" * 64))
    refused(Reason.LOG_ENTRY_MISMATCH, "does not match", put(BUNDLE, ENTRY, get(fresh(other), ENTRY)))


def test_log_entry_of_another_signature():
    refused(Reason.LOG_ENTRY_MISMATCH, "do not match", put(BUNDLE, ENTRY, get(fresh(), ENTRY)))


def test_log_entry_of_another_kind():
    bundle = put(BUNDLE, (*ENTRY, "kindVersion"), {"kind": "intoto", "version": "0.0.1"})
    refused(Reason.LOG_ENTRY_MISMATCH, "Integrated time only|Unsupported", bundle)


def test_checkpoint_signed_by_another_log():
    stranger = sigstore_local.load(signed(2).directory).log
    size = int(get(BUNDLE, (*ENTRY, "inclusionProof", "treeSize")))
    root = base64.b64decode(get(BUNDLE, (*ENTRY, "inclusionProof", "rootHash")))
    forged = put(BUNDLE, CHECKPOINT, stranger.signed_checkpoint(size, root))
    refused(Reason.CHECKPOINT_INVALID, "Signature not found", forged)


def test_checkpoint_that_claims_the_trusted_logs_key():
    genuine = get(BUNDLE, CHECKPOINT)
    note, _, signature = genuine.rpartition("\n\n")
    name, blob = signature.split()[1:]
    forged_signature = ec.generate_private_key(ec.SECP256R1()).sign(f"{note}\n".encode(), ec.ECDSA(hashes.SHA256()))
    forged = b64(base64.b64decode(blob)[:4] + forged_signature)
    bundle = put(BUNDLE, CHECKPOINT, f"{note}\n\n\N{EM DASH} {name} {forged}\n")
    refused(Reason.CHECKPOINT_INVALID, "checkpoint: invalid signature", bundle)


def test_checkpoint_of_another_tree():
    refused(Reason.CHECKPOINT_INVALID, "invalid root hash signature", put(BUNDLE, CHECKPOINT, get(fresh(), CHECKPOINT)))


def test_a_log_that_the_root_does_not_name():
    refused(Reason.CHECKPOINT_INVALID, "does not name", put(BUNDLE, (*ENTRY, "logId", "keyId"), b64(b"x" * 32)))


def test_a_proof_that_leads_elsewhere():
    bundle = put(BUNDLE, (*ENTRY, "inclusionProof", "hashes", 0), b64(b"x" * 32))
    refused(Reason.LOG_PROOF_INVALID, "inclusion proof", bundle)


def test_another_position_in_the_log():
    refused(Reason.LOG_PROMISE_INVALID, "SET", put(BUNDLE, (*ENTRY, "integratedTime"), str(int(AT.timestamp()) + 1)))


# Time.


def test_bundle_without_any_time_source():
    bundle = put(put(BUNDLE, STAMPS, []), (*ENTRY, "inclusionPromise"), None)
    refused(Reason.TIME_NOT_PROVEN, "nothing proves when", bundle)


def test_the_logs_word_alone():
    refused(Reason.TIME_NOT_PROVEN, "no RFC 3161 timestamp", put(BUNDLE, STAMPS, []))


def test_the_logs_word_under_another_name():
    """The protobuf name of a field is another way to write it; it must not get past the demand for a timestamp."""
    bundle = put(put(BUNDLE, STAMPS, []), (*ENTRY, "inclusion_promise"), get(BUNDLE, (*ENTRY, "inclusionPromise")))
    refused(Reason.BUNDLE_INVALID, "unknown field 'inclusion_promise'", put(bundle, (*ENTRY, "inclusionPromise"), None))
    refused(Reason.BUNDLE_INVALID, "unknown field 'inclusion_promise'", bundle)


def test_certificate_expired_at_signing_time():
    late = AT + timedelta(minutes=11)
    refused(Reason.CERTIFICATE_NOT_VALID_THEN, "certificate is valid from", fresh(times=Times(AT, late, late)))


def test_timestamps_outside_certificate_validity():
    for stamped, source in (
        (AT + timedelta(minutes=11), "its timestamp"),
        (AT - timedelta(seconds=1), "its timestamp"),
    ):
        refused(Reason.CERTIFICATE_NOT_VALID_THEN, source, fresh(times=Times(AT, stamped, AT)))


def test_log_time_outside_certificate_validity():
    late = AT + timedelta(minutes=11)
    refused(Reason.CERTIFICATE_NOT_VALID_THEN, "the transparency log", fresh(times=Times(AT, AT, late)))


def test_timestamp_of_another_signature():
    refused(Reason.TIMESTAMP_INVALID, "not enough sources", put(BUNDLE, STAMPS, get(fresh(), STAMPS)))


def test_timestamp_of_another_authority():
    stranger = sigstore_local.load(signed(2).directory)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(base64.b64decode(get(BUNDLE, ("dsseEnvelope", "signatures", 0, "sig"))))
    stamp = stranger.timestamp(digest.finalize(), AT)
    refused(Reason.TIMESTAMP_INVALID, "not enough sources", put(BUNDLE, STAMPS, [{"signedTimestamp": b64(stamp)}]))


def test_the_same_timestamp_twice():
    refused(Reason.TIMESTAMP_INVALID, "duplicate timestamp", put(BUNDLE, STAMPS, get(BUNDLE, STAMPS) * 2))


def test_no_timestamp_at_all_but_bytes():
    stamps = [{"signedTimestamp": b64(b"0\x00")}]
    refused(Reason.TIMESTAMP_INVALID, "Invalid Timestamp Response", put(BUNDLE, STAMPS, stamps))


def test_too_many_timestamps():
    digest = hashes.Hash(hashes.SHA256())
    digest.update(base64.b64decode(get(BUNDLE, ("dsseEnvelope", "signatures", 0, "sig"))))
    value, local = digest.finalize(), instance()
    stamps = [{"signedTimestamp": b64(local.timestamp(value, AT))} for _ in range(33)]
    refused(Reason.TIMESTAMP_INVALID, "too many", put(BUNDLE, STAMPS, stamps))


# The trusted root.

VALIDITIES = [
    (("tlogs", 0, "publicKey", "validFor"), "transparency log https://log"),
    (("ctlogs", 0, "publicKey", "validFor"), "certificate transparency log"),
    (("certificateAuthorities", 0, "validFor"), "certificate authority"),
    (("timestampAuthorities", 0, "validFor"), "timestamp authority"),
]


def shown(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(("path", "name"), VALIDITIES)
def test_trusted_root_expired_before_signing(path: tuple[Any, ...], name: str):
    root = put(signed().root, (*path, "end"), shown(AT - timedelta(seconds=1)))
    found = refused(
        Reason.TRUSTED_ROOT_EXPIRED, f"signed at 2025-06-01 12:00:00Z .*{name}.* until", trusted_root_json=root
    )
    assert "not this machine's clock" in found.hint
    until = put(signed().root, (*path, "end"), shown(AT + timedelta(seconds=1)))
    assert signed().verify(trusted_root_json=until).builder == BUILDER


@pytest.mark.parametrize(("path", "name"), VALIDITIES)
def test_trusted_root_not_yet_valid_at_signing(path: tuple[Any, ...], name: str):
    root = put(signed().root, (*path, "start"), shown(AT + timedelta(seconds=1)))
    found = refused(Reason.TRUSTED_ROOT_NOT_YET_VALID, f"{name}.* is valid from", trusted_root_json=root)
    assert "not this machine's clock" in found.hint


def test_trusted_root_not_yet_valid_by_this_machines_clock(monkeypatch: pytest.MonkeyPatch):
    # A machine whose clock stands at 1970, as at a first boot: everything is signed in its future.
    import sigstore._utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(0, tz)

    monkeypatch.setattr(sigstore._utils, "datetime", Frozen)
    found = refused(Reason.TRUSTED_ROOT_NOT_YET_VALID, "by this machine's clock")
    assert "correct this machine's clock" in found.hint


def test_expired_authority_beside_a_valid_one():
    """The validity counts of the authority that signed, not that of any other in the root."""
    authorities = json.loads(signed().root)["certificateAuthorities"]
    other = json.loads(signed(2).root)["certificateAuthorities"]
    authorities[0]["validFor"]["end"] = shown(AT - timedelta(seconds=1))
    root = put(signed().root, ("certificateAuthorities",), authorities + other)
    refused(Reason.TRUSTED_ROOT_EXPIRED, "certificate authority", trusted_root_json=root)


def test_a_root_without_timestamp_authority():
    root = put(signed().root, ("timestampAuthorities",), [])
    refused(Reason.TIMESTAMP_INVALID, "names no timestamp authority", trusted_root_json=root)
    assert signed().verify(bundle=put(BUNDLE, STAMPS, []), trusted_root_json=root).builder == BUILDER


def test_duplicate_keys_in_a_root():
    root = signed().root.replace(b'"tlogs":', b'"tlogs": [], "tlogs":', 1)
    refused(Reason.TRUSTED_ROOT_INVALID, "'tlogs' is there twice", trusted_root_json=root)


# JSON.


def test_duplicate_json_keys():
    bundle = BUNDLE.replace(b'"payload":', b'"payload":"e30=","payload":', 1)
    refused(Reason.BUNDLE_INVALID, "'payload' is there twice", bundle)


def test_deep_nesting():
    refused(Reason.BUNDLE_INVALID, "nested too deeply", b'{"mediaType":' + b"[" * 100_000)


def test_huge_numbers():
    refused(Reason.BUNDLE_INVALID, "does not verify", put(BUNDLE, (*ENTRY, "logIndex"), "9" * 5000))
    refused(
        Reason.BUNDLE_INVALID, "not acceptable JSON", BUNDLE.replace(b'"logIndex":"4"', b'"logIndex":' + b"9" * 5000, 1)
    )


def test_unknown_fields():
    refused(Reason.BUNDLE_INVALID, "unknown field 'extra'", put(BUNDLE, ("extra",), "x"))


def test_an_older_bundle_format():
    old = put(BUNDLE, ("mediaType",), "application/vnd.dev.sigstore.bundle+json;version=0.1")
    refused(Reason.BUNDLE_INVALID, "no Sigstore bundle v0.3", old)


def test_a_bundle_too_large():
    refused(Reason.BUNDLE_INVALID, "more than 4194304", BUNDLE + b" " * bundles.MAX_BUNDLE_BYTES)


# Rekor v2.


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from test_bundle_fixtures import Signed

    directory = tmp_path_factory.mktemp("rekor2") / "sigstore"
    root = sigstore_local.create(directory, issuer=ISSUER, now=NOW, rekor=2)
    found = [sigstore_local.sign(directory, STATEMENT, IDENTITY, NOW) for _ in range(3)]
    return Signed(directory, STATEMENT, found[-1], root.read_bytes())


def test_rekor_v2_needs_a_timestamp(second: Any):
    assert second.verify().builder == BUILDER
    entry = get(second.bundle, ENTRY)
    assert "integratedTime" not in entry and "inclusionPromise" not in entry
    with pytest.raises(Untrusted) as caught:
        second.verify(bundle=put(second.bundle, STAMPS, []))
    assert (caught.value.reason, "Rekor v2" in caught.value.hint) == (Reason.TIME_NOT_PROVEN, True)


def test_rekor_v2_entry_with_an_invented_time(second: Any):
    """A v2 log promises no time: one that is written in must not count."""
    local = sigstore_local.load(second.directory)
    body = base64.b64decode(get(second.bundle, (*ENTRY, "canonicalizedBody")))
    seconds, index = int(AT.timestamp()), int(get(second.bundle, (*ENTRY, "logIndex")))
    promise = {"signedEntryTimestamp": b64(local.log._entry_timestamp(body, seconds, index))}
    bundle = put(put(second.bundle, (*ENTRY, "integratedTime"), str(seconds)), (*ENTRY, "inclusionPromise"), promise)
    with pytest.raises(Untrusted) as caught:
        second.verify(bundle=bundle)
    assert caught.value.reason == Reason.LOG_ENTRY_MISMATCH
    root = put(second.root, ("timestampAuthorities",), [])
    with pytest.raises(Untrusted) as caught:
        second.verify(bundle=put(bundle, STAMPS, []), trusted_root_json=root)
    assert caught.value.reason == Reason.LOG_ENTRY_MISMATCH


def test_rekor_v2_entry_of_another_artifact(second: Any):
    other = sigstore_local.sign(second.directory, b"{}", IDENTITY, NOW)
    with pytest.raises(Untrusted) as caught:
        second.verify(bundle=put(second.bundle, ENTRY, get(other, ENTRY)))
    assert caught.value.reason == Reason.LOG_ENTRY_MISMATCH


def test_rekor_v2_entry_with_two_positions(second: Any):
    for path in ((*ENTRY, "logIndex"), (*ENTRY, "inclusionProof", "logIndex")):
        with pytest.raises(Untrusted, match="claims position") as caught:
            second.verify(bundle=put(second.bundle, path, "1"))
        assert caught.value.reason == Reason.LOG_PROOF_INVALID


def test_rekor_v2_entry_with_a_v1_body(second: Any):
    """The signed content of the entry is of the other version: the label alone must not decide."""
    local = sigstore_local.load(second.directory)
    key = sigstore_local_x509.new_key()
    leaf = local.certify(key.public_key(), IDENTITY, AT)
    signature = key.sign(pae(bundles.PAYLOAD_TYPE, STATEMENT), ec.ECDSA(hashes.SHA256()))
    envelope = {"payload": b64(STATEMENT), "payloadType": bundles.PAYLOAD_TYPE, "signatures": [{"sig": b64(signature)}]}
    entry = local.enter(body_of(1, envelope, STATEMENT, signature, leaf), AT)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(signature)
    stamp = local.timestamp(digest.finalize(), AT)
    bundle = put(put(second.bundle, ("dsseEnvelope",), envelope), ENTRY, entry)
    bundle = put(bundle, CERTIFICATE, b64(leaf.public_bytes(sigstore_local.serialization.Encoding.DER)))
    bundle = put(bundle, STAMPS, [{"signedTimestamp": b64(stamp)}])
    assert isinstance(leaf, x509.Certificate)
    with pytest.raises(Untrusted) as caught:
        second.verify(bundle=bundle)
    assert caught.value.reason == Reason.LOG_ENTRY_MISMATCH, caught.value
