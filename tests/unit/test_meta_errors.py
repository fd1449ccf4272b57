"""Every error that the code raises says what to do next, and docs/errors.md lists what there is."""

import ast
from pathlib import Path

import pytest

from docs.generate.errors import errors_made, kinds
from kubenode.errors import HostError, KubenodeError, TryLater, Untrusted
from kubenode.trust.reasons import Reason

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "kubenode").rglob("*.py"))


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


def test_every_error_says_what_to_do_next() -> None:
    made = [(path, *it) for path in SOURCES for it in errors_made(path.read_text(), KINDS)]
    assert len(made) > 500
    assert [f"{path}:{call.lineno}" for path, call, kind in made if not hinted(call, kind)] == []


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
    assert [hinted(call, kind) for call, kind in errors_made(code.replace("return", "y ="), KINDS)] == [ok]


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
