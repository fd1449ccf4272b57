"""How a change and what it still needs are shown to people and to scripts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kubenode.cli.output import say
from kubenode.trust.assess import Assessment, Demand, Why
from kubenode.trust.policy import TRUST_PREFIX
from kubenode.trust.reasons import Reason
from kubenode.trust.refusal import shown_paths, who_must

if TYPE_CHECKING:
    from kubenode.trust.evidence import ChangedPath

_MAX_PATHS = 20


def show_change(change: Assessment) -> None:
    """Print on stderr what a commit changes, which rule decides about what, who vouches, and what is missing."""
    commit = change.commit
    say(f"Commit {commit.short}, by {commit.author}")
    say(f"    {commit.subject}")
    say("")
    changed = [(path, demand) for demand in change.demands if demand.why is Why.PATHS for path in demand.paths]
    width = max((len(path.shown) for path, _ in changed[:_MAX_PATHS]), default=0)
    for path, demand in changed[:_MAX_PATHS]:
        say(f"  {_mark(path)} {path.shown:<{width}}  rule {demand.rule.number}")
    if len(changed) > _MAX_PATHS:
        say(f"    ... and {len(changed) - _MAX_PATHS} more paths")
    if not changed and not change.unmatched:
        say("  no file changes")
    say("")
    for line in state_lines(change):
        say(f"  {line}")


def state_lines(change: Assessment) -> list[str]:
    """Return who vouches for a change, and each rule with what it is missing, a line each."""
    vouchers, policy = change.vouchers, change.old
    lines = [f"signed by    {_signer(change)}"]
    lines.append(f"approved by  {', '.join(sorted(vouchers.approvers(policy))) or 'nobody'}")
    lines += [f"note         {note}" for note in vouchers.notes(policy, change.new)]
    lines += [_demand_line(demand) for demand in change.demands]
    lines += [f"no rule      {path.shown}: nobody may change it" for path in change.unmatched[:_MAX_PATHS]]
    if change.broken is not None:
        lines.append(f"new policy   {change.broken.message}")
    return lines


def _signer(change: Assessment) -> str:
    key = change.vouchers.key
    if key is None:
        unsigned = change.vouchers.unsigned
        supported = unsigned is None or unsigned.reason == Reason.UNSIGNED_COMMIT
        return "nobody" if supported else "nobody who can be checked: the kind of signature is not supported"
    old, new = change.old.owner(key), change.new.owner(key)
    if old is None and new is not None:
        return f"{new} (key {key.fingerprint}, which only the new policy lists)"
    return f"{old or 'a stranger'} (key {key.fingerprint})"


def _demand_line(demand: Demand) -> str:
    rule = demand.rule
    people = ", ".join(sorted(rule.people))
    if len(rule.people) > rule.threshold:
        people = f"{'one' if rule.threshold == 1 else rule.threshold} of {people}"
    elif rule.threshold > 1:
        people = f"all of {people}"
    rest = "met" if demand.met else f"missing {who_must((demand,))}"
    about = shown_paths(demand.paths, 2) if demand.why is Why.PATHS else TRUST_PREFIX
    which = f"{'new ' if demand.why is Why.NEW_ROOT else ''}rule {rule.number}"
    return f"{which:<12} {about} needs {people}: {rest}"


def as_json(change: Assessment, fleet: str) -> Mapping[str, Any]:
    """Return a change as plain values."""
    policy = change.old
    return {
        "commit": change.commit.oid,
        "parent": change.commit.parents[0],
        "tree": change.commit.tree,
        "fleet": fleet,
        "accepted": change.accepted,
        "signer": change.vouchers.signer(policy),
        "approvers": sorted(change.vouchers.approvers(policy)),
        "notes": list(change.vouchers.notes(policy, change.new)),
        "unmatched": [path.shown for path in change.unmatched],
        "demands": [
            {
                "rule": demand.rule.number,
                "why": demand.why.name,
                "paths": [path.shown for path in demand.paths],
                "people": sorted(demand.rule.people),
                "threshold": demand.rule.threshold,
                "met": demand.met,
                "missing": demand.missing,
                "waiting": list(demand.waiting) if not demand.met else [],
            }
            for demand in change.demands
        ],
    }


def _mark(path: "ChangedPath") -> str:
    return "-" if path.mode == 0 else "*"
