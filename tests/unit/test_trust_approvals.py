"""Approvals by several people, on evidence made by hand: what counts, for whom, and what is said of what does not."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from kubenode.errors import Untrusted
from kubenode.trust import approvals
from kubenode.trust.chain import TrustedCommit, assess_next, authenticate
from kubenode.trust.commit import object_id, parse_commit
from kubenode.trust.evidence import MODE_FILE, ChangedPath, CommitEvidence
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from kubenode.trust.refusal import ChangeRefused, who_must
from tests.gitrepo import (
    FLEET_ID,
    SigningKey,
    approval,
    policy_yaml,
    sign_in_process,
    signed_commit,
    unsigned_commit,
    with_signature,
)

Keys = Mapping[str, SigningKey]
BASE, TREE, OTHER_TREE = "1" * 40, "2" * 40, "3" * 40
PGP = b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
X509 = b"-----BEGIN SIGNED MESSAGE-----\nAAAA\n-----END SIGNED MESSAGE-----\n"
NAMES = ("alice", "alice2", "bob", "bob2", "carol", "ci", "mallory")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder: Path = tmp_path_factory.mktemp("keys")
    return {name: SigningKey.make(folder, name) for name in NAMES}


def policy(keys: Keys, root: int = 2, **people: tuple[str, ...]) -> str:
    """alice has two keys; trust/ needs two of alice, bob and carol, fleet.yaml alice and bob, nodes/ one of them."""
    owned = {"alice": ("alice", "alice2"), "bob": ("bob",), "carol": ("carol",), "ci": ("ci",)} | people
    rules = [
        (["trust/**"], ["alice", "bob", "carol"], root),
        (["fleet.yaml"], ["alice", "bob"], 2),
        (["releases/**"], ["ci"], 1),
        (["nodes/**"], ["alice", "bob"], 1),
    ]
    return policy_yaml({name: [keys[key] for key in own] for name, own in owned.items() if own}, rules)


class Repo:
    """An anchor with a policy; `commit` puts one change on top of it."""

    def __init__(self, keys: Keys, text: str | None = None) -> None:
        self.keys = keys
        self.policy = (text or policy(keys)).encode()
        raw = unsigned_commit(BASE, (), "anchor")
        self.anchor = CommitEvidence(object_id("commit", raw), raw, (), self.policy)

    def approval(self, who: str, tree: str = TREE, parent: str = "", **how: str) -> str:
        return approval(self.keys[who], parent or self.anchor.oid, tree, **how)

    def commit(
        self,
        signer: str | bytes | None,
        *paths: str,
        by: tuple[str, ...] = (),
        new: str | None = None,
        message: str = "",
    ) -> CommitEvidence:
        """`signer` is a person, armored bytes or nobody; `by` are people who approve, or whole trailer lines."""
        lines = [line if ":" in line else self.approval(line) for line in by]
        text = message or "\n".join(["change", "", *lines] if lines else ["change"])
        parents = (self.anchor.oid,)
        if isinstance(signer, str):
            raw = signed_commit(self.keys[signer], TREE, parents, text)
        else:
            raw = unsigned_commit(TREE, parents, text)
            raw = with_signature(raw, signer) if signer is not None else raw
        changed = [ChangedPath(path.encode(), MODE_FILE, "4" * 40) for path in paths]
        if new is not None:
            changed.append(ChangedPath(POLICY_PATH.encode(), MODE_FILE, object_id("blob", new.encode())))
        return CommitEvidence(object_id("commit", raw), raw, tuple(changed), (new or self.policy.decode()).encode())

    def trust(self, *commits: CommitEvidence, fleet_id: str = FLEET_ID) -> TrustedCommit:
        return authenticate(self.anchor, commits, fleet_id=fleet_id)

    def refused(self, commit: CommitEvidence, *words: str, fleet_id: str = FLEET_ID) -> Reason:
        with pytest.raises(Untrusted) as caught:
            self.trust(commit, fleet_id=fleet_id)
        for word in words:
            assert word in f"{caught.value.message} {caught.value.hint}"
        assert caught.value.subject == commit.oid
        return Reason(caught.value.reason)


@pytest.fixture
def repo(keys: Keys) -> Repo:
    return Repo(keys)


# What counts.


def test_two_people_are_the_signer_and_one_who_approves(repo: Repo) -> None:
    trusted = repo.trust(repo.commit("alice", "fleet.yaml", by=("bob",)))
    assert (trusted.signer, trusted.approvers, trusted.verified) == ("alice", {"bob"}, 1)


def test_the_signer_need_not_be_of_the_rule_when_others_approve(repo: Repo) -> None:
    assert repo.trust(repo.commit("ci", "fleet.yaml", by=("bob", "alice"))).signer == "ci"


def test_approvals_accumulate_over_the_rules_of_all_paths(repo: Repo) -> None:
    assert repo.trust(repo.commit("ci", "releases/1.yaml", "nodes/a", by=("bob",))).approvers == {"bob"}


@pytest.mark.parametrize("signature", [None, PGP, X509])
def test_approvals_stand_in_for_a_signature_that_cannot_be_checked(repo: Repo, signature: bytes | None) -> None:
    """A merge button's commit: unsigned, or signed by the forge."""
    trusted = repo.trust(repo.commit(signature, "fleet.yaml", by=("alice", "bob")))
    assert (trusted.signer, trusted.approvers) == (None, {"alice", "bob"})


