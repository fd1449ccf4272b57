"""The command tree as plain values: what each command is called, takes and does, read from typer's own objects."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import typer

from kubenode.cli.main import app

_WORDS = {"str": "TEXT", "path": "PATH", "int": "NUMBER", "float": "NUMBER"}
_EXAMPLE = re.compile(r"\bExample: (kubenode [^\n]*)")


@dataclass(frozen=True)
class Parameter:
    """An argument or option: how it is written, what it is for and what counts without it."""

    spelled: str
    text: str
    option: bool


@dataclass(frozen=True)
class Command:
    """A command or a group; `words` are its name below kubenode, empty for kubenode itself."""

    words: tuple[str, ...]
    usage: str
    summary: str
    text: str
    examples: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    group: bool

    name = property(lambda self: " ".join(("kubenode", *self.words)))
    slug = property(lambda self: "-".join(self.words))
    man_name = property(lambda self: "-".join(("kubenode", *self.words)))


@cache
def commands() -> tuple[Command, ...]:
    """Return every command and group, kubenode itself first, in the order of `--help`."""
    return tuple(_walk(typer.main.get_command(app), (), None))


def below(known: tuple[Command, ...], group: Command) -> tuple[Command, ...]:
    """Return the commands right below a group."""
    return tuple(it for it in known if it.words[:-1] == group.words and it.words)


def _walk(command: Any, words: tuple[str, ...], parent: Any) -> Iterator[Command]:
    if command.hidden:
        return
    name = words[-1] if words else "kubenode"
    context = command.context_class(command, info_name=name, parent=parent, **command.context_settings)
    yield _command(command, words, context)
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, (*words, name), context)


def _command(command: Any, words: tuple[str, ...], context: Any) -> Command:
    help_text = re.sub(r"[ \t]+\n", "\n", command.help or "").strip()
    examples = tuple(it.rstrip() for it in _EXAMPLE.findall(help_text))
    text = _EXAMPLE.sub("", help_text).strip()
    summary, _, rest = text.partition("\n\n")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    shown = [it for it in command.get_params(context) if not getattr(it, "hidden", False)]
    return Command(
        words,
        " ".join(usage.split()),
        _flowed(summary),
        "\n\n".join(_flowed(part) for part in rest.split("\n\n") if part.strip()),
        examples,
        tuple(_parameter(it, context) for it in shown),
        hasattr(command, "commands"),
    )


def _flowed(text: str) -> str:
    return " ".join(text.split())


def _parameter(it: Any, context: Any) -> Parameter:
    option = it.param_type_name == "option"
    if option:
        value = "" if it.is_flag else it.metavar or _value(it.display_type(context))
        names = ", ".join(sorted([*it.opts, *it.secondary_opts], key=lambda name: (name.startswith("--"), name)))
        spelled = f"{names} {value}".strip()
    else:
        spelled = it.metavar or it.name
    required = " Required." if it.required and option else ""
    return Parameter(spelled, f"{_flowed(it.help or '')}{required}{_default(it)}", option)


def _value(shown: str) -> str:
    """Return typer's word for a type as people write it."""
    plain = shown.strip("<>").removeprefix("list[").removesuffix("]").removesuffix(" range")
    return _WORDS.get(plain.lower(), plain)


def _default(it: Any) -> str:
    value = it.default
    if value is None or callable(value) or value in ("", [], (), False) or getattr(it, "is_flag", False):
        return ""
    said = str(value.value if isinstance(value, Enum) else value)
    return f" Default: {'the current folder' if said == '.' else said}."
