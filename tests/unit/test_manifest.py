import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bundle_fixtures import CONTENT, MANIFEST, PROVENANCE, STATEMENT, edited, statement

from kubenode.errors import Untrusted
from kubenode.model.version import Version
from kubenode.trust import manifest
from kubenode.trust.manifest import Artifact, encode, parse
from kubenode.trust.reasons import Reason

ROOT_NAME = MANIFEST.root.name


def parameters(decoded: dict[str, Any]) -> dict[str, Any]:
    return decoded["predicate"]["buildDefinition"]["externalParameters"]


def refusal(data: bytes) -> Untrusted:
    with pytest.raises(Untrusted) as caught:
        parse(data)
    return caught.value


def test_what_is_written_is_read():
    assert parse(STATEMENT) == MANIFEST
    bare = replace(MANIFEST, kubernetes=None, floor=None)
    assert parse(encode(bare, PROVENANCE)) == bare
    assert {parse(STATEMENT).artifact(role).role for role in manifest.ROLES} == set(manifest.ROLES)
    assert (MANIFEST.root.role, MANIFEST.verity.role, MANIFEST.uki.role) == ("root", "verity", "uki")
    with pytest.raises(KeyError):
        MANIFEST.artifact("nothing")


def test_the_encoding_is_canonical():
    reordered = replace(MANIFEST, artifacts=tuple(reversed(MANIFEST.artifacts)))
    assert encode(reordered, PROVENANCE) == STATEMENT
    assert json.dumps(json.loads(STATEMENT), sort_keys=True, separators=(",", ":")).encode() == STATEMENT


