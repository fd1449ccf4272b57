"""Fuzzing of bundles, manifests and trusted roots: nothing but Untrusted comes out, no changed meaning gets in."""

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.errors import Untrusted
from kubenode.image import sigstore_local
from kubenode.image.sigstore_local import Times
from kubenode.trust.bundleshape import check_shape
from kubenode.trust.manifest import parse_statement
from kubenode.trust.reasons import Reason
from tests.unit.test_bundle_fixtures import IDENTITY, NOW, STATEMENT, get, put, signed

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

BUNDLE, ROOT = signed().bundle, signed().root
AT = NOW.replace(microsecond=0)
OTHER = sigstore_local.load(signed().directory).bundle(b"{}", IDENTITY, Times(AT, AT, AT))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += places(value[key], (*path, key))
    return found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)
BUNDLE_PLACES, ROOT_PLACES = places(json.loads(BUNDLE)), places(json.loads(ROOT))


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


NAMES = [path for path in BUNDLE_PLACES if isinstance(path[-1], str) and snake(path[-1]) != path[-1]]


def outcome(**changes: Any) -> str:
    try:
        signed().verify(**changes)
    except Untrusted as refusal:
        assert refusal.reason in set(Reason)
        assert refusal.message.encode() and refusal.message.isprintable(), refusal.message
        return refusal.reason
    return "accepted"


def meaning(bundle: bytes) -> tuple[bytes, ...]:
    """Return what a bundle says: payload, signature, certificate and logged entry."""
    parts = (
        ("dsseEnvelope", "payload"),
        ("dsseEnvelope", "signatures", 0, "sig"),
        ("verificationMaterial", "certificate", "rawBytes"),
        ("verificationMaterial", "tlogEntries", 0, "canonicalizedBody"),
    )
    return tuple(base64.b64decode(get(bundle, path)) for path in parts)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(BUNDLE_PLACES), json_values)
def test_any_json_anywhere_in_a_bundle(path: tuple[Any, ...], value: Any) -> None:
    changed = put(BUNDLE, path, value)
    if outcome(bundle=changed) == "accepted":
        assert meaning(changed) == meaning(BUNDLE)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(BUNDLE_PLACES), min_size=1, max_size=4))
def test_parts_of_another_bundle(paths: list[tuple[Any, ...]]) -> None:
    changed = BUNDLE
    for path in paths:
        try:
            changed = put(changed, path, get(OTHER, path))
        except (KeyError, IndexError, TypeError):
            continue
    if outcome(bundle=changed) == "accepted":
        assert meaning(changed) == meaning(BUNDLE)


@settings(max_examples=len(NAMES) * 3, deadline=None)
@given(st.sampled_from(NAMES), st.booleans())
def test_no_field_has_a_second_name(path: tuple[Any, ...], keep: bool) -> None:
    changed = put(BUNDLE, (*path[:-1], snake(path[-1])), get(BUNDLE, path))
    if not keep:
        changed = put(changed, path, None)
    assert outcome(bundle=changed) == Reason.BUNDLE_INVALID


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_any_json_is_no_bundle(value: Any) -> None:
    with pytest.raises(Untrusted):
        check_shape(value)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ROOT_PLACES), json_values)
def test_any_json_anywhere_in_a_root(path: tuple[Any, ...], value: Any) -> None:
    root = put(ROOT, path, value)
    if outcome(trusted_root_json=root) == "accepted":
        assert vouching(root) == vouching(ROOT)


def vouching(root: bytes) -> set[bytes]:
    """Return the public keys by which the bundle is believed: of both logs, and of the certificates that sign.

    The second certificate of each chain is not among them: sigstore believes the first one for its place in the root.
    """
    decoded = json.loads(root)
    keys = {base64.b64decode(log["publicKey"]["rawBytes"]) for kind in ("tlogs", "ctlogs") for log in decoded[kind]}
    for authority in (*decoded["certificateAuthorities"], *decoded["timestampAuthorities"]):
        der = base64.b64decode(authority["certChain"]["certificates"][0]["rawBytes"])
        encoding = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        keys.add(x509.load_der_x509_certificate(der).public_key().public_bytes(*encoding))
    return keys


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(ROOT) - 1), st.integers(0, 3), st.binary(max_size=3))
def test_changed_bytes_of_a_root(place: int, remove: int, insert: bytes) -> None:
    root = ROOT[:place] + insert + ROOT[place + remove :]
    if outcome(trusted_root_json=root) == "accepted":
        assert vouching(root) == vouching(ROOT)


STATEMENT_PLACES = places(json.loads(STATEMENT))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(STATEMENT_PLACES), json_values)
def test_any_json_anywhere_in_a_manifest(path: tuple[Any, ...], value: Any) -> None:
    changed = put(STATEMENT, path, value)
    try:
        manifest, provenance = parse_statement(changed)
    except Untrusted as refusal:
        assert refusal.message.isprintable()
        return
    assert len(provenance.recipe_sha256) == 64 and provenance.started_on.tzinfo is not None
    assert {"root", "verity", "uki"} <= {artifact.role for artifact in manifest.artifacts}
