import base64
import json
import os
import stat
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from test_bundle_fixtures import IDENTITY, ISSUER, NOW, STATEMENT, Signed, get

from kubenode.errors import HostError, KubenodeError, UsageError
from kubenode.image import sigstore_local
from kubenode.image.sigstore_local import create, load, sign
from kubenode.image.sigstore_local_log import inclusion_path, leaf_hash, tree_root

ENTRY = ("verificationMaterial", "tlogEntries", 0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create(tmp_path / "sigstore", issuer=ISSUER, now=NOW)
    return tmp_path / "sigstore"


def verified(directory: Path, bundle: bytes) -> Signed:
    made = Signed(directory, STATEMENT, bundle, (directory / "trusted_root.json").read_bytes())
    made.verify()
    return made


def leaf(bundle: bytes) -> x509.Certificate:
    text = get(bundle, ("verificationMaterial", "certificate", "rawBytes"))
    return x509.load_der_x509_certificate(base64.b64decode(text))


def test_an_instance_is_complete_and_private(directory: Path):
    assert not [path for path in directory.parent.iterdir() if path != directory]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    keys = sorted((directory / "keys").iterdir())
    assert [key.name for key in keys] == ["ca.pem", "ct.pem", "log.pem", "tsa.pem"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    for path in directory.rglob("*"):
        if path.is_file() and path.parent.name != "keys":
            assert b"PRIVATE" not in path.read_bytes()


def test_private_keys_stay_private_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        create(tmp_path / "s", issuer=ISSUER, now=NOW)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(key.stat().st_mode) for key in (tmp_path / "s" / "keys").iterdir()} == {0o600}


def test_the_trusted_root_is_valid_for_ten_years(directory: Path):
    root = json.loads((directory / "trusted_root.json").read_bytes())
    for part in [*root["certificateAuthorities"], *root["timestampAuthorities"]]:
        assert (part["validFor"]["start"], part["validFor"]["end"]) == ("2025-06-01T11:00:00Z", "2035-06-01T11:00:00Z")
        assert len(part["certChain"]["certificates"]) == 2
    assert root["tlogs"][0]["baseUrl"] == "https://log.issuer.example.net"


def test_the_checkpoint_names_the_host_of_the_log(directory: Path):
    bundle = sign(directory, STATEMENT, IDENTITY, NOW)
    checkpoint = get(bundle, (*ENTRY, "inclusionProof", "checkpoint", "envelope"))
    origin, size, *_, signature = checkpoint.rstrip("\n").split("\n")
    # Verifiers take a log with a tree id in its origin for Rekor v1.
    assert origin.split(" - ")[0] == "log.issuer.example.net"
    assert origin.split(" - ")[1].isdecimal()
    assert (size, signature.split()[1]) == ("1", "log.issuer.example.net")
    assert (directory / "log" / "checkpoint").read_text() == checkpoint


def test_the_leaf_is_what_fulcio_would_issue(directory: Path):
    certificate = leaf(sign(directory, STATEMENT, IDENTITY, NOW))
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(minutes=10)
    assert not list(certificate.subject)
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (names.critical, names.value.get_values_for_type(x509.RFC822Name)) == (True, [IDENTITY])
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CODE_SIGNING]
    scts = extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value
    assert len(list(scts)) == 1
    raw = extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")).value
    assert isinstance(raw, x509.UnrecognizedExtension)
    assert raw.value == ISSUER.encode()
    serials = {leaf(sign(directory, STATEMENT, IDENTITY, NOW)).serial_number for _ in range(3)}
    assert len(serials) == 3


def test_the_bundle_is_a_sigstore_bundle_v03(directory: Path):
    bundle = sign(directory, STATEMENT, IDENTITY, NOW)
    assert get(bundle, ("mediaType",)) == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert get(bundle, (*ENTRY, "kindVersion")) == {"kind": "dsse", "version": "0.0.1"}
    assert base64.b64decode(get(bundle, ("dsseEnvelope", "payload"))) == STATEMENT
    assert get(bundle, (*ENTRY, "integratedTime")) == str(int(NOW.timestamp()))


