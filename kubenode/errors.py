"""The one exception tree of kubenode: what went wrong, where, and what to do next.

Every error that may reach a person is a `KubenodeError`. Only `kubenode.cli` turns one into text and an exit code.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the `kubenode` command; the README's table is generated from this enum."""

    OK = 0
    FAILURE = 1
    CHANGES = 2
    UNTRUSTED = 3
    STUCK = 4
    USAGE = 64
    TRY_LATER = 75


@dataclass(frozen=True, order=True)
class Location:
    """A place in a file; line and column count from 1, or are None when the whole file is meant."""

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


class KubenodeError(Exception):
    """Base of every error meant for people: a message (what and why), a hint (what to do), perhaps a location.

    Who raises one says what to do next. Only kinds that always ask for the same have an `advice`, the hint for when
    none is given; tests/unit/test_meta_errors.py finds a raise without either.
    """

    exit_code = ExitCode.FAILURE
    advice: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "", location: Location | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.advice
        self.location = location

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


class UsageError(KubenodeError):
    """The command was called in a way that cannot work."""

    exit_code = ExitCode.USAGE


class FleetInvalid(KubenodeError):
    """A document of the fleet repo cannot be read or breaks a rule."""


class Untrusted(KubenodeError):
    """Evidence was refused; `reason` is a code of `kubenode.trust.reasons.Reason`, `subject` what it is about.

    A reason has an advice of its own, which is the hint for when none is given.
    """

    exit_code = ExitCode.UNTRUSTED

    def __init__(
        self, reason: str, message: str, *, subject: str = "", hint: str = "", location: Location | None = None
    ) -> None:
        super().__init__(message, hint=hint or getattr(reason, "advice", ""), location=location)
        self.reason = reason
        self.subject = subject


class TryLater(KubenodeError):
    """Something outside is not reachable or busy now; the same call may succeed later."""

    exit_code = ExitCode.TRY_LATER
    advice = "Call the same again in a while; nodes do so by themselves at their next tick."


class HostError(KubenodeError):
    """The operating system refused something: a process failed, a disk is full, a device is missing."""


class NoSpace(HostError):
    """Not enough free space; the message names the file system, what is needed and what is free (bytes)."""

    advice = "Free some space there (`du -xh -d1`), then the same again; a node needs nothing but the space."


class StateLost(KubenodeError):
    """State that must never be rebuilt (trust.json, poisoned digests) is unreadable in both copies."""

    exit_code = ExitCode.STUCK
    advice = "Install the machine again with a new seed: without its trust state it could be taken back unnoticed."
