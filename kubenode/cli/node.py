"""Commands that run on nodes: reconcile (one tick) and health (the local gate of a trial boot)."""

from typing import Annotated

import typer

from kubenode.cli.options import Output
from kubenode.cli.output import Format, harmless, print_json
from kubenode.errors import ExitCode


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(reconcile)
    app.command()(health)


def reconcile(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the decision for the trusted commit; no network, no effect.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not fetch the fleet repo.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Run one tick: fetch, authenticate, observe, decide, and do one thing after the other until it must wait.

    Example: kubenode reconcile --dry-run
    """
    from kubenode.agent.tick import run_tick
    from kubenode.cli.wire import node_ports
    from kubenode.model.plain import plain, tagged

    # The journal of systemd gets one line per decision; a person at a terminal gets the same.
    result = run_tick(node_ports(typer.echo if output is Format.TABLE else None), offline=offline, dry_run=dry_run)
    if output is Format.JSON:
        print_json("Tick", {"decision": tagged(result.decision), "status": plain(result.status)})
    else:
        typer.echo(harmless(f"{result.status.phase}: {result.status.message}"))
        if result.status.hint:
            typer.echo(harmless(f"Hint: {result.status.hint}"))
    if result.exit_code is not ExitCode.OK:
        raise typer.Exit(int(result.exit_code))


def health() -> None:
    """Run the local health gate; exit code 1 when a check fails. systemd then marks a trial boot as bad and restarts.

    Example: kubenode health
    """
    from kubenode.agent.health import gate
    from kubenode.cli.wire import node_health, node_ports

    results = gate(node_ports(None), node_health())
    for result in results:
        typer.echo(f"{'ok  ' if result.ok else 'FAIL'} {result.name}: {result.message}")
    failed = [result.name for result in results if not result.ok]
    if failed:
        typer.echo(f"The gate is closed: {', '.join(failed)} failed.")
        raise typer.Exit(int(ExitCode.FAILURE))
    typer.echo(f"The gate is open: {len(results)} checks passed.")
