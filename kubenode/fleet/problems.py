"""What `validate` finds: problems with a place, a stable rule name, a sentence and a hint."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet.rules import RULES


class Severity(StrEnum):
    """Whether a problem makes the fleet invalid or is only advice."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """One mistake in the fleet repo; `rule` is a stable kebab-case code, line and column count from 1."""

    path: str
    line: int | None
    column: int | None
    rule: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    @property
    def location(self) -> Location:
        """The place as the rest of kubenode prints it."""
        return Location(self.path, self.line, self.column)

    def __str__(self) -> str:
        return f"{self.location}: {self.severity}: {self.message} [{self.rule}]"


def problem(
    where: Location, rule: str, message: str, hint: str = "", *, severity: Severity = Severity.ERROR
) -> Problem:
    """Return a problem at a location; without a hint of its own it has the advice of its rule."""
    return Problem(where.path, where.line, where.column, rule, message, hint or RULES[rule].advice, severity)


def from_error(error: FleetInvalid, rule: str, path: str) -> Problem:
    """Return the problem that an error of a reader stands for; `path` is used when the error has no location."""
    return problem(error.location or Location(path), rule, error.message, error.hint)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems sorted by place, each once."""
    return tuple(sorted(set(problems), key=lambda it: (it.path, it.line or 0, it.column or 0, it.rule, it.message)))


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" for the nearest known word, or an empty string when none is near."""
    near = nearest(wrong, known)
    return f"Did you mean {near!r}?" if near else ""


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like `wrong`, or None when none does."""
    words = {word.lower(): word for word in sorted(known)}
    found = difflib.get_close_matches(wrong.lower()[:80], words, n=1, cutoff=0.6)
    return words[found[0]] if found else None


def choices(known: Iterable[str], limit: int = 8) -> str:
    """Return the known words as a short list for people."""
    words = sorted(known)
    return ", ".join(words[:limit]) + (f" and {len(words) - limit} more" if len(words) > limit else "")
