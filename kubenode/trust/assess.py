"""What the policies ask of one change, and who vouches for it: the same view for the verdict and for people."""

from dataclasses import dataclass
from enum import Enum

from kubenode.errors import FleetInvalid, Untrusted
from kubenode.trust.commit import Commit, object_id, parse_commit
from kubenode.trust.evidence import MODE_EXECUTABLE, MODE_FILE, ChangedPath, CommitEvidence
from kubenode.trust.policy import POLICY_PATH, TRUST_PREFIX, PolicyLocksOut, Rule, TrustPolicy
from kubenode.trust.policyfile import parse_policy
from kubenode.trust.reasons import Reason
from kubenode.trust.vouchers import Vouchers, gather


class Why(Enum):
    """Why a rule has a say in a change."""

    PATHS = "it is the first rule that matches these paths"
    ROOT = "it guards trust/"
    NEW_ROOT = "it guards trust/ in the policy that the change brings"


@dataclass(frozen=True)
class Demand:
    """A rule that the change must meet, and `vouched`: everybody who vouches for it, by the rule's own policy."""

    why: Why
    rule: Rule
    paths: tuple[ChangedPath, ...]
    vouched: frozenset[str]

    @property
    def met(self) -> bool:
        """Say whether enough people of the rule vouch for the change."""
        return self.rule.met_by(self.vouched)

    @property
    def missing(self) -> int:
        """How many more people must approve."""
        return max(0, self.rule.threshold - len(self.rule.people & self.vouched))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Who may still approve, by name."""
        return tuple(sorted(self.rule.people - self.vouched))


@dataclass(frozen=True)
class Assessment:
    """A commit measured against the policy of its first parent, and against the one it brings, if it brings one.

    `unmatched` are changed paths that no rule allows. `broken` says why the new policy cannot be used; `new` is then
    the old one.
    """

    commit: Commit
    vouchers: Vouchers
    old: TrustPolicy
    new: TrustPolicy
    policy_bytes: bytes
    broken: Untrusted | None
    unmatched: tuple[ChangedPath, ...]
    demands: tuple[Demand, ...]

    @property
    def people(self) -> frozenset[str]:
        """Everybody who vouches for the change, by the parent's policy."""
        return self.vouchers.people(self.old)

    @property
    def unmet(self) -> tuple[Demand, ...]:
        """The demands that are not met yet."""
        return tuple(demand for demand in self.demands if not demand.met)

    @property
    def accepted(self) -> bool:
        """Say whether a node takes this change: somebody known vouches for it, and every rule is met."""
        return not (self.unmatched or self.broken or self.unmet) and bool(self.people)


def policy_in(commit: Commit, data: bytes) -> TrustPolicy:
    """Read the policy of a commit. Raises Untrusted: PolicyInvalid, PolicyLocksOut."""
    try:
        return parse_policy(data)
    except FleetInvalid as error:
        raise Untrusted(
            Reason.POLICY_LOCKS_OUT if isinstance(error, PolicyLocksOut) else Reason.POLICY_INVALID,
            f"the trust policy in commit {commit.short} (“{commit.subject}”) is refused: {error.message}",
            subject=commit.oid,
            hint=error.hint,
            location=error.location,
        ) from error


def assess(
    evidence: CommitEvidence, parent: str, policy: TrustPolicy, policy_bytes: bytes, *, fleet_id: str
) -> Assessment:
    """Measure one commit whose first parent must be `parent`, with that parent's policy.

    Raises Untrusted for evidence that cannot be judged at all: NotDescendant, CommitMalformed, ObjectMismatch,
    BadSignature, TooMuchEvidence, PolicyInvalid or PolicyLocksOut for a policy that is no file any more.
    """
    commit = parse_commit(evidence.oid, evidence.raw)
    _check_parent(commit, parent)
    if len({change.path for change in evidence.changed}) != len(evidence.changed):
        raise Untrusted(Reason.COMMIT_MALFORMED, f"commit {commit.short} changes a path twice", subject=commit.oid)
    new_bytes = _policy_bytes(commit, evidence, policy_bytes)
    vouchers = gather(commit, fleet_id)
    new, broken = policy, None
    if new_bytes != policy_bytes:
        try:
            new = policy_in(commit, new_bytes)
        except Untrusted as error:
            broken = error
    unmatched, demands = _demands(evidence.changed, policy, new, vouchers)
    return Assessment(commit, vouchers, policy, new, new_bytes, broken, unmatched, demands)


def _demands(
    changed: tuple[ChangedPath, ...], old: TrustPolicy, new: TrustPolicy, vouchers: Vouchers
) -> tuple[tuple[ChangedPath, ...], tuple[Demand, ...]]:
    """Find the paths without a rule, and every rule that has a say.

    Each path: its first matching rule of the parent's policy. A change of `trust/` also needs the root rule of that
    policy and, like a new root of TUF (specification 1.0.34, section 5.3.4), the root rule of the policy it brings, by
    the keys of that policy: so whoever is to decide from now on has shown a key that works.
    """
    unmatched: list[ChangedPath] = []
    paths: dict[Rule, list[ChangedPath]] = {}
    for change in changed:
        rule = old.rule_for(change.name)
        if rule is None:
            unmatched.append(change)
        else:
            paths.setdefault(rule, []).append(change)
    people = vouchers.people(old)
    demands = [Demand(Why.PATHS, rule, tuple(found), people) for rule, found in paths.items()]
    below_trust = tuple(change for change in changed if change.path.startswith(TRUST_PREFIX.encode()))
    if below_trust and old.root_rule not in paths:
        demands.append(Demand(Why.ROOT, old.root_rule, below_trust, people))
    if new is not old:
        demands.append(Demand(Why.NEW_ROOT, new.root_rule, below_trust, vouchers.people(new)))
    return tuple(unmatched), tuple(demands)


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


def _policy_bytes(commit: Commit, evidence: CommitEvidence, old: bytes) -> bytes:
    """Return the policy's bytes in this commit, bound to what the evidence says has changed."""
    entry = next((change for change in evidence.changed if change.path == POLICY_PATH.encode()), None)
    if entry is None:
        if evidence.policy != old:
            raise _mismatch(commit, f"{POLICY_PATH} is not among the changed paths, but its content differs")
        return old
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
