"""`kubenode trust show`: the trust policy as a person reads it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubenode.cli.clone import commit_of, repository
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, print_table, say
from kubenode.errors import UsageError

if TYPE_CHECKING:
    from kubenode.trust.policy import Rule, TrustPolicy

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def register(group: typer.Typer) -> None:
    """Add the command of this module to `kubenode trust`."""
    group.command()(show)


def show(
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH...", help="Say who may change these.")] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit whose policy is shown.")] = "HEAD",
    fleet: FleetFolder = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Show the trust policy of a commit: people and keys, rules, builders, freshness; or who may change PATH.

    The policy of a commit decides about the commits that follow it. Example: kubenode trust show -C homelab fleet.yaml
    """
    from kubenode.host.git import FleetRepository
    from kubenode.trust.chain import trust_anchor

    folder = repository(fleet)
    commit = commit_of(fleet, revision)
    with FleetRepository(folder, borrowed=True) as source:
        policy = trust_anchor(source.anchor(commit)).policy
    asked = [_normal(path) for path in paths or []]
    if output is Format.JSON:
        print_json("TrustPolicy", {"commit": commit, **_plain(policy), "paths": [_who(policy, it) for it in asked]})
    elif asked:
        rows = []
        for path in asked:
            rule = policy.rule_for(path)
            rows.append((path, f"rule {rule.number}" if rule else "no rule", _needs(rule)))
        print_table(("PATH", "RULE", "NEEDS"), rows)
    else:
        _print(policy)
    what = f"{len(policy.people)} people, {len(policy.rules)} rules" if not asked else f"{len(asked)} paths"
    say(f"Policy {policy.name} of commit {commit[:12]}: {what}; it decides about the commits that follow.")


def _normal(path: str) -> str:
    """Return a path as git names it. Raises UsageError for what no path of the repo can be."""
    name = path.removeprefix("./")
    if not name or name.startswith("/") or name.endswith("/") or ".." in name.split("/"):
        raise UsageError(
            f"{path!r} is not the path of a file in the fleet repo", hint="Write it from the top: nodes/n.yaml"
        )
    return name


def _needs(rule: "Rule | None") -> str:
    if rule is None:
        return "nobody may change it"
    names = ", ".join(sorted(rule.people))
    if rule.threshold == 1:
        return names if len(rule.people) == 1 else f"one of {names}"
    return f"{rule.threshold} of {names}" if rule.threshold < len(rule.people) else f"all of {names}"


def _print(policy: "TrustPolicy") -> None:
    people = []
    for person, keys in policy.people.items():
        for index, key in enumerate(keys):
            people.append((person if index == 0 else "", key.algorithm, key.fingerprint, key.comment))
    print_table(("PERSON", "KEY TYPE", "FINGERPRINT", "COMMENT"), people)
    typer.echo()
    root = policy.root_rule.number
    rules = [
        (f"{rule.number}{' (root)' if rule.number == root else ''}", "  ".join(map(str, rule.globs)), _needs(rule))
        for rule in policy.rules
    ]
    print_table(("RULE", "PATHS (the first rule that matches decides)", "NEEDS"), rules)
    typer.echo()
    builders = [(channel, it.identity, it.issuer) for channel, found in policy.builders.items() for it in found]
    if builders:
        print_table(("CHANNEL", "BUILDER", "ISSUER"), builders)
    else:
        typer.echo("Builders: none, so nodes take no image.")
    typer.echo()
    if policy.freshness is None:
        typer.echo("Freshness: not asked for.")
    else:
        listed = ", ".join(key.fingerprint for key in policy.freshness.keys)
        typer.echo(f"Freshness: a stamp at most {_duration(policy.freshness.max_age)} old, signed by {listed}.")


def _duration(seconds: int) -> str:
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _who(policy: "TrustPolicy", path: str) -> dict[str, Any]:
    rule = policy.rule_for(path)
    return {
        "path": path,
        "rule": rule.number if rule else None,
        "people": sorted(rule.people) if rule else [],
        "threshold": rule.threshold if rule else None,
    }


def _plain(policy: "TrustPolicy") -> dict[str, Any]:
    return {
        "name": policy.name,
        "people": {
            person: [{"type": key.algorithm, "fingerprint": key.fingerprint, "comment": key.comment} for key in keys]
            for person, keys in policy.people.items()
        },
        "rules": [
            {
                "number": rule.number,
                "paths": [str(glob) for glob in rule.globs],
                "people": sorted(rule.people),
                "threshold": rule.threshold,
            }
            for rule in policy.rules
        ],
        "builders": {
            channel: [{"issuer": it.issuer, "identity": it.identity} for it in found]
            for channel, found in policy.builders.items()
        },
        "freshness": None
        if policy.freshness is None
        else {
            "maxAgeSeconds": policy.freshness.max_age,
            "keys": [key.fingerprint for key in policy.freshness.keys],
        },
    }