def test_approvals_stand_in_for_a_strangers_signature(repo: Repo) -> None:
    assert repo.trust(repo.commit("mallory", "fleet.yaml", by=("alice", "bob"))).signer is None


def test_a_wrong_signature_is_refused_whoever_approves(repo: Repo) -> None:
    wrong = sign_in_process(repo.keys["alice"], b"something else")
    commit = repo.commit(wrong, "fleet.yaml", by=("alice", "bob"))
    assert repo.refused(commit, "does not match") == Reason.BAD_SIGNATURE


def test_unsigned_commits_without_changes_need_somebody(repo: Repo) -> None:
    """No path means no rule to break: still nobody's commit is nobody's."""
    assert repo.refused(repo.commit(None), "is not signed") == Reason.UNSIGNED_COMMIT
    assert repo.trust(repo.commit(None, by=("ci",))).approvers == {"ci"}


def test_names_of_trailers_are_read_as_git_reads_them(repo: Repo) -> None:
    line = repo.approval("bob").replace("Kubenode-Approval: ", "kubenode-approval :  ")
    assert repo.trust(repo.commit("alice", "fleet.yaml", by=(line, "Signed-off-by: x"))).approvers == {"bob"}


# People, not keys.


def test_two_keys_of_one_person_count_once(repo: Repo) -> None:
    commit = repo.commit("alice", "fleet.yaml", by=("alice2",))
    assert repo.refused(commit, "alice vouches for it more than once") == Reason.THRESHOLD_NOT_MET
    commit = repo.commit(None, "fleet.yaml", by=("alice", "alice2"))
    assert repo.refused(commit, "asks for 2 of alice, bob", "more than once") == Reason.THRESHOLD_NOT_MET


def test_an_approval_repeated_counts_once(repo: Repo) -> None:
    commit = repo.commit(None, "fleet.yaml", by=("bob", "bob", "bob"))
    assert repo.refused(commit, "Still missing: alice") == Reason.THRESHOLD_NOT_MET


def test_ones_own_signature_and_approval_count_once(repo: Repo) -> None:
    commit = repo.commit("alice", "fleet.yaml", by=("alice",))
    assert repo.refused(commit, "signed by alice", "approved by alice") == Reason.THRESHOLD_NOT_MET


# Approvals that do not count are passed over, and explained.


@pytest.mark.parametrize("signed", [True, False])
def test_an_approval_on_another_parent_is_no_approval(repo: Repo, signed: bool) -> None:
    other = "9" * 40
    claim = "" if signed else f"{repo.anchor.oid} {TREE}"
    line = repo.approval("bob", parent=other, claim=claim)
    words = (
        ("bob approved another version of this change: the same files on top of 999999999999",)
        if signed
        else ("names the key of bob is not valid",)
    )
    assert repo.refused(repo.commit("alice", "fleet.yaml", by=(line,)), *words) == Reason.THRESHOLD_NOT_MET


@pytest.mark.parametrize("signed", [True, False])
def test_an_approval_of_another_tree_is_no_approval(repo: Repo, signed: bool) -> None:
    claim = "" if signed else f"{repo.anchor.oid} {TREE}"
    line = repo.approval("bob", tree=OTHER_TREE, claim=claim)
    words = (
        ("bob approved another version of this change: other files (tree 333333333333, now 222222222222)",)
        if signed
        else ("names the key of bob is not valid",)
    )
    assert repo.refused(repo.commit("alice", "fleet.yaml", by=(line,)), *words) == Reason.THRESHOLD_NOT_MET


