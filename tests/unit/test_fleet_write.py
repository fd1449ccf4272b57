"""Writing documents: promotion, releases, a new fleet."""

from collections.abc import Mapping
from typing import Any

import pytest
from fleets.mutations import BETA, EXAMPLE, FLEET, POLICY, ROOT, STABLE

from kubenode.errors import FleetInvalid, UsageError
from kubenode.fleet import schemas
from kubenode.fleet.edit import comment_out, node_at, quoted, replace
from kubenode.fleet.layout import Kind, kind_at
from kubenode.fleet.load import load_fleet
from kubenode.fleet.new import render_new
from kubenode.fleet.promote import promote, release_document
from kubenode.fleet.validate import validate
from kubenode.host.tree import read_folder
from kubenode.model.version import Version
from kubenode.trust.policy import Builder
from kubenode.trust.policyfile import parse_policy
from kubenode.trust.strictyaml import load

HEAD = "apiVersion: kubenode.dev/v1alpha1\nkind: Channel\nmetadata: {name: x}\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEhVQlcJ+6vsAJSk1V8lJhEAPqpmS8cAyXmnyRy2gxCD kim@laptop"
BUILDER = Builder("https://issuer.example.net", "kim@example.net")


@pytest.fixture(scope="module")
def example() -> Mapping[str, bytes]:
    return read_folder(EXAMPLE).files


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("spec:\n  releases: [1.2.3, 1.2]  # c\n", "spec:\n  releases: [1.3.0, 1.2.3, 1.2]  # c\n"),
        ("spec:\n  releases: []  # c\n", "spec:\n  releases: [1.3.0]  # c\n"),
        ("spec: {releases: [ ]}\n", "spec: {releases: [1.3.0]}\n"),
        ("spec:\n  releases: ['1.2.3']\n", "spec:\n  releases: ['1.3.0', '1.2.3']\n"),
        ('spec:\n  releases:\n  - "1.2"\n', 'spec:\n  releases:\n  - "1.3.0"\n  - "1.2"\n'),
        (
            "spec:\n  releases:\n    # newest\n    - 1.2.3 # a\n\n    - 1.2.2\n",
            "spec:\n  releases:\n    # newest\n    - 1.3.0\n    - 1.2.3 # a\n\n    - 1.2.2\n",
        ),
        ("spec:\n  releases:\n    -   1.2.3\n", "spec:\n  releases:\n    -   1.3.0\n    -   1.2.3\n"),
        ("spec:\r\n  releases:\r\n  - 1.2.3\r\n", "spec:\r\n  releases:\r\n  - 1.3.0\r\n  - 1.2.3\r\n"),
        (
            "spec:\n  releases:\n    [\n      1.2.3,\n    ]\n",
            "spec:\n  releases:\n    [\n      1.3.0, 1.2.3,\n    ]\n",
        ),
        ("# ümlaut\nspec: {releases: [1.2.3]}", "# ümlaut\nspec: {releases: [1.3.0, 1.2.3]}"),
    ],
)
def test_promotion_changes_nothing_else(before: str, after: str) -> None:
    before, after = before.replace("1.2]", '"1.2"]'), after.replace("1.2]", '"1.2"]')
    assert promote((HEAD + before).encode(), "1.3.0").decode() == HEAD + after


def test_a_version_of_two_numbers_is_quoted() -> None:
    after = promote((HEAD + "spec: {releases: [1.2.3]}\n").encode(), "1.3")
    assert b'["1.3", 1.2.3]' in after


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2026.11.1", "already"),
        ("2026.10.9", "older than 2026.11.1"),
        ("latest", "not a version"),
        ("2026.11.2\n", "not a version"),
    ],
)
def test_refused_promotions(example: Mapping[str, bytes], version: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        promote(example[STABLE], version)


def test_only_channels_are_promoted(example: Mapping[str, bytes]) -> None:
    for broken in (example[FLEET], HEAD.encode() + b"spec: {releases: 1}", b"", b"["):
        with pytest.raises(FleetInvalid):
            promote(broken, "2027.1.1")
    with pytest.raises(FleetInvalid):
        promote((HEAD + "spec: {}\n").encode(), "2027.1.1")


def test_a_published_and_promoted_release_is_valid(example: Mapping[str, bytes]) -> None:
    files = dict(example)
    files["releases/2026.12.yaml"] = release_document(
        "2026.12", "e" * 64, "1" * 64, "v1.34.3", "2026.11.1", "Fixes:\n - a: b\n\n# no comment"
    )
    for path in (BETA, STABLE):
        files[path] = promote(files[path], "2026.12")
    assert validate(files) == ()
    documents = load_fleet(files)
    release = documents.releases[documents.channels["stable"].releases[0]]
    assert (release.version, release.root_hash, release.floor) == (Version("2026.12"), "1" * 64, Version("2026.11.1"))
    value: Any = load(files["releases/2026.12.yaml"], "").value
    assert value["spec"]["notes"] == "Fixes:\n - a: b\n\n# no comment"


def test_the_least_release() -> None:
    assert release_document("1.0.0", "sha256:" + "a" * 64, "b" * 64).decode().splitlines()[-2:] == [
        f"  manifest: sha256:{'a' * 64}",
        f'  rootHash: "{"b" * 64}"',
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "1"},
        {"manifest_sha256": "A" * 64},
        {"root_hash": "a" * 63},
        {"kubernetes": "1.34.2"},
        {"floor": "v1.2.3"},
    ],
)
def test_malformed_releases(wrong: dict[str, str]) -> None:
    values = {"version": "1.0.0", "manifest_sha256": "a" * 64, "root_hash": "b" * 64}
    with pytest.raises(UsageError):
        release_document(**(values | wrong))


