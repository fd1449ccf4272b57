"""The entry point: builds the command tree and turns errors into messages and exit codes."""

import sys
from typing import Annotated

import typer

from kubenode import __version__
from kubenode.cli import node, output
from kubenode.errors import ExitCode, KubenodeError, UsageError

app = typer.Typer(
    name="kubenode",
    help="Kubernetes nodes kept by a signed git repository.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kubenode {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Kubernetes nodes kept by a signed git repository."""
    del version


node.register(app)


def _register_laptop_commands() -> None:
    """Add the commands that an image leaves out: their modules need packages which a node does not carry."""
    try:
        from kubenode.cli import build, demo, fleet, plan, trust
    except ImportError as error:
        if error.name is None or not error.name.startswith("kubenode."):
            raise
        return
    for module in (fleet, trust, plan, build, demo):
        module.register(app)


_register_laptop_commands()


def main() -> None:
    """Run the command line; every error a person can do something about becomes a message, a hint and an exit code."""
    try:
        code = app(standalone_mode=False)
    except KubenodeError as error:
        output.show_error(error)
        sys.exit(int(error.exit_code))
    except typer.Abort:
        output.say("Stopped.")
        sys.exit(130)
    except KeyboardInterrupt:
        output.say("Stopped.")
        sys.exit(130)
    except typer.TyperException as error:
        output.show_error(UsageError(error.format_message(), hint="`kubenode COMMAND --help` shows how to call it."))
        sys.exit(int(ExitCode.USAGE))
    sys.exit(code if isinstance(code, int) else 0)
