"""docs/reference/: one page for each command."""

from docs.generate.commands import Command, Parameter, below
from docs.generate.markdown import WRITTEN, code, table


def index(known: tuple[Command, ...]) -> str:
    """Return the page that lists all commands."""
    root = next(it for it in known if not it.words)
    rows = [(f"[{code(it.name)}]({it.slug}.md)", it.summary) for it in known if it.words and not it.group]
    return f"""{WRITTEN}

# Commands

{root.summary} `kubenode COMMAND --help` shows the same as the page of a command, `man kubenode-COMMAND` too.

{table(("command", "does"), rows)}
Results go to stdout, progress to stderr, and every command ends with one sentence; `--output json` gives a versioned
document (`cli.kubenode.dev/v1alpha1`). [Exit codes and errors](../errors.md).

## Shell completion

```sh
kubenode --install-completion      # for the shell that you are in (bash, zsh, fish); open a new one afterwards
kubenode --show-completion         # prints the script, to put it where you like
```

Besides commands and options it completes channels, releases, nodes, pools, secrets and image recipes of the fleet repo:
that of `-C`, when it stands before what is completed, else the current folder. bash breaks words at colons, so
`--for node:NAME` is completed as a whole, before the colon is typed.

## Manual pages

Wheels bring them, in `share/man`: after `pip install`, `man kubenode` and `man kubenode-trust-verify` work when the
`bin` folder of the environment is on `PATH`. `uv tool install` puts only the command there:
`man -M "$(uv tool dir)/kubenode/share/man" kubenode`. In a clone: `man -l docs/man/kubenode.1`.
"""


def page(command: Command) -> str:
    """Return the page of a command."""
    parts = [WRITTEN, f"# {command.name}", command.summary, f"```text\n{command.usage}\n```"]
    if command.text:
        parts.append(command.text)
    arguments = [it for it in command.parameters if not it.option]
    options = [it for it in command.parameters if it.option]
    if command.examples:
        lines = "\n".join(command.examples)
        parts.append(
            f"## Examples\n\n```sh\n{lines}\n```" if len(command.examples) > 1 else f"## Example\n\n```sh\n{lines}\n```"
        )
    if command.group:
        from docs.generate.commands import commands

        rows = [(f"[{code(it.name)}]({it.slug}.md)", it.summary) for it in below(commands(), command)]
        parts.append(f"## Commands\n\n{table(('command', 'does'), rows)}".rstrip())
    if arguments:
        parts.append(f"## Arguments\n\n{table(('argument', 'meaning'), map(_row, arguments))}".rstrip())
    parts.append(f"## Options\n\n{table(('option', 'meaning'), map(_row, options))}".rstrip())
    parts.append("[All commands](README.md) · [exit codes and errors](../errors.md)")
    return "\n\n".join(parts) + "\n"


def _row(it: Parameter) -> tuple[str, str]:
    return code(it.spelled), it.text
