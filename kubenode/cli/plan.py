"""The plan command: what nodes will do, by the same code that runs on them."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import commit_of, committed, repository, uncommitted
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, print_table, say
from kubenode.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from kubenode.model.decision import Decision
    from kubenode.plan.observations import Report


class Graph(StrEnum):
    """Languages of charts."""

    MERMAID = "mermaid"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(plan)


def plan(
    observed: Annotated[
        Path, typer.Option(help="Recorded observation: a node's status.json, or a JSON list of them; - for stdin.")
    ],
    fleet: FleetFolder = Path(),
    revision: Annotated[str, typer.Option(help="Commit of the fleet repo to plan for.")] = "HEAD",
    output: Output = Format.TABLE,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 when there is something to do.")
    ] = False,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Show the expected timeline of the whole rollout.")
    ] = False,
    graph: Annotated[Graph | None, typer.Option(help="With --simulate: a chart instead of the table.")] = None,
) -> None:
    """Show what every observed node would do next, what is expected after it, and why.

    Example: kubenode plan -C homelab --observed status.json
    """
    from kubenode.fleet.desired import desired_state
    from kubenode.fleet.load import load_fleet
    from kubenode.host.clock import SystemClock
    from kubenode.model.decision import Converged, Stuck
    from kubenode.model.plain import tagged
    from kubenode.plan.decide import decide

    if graph is not None and not simulate:
        raise UsageError("--graph shows a simulation", hint="Add --simulate.")
    repository(fleet)
    known = _reports(observed)
    commit = commit_of(fleet, revision)
    documents = load_fleet(committed(fleet, commit))
    if (fleet / ".git").exists() and uncommitted(fleet):
        say("Note: changes that are not committed are not part of this plan.")
    now = SystemClock().now()
    if simulate:
        from kubenode.cli.simulateview import show_simulation

        raise show_simulation(
            documents, commit, known, now, output=output, graph=graph is not None, detailed_exitcode=detailed_exitcode
        )
    decisions: dict[str, Decision] = {
        report.node: decide(
            desired_state(documents, commit, report.node), report.observed, report.journal, now, stale=report.stale
        )
        for report in known
    }
    if output is Format.JSON:
        nodes = [{"node": name, "decision": tagged(decision)} for name, decision in decisions.items()]
        print_json("Plan", {"commit": commit, "nodes": nodes})
    else:
        print_table(("Node", "Next", "Why"), [_row(name, decision) for name, decision in decisions.items()])
    stuck = sum(isinstance(it, Stuck) for it in decisions.values())
    settled = sum(isinstance(it, Converged) for it in decisions.values())
    changes = len(decisions) - settled - stuck
    say(f"At commit {commit[:12]}, of {len(decisions)} nodes {changes} have work, {settled} are done, {stuck} stuck.")
    if stuck:
        raise typer.Exit(int(ExitCode.STUCK))
    if changes and detailed_exitcode:
        raise typer.Exit(int(ExitCode.CHANGES))


def _reports(observed: Path) -> "tuple[Report, ...]":
    """Read the observations. Raises UsageError when they are none, or two are of one node."""
    from kubenode.plan.observations import reports

    name = "stdin" if str(observed) == "-" else str(observed)
    hint = "Give what a node wrote to /var/lib/kubenode/status.json, or a list of such documents."
    try:
        data = sys.stdin.buffer.read() if name == "stdin" else observed.read_bytes()
        known = reports(json.loads(data))
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}", hint=hint) from error
    names = [report.node for report in known]
    twice = next((node for node in names if names.count(node) > 1), None)
    if twice is not None:
        raise UsageError(f"{name} has two observations of node {twice!r}", hint="Keep the newer one.")
    if not known:
        raise UsageError(f"{name} has no observation", hint=hint)
    return known


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