def test_an_approval_of_a_rebased_and_amended_change(repo: Repo) -> None:
    line = repo.approval("bob", tree=OTHER_TREE, parent="9" * 40)
    commit = repo.commit("alice", "fleet.yaml", by=(line,))
    assert repo.refused(commit, "other files, on top of 999999999999 instead of") == Reason.THRESHOLD_NOT_MET


def test_an_approval_of_another_fleet_is_no_approval(repo: Repo) -> None:
    line = repo.approval("bob", fleet_id="0" * 8 + FLEET_ID[8:])
    commit = repo.commit("alice", "fleet.yaml", by=(line,))
    assert repo.refused(commit, "made for another fleet") == Reason.THRESHOLD_NOT_MET
    good = repo.commit("alice", "fleet.yaml", by=("bob",))
    assert repo.refused(good, "made for another fleet", fleet_id="another") == Reason.THRESHOLD_NOT_MET


def test_a_strangers_approval_is_no_approval(repo: Repo) -> None:
    commit = repo.commit("alice", "fleet.yaml", by=("mallory",))
    fingerprint = repo.keys["mallory"].key.fingerprint
    assert repo.refused(commit, f"The key {fingerprint} approved it", "nobody") == Reason.THRESHOLD_NOT_MET


def test_a_commit_signature_is_no_approval(repo: Repo) -> None:
    """The namespaces keep apart what a key signs."""
    text = approvals.payload(FLEET_ID, repo.anchor.oid, TREE)
    value = approvals.value_of(repo.anchor.oid, TREE, sign_in_process(repo.keys["bob"], text))
    commit = repo.commit("alice", "fleet.yaml", by=(f"{approvals.TRAILER}: {value}",))
    assert repo.refused(commit, "another fleet or purpose") == Reason.THRESHOLD_NOT_MET


def test_an_approval_is_no_commit_signature(repo: Repo) -> None:
    raw = unsigned_commit(TREE, (repo.anchor.oid,), "x")
    signature = sign_in_process(repo.keys["alice"], raw, namespace=approvals.NAMESPACE)
    commit = repo.commit(signature, "nodes/a", message="x")
    assert repo.refused(commit, "purpose `kubenode-approval`") == Reason.BAD_SIGNATURE


@pytest.mark.parametrize("place", ["title", "middle", "last block of text", "below a separator", "after a comment"])
def test_approvals_count_only_in_the_last_block(repo: Repo, place: str) -> None:
    line = repo.approval("bob")
    message = {
        "title": line,
        "middle": f"change\n\n{line}\n\nmore words",
        "last block of text": f"change\n\nwords\n{line}",
        "below a separator": f"change\n\n{line}\n---\n file | 1 +",
        "after a comment": f"change\n\n# comment\n{line}",
    }[place]
    commit = repo.commit("alice", "fleet.yaml", message=message)
    assert repo.refused(commit, "asks for 2 of alice, bob", "Still missing: bob") == Reason.THRESHOLD_NOT_MET


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value[:-8], "An approval"),
        (lambda value: value.replace("v1 ", "v2 "), "of the format v2 is for a newer kubenode"),
        (lambda value: value.replace("v1 ", ""), "cannot be read"),
        (lambda value: value + "=", "An approval"),
        (lambda value: value.replace(" ", "  ", 1), "cannot be read"),
        (lambda value: value + " x", "cannot be read"),
        (lambda value: value[:100] + "\n " + value[100:], "cannot be read (folded over several lines)"),
        (lambda value: value + "A" * 9000, "cannot be read"),
        (lambda _: "", "cannot be read"),
        (lambda _: f"v1 {BASE} {TREE} AAAA", "is not valid"),
    ],
)
def test_broken_approvals_are_explained(repo: Repo, change: object, words: str) -> None:
    name, _, value = repo.approval("bob").partition(" ")
    line = f"{name} {change(value)}"  # type: ignore[operator]
    assert repo.refused(repo.commit("alice", "fleet.yaml", by=(line,)), words) == Reason.THRESHOLD_NOT_MET


def test_useless_approvals_never_spoil_a_change(repo: Repo) -> None:
    """A rebase leaves stale ones behind: a change that has what it needs is taken."""
    rubbish = (repo.approval("bob", tree=OTHER_TREE), "mallory", f"{approvals.TRAILER}: x", repo.approval("carol"))
    assert repo.trust(repo.commit("alice", "nodes/a", by=rubbish)).approvers == {"carol"}
    assert repo.trust(repo.commit("alice", "fleet.yaml", by=(*rubbish, "bob"))).approvers == {"bob", "carol"}


