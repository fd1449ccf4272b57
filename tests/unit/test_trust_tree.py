"""The tree of a trusted commit: bound by hashes, plain files only."""

import pytest

from kubenode.errors import Untrusted
from kubenode.trust.chain import TrustedTree, trust_anchor
from kubenode.trust.commit import object_id
from kubenode.trust.evidence import CommitEvidence, TreeEvidence
from kubenode.trust.reasons import Reason
from kubenode.trust.tree import MAX_DEPTH, trusted_tree
from tests.gitrepo import policy_yaml, throw_away_key, trusted_tree_of, unsigned_commit

BLOB = b"hello\n"
FLEET = b"spec: {id: one}\n"


def entry(mode: str, name: str | bytes, oid: str) -> bytes:
    return mode.encode() + b" " + (name if isinstance(name, bytes) else name.encode()) + b"\0" + bytes.fromhex(oid)


POLICY = policy_yaml({"alice": [throw_away_key()]}).encode()
TRUST = entry("100644", "policy.yaml", object_id("blob", POLICY))


def read(rest: bytes, *more: bytes, policy: bytes = POLICY, fleet_id: str | None = None) -> TrustedTree:
    """Make a trusted tree from raw tree objects, the first of which is the top, apart from the trust folder."""
    top = entry("40000", "trust", object_id("tree", TRUST)) + rest
    commit = unsigned_commit(object_id("tree", top), (), "anchor")
    anchor = trust_anchor(CommitEvidence(object_id("commit", commit), commit, (), policy))
    trees = {object_id("tree", tree): tree for tree in (top, TRUST, *more)}
    blobs = {object_id("blob", blob): blob for blob in (BLOB, FLEET, POLICY)}
    return trusted_tree(anchor, TreeEvidence(trees, blobs), fleet_id=fleet_id)


OID = object_id("blob", BLOB)


def refused(raw: bytes, *more: bytes) -> tuple[str, str]:
    with pytest.raises(Untrusted) as caught:
        read(raw, *more)
    return caught.value.reason, caught.value.message


def test_files_are_a_mapping() -> None:
    tree = trusted_tree_of({"fleet.yaml": "a: 1\n", "nodes/b.yaml": "b", "nodes.d/c": b"\xff", "nodes-x": ""})
    assert tree["nodes/b.yaml"] == b"b"
    assert "fleet.yaml" in tree
    assert "nodes" not in tree
    # Git's order: a folder sorts as if its name ended in a slash.
    assert list(tree) == ["fleet.yaml", "nodes-x", "nodes.d/c", "nodes/b.yaml", "trust/policy.yaml"]
    assert len(tree) == 5
    assert tree.policy.owner is not None
    assert tree.oid == tree.commit.oid
    with pytest.raises(TypeError):
        tree.files["x"] = b""  # type: ignore[index]
    with pytest.raises(TypeError):
        TrustedTree(tree.commit, {}, proof=object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (entry("120000", "link", OID), "link is a symbolic link"),
        (entry("160000", "module", OID), "module is a submodule"),
        (entry("100664", "file", OID), "unknown mode"),
        (entry("0100644", "file", OID), "unknown mode"),
        (entry("100644", "A", OID) + entry("100644", "a", OID), "A and a differ only"),
        (entry("100644", "STRASSE", OID) + entry("100644", "straße", OID), "differ only"),
        (entry("100644", "a", OID) + entry("100644", "a", OID), "differ only"),
        (entry("100644", ".git", OID), "is not allowed"),
        (entry("40000", ".GIT", OID), "is not allowed"),
        (entry("100644", "..", OID), "is not allowed"),
        (entry("100644", "a/b", OID), "is not allowed"),
        (entry("100644", "a\\b", OID), "is not allowed"),
        (entry("100644", "", OID), "is not allowed"),
        (entry("100644", "a\nb", OID), "is not allowed"),
        (entry("100644", "a\u202eb", OID), "is not allowed"),
        (entry("100644", b"\xff", OID), "not UTF-8"),
        (entry("100644", "a", OID)[:-1], "not a well-formed tree"),
        (b"100644 a", "not a well-formed tree"),
        (b"1" * 100, "not a well-formed tree"),
    ],
)
def test_unsafe_entries(raw: bytes, words: str) -> None:
    reason, message = refused(raw)
    assert reason == Reason.UNSAFE_ENTRY
    assert words in message


def test_missing_and_changed_objects() -> None:
    assert refused(entry("100644", "a", "2" * 40))[0] == Reason.OBJECT_MISMATCH
    assert refused(entry("40000", "a", "2" * 40))[0] == Reason.OBJECT_MISMATCH
    commit = trusted_tree_of({"a": "1"}).commit
    with pytest.raises(Untrusted) as caught:
        trusted_tree(commit, TreeEvidence({commit.tree: entry("100644", "a", OID)}, {OID: BLOB}))
    assert caught.value.reason == Reason.OBJECT_MISMATCH
    assert "the top folder" in caught.value.message


def test_deep_trees() -> None:
    trees = [entry("100644", "file", OID)]
    for _ in range(MAX_DEPTH + 1):
        trees.append(entry("40000", "d", object_id("tree", trees[-1])))
    reason, message = refused(*reversed(trees))
    assert reason == Reason.TOO_MUCH_EVIDENCE
    assert len(message) < 300
    assert len(read(*reversed(trees[:-1]))) == 2


@pytest.mark.parametrize(("blob", "expected"), [(FLEET, "one"), (FLEET, "two"), (BLOB, "one"), (None, "one")])
def test_the_fleet_id_must_be_the_expected_one(blob: bytes | None, expected: str) -> None:
    raw = entry("100644", "fleet.yaml", object_id("blob", blob)) if blob else b""
    if (blob, expected) == (FLEET, "one"):
        assert "fleet.yaml" in read(raw, fleet_id=expected)
        return
    with pytest.raises(Untrusted) as caught:
        read(raw, fleet_id=expected)
    assert caught.value.reason == Reason.FLEET_ID_MISMATCH


def test_the_policy_of_the_tree_is_the_one_that_was_used() -> None:
    with pytest.raises(Untrusted, match="by which the commit was checked"):
        read(b"", policy=POLICY + b"# another\n")