def test_it_is_an_in_toto_statement_with_slsa_provenance():
    from sigstore.dsse import Statement

    Statement(STATEMENT)
    decoded = json.loads(STATEMENT)
    assert decoded["_type"] == "https://in-toto.io/Statement/v1"
    assert decoded["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {subject["name"] for subject in decoded["subject"]} == set(CONTENT)
    definition = decoded["predicate"]["buildDefinition"]
    assert definition["buildType"] == "https://kubenode.dev/image/v1"
    assert definition["resolvedDependencies"][2]["digest"] == {"gitCommit": "03" * 20}
    assert decoded["predicate"]["runDetails"]["metadata"]["startedOn"] == "2025-06-01T12:00:00Z"


def test_newer_manifests_stay_readable():
    def newer(decoded: dict[str, Any]) -> None:
        decoded["subject"][0]["annotations"]["dev.kubenode/new"] = 1
        decoded["subject"].append(
            {
                "name": "tools.raw",
                "digest": {"sha256": "0" * 64, "sha512": "1" * 128},
                "annotations": {"dev.kubenode/role": "extension", "dev.kubenode/size": "7"},
            }
        )
        parameters(decoded)["new"] = [1.5]
        decoded["predicate"]["new"] = None

    assert parse(edited(newer)).artifact("extension") == Artifact("tools.raw", "extension", "0" * 64, 7)


UNSAFE_NAMES = [
    "", ".", "..", ".hidden", "a/b", "/etc/passwd", "../x", "a\\b", "a b", "a\nb", "a\0b", "-rf", "ü", "a%2fb", "a?b",
    "a#b", "a:b", "\ud800", "x" * 201, "manifest.json", "manifest.sigstore.json",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_unsafe_names_are_refused(name: str):
    found = refusal(edited(lambda decoded: decoded["subject"][0].update(name=name)))
    assert found.reason is Reason.MANIFEST_INVALID
    found.message.encode()


WRONG = [
    lambda d: d.update(_type=1),
    lambda d: d.pop("_type"),
    lambda d: d.update(subject={}),
    lambda d: d.update(subject=["x"]),
    lambda d: d.update(subject=d["subject"] * 20),
    lambda d: d.update(predicate=[]),
    lambda d: d.pop("predicate"),
    lambda d: d["subject"][0].pop("digest"),
    lambda d: d["subject"][0].update(digest={"sha512": "0" * 128}),
    lambda d: d["subject"][0].update(digest={"sha256": "A" * 64}),
    lambda d: d["subject"][0].update(digest={"sha256": "0" * 63}),
    lambda d: d["subject"][0].update(name=None),
    lambda d: d["subject"][0].pop("annotations"),
    *(
        lambda d, size=size: d["subject"][0]["annotations"].update({"dev.kubenode/size": size})
        for size in (7, "", "0", "-1", "007", "1e3", "1 ", "٣", "9" * 16, None, True)
    ),
    lambda d: d["subject"][0]["annotations"].update({"dev.kubenode/role": "Root"}),
    lambda d: d["subject"][0]["annotations"].pop("dev.kubenode/role"),
    lambda d: d["predicate"]["buildDefinition"].pop("externalParameters"),
    *(
        lambda d, key=key, value=value: parameters(d).update({key: value})
        for key, value in (
            ("image", "Node"), ("image", "../x"), ("image", None), ("version", "1"), ("version", 1.0),
            ("version", "2026.11.01"), ("version", None), ("kubernetes", "1.34"), ("kubernetes", "v1.34.2"),
            ("kubernetes", 1), ("floor", "old"), ("floor", 0), ("schemas", []), ("schemas", "x"), ("schemas", [1]),
            ("schemas", [{}]), ("schemas", ["kubenode.dev/v1", "kubenode.dev/v1"]), ("rootHash", "ab"),
            ("rootHash", "AB" * 32), ("rootHash", None),
        )
    ),
    *(lambda d, key=key: parameters(d).pop(key) for key in ("image", "version", "kubernetes", "floor", "schemas")),
]  # fmt: skip


WRONG_PROVENANCE = [
    lambda d: d["predicate"]["buildDefinition"].update(buildType="https://example.net"),
    lambda d: d["predicate"]["buildDefinition"].pop("resolvedDependencies"),
    lambda d: d["predicate"]["buildDefinition"]["resolvedDependencies"].pop(),
    lambda d: d["predicate"]["buildDefinition"]["resolvedDependencies"][0].update(digest={"sha256": "?"}),
    lambda d: d["predicate"]["buildDefinition"].update(resolvedDependencies=["x"]),
    lambda d: d["predicate"].pop("runDetails"),
    lambda d: d["predicate"]["runDetails"].update(builder={"id": ""}),
    lambda d: d["predicate"]["runDetails"]["metadata"].update(startedOn="yesterday"),
    lambda d: d["predicate"]["runDetails"]["metadata"].pop("invocationId"),
    lambda d: d["predicate"]["runDetails"].update(builder={"id": "not a URI"}),
    lambda d: d["predicate"]["runDetails"]["metadata"].update(startedOn="2026-11-23T10:00:00"),
    lambda d: d["predicate"]["buildDefinition"]["resolvedDependencies"].append(
        {"name": "fleet", "digest": {"gitCommit": "04" * 20}}
    ),
]


@pytest.mark.parametrize("change", WRONG_PROVENANCE, ids=range(len(WRONG_PROVENANCE)))
def test_wrong_provenance_is_refused(change: Any):
    assert refusal(edited(change)).reason is Reason.PROVENANCE_INVALID


def test_the_lock_is_the_listing_that_is_shipped():
    def other(decoded: dict[str, Any]) -> None:
        decoded["predicate"]["buildDefinition"]["resolvedDependencies"][1]["digest"]["sha256"] = "0" * 64

    found = refusal(edited(other))
    assert (found.reason, found.subject) == (Reason.PROVENANCE_MISMATCH, MANIFEST.artifact("packages").name)


@pytest.mark.parametrize("change", WRONG)
def test_wrong_content_is_refused(change: Any):
    assert refusal(edited(change)).reason is Reason.MANIFEST_INVALID


def test_another_statement_type_is_refused():
    found = refusal(edited(lambda decoded: decoded.update(_type="https://in-toto.io/Statement/v0.1")))
    assert (found.reason, "Statement/v1" in found.hint) == (Reason.STATEMENT_TYPE, True)


def test_another_predicate_type_is_refused():
    found = refusal(edited(lambda decoded: decoded.update(predicateType="https://cyclonedx.org/bom")))
    assert found.reason is Reason.PREDICATE_TYPE


@pytest.mark.parametrize("role", manifest.REQUIRED_ROLES)
def test_the_three_parts_of_a_slot_are_there_exactly_once(role: str):
    def other(decoded: dict[str, Any]) -> list[Any]:
        return [subject for subject in decoded["subject"] if subject["annotations"]["dev.kubenode/role"] != role]

    missing = refusal(edited(lambda decoded: decoded.update(subject=other(decoded))))
    assert (missing.reason, role in missing.message) == (Reason.SUBJECT_MISSING, True)
    # The first subject, ordered by name, is the disk image.
    twice = refusal(edited(lambda d: d["subject"][0]["annotations"].update({"dev.kubenode/role": role})))
    assert twice.reason is Reason.SUBJECT_EXTRA


def test_no_subjects_at_all():
    assert refusal(edited(lambda decoded: decoded.update(subject=[]))).reason is Reason.SUBJECT_MISSING


@pytest.mark.parametrize("name", [ROOT_NAME, ROOT_NAME.upper()])
def test_a_name_used_twice_is_refused(name: str):
    found = refusal(edited(lambda decoded: decoded["subject"][0].update(name=name)))
    assert (found.reason, found.subject) == (Reason.SUBJECT_EXTRA, ROOT_NAME)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":Infinity}',
        b"[" * 200_000, b'{"a":' * 100_000, b"1" * 5000, b" " * (manifest.MAX_MANIFEST_BYTES + 1),
        STATEMENT.replace(b'{"_type"', b'{"_type":"x","_type"', 1),
        STATEMENT.replace(b'"sha256"', b'"sha256":"0","sha256"', 1),
        STATEMENT + b"x", STATEMENT[:-1],
    ],
)  # fmt: skip
def test_garbage_is_refused(data: bytes):
    assert refusal(data).reason is Reason.MANIFEST_INVALID


