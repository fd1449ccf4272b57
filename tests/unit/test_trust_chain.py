"""Which changes a node believes: the attack table of docs/trust.md on evidence made by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from kubenode.errors import Untrusted
from kubenode.trust.chain import TrustedCommit, authenticate, trust_anchor
from kubenode.trust.commit import object_id
from kubenode.trust.evidence import MODE_FILE, MODE_SYMLINK, ChangedPath, CommitEvidence
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from tests.gitrepo import (
    FLEET_ID,
    SigningKey,
    policy_yaml,
    sign_in_process,
    signed_commit,
    unsigned_commit,
    with_signature,
)

TREE = "1" * 40
PGP = b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
X509 = b"-----BEGIN SIGNED MESSAGE-----\nAAAA\n-----END SIGNED MESSAGE-----\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, SigningKey]:
    folder: Path = tmp_path_factory.mktemp("keys")
    return {name: SigningKey.make(folder, name) for name in ("alice", "bob", "ci", "mallory")}


class Line:
    """A history as evidence; `add` appends a commit signed by a key."""

    def __init__(self, keys: Mapping[str, SigningKey], policy: str) -> None:
        self.keys = keys
        self.policy = policy.encode()
        self.items: list[CommitEvidence] = []
        raw = unsigned_commit(TREE, (), "anchor")
        self.anchor = CommitEvidence(object_id("commit", raw), raw, (), self.policy)
        self.tip = self.anchor.oid

    def add(self, signer: str | None, *paths: str, policy: str | None = None, **how: object) -> "Line":
        message, parents = str(how.get("message", f"change {paths}")), how.get("parents", (self.tip,))
        plain = unsigned_commit(TREE, parents, message)  # type: ignore[arg-type]
        raw = plain if signer is None else signed_commit(self.keys[signer], TREE, parents, message)  # type: ignore[arg-type]
        return self.append(raw, *paths, policy=policy)

    def append(self, raw: bytes, *paths: str, policy: str | None = None) -> "Line":
        changed = [ChangedPath(path.encode("utf-8", "surrogateescape"), MODE_FILE, "2" * 40) for path in paths]
        if policy is not None:
            self.policy = policy.encode()
            changed.append(ChangedPath(POLICY_PATH.encode(), MODE_FILE, object_id("blob", self.policy)))
        self.tip = object_id("commit", raw)
        self.items.append(CommitEvidence(self.tip, raw, tuple(changed), self.policy))
        return self

    def trust(self) -> TrustedCommit:
        return authenticate(self.anchor, iter(self.items), fleet_id=FLEET_ID)

    def refused(self, *words: str) -> Reason:
        with pytest.raises(Untrusted) as caught:
            self.trust()
        for word in words:
            assert word in f"{caught.value.message} {caught.value.hint}"
        assert caught.value.subject == self.tip
        return Reason(caught.value.reason)


@pytest.fixture
def line(keys: Mapping[str, SigningKey]) -> Line:
    return Line(keys, homelab(keys))


def homelab(keys: Mapping[str, SigningKey], root: tuple[str, ...] = ("alice",), threshold: int = 1) -> str:
    people = {name: [keys[name]] for name in ("alice", "bob", "ci")}
    rules = [
        (["trust/**"], list(root), threshold),
        (["channels/nightly.yaml", "releases/**"], ["ci", "alice"], 1),
        (["nodes/**", "pools/**", "channels/**"], ["alice", "bob"], 1),
        (["fleet.yaml"], ["alice", "bob"], 2),
    ]
    return policy_yaml(people, rules)


def test_the_anchor_is_trusted_by_definition(line: Line) -> None:
    commit = line.trust()
    assert (commit.oid, commit.tree, commit.signer, commit.verified) == (line.anchor.oid, TREE, None, 0)


def test_a_good_history(line: Line) -> None:
    line.add("alice", "nodes/a.yaml").add("bob", "nodes/b.yaml", "pools/x.yaml").add("ci", "releases/1.yaml").add("ci")
    commit = line.trust()
    assert (commit.oid, commit.signer, commit.verified) == (line.tip, "ci", 4)
    assert commit.policy.owner(line.keys["bob"].key) == "bob"


def test_only_trust_makes_trusted_commits(line: Line) -> None:
    commit = line.trust()
    with pytest.raises(TypeError):
        TrustedCommit("1" * 40, TREE, commit.policy, "2" * 40, None, frozenset(), 0, proof=object())  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        replace(commit, oid="1" * 40)


def test_unsigned(line: Line) -> None:
    assert line.add(None, "nodes/a.yaml").refused("is not signed", "alice@example.net") == Reason.UNSIGNED_COMMIT


def test_an_unsigned_commit_in_the_middle(line: Line) -> None:
    line.add("alice", "nodes/a").add(None, "nodes/a")
    middle = line.tip
    line.add("alice", "nodes/a")
    with pytest.raises(Untrusted) as caught:
        line.trust()
    assert (caught.value.reason, caught.value.subject) == (Reason.UNSIGNED_COMMIT, middle)


def test_stranger(line: Line) -> None:
    fingerprint = line.keys["mallory"].key.fingerprint
    assert line.add("mallory", "nodes/a").refused(fingerprint, "belongs to nobody") == Reason.UNKNOWN_SIGNER


def test_wrong_person(line: Line) -> None:
    assert line.add("ci", "nodes/a").refused("signed by ci", "rule 3", "alice, bob", "nodes/a") == Reason.NOT_ALLOWED


def test_every_path_counts(line: Line) -> None:
    assert line.add("ci", "releases/1", "nodes/a").refused("changes nodes/a") == Reason.NOT_ALLOWED


def test_a_rename_is_decided_by_the_rules_of_both_paths(line: Line) -> None:
    # The reader reports a rename as removal and addition.
    line.add("ci", "releases/1.yaml", "channels/stable.yaml")
    assert line.refused("channels/stable.yaml") == Reason.NOT_ALLOWED


@pytest.mark.parametrize("path", ["README.md", "trust", "Trust/policy.yaml", "nodes", "other/\udcff", "nodesx/a"])
def test_what_no_rule_matches_is_denied(line: Line, path: str) -> None:
    assert line.add("alice", path).refused("no rule of the trust policy") == Reason.NO_RULE_MATCHES


def test_one_signature_never_makes_two_people(line: Line) -> None:
    assert (
        line.add("alice", "fleet.yaml").refused("asks for 2 of alice, bob", "missing: bob") == Reason.THRESHOLD_NOT_MET
    )


def test_rewind_fork_and_swapped_parents(line: Line) -> None:
    line.add("alice", "nodes/a")
    first = line.tip
    line.add("alice", "nodes/b", parents=(line.anchor.oid,))
    assert line.refused("not the trusted " + first[:12]) == Reason.NOT_DESCENDANT
    line.items.pop()
    line.add("alice", "nodes/b", parents=("9" * 40, first))
    assert line.refused("merge whose first parent is 999999999999") == Reason.NOT_DESCENDANT
    line.items.pop()
    line.add("alice", "nodes/b", parents=())
    assert line.refused("has no parent") == Reason.NOT_DESCENDANT


def test_a_merge_is_one_change_of_its_signer(line: Line) -> None:
    line.add("bob", "nodes/b", parents=(line.tip, "9" * 40))
    assert line.trust().signer == "bob"


def test_the_evidence_must_reach_the_head(line: Line) -> None:
    line.add("alice", "nodes/a")
    assert authenticate(line.anchor, line.items, fleet_id=FLEET_ID, head=line.tip).oid == line.tip
    with pytest.raises(Untrusted) as caught:
        authenticate(line.anchor, [], fleet_id=FLEET_ID, head=line.tip)
    assert caught.value.reason == Reason.NOT_DESCENDANT


def test_a_path_that_changes_twice(line: Line) -> None:
    assert line.add("alice", "nodes/a", "nodes/a").refused("twice") == Reason.COMMIT_MALFORMED


def test_signature_moved_from_another_commit(line: Line) -> None:
    line.add("alice", "nodes/a")
    other = unsigned_commit(TREE, (line.tip,), "not signed by alice")
    signature = sign_in_process(line.keys["alice"], unsigned_commit(TREE, (line.tip,), "signed by alice"))
    assert line.append(with_signature(other, signature), "nodes/a").refused("does not match") == Reason.BAD_SIGNATURE


def test_signature_for_another_purpose(line: Line) -> None:
    raw = unsigned_commit(TREE, (line.tip,), "x")
    signature = sign_in_process(line.keys["alice"], raw, namespace="file")
    assert line.append(with_signature(raw, signature), "nodes/a").refused("purpose `file`") == Reason.BAD_SIGNATURE


@pytest.mark.parametrize(("signature", "word"), [(PGP, "OpenPGP"), (X509, "X.509")])
def test_other_kinds_of_signature(line: Line, signature: bytes, word: str) -> None:
    raw = with_signature(unsigned_commit(TREE, (line.tip,), "x"), signature)
    assert line.append(raw, "nodes/a").refused(word, "not supported yet") == Reason.UNSUPPORTED_SIGNATURE


def test_garbage_signature(line: Line) -> None:
    raw = with_signature(unsigned_commit(TREE, (line.tip,), "x"), b"hello")
    assert line.append(raw, "nodes/a").refused() == Reason.BAD_SIGNATURE


def test_two_signatures(line: Line) -> None:
    raw = signed_commit(line.keys["alice"], TREE, (line.tip,), "x")
    twice = with_signature(raw, sign_in_process(line.keys["mallory"], raw))
    assert line.append(twice, "nodes/a").refused("stands twice") == Reason.COMMIT_MALFORMED


def test_other_bytes_than_the_id_says(line: Line) -> None:
    line.add("alice", "nodes/a")
    line.items[0] = replace(line.items[0], raw=line.items[0].raw + b"\n")
    assert line.refused() == Reason.OBJECT_MISMATCH


# The policy.


def test_a_new_signer_counts_from_the_next_commit(line: Line) -> None:
    alice_only = policy_yaml({"alice": [line.keys["alice"]]})
    start = Line(line.keys, alice_only)
    both = policy_yaml({"alice": [line.keys["alice"]], "bob": [line.keys["bob"]]}, [(["**"], ["alice", "bob"], 1)])
    assert start.add("alice", policy=both).add("bob", "nodes/a").trust().signer == "bob"


def test_a_signer_only_in_the_commits_own_policy(line: Line) -> None:
    start = Line(line.keys, policy_yaml({"alice": [line.keys["alice"]]}))
    both = policy_yaml({"alice": [line.keys["alice"]], "bob": [line.keys["bob"]]}, [(["**"], ["alice", "bob"], 1)])
    assert start.add("bob", policy=both).refused("gives the key to bob", "next commit") == Reason.UNKNOWN_SIGNER


def test_a_removed_signer_is_refused_from_the_next_commit(line: Line) -> None:
    """The policy is read again inside a range (gittuf CVE-2026-128035)."""
    without_bob = policy_yaml({"alice": [line.keys["alice"]]})
    line.add("bob", "nodes/a").add("alice", policy=without_bob).add("bob", "nodes/a")
    assert line.refused(line.keys["bob"].key.fingerprint) == Reason.UNKNOWN_SIGNER


def test_the_policy_is_guarded_by_its_own_rule(line: Line) -> None:
    assert line.add("bob", policy=homelab(line.keys, ("bob",))).refused("rule 1") == Reason.NOT_ALLOWED


def test_an_intermediate_policy_is_checked_even_if_it_is_taken_back(line: Line) -> None:
    """A policy that a stranger changed and changed back (gittuf CVE-2026-128036)."""
    old = line.policy.decode()
    line.add("mallory", policy=policy_yaml({"mallory": [line.keys["mallory"]]}, [(["**"], ["mallory"], 1)]))
    bad = line.tip
    line.add("mallory", policy=old).add("alice", "nodes/a")
    with pytest.raises(Untrusted) as caught:
        line.trust()
    assert (caught.value.reason, caught.value.subject) == (Reason.UNKNOWN_SIGNER, bad)


def test_an_old_policy_comes_back_only_by_a_new_allowed_change(line: Line) -> None:
    """A rollback to an older policy is a change like any other (gittuf CVE-2026-44544)."""
    old = line.policy.decode()
    line.add("alice", policy=homelab(line.keys, ("bob", "alice")))
    middle = homelab(line.keys, ("bob",))
    line.add("bob", policy=middle)
    assert line.trust().signer == "bob"
    line.add("alice", policy=old)
    assert line.refused("lets only bob") == Reason.NOT_ALLOWED


def test_the_new_policy_must_accept_the_change_too(line: Line) -> None:
    line.add("alice", policy=homelab(line.keys, ("bob",)))
    assert line.refused("whose own root rule must accept it", "lets only bob", "signed by alice") == Reason.NOT_ALLOWED


def test_the_new_policy_may_not_ask_for_more_people_than_signed(line: Line) -> None:
    line.add("alice", policy=homelab(line.keys, ("alice", "bob"), 2))
    assert line.refused("asks for 2 of alice, bob") == Reason.THRESHOLD_NOT_MET


def test_the_new_policy_must_know_the_key(line: Line) -> None:
    other = policy_yaml({"alice": [line.keys["bob"]]})
    assert line.add("alice", policy=other).refused("which belongs to nobody in that policy") == Reason.NOT_ALLOWED


def test_other_files_of_trust_need_the_root_rule(keys: Mapping[str, SigningKey]) -> None:
    people = {name: [keys[name]] for name in ("alice", "ci")}
    rules = [(["trust/sigstore/**"], ["ci"], 1), (["**"], ["alice"], 1)]
    line = Line(keys, policy_yaml(people, rules))
    assert line.add("ci", "trust/sigstore/trusted_root.json").refused("root rule guards") == Reason.NOT_ALLOWED


def test_broken_and_locking_policies(line: Line) -> None:
    alice = line.keys["alice"]
    cases = {
        "people: [": Reason.POLICY_INVALID,
        "": Reason.POLICY_INVALID,
        policy_yaml({"alice": [alice]}, [(["nodes/**"], ["alice"], 1)]): Reason.POLICY_LOCKS_OUT,
        policy_yaml({"alice": [alice]}, [(["**"], ["alice"], 2)]): Reason.POLICY_LOCKS_OUT,
        policy_yaml({"alice": [alice], "bob": [alice]}): Reason.POLICY_INVALID,
    }
    for policy, reason in cases.items():
        attempt = Line(line.keys, line.policy.decode()).add("alice", policy=policy)
        assert attempt.refused("trust policy in commit") == reason


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(0, Reason.POLICY_LOCKS_OUT), (MODE_SYMLINK, Reason.POLICY_INVALID), (0o160000, "PolicyInvalid")],
)
def test_the_policy_must_stay_a_file(line: Line, mode: int, reason: str) -> None:
    line.add("alice", policy="")
    line.items[0] = replace(line.items[0], changed=(ChangedPath(POLICY_PATH.encode(), mode, "0" * 40),), policy=None)
    assert line.refused() == reason


def test_policy_bytes_are_bound_to_the_change(line: Line) -> None:
    other = policy_yaml({"mallory": [line.keys["mallory"]]}, [(["**"], ["mallory"], 1)]).encode()
    line.add("alice", "nodes/a")
    line.items[0] = replace(line.items[0], policy=other)
    assert line.refused("not among the changed paths") == Reason.OBJECT_MISMATCH
    line.items.clear()
    line.tip = line.anchor.oid
    line.add("alice", policy=homelab(line.keys, ("alice", "bob")))
    line.items[0] = replace(line.items[0], policy=other)
    assert line.refused("are not those of the commit") == Reason.OBJECT_MISMATCH


@pytest.mark.parametrize("policy", [None, b"", b"x: y"])
def test_the_anchor_needs_a_valid_policy(line: Line, policy: bytes | None) -> None:
    with pytest.raises(Untrusted) as caught:
        trust_anchor(replace(line.anchor, policy=policy))
    assert caught.value.reason == Reason.POLICY_INVALID


def test_evidence_is_read_as_a_stream(line: Line) -> None:
    line.add("alice", "nodes/a").add(None, "nodes/a").add("alice", "nodes/a")
    seen: list[str] = []

    def stream() -> Iterator[CommitEvidence]:
        for item in line.items:
            seen.append(item.oid)
            yield item

    with pytest.raises(Untrusted):
        authenticate(line.anchor, stream(), fleet_id=FLEET_ID)
    assert len(seen) == 2
