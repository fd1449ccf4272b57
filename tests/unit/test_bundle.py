import copy
import dataclasses
import hashlib
import json
import socket
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bundle_fixtures import BUILDER, IDENTITY, ISSUER, MANIFEST, NOW, STATEMENT, VERSION, edited, put, signed

from kubenode.errors import Untrusted
from kubenode.image import sigstore_local
from kubenode.image.sigstore_local import Times
from kubenode.model.version import Version
from kubenode.trust import bundle
from kubenode.trust.bundle import ArtifactVerifier, VerifiedRelease
from kubenode.trust.manifest import Artifact
from kubenode.trust.policy import Builder
from kubenode.trust.reasons import Reason


def refusal(**changes: Any) -> Untrusted:
    with pytest.raises(Untrusted) as caught:
        signed().verify(**changes)
    caught.value.message.encode()
    return caught.value


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("verification must not use the network")

    for name in ("socket", "create_connection", "getaddrinfo", "socketpair"):
        monkeypatch.setattr(socket, name, refuse)


def test_a_signed_release_is_accepted_offline(no_network: None):
    release = signed().verify()
    assert release.manifest == MANIFEST
    assert release.manifest_sha256 == hashlib.sha256(STATEMENT).hexdigest()
    assert release.builder == BUILDER
    assert signed().verify(version=Version(VERSION)) == release


@pytest.mark.parametrize("entries", [1, 2, 3, 4, 8])
def test_wherever_its_entry_is_in_the_log(entries: int):
    assert signed(entries).verify().builder == BUILDER


def test_any_of_the_builders_will_do():
    others = [Builder(ISSUER, "other@example.net"), Builder("https://other.example.net", IDENTITY)]
    assert signed().verify(builders=[*others, BUILDER]).builder == BUILDER


@pytest.mark.parametrize(
    "builders",
    [
        [],
        [Builder(ISSUER, "other@example.net")],
        [Builder("https://other.example.net", IDENTITY)],
        [Builder(ISSUER + "/", IDENTITY)],
        [Builder(ISSUER, IDENTITY.upper())],
        [Builder("", IDENTITY)],
        [Builder(ISSUER, "")],
        [Builder(ISSUER, "other@example.net"), Builder("https://other.example.net", IDENTITY)],
    ],
)
def test_other_builders_are_refused(builders: list[Builder]):
    found = refusal(builders=builders)
    assert found.reason is Reason.BUILDER_NOT_ALLOWED
    assert IDENTITY in found.message
    assert found.subject == VERSION


