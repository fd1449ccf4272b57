"""The one place where processes are started: argument lists only, always with a timeout, output kept for the error."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError


@dataclass(frozen=True)
class Completed:
    """A finished process: its exit status and what it printed."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")


class ProcessFailed(HostError):
    """A process could not be started, ran out of time or exited with an unexpected status."""

    def __init__(self, argv: Sequence[str], message: str, completed: Completed | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.completed = completed


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    check: bool = True,
    log: Path | None = None,
) -> Completed:
    """Run a process to its end and return what it printed.

    `timeout` is in seconds. `env` replaces the environment when given. With `log`, standard output and error go to
    that file (appended) instead of memory. Raises ProcessFailed when it cannot start, runs out of time, or, with
    `check`, exits with another status than 0.
    """
    words = [str(word) for word in argv]
    try:
        if log is not None:
            with log.open("ab") as out:
                done = subprocess.run(
                    words,
                    check=False,
                    cwd=cwd,
                    env=env,
                    input=stdin,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                )
            completed = Completed(done.returncode, b"", _tail(log))
        else:
            done = subprocess.run(
                words, check=False, cwd=cwd, env=env, input=stdin, capture_output=True, timeout=timeout
            )
            completed = Completed(done.returncode, done.stdout, done.stderr)
    except subprocess.TimeoutExpired as error:
        raise ProcessFailed(words, f"`{words[0]}` did not finish within {timeout:.0f} s") from error
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and (cwd is None or cwd.is_dir())
        hint = (
            f"Is {Path(words[0]).name} installed? On a laptop `kubenode doctor` names the package." if missing else ""
        )
        raise ProcessFailed(words, f"`{words[0]}` cannot be started: {error.strerror or error}", hint=hint) from error
    if check and completed.returncode != 0:
        said = (completed.stderr or completed.stdout).decode(errors="replace").strip().splitlines()
        tail = "\n".join(said[-15:])
        where = f" (full log: {log})" if log is not None else ""
        raise ProcessFailed(
            words, f"`{' '.join(words[:6])}` exited with {completed.returncode}{where}: {tail}", completed
        )
    return completed


def spawn(
    argv: Sequence[str | Path], *, log: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a long-lived process (a virtual machine, a server); its output goes to `log`. The caller ends it."""
    words = [str(word) for word in argv]
    try:
        with log.open("ab") as out:
            return subprocess.Popen(
                words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
    except OSError as error:
        raise ProcessFailed(words, f"`{words[0]}` cannot be started: {error.strerror or error}") from error


def _tail(path: Path, size: int = 8192) -> bytes:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - size))
        return file.read()
