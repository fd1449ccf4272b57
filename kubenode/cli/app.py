"""What both entry points share: the command tree's root, and turning errors into messages and exit codes."""

import sys
from typing import Annotated

import typer

from kubenode import __version__
from kubenode.cli import output
from kubenode.errors import ExitCode, KubenodeError, UsageError


def new_app() -> typer.Typer:
    """Return the root of a command tree, without commands."""
    app = typer.Typer(
        name="kubenode",
        help="Kubernetes nodes kept by a signed git repository.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return app


def run(app: typer.Typer) -> None:
    """Run a command line and exit; every error a person can do something about becomes a message and a hint."""
    try:
        code = app(standalone_mode=False)
    except KubenodeError as error:
        output.show_error(error)
        sys.exit(int(error.exit_code))
    except (typer.Abort, KeyboardInterrupt):
        output.say("Stopped.")
        sys.exit(130)
    except typer.TyperException as error:
        output.show_error(UsageError(error.format_message(), hint="`kubenode COMMAND --help` shows how to call it."))
        sys.exit(int(ExitCode.USAGE))
    sys.exit(code if isinstance(code, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kubenode {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Kubernetes nodes kept by a signed git repository."""
    del version