def test_a_release_cannot_be_made_up():
    release = signed().verify()
    with pytest.raises(TypeError):
        VerifiedRelease(MANIFEST, "0" * 64, BUILDER)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        VerifiedRelease(MANIFEST, "0" * 64, BUILDER, proof=object())  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(release, manifest_sha256="0" * 64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        release.manifest_sha256 = "0" * 64  # type: ignore[misc]


def test_the_pinned_digest_comes_first():
    digest = hashlib.sha256(STATEMENT).hexdigest()
    for manifest, pin in ((STATEMENT, "0" * 64), (STATEMENT + b" ", digest), (b"", digest), (STATEMENT, "")):
        found = refusal(manifest=manifest, expected_manifest_sha256=pin, bundle=b"", trusted_root_json=b"")
        assert found.reason is Reason.MANIFEST_DIGEST_MISMATCH


def test_a_bundle_of_another_manifest_is_refused():
    other = edited(lambda decoded: decoded["subject"][0]["digest"].update(sha256="0" * 64))
    assert refusal(manifest=other).reason is Reason.BUNDLE_PAYLOAD_MISMATCH
    assert refusal(manifest=STATEMENT + b"\n").reason is Reason.BUNDLE_PAYLOAD_MISMATCH
    assert refusal(manifest=b"").reason is Reason.BUNDLE_PAYLOAD_MISMATCH


def sign(statement: bytes, **changes: Any) -> bytes:
    instance = sigstore_local.load(signed().directory)
    at = NOW.replace(microsecond=0)
    arguments: dict[str, Any] = {"identity": IDENTITY, "times": Times(at, at, at)}
    return instance.bundle(statement, **(arguments | changes))


def test_another_payload_type_is_refused():
    bundle_bytes = sign(STATEMENT, payload_type="application/json")
    assert refusal(bundle=bundle_bytes).reason is Reason.PAYLOAD_TYPE


def test_the_signer_counts_not_the_text():
    found = refusal(bundle=sign(STATEMENT, identity="mallory@example.net"))
    assert (found.reason, "mallory@example.net" in found.message) == (Reason.BUILDER_NOT_ALLOWED, True)


def test_an_identity_may_be_a_uri():
    uri = "https://git.example.net/fleet/.forge/build.yml@refs/heads/main"
    assert signed().verify(bundle=sign(STATEMENT, identity=uri), builders=[Builder(ISSUER, uri)])


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (edited(lambda d: d.update(predicateType="https://slsa.dev/provenance/v0.2")), Reason.PREDICATE_TYPE),
        (edited(lambda d: d.update(subject=[])), Reason.SUBJECT_MISSING),
        (edited(lambda d: d["subject"].pop(2)), Reason.SUBJECT_MISSING),
        (edited(lambda d: d["subject"].append(d["subject"][0])), Reason.SUBJECT_EXTRA),
        (edited(lambda d: d["subject"].append(d["subject"][2] | {"name": "second"})), Reason.SUBJECT_EXTRA),
        (edited(lambda d: d["subject"][0].update(name="../x")), Reason.MANIFEST_INVALID),
        (edited(lambda d: d.pop("predicate")), Reason.MANIFEST_INVALID),
        (b"{}", Reason.MANIFEST_INVALID),
        (b"", Reason.MANIFEST_INVALID),
    ],
)
def test_a_valid_signature_does_not_excuse_the_content(statement: bytes, reason: Reason):
    assert refusal(manifest=statement, bundle=sign(statement)).reason is reason


def test_another_version_is_refused():
    assert refusal(version="2026.11.2").reason is Reason.RELEASE_MISMATCH
    assert refusal(version="2026.11.1.0").reason is Reason.RELEASE_MISMATCH


def test_another_instance_is_not_trusted():
    stranger = signed(2)
    found = refusal(trusted_root_json=stranger.root)
    assert (found.reason, "trusted_root.json" in found.hint) == (Reason.CERTIFICATE_UNTRUSTED, True)
    assert refusal(bundle=stranger.bundle).reason is Reason.CERTIFICATE_UNTRUSTED


AUTHORITIES = {
    "tlogs": Reason.CHECKPOINT_INVALID,
    "ctlogs": Reason.SCT_INVALID,
    "certificateAuthorities": Reason.CERTIFICATE_UNTRUSTED,
    "timestampAuthorities": Reason.TIMESTAMP_INVALID,
}


@pytest.mark.parametrize(("authority", "reason"), AUTHORITIES.items())
def test_every_authority_of_the_instance_counts(authority: str, reason: Reason):
    mixed = put(signed().root, (authority,), json.loads(signed(2).root)[authority])
    assert refusal(trusted_root_json=mixed).reason is reason


def test_two_instances_can_be_trusted_at_once():
    old, new, root = signed(2), signed(), signed().root
    for authority in AUTHORITIES:
        root = put(root, (authority,), json.loads(new.root)[authority] + json.loads(old.root)[authority])
    for release in (old, new):
        assert release.verify(trusted_root_json=root).builder == BUILDER


@pytest.mark.parametrize("authority", list(AUTHORITIES)[:3])
def test_a_root_without_an_authority_is_not_usable(authority: str):
    found = refusal(trusted_root_json=put(signed().root, (authority,), []))
    assert found.reason is Reason.TRUSTED_ROOT_INVALID


