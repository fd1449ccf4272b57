"""docs/man/: a manual page for each command, in the macros of man(7); wheels install them in share/man/man1."""

import re

from docs.generate.commands import Command, Parameter, below
from docs.generate.errors import EXIT_CODES
from kubenode import __version__

_TROFF = {"\\": "\\e", "-": "\\-", "`": "\\(ga", '"': "\\(dq", "'": "\\(aq"}


def page(command: Command, known: tuple[Command, ...]) -> str:
    """Return the manual page of a command."""
    lines = [
        '.\\" Written by "python -m docs.generate"; changes by hand are lost.',
        f'.TH "{escaped(command.man_name.upper())}" 1 "" "kubenode {escaped(__version__)}" "kubenode"',
        ".SH NAME",
        f"{escaped(command.man_name)} \\- {escaped(command.summary)}",
        ".SH SYNOPSIS",
        f".B {escaped(command.name)}",
        text(command.usage.removeprefix(command.name).strip()),
        ".SH DESCRIPTION",
        text(command.summary),
    ]
    for part in filter(None, command.text.split("\n\n")):
        lines += [".PP", text(part)]
    if command.examples:
        lines += [".SH EXAMPLES"]
        for example in command.examples:
            lines += [".PP", ".nf", text(example), ".fi"]
    if command.group:
        lines.append(".SH COMMANDS")
        for it in below(known, command):
            lines += [".TP", f".B {escaped(it.name)}", text(it.summary)]
    for title, option in (("ARGUMENTS", False), ("OPTIONS", True)):
        shown = [it for it in command.parameters if it.option is option]
        if shown:
            lines.append(f".SH {title}")
            lines += [line for it in shown for line in _entry(it)]
    lines.append(".SH EXIT STATUS")
    for code, meaning in EXIT_CODES.items():
        lines += [".TP", f".B {int(code)}", text(meaning)]
    lines += [".SH SEE ALSO", " ,\n".join(f".BR {escaped(it.man_name)} (1)" for it in _near(command, known))]
    return "\n".join(lines) + "\n"


def _near(command: Command, known: tuple[Command, ...]) -> tuple[Command, ...]:
    """Return the pages to read next: the group above and its commands, or those of the command itself."""
    above = next((it for it in known if it.group and it.words == command.words[:-1]), command)
    root = next(it for it in known if not it.words)
    around = below(known, command if command.group else above)
    return tuple(dict.fromkeys(it for it in (root, above, *around) if it != command))


def _entry(it: Parameter) -> list[str]:
    return [".TP", f".B {escaped(it.spelled)}", text(it.text)]


def text(plain: str) -> str:
    """Return a line of text; one that begins like a request is protected."""
    said = escaped(plain)
    return f"\\&{said}" if said.startswith((".", "'")) else said


def escaped(plain: str) -> str:
    """Return text without anything that troff would take for its own; other letters than ASCII by their numbers."""
    said = "".join(_TROFF.get(letter, letter) for letter in plain)
    return re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", said)