def test_size_is_limited_before_anything_is_decoded():
    padded = STATEMENT + b" " * (manifest.MAX_MANIFEST_BYTES - len(STATEMENT))
    assert parse(padded) == MANIFEST
    assert "bytes, more than" in refusal(padded + b" ").message


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "Node"},
        {"artifacts": MANIFEST.artifacts[1:4]},
        {"artifacts": (replace(MANIFEST.artifacts[0], role="extension"), *MANIFEST.artifacts[1:])},
        {"artifacts": (replace(MANIFEST.artifacts[0], name="../x"), *MANIFEST.artifacts[1:])},
        {"artifacts": (replace(MANIFEST.artifacts[0], size=0), *MANIFEST.artifacts[1:])},
        {"root_hash": ""},
        {"schemas": ()},
    ],
)
def test_nothing_unreadable_is_written(changes: dict[str, Any]):
    with pytest.raises(ValueError):
        statement(**changes)


def test_times_need_a_zone():
    with pytest.raises(ValueError, match="time zone"):
        encode(MANIFEST, replace(PROVENANCE, started_on=PROVENANCE.started_on.replace(tzinfo=None)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += spots(value[key], (*path, key))
    return found


SPOTS = spots(json.loads(STATEMENT))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SPOTS), json_values)
def test_any_value_anywhere_is_read_or_refused(path: tuple[Any, ...], value: Any):
    def change(decoded: dict[str, Any]) -> None:
        place: Any = decoded
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    try:
        read = parse(edited(change))
    except Untrusted as error:
        error.message.encode()
        return
    assert isinstance(read.version, Version)
    assert {"root", "verity", "uki"} <= {found.role for found in read.artifacts}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes):
    refusal(data)
