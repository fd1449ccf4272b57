"""Authenticates every commit between the last trusted one and the new head, oldest first.

The rules are those of docs/trust.md: the policy in the first parent decides about a commit, each changed path needs its
first matching rule, no match is a denial, and a change of `trust/` must satisfy the old policy and the new one.
"""

from collections.abc import Iterable

from kubenode.errors import FleetInvalid, Untrusted
from kubenode.trust import sshsig
from kubenode.trust.commit import Commit, object_id, parse_commit
from kubenode.trust.evidence import MODE_EXECUTABLE, MODE_FILE, ChangedPath, CommitEvidence
from kubenode.trust.keys import PublicKey
from kubenode.trust.policy import POLICY_PATH, TRUST_PREFIX, PolicyLocksOut, Rule, TrustPolicy
from kubenode.trust.policyfile import parse_policy
from kubenode.trust.reasons import Reason
from kubenode.trust.trusted import PROOF, TrustedCommit, TrustedTree

__all__ = ["TrustedCommit", "TrustedTree", "authenticate"]

NAMESPACE = "git"


def authenticate(
    anchor: CommitEvidence, commits: Iterable[CommitEvidence], *, head: str | None = None
) -> TrustedCommit:
    """Check `commits` (oldest first, the anchor's first-parent children) and return the newest one as trusted.

    The anchor is trusted by definition; without commits it is the answer. The commits are read one by one and
    forgotten, so memory does not grow with their number. With `head`, the newest commit must be that one.
    Raises Untrusted: the reason says what was refused, `subject` is the commit's id.
    """
    first = parse_commit(anchor.oid, anchor.raw)
    if anchor.policy is None:
        raise Untrusted(
            Reason.POLICY_INVALID,
            f"the anchor {first.short} has no {POLICY_PATH}",
            subject=anchor.oid,
            hint="Choose a commit with a trust policy as the anchor.",
        )
    state = _State(first, anchor.policy, _policy_in(first, anchor.policy))
    for evidence in commits:
        state.advance(evidence)
    if head is not None and state.commit.oid != head:
        raise Untrusted(
            Reason.NOT_DESCENDANT,
            f"the commits handed in end at {state.commit.short}, not at the head {head[:12]}",
            subject=head,
        )
    return TrustedCommit(
        state.commit.oid,
        state.commit.tree,
        state.policy,
        object_id("blob", state.policy_bytes),
        state.signer,
        state.verified,
        proof=PROOF,
    )


class _State:
    """The newest commit that was accepted, with the policy that decides about the next one."""

    def __init__(self, commit: Commit, policy_bytes: bytes, policy: TrustPolicy) -> None:
        self.commit = commit
        self.policy_bytes = policy_bytes
        self.policy = policy
        self.signer: str | None = None
        self.verified = 0

    def advance(self, evidence: CommitEvidence) -> None:
        """Accept the next commit or raise Untrusted; on an error nothing has changed."""
        commit = parse_commit(evidence.oid, evidence.raw)
        _check_parent(commit, self.commit.oid)
        if len({change.path for change in evidence.changed}) != len(evidence.changed):
            raise Untrusted(Reason.COMMIT_MALFORMED, f"commit {commit.short} changes a path twice", subject=commit.oid)
        new_bytes = self._policy_bytes(commit, evidence)
        key = _signing_key(commit)
        if new_bytes == self.policy_bytes:
            new_policy = self.policy
            signer = _person(commit, key, self.policy, None)
        else:
            # Who signed is settled before the signer's new policy is read.
            signer = _person(commit, key, self.policy, new_bytes)
            new_policy = _policy_in(commit, new_bytes)
        _check_paths(commit, evidence.changed, self.policy, signer, key)
        if any(change.path.startswith(TRUST_PREFIX.encode()) for change in evidence.changed):
            _check_trust_change(commit, self.policy, new_policy, signer, key)
        self.commit, self.policy_bytes, self.policy = commit, new_bytes, new_policy
        self.signer = signer
        self.verified += 1

    def _policy_bytes(self, commit: Commit, evidence: CommitEvidence) -> bytes:
        """Return the policy's bytes in this commit, bound to what the evidence says has changed."""
        entry = next((change for change in evidence.changed if change.path == POLICY_PATH.encode()), None)
        if entry is None:
            if evidence.policy != self.policy_bytes:
                raise _mismatch(commit, f"{POLICY_PATH} is not among the changed paths, but its content differs")
            return self.policy_bytes
        if entry.mode == 0:
            raise Untrusted(
                Reason.POLICY_LOCKS_OUT,
                f"commit {commit.short} (“{commit.subject}”) removes {POLICY_PATH}; nobody could change the repo again",
                subject=commit.oid,
                hint="Keep the file; to change who may do what, edit it.",
            )
        if entry.mode not in (MODE_FILE, MODE_EXECUTABLE):
            raise Untrusted(
                Reason.POLICY_INVALID,
                f"commit {commit.short} (“{commit.subject}”) makes {POLICY_PATH} something else than a file",
                subject=commit.oid,
            )
        if evidence.policy is None or object_id("blob", evidence.policy) != entry.oid:
            raise _mismatch(commit, f"the bytes given for {POLICY_PATH} are not those of the commit")
        return evidence.policy