def test_approvals_are_bounded(repo: Repo) -> None:
    good = tuple(repo.approval("bob") for _ in range(1))
    assert repo.trust(repo.commit("alice", "fleet.yaml", by=(f"{approvals.TRAILER}: x",) * 99 + good)).verified == 1
    commit = repo.commit("alice", "fleet.yaml", by=(f"{approvals.TRAILER}: x",) * 100 + good)
    assert repo.refused(commit, "101 approvals") == Reason.TOO_MUCH_EVIDENCE
    with pytest.raises(Untrusted) as caught:
        many = tuple(repo.approval("bob", tree=f"{number:02d}" * 20) for number in range(30, 60))
        repo.trust(repo.commit("alice", "fleet.yaml", by=many))
    assert "25 more approvals do not count" in caught.value.message


def test_approval_of_somebody_without_a_say(repo: Repo) -> None:
    commit = repo.commit("ci", "fleet.yaml", by=("carol",))
    assert repo.refused(commit, "Still missing: alice and bob") == Reason.NOT_ALLOWED


# Policies: old and new.


def test_the_root_rule_counts_people(repo: Repo) -> None:
    new = policy(repo.keys, ci=())
    new = new.replace("people: [ci]", "people: [alice]")
    assert repo.refused(repo.commit("alice", new=new), "rule 1 (trust/**) asks for 2") == Reason.THRESHOLD_NOT_MET
    assert repo.refused(repo.commit("alice", new=new, by=("alice2",))) == Reason.THRESHOLD_NOT_MET
    assert repo.trust(repo.commit("alice", new=new, by=("carol",))).policy.owner(repo.keys["ci"].key) is None


def test_approvals_count_by_the_parents_policy(repo: Repo) -> None:
    """A commit that gives mallory's key to bob does not make mallory's approval one of bob's."""
    new = policy(repo.keys, bob=("bob", "mallory"))
    commit = repo.commit("alice", new=new, by=("mallory",))
    words = "bob approved it with a key that only the new policy lists"
    assert repo.refused(commit, words) == Reason.THRESHOLD_NOT_MET


def test_an_approval_by_somebody_removed_does_not_count_for_the_new_policy(repo: Repo) -> None:
    """bob approves the policy that removes him: the old rule is met, the new one is not."""
    new = policy(repo.keys, bob=()).replace("alice, bob, carol]", "alice, carol]").replace("bob", "carol")
    commit = repo.commit("alice", new=new, by=("bob",))
    assert (
        repo.refused(commit, "whose own root rule must accept it", "Still missing: carol") == Reason.THRESHOLD_NOT_MET
    )
    assert repo.trust(repo.commit("alice", new=new, by=("bob", "carol"))).verified == 1


def test_a_raised_threshold_needs_the_people_it_will_ask_for(keys: Keys) -> None:
    repo = Repo(keys, policy(keys, root=1))
    new = policy(keys, root=2)
    assert repo.refused(repo.commit("alice", new=new), "Still missing: one of bob, carol") == Reason.THRESHOLD_NOT_MET
    assert repo.trust(repo.commit("alice", new=new, by=("bob",))).verified == 1


def test_a_lowered_threshold_needs_the_old_one(repo: Repo) -> None:
    new = policy(repo.keys, root=1)
    assert repo.refused(repo.commit("alice", new=new)) == Reason.THRESHOLD_NOT_MET
    assert repo.trust(repo.commit("alice", new=new, by=("bob",))).verified == 1


def test_a_key_is_rotated_in_one_step_by_signing_with_both(repo: Repo) -> None:
    """As in TUF: enough old keys for the old policy, enough new ones for the new."""
    new = policy(repo.keys, bob=("bob2",))
    old_key_only = repo.commit("alice", new=new, by=("bob",))
    assert repo.refused(old_key_only, "Still missing: one of bob, carol") == Reason.THRESHOLD_NOT_MET
    trusted = repo.trust(repo.commit("alice", new=new, by=("bob", "bob2")))
    assert trusted.policy.owner(repo.keys["bob2"].key) == "bob"
    assert trusted.policy.owner(repo.keys["bob"].key) is None


def test_a_removed_key_approves_nothing_any_more(repo: Repo) -> None:
    """Revocation by removal, inside one range."""
    new = policy(repo.keys, bob=("bob2",))
    first = repo.commit("alice", new=new, by=("bob", "bob2"))

    def second(key: str) -> CommitEvidence:
        line = approval(repo.keys[key], first.oid, TREE)
        raw = signed_commit(repo.keys["alice"], TREE, (first.oid,), f"change\n\n{line}")
        changed = (ChangedPath(b"fleet.yaml", MODE_FILE, "4" * 40),)
        return CommitEvidence(object_id("commit", raw), raw, changed, new.encode())

    assert repo.trust(first, second("bob2")).verified == 2
    with pytest.raises(Untrusted, match="belongs to nobody in the policy of its parent") as caught:
        repo.trust(first, second("bob"))
    assert caught.value.reason == Reason.THRESHOLD_NOT_MET


