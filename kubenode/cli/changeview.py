"""How a change and what it still needs are shown to people and to scripts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kubenode.cli.output import say
from kubenode.trust.assess import Assessment, Demand, Why
from kubenode.trust.refusal import shown_paths

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
    for path in change.unmatched[:_MAX_PATHS]:
        say(f"  {_mark(path)} {path.shown}  no rule: nobody may change it")
    if not changed and not change.unmatched:
        say("  no file changes")
    say("")
    show_state(change)


def show_state(change: Assessment) -> None:
    """Print on stderr who vouches for a change, and each rule with what it is missing."""
    for line in state_lines(change):
        say(f"  {line}")


def state_lines(change: Assessment) -> list[str]:
    """Return the lines of `show_state`."""
    vouchers, policy = change.vouchers, change.old
    signer = vouchers.signer(policy)
    key = f" (key {vouchers.key.fingerprint})" if vouchers.key is not None else ""
    nobody = "somebody whom the policy does not know" if key else "nobody whose signature can be checked"
    lines = [f"signed by    {signer or nobody}{key}"]
    lines.append(f"approved by  {', '.join(sorted(vouchers.approvers(policy))) or 'nobody'}")
    lines += [f"not counted  {note}" for note in vouchers.notes(policy)]
    lines += [_demand_line(demand) for demand in change.demands]
    if change.broken is not None:
        lines.append(f"new policy   {change.broken.message}")
    return lines


def _demand_line(demand: Demand) -> str:
    rule = demand.rule
    people = ", ".join(sorted(rule.people))
    if len(rule.people) == rule.threshold:
        asks = f"all of {people}" if rule.threshold > 1 else people
    else:
        asks = f"{rule.threshold} of {people}"
    if demand.met:
        rest = "met"
    elif len(demand.waiting) == demand.missing:
        rest = f"missing {', '.join(demand.waiting)}"
    else:
        rest = f"missing {demand.missing} of {', '.join(demand.waiting)}"
    where = "" if demand.why is Why.PATHS else f", as {demand.why.value}"
    return f"{f'rule {rule.number}':<12} asks for {asks}: {rest}{where}"


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
        "notCounted": list(change.vouchers.notes(policy)),
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


__all__ = ["as_json", "show_change", "show_state", "shown_paths", "state_lines"]
