"""Authenticates every commit between the last trusted one and the new head, oldest first.

The rules are those of docs/trust.md: the policy in the first parent decides about a commit, each changed path needs its
first matching rule, no match is a denial, and a change of `trust/` must satisfy the old policy and the new one. Who
vouches for a commit is found by `vouchers`, what it needs by `assess`, and `refusal` says what is missing.
"""

from collections.abc import Iterable

from kubenode.errors import Untrusted
from kubenode.trust.assess import Assessment, assess, policy_in
from kubenode.trust.commit import Commit, object_id, parse_commit
from kubenode.trust.evidence import CommitEvidence
from kubenode.trust.formats import NAMESPACE
from kubenode.trust.policy import POLICY_PATH, TrustPolicy
from kubenode.trust.reasons import Reason
from kubenode.trust.refusal import refusal
from kubenode.trust.trusted import PROOF, TrustedCommit, TrustedTree

__all__ = ["NAMESPACE", "TrustedCommit", "TrustedTree", "assess_next", "authenticate", "trust_anchor"]


def authenticate(
    anchor: CommitEvidence, commits: Iterable[CommitEvidence], *, fleet_id: str, head: str | None = None
) -> TrustedCommit:
    """Check `commits` (oldest first, the anchor's first-parent children) and return the newest one as trusted.

    The anchor is trusted by definition; without commits it is the answer. The commits are read one by one and
    forgotten, so memory does not grow with their number. `fleet_id` is the id that approvals must name: a node has it
    from its seed. With `head`, the newest commit must be that one.
    Raises Untrusted: the reason says what was refused, `subject` is the commit's id.
    """
    state = _State(anchor)
    for evidence in commits:
        state.advance(evidence, fleet_id)
    if head is not None and state.commit.oid != head:
        raise Untrusted(
            Reason.NOT_DESCENDANT,
            f"the commits handed in end at {state.commit.short}, not at the head {head[:12]}",
            subject=head,
        )
    return state.trusted()


def trust_anchor(anchor: CommitEvidence) -> TrustedCommit:
    """Return the commit that is trusted by definition. Raises Untrusted: PolicyInvalid, ObjectMismatch."""
    return _State(anchor).trusted()


def assess_next(parent: CommitEvidence, evidence: CommitEvidence, *, fleet_id: str) -> Assessment:
    """Say what a commit needs that may follow `parent`, without asking whether `parent` itself is to be trusted.

    For people who are about to approve; a node decides with `authenticate`. Raises Untrusted as `assess` does.
    """
    state = _State(parent)
    return assess(evidence, state.commit.oid, state.policy, state.policy_bytes, fleet_id=fleet_id)


class _State:
    """The newest commit that was accepted, with the policy that decides about the next one."""

    def __init__(self, anchor: CommitEvidence) -> None:
        first = parse_commit(anchor.oid, anchor.raw)
        if anchor.policy is None:
            raise Untrusted(
                Reason.POLICY_INVALID,
                f"commit {first.short} has no {POLICY_PATH}, so nobody can tell who may change what after it",
                subject=anchor.oid,
                hint="Choose a commit with a trust policy as the anchor.",
            )
        self.commit: Commit = first
        self.policy_bytes = anchor.policy
        self.policy: TrustPolicy = policy_in(first, anchor.policy)
        self.signer: str | None = None
        self.approvers: frozenset[str] = frozenset()
        self.verified = 0

    def advance(self, evidence: CommitEvidence, fleet_id: str) -> None:
        """Accept the next commit or raise Untrusted; on an error nothing has changed."""
        change = assess(evidence, self.commit.oid, self.policy, self.policy_bytes, fleet_id=fleet_id)
        refused = refusal(change)
        if refused is not None:
            raise refused
        self.commit, self.policy_bytes, self.policy = change.commit, change.policy_bytes, change.new
        self.signer = change.vouchers.signer(change.old)
        self.approvers = change.vouchers.approvers(change.old)
        self.verified += 1

    def trusted(self) -> TrustedCommit:
        return TrustedCommit(
            self.commit.oid,
            self.commit.tree,
            self.policy,
            object_id("blob", self.policy_bytes),
            self.signer,
            self.approvers,
            self.verified,
            proof=PROOF,
        )