def test_a_root_without_timestamp_authorities_refuses_timestamps_it_cannot_check():
    found = refusal(trusted_root_json=put(signed().root, ("timestampAuthorities",), []))
    assert found.reason is Reason.TIMESTAMP_INVALID


CERTIFICATE = ("certificateAuthorities", 0, "certChain", "certificates")


@pytest.mark.parametrize(
    "root",
    [
        b"", b"{}", b"null", b"[]", b"\xff", b"[" * 100_000, b" " * (bundle.MAX_TRUSTED_ROOT_BYTES + 1),
        put(signed().root, ("mediaType",), "x"),
        put(signed().root, ("tlogs",), None),
        put(signed().root, ("tlogs",), {}),
        put(signed().root, (*CERTIFICATE, 0, "rawBytes"), "AAAA"),
        put(signed().root, CERTIFICATE, []),
        put(signed().root, ("timestampAuthorities", 0, "certChain", "certificates", 0, "rawBytes"), "AAAA"),
        put(signed().root, ("tlogs", 0, "publicKey", "validFor", "start"), "2025-01-01T00:00:00"),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_damaged_root_is_not_usable(root: bytes):
    assert refusal(trusted_root_json=root).reason is Reason.TRUSTED_ROOT_INVALID


def test_an_interrupt_is_not_a_refusal(monkeypatch: pytest.MonkeyPatch):
    from sigstore.verify import Verifier

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Verifier, "verify_dsse", interrupt)
    with pytest.raises(KeyboardInterrupt):
        signed().verify()


class PanicException(BaseException):
    """Named as what a panic in Rust code becomes; it is no Exception."""


@pytest.mark.parametrize("error", [PanicException("panic"), RuntimeError(), KeyError("x"), ValueError("\ud800\n\nx")])
def test_whatever_verification_raises_is_a_refusal(monkeypatch: pytest.MonkeyPatch, error: BaseException):
    from sigstore.verify import Verifier

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Verifier, "verify_dsse", fail)
    assert refusal().reason is Reason.BUNDLE_INVALID


def test_sigstore_is_imported_only_for_a_verification():
    code = (
        "import sys, kubenode.trust.bundle, kubenode.image.sign, kubenode.image.publish;"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('sigstore', 'pydantic', 'requests')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


CONTENT = bytes(range(256)) * 40
ARTIFACT = Artifact("node.root.raw", "root", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def check(data: bytes, size: int = 1000) -> None:
    verifier = ArtifactVerifier(ARTIFACT)
    for start in range(0, len(data), size):
        verifier.update(data[start : start + size])
    verifier.finish()
    assert verifier.size == len(CONTENT)


@given(st.integers(1, 20_000))
def test_an_artifact_is_accepted_in_chunks_of_any_size(size: int):
    check(CONTENT, size)


@settings(deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_one_other_byte_is_noticed(place: int, change: int):
    data = bytearray(CONTENT)
    data[place] ^= change
    with pytest.raises(Untrusted) as caught:
        check(bytes(data))
    assert (caught.value.reason, caught.value.subject) == (Reason.ARTIFACT_DIGEST, ARTIFACT.name)


@pytest.mark.parametrize("data", [b"", CONTENT[:-1]])
def test_missing_bytes_are_noticed(data: bytes):
    with pytest.raises(Untrusted) as caught:
        check(data)
    assert caught.value.reason is Reason.ARTIFACT_SIZE


def test_too_many_bytes_are_noticed_at_once():
    verifier = ArtifactVerifier(ARTIFACT)
    verifier.update(CONTENT)
    with pytest.raises(Untrusted) as caught:
        verifier.update(b"x")
    assert caught.value.reason is Reason.ARTIFACT_SIZE
    with pytest.raises(Untrusted):
        verifier.finish()


def test_releases_compare_and_copy_like_values():
    assert copy.copy(signed().verify()) == signed().verify()
