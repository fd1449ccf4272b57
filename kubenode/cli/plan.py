"""The plan command: what nodes will do, by the same code that runs on them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import commit_of, committed, repository, uncommitted
from kubenode.cli.options import Context, FleetFolder, Kubeconfig, Output
from kubenode.cli.output import Format, conclude, print_json, say
from kubenode.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from kubenode.plan.whole import FleetPlan


class Graph(StrEnum):
    """Languages of a graph."""

    MERMAID = "mermaid"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(plan)


def plan(
    fleet: FleetFolder = Path(),
    revision: Annotated[str, typer.Option(help="Commit of the fleet repo to plan for.")] = "HEAD",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    observed: Annotated[
        Path | None,
        typer.Option(help="Plan from a record instead: a node's status.json, or a JSON list of them; - for stdin."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only show what the commit wants differently from this older one; asks nobody.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this node or pool; may be given several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-v", help="Name every node instead of the first few.")] = False,
    output: Output = Format.TABLE,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Show the expected timeline of the whole rollout instead.")
    ] = False,
    graph: Annotated[Graph | None, typer.Option(help="Print the order of steps, or the timeline, as a graph.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the plan to a new file, for `kubenode apply`.")] = None,
    detailed_exitcode: Annotated[
        bool,
        typer.Option("--detailed-exitcode", help="Exit with 2 when there is something to do, 75 when it is not known."),
    ] = False,
) -> None:
    """Show what every node would do next, what comes after it in order, and why; what has drifted; what is not seen.

    It asks the cluster and changes nothing. Nodes that cannot be seen are named and never counted as done.

    Example: kubenode plan -C homelab
    Example: kubenode plan -C homelab --since origin/main --detailed-exitcode
    """
    repository(fleet)
    if graph is not None and output is Format.JSON:
        raise UsageError("--graph and --output json are two forms of one result", hint="Give one of them.")
    commit = commit_of(fleet, revision)
    if (fleet / ".git").exists() and uncommitted(fleet):
        say("Note: changes that are not committed are not part of this plan.")
    if since is not None:
        if kubeconfig or context or observed or save or graph or simulate:
            raise UsageError(
                "--since compares two commits and looks at no machine",
                hint="Leave out --kubeconfig, --context, --observed, --save, --simulate and --graph.",
            )
        from kubenode.cli.plansince import show_since

        changed = show_since(fleet, commit_of(fleet, since), commit, output, only or [], everything=everything)
        if changed and detailed_exitcode:
            raise typer.Exit(int(ExitCode.CHANGES))
        return
    from kubenode.cli.plansources import gather
    from kubenode.cli.planview import closing, document, show

    if save is not None and simulate:
        raise UsageError("--simulate shows what to expect, which cannot be applied", hint="Leave out --save.")
    if save is not None and save.exists():
        # Before the work: somebody may be about to apply what is there.
        raise UsageError(f"{save} exists and is not written over", hint="Remove it, or name another file.")
    seen = gather(fleet, commit, kubeconfig, context, observed, only or [])
    if simulate:
        from kubenode.cli.simulateview import show_simulation
        from kubenode.fleet.load import load_fleet

        documents = load_fleet(committed(fleet, commit))
        raise show_simulation(
            documents,
            commit,
            seen.reports,
            seen.plan.at,
            output=output,
            graph=graph is not None,
            detailed_exitcode=detailed_exitcode,
        )
    if graph is not None:
        from kubenode.cli.plangraph import mermaid

        typer.echo(mermaid(seen.plan))
    elif output is Format.JSON:
        print_json("Plan", document(seen.plan))
    else:
        show(seen.plan, everything=everything)
    if save is not None:
        _save(save, seen.encoded(document(seen.plan)))
        say(f"Saved to {save}; it is refused when the fleet or the cluster has moved on.")
    conclude(closing(seen.plan))
    code = exit_code(seen.plan, detailed=detailed_exitcode)
    if code is not ExitCode.OK:
        raise typer.Exit(int(code))


def exit_code(plan: "FleetPlan", *, detailed: bool) -> ExitCode:
    """Return how the command ends: what could not be seen is never reported as nothing to do."""
    if plan.stuck:
        return ExitCode.STUCK
    if not plan.nodes:
        return ExitCode.TRY_LATER
    if not detailed:
        return ExitCode.OK
    if plan.work or plan.drifts or plan.leaving:
        return ExitCode.CHANGES
    return ExitCode.TRY_LATER if plan.unseen else ExitCode.OK


def _save(path: Path, data: bytes) -> None:
    from kubenode.host.files import write_new

    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder", hint="Make it first, or name another place.")
    write_new(path, data, 0o644)