def _mismatch(commit: Commit, message: str) -> Untrusted:
    return Untrusted(
        Reason.OBJECT_MISMATCH,
        f"commit {commit.short}: {message}",
        subject=commit.oid,
        hint="The local copy of the fleet repo is damaged; remove it, and it is fetched again.",
    )


def _check_parent(commit: Commit, expected: str) -> None:
    if commit.parents[:1] == (expected,):
        return
    if not commit.parents:
        what = "has no parent: it starts a history of its own"
    elif expected in commit.parents:
        what = f"is a merge whose first parent is {commit.parents[0][:12]}, not the trusted {expected[:12]}"
    else:
        what = f"follows {commit.parents[0][:12]}, not the trusted {expected[:12]}"
    raise Untrusted(
        Reason.NOT_DESCENDANT,
        f"commit {commit.short} (“{commit.subject}”) {what}",
        subject=commit.oid,
        hint=f"The branch must grow from {expected[:12]}, first parent by first parent: merge into it, never it into "
        "another branch, and do not rewrite what nodes already trust.",
    )


def _policy_in(commit: Commit, data: bytes) -> TrustPolicy:
    try:
        return parse_policy(data)
    except FleetInvalid as error:
        locked = isinstance(error, PolicyLocksOut)
        raise Untrusted(
            Reason.POLICY_LOCKS_OUT if locked else Reason.POLICY_INVALID,
            f"the trust policy in commit {commit.short} (“{commit.subject}”) is refused: {error.message}",
            subject=commit.oid,
            hint=error.hint,
            location=error.location,
        ) from error


def _signing_key(commit: Commit) -> PublicKey:
    signature = commit.signature
    what = f"commit {commit.short} (“{commit.subject}”, by {commit.author})"
    if signature is None:
        raise Untrusted(
            Reason.UNSIGNED_COMMIT,
            f"{what} is not signed",
            subject=commit.oid,
            hint="Sign it with an SSH key that the policy lists: `git commit --amend -S` with gpg.format=ssh, then "
            "push again. A merge made by a forge's button is not signed with your key: merge locally.",
        )
    if not signature.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        kinds = {b"-----BEGIN PGP ": "OpenPGP", b"-----BEGIN SIGNED MESSAGE-----": "X.509 (S/MIME or gitsign)"}
        for start, kind in kinds.items():
            if signature.startswith(start):
                raise Untrusted(
                    Reason.UNSUPPORTED_SIGNATURE,
                    f"{what} has an {kind} signature, which is not supported yet",
                    subject=commit.oid,
                    hint="Sign with an SSH key (gpg.format=ssh). Merge buttons of forges often sign with the forge's "
                    "own OpenPGP key: merge locally instead.",
                )
    try:
        return sshsig.verify(signature, commit.payload, namespace=NAMESPACE, subject=commit.oid)
    except Untrusted as error:
        raise Untrusted(
            error.reason,
            f"{what}: {error.message}",
            subject=commit.oid,
            hint=error.hint or "Sign the commit again and push it instead.",
        ) from error