def test_lock_out_is_refused_whoever_approves(repo: Repo) -> None:
    new = policy(repo.keys).replace('["trust/**"]', '["trusted/**"]')
    commit = repo.commit("alice", new=new, by=("bob", "carol"))
    assert repo.refused(commit, "nobody could ever change the policy again") == Reason.POLICY_LOCKS_OUT


def test_a_new_person_may_sign_the_change_that_lets_him_in(repo: Repo) -> None:
    """His own signature counts for nothing; the two who approve decide."""
    new = policy(repo.keys, mallory=("mallory",))
    assert repo.refused(repo.commit("mallory", new=new), "gives the key to mallory") == Reason.UNKNOWN_SIGNER
    assert repo.trust(repo.commit("mallory", new=new, by=("alice", "bob"))).signer is None


def test_no_approval_helps_a_path_without_a_rule(repo: Repo) -> None:
    commit = repo.commit("alice", "README.md", by=("bob", "carol", "ci"))
    assert repo.refused(commit, "no rule of the trust policy speaks about that path") == Reason.NO_RULE_MATCHES


def test_everything_below_trust_needs_the_root_rule(keys: Keys) -> None:
    text = policy(keys).replace(
        "  rules:\n", '  rules:\n    - {paths: ["trust/sigstore/**"], people: [ci], threshold: 1}\n'
    )
    repo = Repo(keys, text)
    path = "trust/sigstore/trusted_root.json"
    assert repo.refused(repo.commit("ci", path, by=("alice",)), "root rule guards") == Reason.THRESHOLD_NOT_MET
    assert repo.refused(repo.commit("alice", path, by=("bob",)), "lets only ci") == Reason.NOT_ALLOWED
    assert repo.trust(repo.commit("ci", path, by=("alice", "bob"))).verified == 1


def test_approvals_follow_the_trusted_parent_only(repo: Repo) -> None:
    raw = signed_commit(repo.keys["alice"], TREE, ("9" * 40,), f"x\n\n{repo.approval('bob', parent='9' * 40)}")
    commit = CommitEvidence(object_id("commit", raw), raw, (), repo.policy)
    assert repo.refused(commit, "follows 999999999999") == Reason.NOT_DESCENDANT


# The view that people get before they approve.


def test_the_assessment_says_what_is_missing(repo: Repo) -> None:
    commit = repo.commit("ci", "fleet.yaml", "nodes/a", "releases/1.yaml")
    change = assess_next(repo.anchor, commit, fleet_id=FLEET_ID)
    assert not change.accepted
    assert [(it.rule.number, it.met, it.missing, it.waiting) for it in change.demands] == [
        (2, False, 2, ("alice", "bob")),
        (4, False, 1, ("alice", "bob")),
        (3, True, 0, ()),
    ]
    assert who_must(change.unmet) == "alice and bob; and one of alice, bob"
    with pytest.raises(ChangeRefused) as caught:
        repo.trust(commit)
    assert caught.value.assessment == change
    assert caught.value.reason == Reason.NOT_ALLOWED


def test_text_of_strangers_is_made_harmless_in_messages(repo: Repo) -> None:
    commit = repo.commit(None, "nodes/a", message="\x1b[2Jfine\u202e \x07 title")
    with pytest.raises(Untrusted) as caught:
        repo.trust(commit)
    assert "\x1b" not in caught.value.message and "\u202e" not in caught.value.message
    assert "?[2Jfine? ? title" in caught.value.message


def test_the_payload_names_fleet_parent_and_tree(repo: Repo) -> None:
    assert approvals.payload("f", BASE, TREE) == (
        f"kubenode-approval v1\nparent {BASE}\ntree {TREE}\nfleet f\n".encode()
    )
    odd = approvals.payload(f"f\nparent {TREE}", BASE, TREE)
    assert odd.startswith(approvals.payload("", BASE, TREE)[:-1])


def test_reading_keeps_what_stood_there(repo: Repo) -> None:
    commit = repo.commit("alice", by=("bob", "mallory"))
    parsed = parse_commit(commit.oid, commit.raw)
    found = approvals.read_approvals(parsed, FLEET_ID)
    assert [it.counts for it in found] == [True, True]
    assert all(it.value in commit.raw for it in found)
