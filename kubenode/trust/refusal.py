"""Says why a change is refused, as a person would: which commit, whose key, which rule, what is missing, what to do."""

from kubenode.errors import Untrusted
from kubenode.trust.assess import Assessment, Demand, Why
from kubenode.trust.evidence import ChangedPath
from kubenode.trust.policy import POLICY_PATH, TRUST_PREFIX
from kubenode.trust.reasons import Reason

APPROVE = "kubenode trust approve BRANCH"
"""What hints tell people to run; whoever knows the branch and the folder may put them in."""


class ChangeRefused(Untrusted):
    """The policies do not allow a change as it stands; `assessment` has every detail, `headline` none."""

    def __init__(self, assessment: Assessment, reason: Reason, message: str, hint: str, headline: str) -> None:
        super().__init__(reason, message, subject=assessment.commit.oid, hint=hint)
        self.assessment = assessment
        self.headline = headline


def refusal(change: Assessment) -> Untrusted | None:
    """Return why a node refuses the change, None when it takes it; the gravest reason first."""
    if change.accepted:
        return None
    if not change.people:
        return _nobody(change)
    if change.unmatched:
        return _no_rule(change)
    old = tuple(demand for demand in change.unmet if demand.why is not Why.NEW_ROOT)
    if not old and change.broken is not None:
        return change.broken
    return _unmet(change, change.unmet)


def who_must(demands: tuple[Demand, ...]) -> str:
    """Say who must still approve: `bob`, `one of bob, carol`, `2 of bob, carol, dave`; by demand, each said once."""
    said: dict[str, None] = {}
    for demand in demands:
        names = ", ".join(demand.waiting)
        if len(demand.waiting) == 1:
            said[names] = None
        elif len(demand.waiting) == demand.missing:
            said[" and ".join((", ".join(demand.waiting[:-1]), demand.waiting[-1]))] = None
        else:
            said[f"{'one' if demand.missing == 1 else demand.missing} of {names}"] = None
    return "; and ".join(said)


def shown_paths(paths: tuple[ChangedPath, ...], limit: int = 3) -> str:
    """Return the first paths for a message, and how many more there are."""
    names = ", ".join(change.shown for change in paths[:limit])
    return names if len(paths) <= limit else f"{names} and {len(paths) - limit} more"


def _nobody(change: Assessment) -> ChangeRefused:
    """Explain a commit for which nobody vouches whom the parent's policy knows."""
    commit, vouchers = change.commit, change.vouchers
    notes = "".join(f" {note}" for note in vouchers.notes(change.old))
    if vouchers.key is None:
        reason = Reason(vouchers.unsigned.reason if vouchers.unsigned else Reason.UNSIGNED_COMMIT)
        said = vouchers.unsigned.message if vouchers.unsigned else "is not signed"
        hint = vouchers.unsigned.hint if vouchers.unsigned else ""
        separator = " " if reason == Reason.UNSIGNED_COMMIT else ": "
        approvals = "nobody" if not vouchers.approvals else "nobody whom the policy of its parent knows"
        hint += f" Or let {who_must(change.unmet)} approve it: `{APPROVE}`." if change.unmet else ""
        return ChangeRefused(
            change,
            reason,
            f"{commit}{separator}{said}, and {approvals} approved it.{notes}",
            hint.strip(),
            f"{commit}{separator}{said}, and {approvals} approved it",
        )
    hint = (
        f"Somebody who is in {POLICY_PATH} already must sign or approve this commit, or add the key in an earlier one."
    )
    later = change.new.owner(vouchers.key) if change.new is not change.old else None
    if later is not None:
        hint = f"This commit itself gives the key to {later}, but a policy counts from the next commit on. " + hint
    return ChangeRefused(
        change,
        Reason.UNKNOWN_SIGNER,
        f"{commit} is signed with the key {vouchers.key.fingerprint}, which belongs to nobody in the trust policy of "
        f"its parent.{notes}",
        hint,
        f"{commit} is signed by a stranger",
    )


def _no_rule(change: Assessment) -> ChangeRefused:
    more = f" (and {len(change.unmatched) - 1} more)" if len(change.unmatched) > 1 else ""
    return ChangeRefused(
        change,
        Reason.NO_RULE_MATCHES,
        f"{change.commit} changes {change.unmatched[0].shown}{more}, and no rule of the trust policy speaks about that "
        "path; what no rule allows is refused",
        f"Add a rule for the path to {POLICY_PATH} in an earlier commit, or leave the path alone.",
        f"{change.commit} changes a path that no rule speaks about",
    )


def _unmet(change: Assessment, unmet: tuple[Demand, ...]) -> ChangeRefused:
    first = unmet[0]
    names = ", ".join(sorted(first.rule.people))
    policy = change.new if first.why is Why.NEW_ROOT else change.old
    alone = first.rule.threshold == 1
    asks = f"lets only {names} do that" if alone else f"asks for {first.rule.threshold} of {names}"
    message = f"{change.commit} {_deed(first)}; {first.rule} {asks}, and {change.vouchers.who(policy)}."
    if not alone or len(unmet) > 1:
        message += f" Still missing: {who_must((first,))}."
    message += "".join(f" {note}" for note in change.vouchers.notes(policy, change.new))
    for other in unmet[1:]:
        message += f" It also {_deed(other)}; {other.rule} still needs {who_must((other,))}."
    hint = f"Still missing: {who_must(unmet)}. To approve: `{APPROVE}`, in a clone that has this commit at the end of "
    hint += "that branch."
    if first.why is Why.NEW_ROOT:
        hint += " The new policy counts the keys that it lists itself."
    counted = first.rule.people & first.vouched
    reason = Reason.THRESHOLD_NOT_MET if counted else Reason.NOT_ALLOWED
    headline = "is not approved by enough people" if counted else "comes from people who have no say in it"
    return ChangeRefused(change, reason, message, hint, f"{change.commit} {headline}")


def _deed(demand: Demand) -> str:
    if demand.why is Why.PATHS:
        return f"changes {shown_paths(demand.paths)}"
    if demand.why is Why.ROOT:
        return f"changes {TRUST_PREFIX}, which the root rule guards"
    return "brings a trust policy whose own root rule must accept it"
