"""The command status: where every node stands, and why the ones that are stuck are."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.options import Branch, Context, FleetFolder, Kubeconfig, Output, kubeconfig_of
from kubenode.cli.output import Format, print_json, say
from kubenode.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from kubenode.cli.statuswatch import Watch
    from kubenode.plan.status import Wanted


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    nodes: Annotated[list[str] | None, typer.Argument(help="Only these nodes.", show_default=False)] = None,
    fleet: FleetFolder = Path(),
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    every_node: Annotated[bool, typer.Option("--all", help="Show every node, however many there are.")] = False,
    observed: Annotated[
        Path | None,
        typer.Option(help="Recorded observations instead of the cluster: a status.json, or a list; - for stdin."),
    ] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit to compare with; else what the remote's branch had at the last fetch.")
    ] = None,
    branch: Branch = "main",
    output: Output = Format.TABLE,
) -> None:
    """Show every declared node: slot, release, Kubernetes, state and wave; those that need a person first, and why.

    Exit code 4 when a node is stuck, 75 when one is silent or the cluster does not answer.

    Example: kubenode status -C homelab --watch
    """
    from kubenode.cli import statuslook, statusview, statuswatch
    from kubenode.cli.clone import commit_of, git

    commit = commit_of(fleet, revision) if revision else statuslook.pushed_commit(fleet, branch)
    declared = statuslook.fleet_at(fleet, commit)
    unpushed = not revision and git(fleet, "rev-list", "--count", f"{commit}..HEAD").text.strip() != "0"
    if nodes:
        declared = replace(declared, wanted=_chosen(declared.wanted, nodes))
    if watch:
        if observed is not None or output is Format.JSON:
            raise UsageError("--watch is for a live cluster and for people", hint="Leave out --observed and --output.")
        look = statuslook.live_looker(declared, kubeconfig_of(kubeconfig), context)
        raise typer.Exit(int(_watch(statuswatch.Watch(declared, look))))
    if observed is not None:
        sight = statuslook.recorded_sight(declared, observed)
    else:
        sight = statuslook.live_looker(declared, kubeconfig_of(kubeconfig), context)()
    if nodes:
        sight = replace(sight, strangers=())
    if output is Format.JSON:
        print_json("Status", statusview.as_json(declared, sight))
    else:
        statuswatch.show(declared, sight, every_node=every_node or bool(nodes))
    if unpushed:
        say(f"Note: commits of this clone that are not pushed do not count here; nodes follow {branch} at the remote.")
    say(statusview.sentence(declared, sight))
    code = statusview.exit_code(sight.rows)
    if code is not ExitCode.OK:
        raise typer.Exit(int(code))


def _chosen(wanted: "Mapping[str, Wanted]", nodes: Sequence[str]) -> "Mapping[str, Wanted]":
    """Return the named nodes. Raises UsageError for one that is not declared: nothing to say is not fine."""
    from kubenode.fleet.problems import choices, did_you_mean

    for name in nodes:
        if name not in wanted:
            guess = did_you_mean(name, wanted) or f"Declared: {choices(wanted) or 'none'}."
            raise UsageError(f"no node {name!r} is declared", hint=guess)
    return {name: wanted[name] for name in nodes}


def _watch(watched: "Watch") -> ExitCode:
    """Show the cluster until Ctrl-C; return what a status of the last look would."""
    from kubenode.cli import statusview, statuswatch

    try:
        for _ in watched.sights():
            pass
    except KeyboardInterrupt:
        if watched.last is None:
            raise
    assert watched.last is not None
    if sys.stderr.isatty():
        statuswatch.show(watched.fleet, watched.last)  # The screen that changed is gone; this stays.
    say(statusview.sentence(watched.fleet, watched.last))
    return ExitCode.TRY_LATER if watched.trouble else statusview.exit_code(watched.last.rows)