def _person(commit: Commit, key: PublicKey, policy: TrustPolicy, new_policy: bytes | None) -> str:
    """Return who signed, by the policy of the parent; `new_policy` only serves to explain a common mistake."""
    owner = policy.owner(key)
    if owner is not None:
        return owner
    hint = f"Somebody who is in {POLICY_PATH} already must sign this commit, or add the key in an earlier commit."
    if new_policy is not None:
        try:
            later = parse_policy(new_policy).owner(key)
        except FleetInvalid:
            later = None
        if later is not None:
            hint = f"This commit itself gives the key to {later}, but a policy counts from the next commit on. " + hint
    raise Untrusted(
        Reason.UNKNOWN_SIGNER,
        f"commit {commit.short} (“{commit.subject}”, by {commit.author}) is signed with the key {key.fingerprint}, "
        "which belongs to nobody in the trust policy of its parent",
        subject=commit.oid,
        hint=hint,
    )


def _check_paths(
    commit: Commit, changed: tuple[ChangedPath, ...], policy: TrustPolicy, signer: str, key: PublicKey
) -> None:
    """Let the first matching rule of the parent's policy decide about every changed path."""
    for change in changed:
        rule = policy.rule_for(change.name)
        if rule is None:
            raise Untrusted(
                Reason.NO_RULE_MATCHES,
                f"commit {commit.short} (“{commit.subject}”) changes {change.shown}, and no rule of the trust policy "
                "speaks about that path; what no rule allows is refused",
                subject=commit.oid,
                hint=f"Add a rule for the path to {POLICY_PATH} in an earlier commit, or leave the path alone.",
            )
        _demand(commit, rule, frozenset({signer}), key, f"changes {change.shown}")


def _check_trust_change(commit: Commit, old: TrustPolicy, new: TrustPolicy, signer: str, key: PublicKey) -> None:
    """Demand the root rule of the old and the new policy (as TUF does for a new root, TUF 1.0.34, section 5.3.4)."""
    _demand(commit, old.root_rule, frozenset({signer}), key, f"changes {TRUST_PREFIX}, which the root rule guards")
    if new is not old:
        by_new = new.owner(key)
        signers = frozenset({by_new} if by_new else ())
        _demand(commit, new.root_rule, signers, key, f"brings a trust policy whose own root rule must accept {signer}")


def _demand(commit: Commit, rule: Rule, signers: frozenset[str], key: PublicKey, deed: str) -> None:
    if rule.met_by(signers):
        return
    who = ", ".join(sorted(signers)) or "somebody whom the new policy does not know"
    names = ", ".join(sorted(rule.people))
    what = f"commit {commit.short} (“{commit.subject}”) {deed}; {rule}"
    if not rule.people & signers:
        raise Untrusted(
            Reason.NOT_ALLOWED,
            f"{what} lets only {names} do that, and it is signed by {who} (key {key.fingerprint})",
            subject=commit.oid,
            hint=f"One of {names} must sign this change.",
        )
    raise Untrusted(
        Reason.THRESHOLD_NOT_MET,
        f"{what} asks for {rule.threshold} of {names}, and only {who} signed (key {key.fingerprint})",
        subject=commit.oid,
        hint="One commit carries one signature, and approvals by further people are not read yet: until they are, only "
        "rules with threshold 1 can be met.",
    )