def test_notes_that_no_document_can_hold() -> None:
    with pytest.raises(FleetInvalid):
        release_document("1.0.0", "a" * 64, "b" * 64, notes="a\x00b")


def new(example: Mapping[str, bytes], **other: Any) -> dict[str, bytes]:
    values: dict[str, Any] = {
        "name": "prod",
        "fleet_id": "0f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11",
        "person": "kim",
        "ssh_key": KEY + "\n",
        "stores": ["file:///srv/images", "https://images.example.net/a"],
        "builder": BUILDER,
    }
    return render_new(example, **(values | other))


def test_a_new_fleet_is_valid_and_belongs_to_its_owner(example: Mapping[str, bytes]) -> None:
    files = new(example)
    assert validate(files) == ()
    documents = load_fleet(files)
    assert (documents.fleet.name, documents.fleet.id) == ("prod", "0f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11")
    assert documents.fleet.stores == ("file:///srv/images", "https://images.example.net/a")
    assert documents.fleet.cluster is None
    assert not documents.nodes and not documents.releases
    assert {channel.releases for channel in documents.channels.values()} == {()}
    assert "standalone" in documents.pools
    policy = parse_policy(files[POLICY])
    assert list(policy.people) == ["kim"]
    assert policy.builders_of("stable") == (BUILDER,)
    assert files[ROOT] == example[ROOT]
    assert new(example, trusted_root=b'{"tlogs": [], "certificateAuthorities": []}')[ROOT].startswith(b"{")


def test_nothing_of_the_example_people_stays(example: Mapping[str, bytes]) -> None:
    everything = b"".join(data for path, data in new(example).items() if not path.startswith("schemas/"))
    for word in (b"alice", b"homelab", b"6f1c1d1e", b"$schema=../../", b"made up"):
        assert word not in everything


def test_a_new_fleet_brings_its_schemas(example: Mapping[str, bytes]) -> None:
    files = new(example)
    for path, data in files.items():
        kind = kind_at(path)
        if kind is not None:
            line = data.decode().splitlines()[0]
            up = "../" * path.count("/")
            assert line == f"# yaml-language-server: $schema={up}schemas/{schemas.FILES[kind]}"
            assert files[f"schemas/{schemas.FILES[kind]}"] == schemas.schema_bytes(kind)


def test_the_cluster_of_a_new_fleet_can_be_switched_on(example: Mapping[str, bytes]) -> None:
    lines = new(example)[FLEET].decode().splitlines(keepends=True)
    start = lines.index("  # cluster:\n")
    end = lines.index("\n", start)
    lines[start:end] = [line.replace("# ", "", 1) for line in lines[start:end]]
    assert load_fleet({FLEET: "".join(lines).encode()}).fleet.cluster == load_fleet(example).fleet.cluster


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "My Fleet"}, None),
        ({"fleet_id": "1"}, "fleet id"),
        ({"person": "Kim"}, "person"),
        ({"ssh_key": "ssh-ed25519 AAAA kim"}, "SSH public key"),
        ({"ssh_key": 'a\n    - "b"'}, "SSH public key"),
        ({"stores": []}, "spec.stores is empty"),
        ({"stores": ["s3://x"]}, "store URL"),
        ({"builder": Builder("http://x", "y")}, "issuer"),
        ({"trusted_root": b"{}"}, "trusted root"),
    ],
)
def test_wrong_values_for_a_new_fleet(example: Mapping[str, bytes], wrong: dict[str, Any], message: str | None) -> None:
    with pytest.raises(UsageError, match=message or "name"):
        new(example, **wrong)


def test_kinds_of_example_documents_have_their_schema_line(example: Mapping[str, bytes]) -> None:
    for path, data in example.items():
        kind = kind_at(path)
        if kind is not None:
            up = "../" * (path.count("/") + 1)
            assert data.decode().splitlines()[0].endswith(f"$schema={up}schemas/{schemas.FILES[kind]}"), path


def test_edits_of_what_is_not_there() -> None:
    assert node_at("a: 1\n", "b") is None
    assert node_at("a: 1\n", "a", "b") is None
    for edit in (lambda: replace("a: 1\n", "2", "b"), lambda: comment_out("a: 1\n", "b")):
        with pytest.raises(KeyError):
            edit()


@pytest.mark.parametrize(
    "text", ["yes", "1.2", "a: b", "#a", "", "ä", "null", "a b", "-", "1e3", "'", '"', "\\", "x:", "a\tb"]
)
def test_quoted_text_is_read_back(text: str) -> None:
    assert load(f"k: {quoted(text)}\n".encode(), "").value == {"k": text}
    assert load(f"k: [{quoted(text)}, x]\n".encode(), "").value == {"k": [text, "x"]}


def test_every_kind_has_a_schema() -> None:
    assert set(schemas.FILES) == set(Kind)