def test_the_timestamp_is_read_by_an_independent_client(directory: Path):
    from rfc3161_client import decode_timestamp_response

    bundle = sign(directory, STATEMENT, IDENTITY, NOW)
    stamps = get(bundle, ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps"))
    response = decode_timestamp_response(base64.b64decode(stamps[0]["signedTimestamp"]))
    assert response.status == 0
    assert response.tst_info.gen_time == NOW.replace(microsecond=0)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(base64.b64decode(get(bundle, ("dsseEnvelope", "signatures", 0, "sig"))))
    assert response.tst_info.message_imprint.message == digest.finalize()


def test_bundles_stay_valid_while_the_log_grows(directory: Path):
    bundles = [sign(directory, STATEMENT, IDENTITY, NOW + timedelta(days=day)) for day in range(9)]
    for index, bundle in enumerate(bundles):
        verified(directory, bundle)
        assert get(bundle, (*ENTRY, "logIndex")) == str(index)


def test_every_inclusion_path_leads_to_the_root():
    from sigstore._internal.merkle import _chain_border_right, _chain_inner, _decomp_inclusion_proof

    for size in range(1, 18):
        tree = [leaf_hash(bytes([number])) for number in range(size)]
        for index, node in enumerate(tree):
            path = inclusion_path(index, tree)
            inner, border = _decomp_inclusion_proof(index, size)
            assert len(path) == inner + border
            assert _chain_border_right(_chain_inner(node, path[:inner], index), path[inner:]) == tree_root(tree)
    assert tree_root([]).hex().startswith("e3b0c442")


@pytest.mark.parametrize("torn", [b"x", b'{"body":"e30="', b'{"body":"e30=","integratedTime":1}', b"\xff\x00"])
def test_a_torn_last_line_is_dropped(directory: Path, torn: bytes):
    entries = directory / "log" / "entries.jsonl"
    first = sign(directory, STATEMENT, IDENTITY, NOW)
    with entries.open("ab") as file:
        file.write(torn)
    second, third = (sign(directory, STATEMENT, IDENTITY, NOW) for _ in range(2))
    assert [get(bundle, (*ENTRY, "logIndex")) for bundle in (first, second, third)] == ["0", "1", "2"]
    for bundle in (first, second, third):
        verified(directory, bundle)
    assert all(json.loads(line)["body"] != "e30=" for line in entries.read_bytes().splitlines())
    assert entries.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("step", ["replace_durably", "sync_folder"])
def test_a_kill_after_the_entry_keeps_the_entry(directory: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    sign(directory, STATEMENT, IDENTITY, NOW)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(f"kubenode.image.sigstore_local_log.{step}", kill)
        sign(directory, STATEMENT, IDENTITY, NOW)
    bundle = sign(directory, STATEMENT, IDENTITY, NOW)
    assert get(bundle, (*ENTRY, "logIndex")) == "2"
    verified(directory, bundle)


def test_a_kill_within_the_entry(directory: Path):
    sign(directory, STATEMENT, IDENTITY, NOW)
    entries = directory / "log" / "entries.jsonl"
    whole = entries.read_bytes()
    process = os.fork()
    if process == 0:
        with entries.open("ab") as file:
            file.write(whole[: len(whole) // 2])
            file.flush()
            os._exit(0)
    os.waitpid(process, 0)
    verified(directory, sign(directory, STATEMENT, IDENTITY, NOW))
    assert entries.read_bytes().startswith(whole)


def lines(directory: Path, change: Any) -> None:
    entries = directory / "log" / "entries.jsonl"
    entries.write_bytes(b"".join(change(entries.read_bytes().splitlines(keepends=True))))


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept[:-1],
        lambda kept: [],
        lambda kept: kept[::-1],
        lambda kept: [kept[0], kept[0], kept[2]],
        lambda kept: [kept[0], b"garbage\n", kept[2]],
        lambda kept: [kept[0], b"{}\n", kept[2]],
        lambda kept: [kept[0], b"\n", kept[2]],
        lambda kept: [kept[0], b'{"body":"?"}\n', kept[2]],
    ],
    ids=range(8),
)
def test_a_log_does_not_sign_a_second_history(directory: Path, change: Any):
    for _ in range(3):
        sign(directory, STATEMENT, IDENTITY, NOW)
    lines(directory, change)
    with pytest.raises(HostError, match="log") as caught:
        sign(directory, STATEMENT, IDENTITY, NOW)
    assert "backup" in caught.value.hint


@pytest.mark.parametrize("checkpoint", ["", "x", "a\nb\nc\n", "a\n1\n?\n"])
def test_a_damaged_checkpoint_stops_the_log(directory: Path, checkpoint: str):
    sign(directory, STATEMENT, IDENTITY, NOW)
    (directory / "log" / "checkpoint").write_text(checkpoint)
    with pytest.raises(HostError, match="checkpoint"):
        sign(directory, STATEMENT, IDENTITY, NOW)


def test_signers_at_once_get_places_of_their_own(directory: Path):
    bundles: list[bytes] = []

    def work() -> None:
        bundles.extend(sign(directory, STATEMENT, IDENTITY, NOW) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(get(bundle, (*ENTRY, "logIndex"))) for bundle in bundles) == list(range(20))
    for bundle in bundles:
        verified(directory, bundle)


def test_an_instance_is_never_overwritten(directory: Path, tmp_path: Path):
    before = (directory / "trusted_root.json").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        create(directory, issuer=ISSUER, now=NOW)
    assert (directory / "trusted_root.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="exists"):
        create(tmp_path / "file", issuer=ISSUER, now=NOW)
    (tmp_path / "empty").mkdir()
    assert create(tmp_path / "empty", issuer=ISSUER, now=NOW).is_file()
    assert create(tmp_path / "new" / "deep", issuer=ISSUER, now=NOW).is_file()


def test_a_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(sigstore_local, "write_durably", full)
    with pytest.raises(HostError, match="No space left"):
        create(tmp_path / "s", issuer=ISSUER, now=NOW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("issuer", ["", "x", "ftp://a", "https://", "https://[", "http:///x", "https://ü.example.net"])
def test_the_issuer_is_a_url(tmp_path: Path, issuer: str):
    with pytest.raises(UsageError):
        create(tmp_path / "s", issuer=issuer, now=NOW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("identity", ["", "jürgen@example.net"])
def test_identities_that_cannot_stand_in_a_certificate(directory: Path, identity: str):
    with pytest.raises(UsageError):
        sign(directory, STATEMENT, identity, NOW)


@pytest.mark.parametrize("days", [-1, 3653])
def test_an_expired_instance_does_not_sign(directory: Path, days: int):
    with pytest.raises(HostError, match="valid from"):
        sign(directory, STATEMENT, IDENTITY, NOW + timedelta(days=days))


def test_times_need_a_zone(directory: Path, tmp_path: Path):
    for call in (
        lambda now: sign(directory, STATEMENT, IDENTITY, now),
        lambda now: create(tmp_path / "x", issuer=ISSUER, now=now),
    ):
        with pytest.raises(ValueError, match="time zone"):
            call(NOW.replace(tzinfo=None))


def test_there_must_be_an_instance(tmp_path: Path):
    with pytest.raises(UsageError, match="no local Sigstore instance"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["instance.json", "keys/log.pem", "certs/tsa.pem"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_instance_is_named(directory: Path, name: str, content: bytes | None):
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    with pytest.raises(KubenodeError, match="sigstore"):
        sign(directory, STATEMENT, IDENTITY, NOW)


def test_keys_of_another_kind_are_refused(directory: Path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "keys" / "ct.pem").write_bytes(pem)
    with pytest.raises(HostError, match=r"ct\.pem is not an ECDSA key"):
        sign(directory, STATEMENT, IDENTITY, NOW)


def test_the_roots_keys_are_gone(directory: Path):
    instance = load(directory)
    kept = {key.public_key().public_numbers() for key in instance.keys.values()}
    for name in ("ca-root", "tsa-root"):
        public = instance.certs[name].public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert public.public_numbers() not in kept
