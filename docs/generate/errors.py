"""docs/errors.md: exit codes, kinds of errors, refusals, problems and what nodes say when they do not go on."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import kubenode
from docs.generate.markdown import WRITTEN, code, table
from kubenode.errors import ExitCode, KubenodeError
from kubenode.fleet.rules import RULES
from kubenode.plan.backoff import BUDGETS
from kubenode.trust.reasons import Reason

SOURCES = Path(kubenode.__file__).parent
_OWN_WORDS = "(what the error or step itself says)"
EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.OK: "done, or nothing to do",
    ExitCode.FAILURE: "failure",
    ExitCode.CHANGES: "`plan --detailed-exitcode` found changes or drift",
    ExitCode.UNTRUSTED: "untrusted: a signature, digest or policy was refused",
    ExitCode.STUCK: "stuck: only a person can help; the message says how",
    ExitCode.USAGE: "wrong usage",
    ExitCode.TRY_LATER: "try later: something outside does not answer",
}


def page() -> str:
    """Return the page."""
    exits = table(("exit code", "meaning"), [(str(int(it)), meaning) for it, meaning in EXIT_CODES.items()])
    kind_rows = [
        (code(name), str(int(kind.exit_code)), _first_line(kind), kind.advice)
        for name, kind in sorted(kinds().items(), key=lambda it: (it[1].exit_code, it[0]))
        if kind is not KubenodeError
    ]
    reasons = [(code(it), it.meaning, it.advice) for it in Reason]
    rules = [(code(name), rule.meaning, rule.advice) for name, rule in RULES.items()]
    stuck = [(_code_cell(it), said[0], said[1]) for it, said in decisions("Stuck")]
    waits = [(_code_cell(it), said[0]) for it, said in decisions("Wait")]
    return f"""{WRITTEN}

# Errors

An error says what went wrong, where, and in its hint what to do next:

```text
Error: homelab has no releases/2026.11.9.yaml
Hint: Publish it first: kubenode publish out/2026.11.9 ...
```

Both go to stderr. With `--output json` commands that judge evidence also print the verdict with the reason's code and
the hint on stdout. A traceback is never meant for you: it is a mistake in kubenode, please report it.

## Exit codes

{exits}
Stopped by Ctrl-C: 130.

## Kinds

What the code calls an error decides its exit code. The last column is the hint of those that bring none of their own.

{table(("kind", "exit code", "what it is", "what to do"), kind_rows)}
## Refused evidence

Exit code 3, condition `Trusted=False` or `Fresh=False` of a node, `reason` in JSON. Nodes keep the last trusted commit
and what they run. [Trust](trust.md) and [Sigstore](sigstore.md) say how each is found, and which attack it stands for.

{table(("reason", "what was found", "what to do"), reasons)}
## Problems that validate finds

`kubenode validate` prints one line per mistake: file, line, column, what is wrong, and the rule in brackets; below it
what to do, often with more detail than here. `even-control-planes`, `seal-too-wide` and `no-token` are warnings, with
which a fleet is valid.

{table(("rule", "what is wrong", "what to do"), rules)}
## Stuck

Phase `Stuck` of a node, exit code 4 of `kubenode reconcile` and `kubenode plan`: only a person can help.
`…` stands for names.

{table(("code", "what is said", "what to do"), stuck)}
## Waiting

Exit code 0: a node that waits goes on by itself. What each one waits for, and where to look when it takes too long:
[the order of changes](kubernetes-order.md#what-each-wait-means).

{table(("code", "what is said"), waits)}"""


def kinds() -> dict[str, type[KubenodeError]]:
    """Return every kind of error by its class name."""
    for module in pkgutil.walk_packages(kubenode.__path__, "kubenode."):
        if "__main__" not in module.name and ".mkosi." not in module.name:
            importlib.import_module(module.name)
    found: dict[str, type[KubenodeError]] = {}
    todo: list[type[KubenodeError]] = [KubenodeError]
    while todo:
        kind = todo.pop()
        found[kind.__name__] = kind
        todo += kind.__subclasses__()
    return found


def decisions(kind: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return (code, (message, hint ...)) of every `Wait` or `Stuck` in the code, sorted; names in texts are `…`."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for path in sorted([*(SOURCES / "plan").rglob("*.py"), *(SOURCES / "agent").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == kind:
                words = [_said(it) for it in node.args]
                found.setdefault(words[0], []).append(tuple(words[1:3]))
    return [(name, _one(said)) for name, said in sorted(found.items()) if name != _OWN_WORDS]


def _one(said: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return what is said under one code, the longest of several that mean the same."""
    return max(said, key=lambda it: len(it[0]))


def _said(node: ast.expr) -> str:
    text = re.sub("…+", "…", _told(node))
    return _OWN_WORDS if text == "…" else text


def _told(node: ast.expr) -> str:
    match node:
        case ast.Constant(str(value)):
            return value
        case ast.JoinedStr(values):
            return "".join(_told(it) for it in values)
        case ast.BinOp(left, ast.Add(), right):
            return _told(left) + _told(right)
        case ast.BoolOp(_, values):
            return _told(values[-1])
    return "…"


def _code_cell(name: str) -> str:
    if name == "…Budget":
        return ", ".join(code(f"{step.capitalize()}Budget") for step in BUDGETS)
    return code(name)


def _first_line(kind: type[KubenodeError]) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())


def errors_made(text: str, known: Mapping[str, type[KubenodeError]]) -> Iterator[tuple[ast.Call, type[KubenodeError]]]:
    """Yield every error that a module's source makes, raised there or handed on, with its kind."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in known:
                yield node, known[name]
