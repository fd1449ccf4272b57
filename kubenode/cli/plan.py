"""The plan command: what nodes will do, by the same code that runs on them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.options import FleetFolder, Output, commit_of, repository
from kubenode.cli.output import Format, print_json, print_table, say
from kubenode.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from kubenode.model.decision import Decision


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(plan)


def plan(
    observed: Annotated[
        Path, typer.Option(help="Recorded observation: a node's status.json, or a JSON list of them.", exists=True)
    ],
    fleet: FleetFolder = Path(),
    revision: Annotated[str, typer.Option(help="Commit of the fleet repo to plan for.")] = "HEAD",
    output: Output = Format.TABLE,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 when there is something to do.")
    ] = False,
) -> None:
    """Show what every observed node would do next, what is expected after it, and why.

    Example: kubenode plan -C homelab --observed status.json
    """
    from kubenode.fleet.desired import desired_state
    from kubenode.fleet.load import load_fleet
    from kubenode.host.clock import SystemClock
    from kubenode.host.git import FleetRepository
    from kubenode.host.process import run
    from kubenode.model.decision import Converged, Stuck
    from kubenode.model.plain import tagged
    from kubenode.plan.decide import decide
    from kubenode.plan.observations import reports
    from kubenode.trust.chain import authenticate
    from kubenode.trust.tree import trusted_tree

    folder = repository(fleet)
    try:
        known = reports(json.loads(observed.read_bytes()))
    except ValueError as error:
        raise UsageError(f"{observed} is not JSON: {error}", hint="Copy a node's status.json.") from error
    commit = commit_of(fleet, revision)
    with FleetRepository(folder) as source:
        # A laptop plans for its own clone: the commit is its own anchor. Nodes authenticate it before they follow.
        own = authenticate(source.anchor(commit), ())
        documents = load_fleet(trusted_tree(own, source.read_tree(commit)).files)
    if run(["git", "-C", fleet, "status", "--porcelain"], timeout=60, check=False).text.strip():
        say("Note: changes that are not committed are not part of this plan.")
    now = SystemClock().now()
    decisions: dict[str, Decision] = {}
    for report in known:
        decisions[report.node] = decide(
            desired_state(documents, commit, report.node), report.observed, report.journal, now
        )
    if output is Format.JSON:
        nodes = [{"node": name, "decision": tagged(decision)} for name, decision in decisions.items()]
        print_json("Plan", {"commit": commit, "nodes": nodes})
    else:
        print_table(("Node", "Next", "Why"), [_row(name, decision) for name, decision in decisions.items()])
    stuck = sum(isinstance(it, Stuck) for it in decisions.values())
    settled = sum(isinstance(it, Converged) for it in decisions.values())
    changes = len(decisions) - settled - stuck
    say(f"Commit {commit[:12]}: {changes} of {len(decisions)} nodes have work, {settled} are done, {stuck} stuck.")
    if stuck:
        raise typer.Exit(int(ExitCode.STUCK))
    if changes and detailed_exitcode:
        raise typer.Exit(int(ExitCode.CHANGES))


def _row(name: str, decision: "Decision") -> tuple[str, str, str]:
    from kubenode.model.decision import Act, Converged, Stuck, Wait

    match decision:
        case Act(action, why, then):
            after = f" Then: {', '.join(then)}." if then else ""
            return name, type(action).__name__, f"{why}{after}"
        case Wait(reason, message, until):
            return name, f"wait ({reason})", message + (f" Until {until:%Y-%m-%d %H:%M} UTC." if until else "")
        case Converged(message):
            return name, "nothing", message
        case Stuck(reason, message, hint):
            return name, f"stuck ({reason})", f"{message} {hint}"
