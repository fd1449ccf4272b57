"""What both entry points share: the command tree's root, and turning errors into messages and exit codes."""

import os
import sys
from typing import Annotated

import typer

from kubenode import __version__
from kubenode.cli import output
from kubenode.errors import ExitCode, HostError, KubenodeError, UsageError

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells report it."""


def new_app(*, completion: bool = False) -> typer.Typer:
    """Return the root of a command tree, without commands; `completion` offers to install the shell's completion."""
    app = typer.Typer(
        name="kubenode",
        help="Kubernetes nodes kept by a signed git repository.",
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return app


def run(app: typer.Typer) -> None:
    """Run a command line and exit; every error a person can do something about becomes a message and a hint.

    Anything else is a mistake in kubenode and keeps its traceback, for the report.
    """
    output.prepare_streams()
    try:
        code = app(standalone_mode=False, prog_name="kubenode")
        sys.stdout.flush()
    except KubenodeError as error:
        output.show_error(error)
        sys.exit(int(error.exit_code))
    except BrokenPipeError:
        # `kubenode ... | head`: nobody reads on.
        _give_up_stdout()
        sys.exit(int(ExitCode.FAILURE))
    except OSError as error:
        # Files that cannot be read or written: the same few reasons everywhere (rights, no space, a folder instead).
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        output.show_error(
            HostError(
                f"{where}{error.strerror or error}",
                hint="Check the rights, the free space, and that the path is a file or a folder as the command wants.",
            )
        )
        try:
            sys.stdout.flush()
        except OSError:
            _give_up_stdout()
        sys.exit(int(ExitCode.FAILURE))
    except (typer.Abort, KeyboardInterrupt):
        output.say("Stopped.")
        sys.exit(INTERRUPTED)
    except typer.TyperException as error:
        # Without any words the help was printed, and the error is empty.
        said = error.format_message() or "no command was given"
        output.show_error(UsageError(said, hint="`kubenode COMMAND --help` shows how to call it."))
        sys.exit(int(ExitCode.USAGE))
    sys.exit(code if isinstance(code, int) else 0)


def _give_up_stdout() -> None:
    """Throw away what stdout could not take: Python would fail at exit over it, with a code of its own (120)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
