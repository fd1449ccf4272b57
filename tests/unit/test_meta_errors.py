"""Every error that the code raises says what to do next, and docs/errors.md lists what there is."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubenode
from kubenode.errors import HostError, KubenodeError, TryLater, Untrusted
from kubenode.trust.reasons import Reason

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "kubenode").rglob("*.py"))


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


KINDS = kinds()


def hinted(call: ast.Call, kind: type[KubenodeError]) -> bool:
    """Say whether an error that is made here has a hint: one of its own, its kind's, or its reason's."""
    for word in call.keywords:
        if word.arg == "hint":
            return not may_be_empty(word.value) or bool(kind.advice)
        if word.arg is None:
            return True  # **values: nothing to see here.
    if issubclass(kind, Untrusted):
        return True  # By its reason, see below.
    return bool(kind.advice)


def may_be_empty(hint: ast.expr) -> bool:
    """Say whether a hint is, or may turn out to be, an empty text."""
    match hint:
        case ast.Constant(value):
            return not value
        case ast.IfExp(_, yes, no):
            return may_be_empty(yes) or may_be_empty(no)
        case ast.BoolOp(_, values):
            return may_be_empty(values[-1])
        case ast.Call(ast.Name(name)):
            return name == "did_you_mean"
    return False


def errors_made(path: Path, text: str | None = None) -> Iterator[tuple[str, ast.Call, type[KubenodeError]]]:
    """Yield (where, call, kind) for every error that a module makes, raised there or handed on."""
    for node in ast.walk(ast.parse(path.read_text() if text is None else text)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in KINDS:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node, KINDS[name]


def test_every_error_says_what_to_do_next() -> None:
    made = [it for path in SOURCES for it in errors_made(path)]
    assert len(made) > 500
    assert [where for where, call, kind in made if not hinted(call, kind)] == []


@pytest.mark.parametrize(
    ("code", "ok"),
    [
        ("raise HostError('x')", False),
        ("raise HostError('x', hint='')", False),
        ("raise HostError('x', hint='a' if y else '')", False),
        ("raise FleetInvalid('x', hint=did_you_mean('a', b))", False),
        ("raise FleetInvalid('x', hint=did_you_mean('a', b) or 'Known: ...')", True),
        ("raise errors.UsageError('x')", False),
        ("return HostError('x')", False),
        ("raise HostError('x', hint='Do this.')", True),
        ("raise TryLater('x')", True),
    ],
)
def test_the_check_sees_what_it_should(code: str, ok: bool) -> None:
    found = list(errors_made(ROOT / "kubenode" / "x.py", code.replace("return", "y =")))
    assert [hinted(call, kind) for _, call, kind in found] == [ok]


@pytest.mark.parametrize("reason", Reason, ids=str)
def test_every_reason_says_what_it_means_and_what_to_do(reason: Reason) -> None:
    assert reason.meaning.endswith(".") and len(reason.advice) > 10
    assert Untrusted(reason, "x").hint == reason.advice
    assert Untrusted(reason, "x", hint="Other.").hint == "Other."
    assert Reason(str(reason)) is reason


def test_a_kind_lends_its_advice_only_to_errors_without_a_hint() -> None:
    assert TryLater("x").hint == TryLater.advice != ""
    assert TryLater("x", hint="Wait for w-1.").hint == "Wait for w-1."
    assert HostError("x").hint == ""
