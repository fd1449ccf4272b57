"""The one place where processes are started: argument lists only, always with a timeout, output kept for the error."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError

WATCH_EVERY = 0.1
CHUNK = 1 << 16
_TAIL = 8192
_LIMITER = "prlimit"


@dataclass(frozen=True)
class Limits:
    """What a process and each of its children may use at most, enforced by the kernel (setrlimit(2)).

    `memory` (address space) and `file` (every file that is written) are in bytes, `cpu` in seconds.
    """

    memory: int
    file: int
    cpu: int

    def around(self, argv: Sequence[str | Path]) -> list[str | Path]:
        """Return a command line that runs `argv` under these limits, with prlimit(1)."""
        return [_LIMITER, f"--as={self.memory}", f"--fsize={self.file}", f"--cpu={self.cpu}", "--core=0", "--", *argv]


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

    advice = "What the program said is quoted above; run it by hand to see more."

    def __init__(
        self,
        argv: Sequence[str],
        message: str,
        completed: Completed | None = None,
        hint: str = "",
        *,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.completed = completed
        self.timed_out = timed_out


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
        raise ProcessFailed(words, f"`{words[0]}` did not finish within {timeout:.0f} s", timed_out=True) from error
    except OSError as error:
        raise _not_started(words, error, cwd) from error
    if check and completed.returncode != 0:
        raise _failed(words, completed, f" (full log: {log})" if log is not None else "")
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
        raise _not_started(words, error, cwd) from error


def run_watched(
    argv: Sequence[str | Path], *, timeout: float, watch: Callable[[int], None], env: Mapping[str, str] | None = None
) -> Completed:
    """Run a process and all that it starts as one group, and return what it printed last (as standard error).

    `watch` is called ten times a second with the number of bytes printed so far; when it raises, or after `timeout`
    seconds, the whole group is killed. A file beyond a limit is an error (EFBIG), no signal.
    Raises ProcessFailed as `run` does, and what `watch` raises.
    """
    words = [str(word) for word in argv]
    # In memory: it must be kept when the disk is full.
    with os.fdopen(os.memfd_create("output"), "r+b") as out:
        try:
            child = subprocess.Popen(
                words,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
                # Python ignores SIGXFSZ (and SIGPIPE, which git restores itself); so the children do.
                restore_signals=False,
            )
        except OSError as error:
            raise _not_started(words, error) from error
        deadline = time.monotonic() + timeout
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(min(WATCH_EVERY, max(0.0, deadline - time.monotonic())))
                    break
                watch(os.fstat(out.fileno()).st_size)
                if time.monotonic() > deadline:
                    raise ProcessFailed(
                        words, f"`{_shown(words)[0]}` did not finish within {timeout:.0f} s", timed_out=True
                    )
        except BaseException:
            # Not yet waited for, so the group's number cannot belong to anybody else.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        out.seek(max(0, out.seek(0, os.SEEK_END) - _TAIL))
        completed = Completed(child.returncode, b"", out.read())
    if completed.returncode != 0:
        raise _failed(words, completed)
    return completed


class Conversation:
    """A process that is asked on its standard input and answers on its standard output; a context manager.

    For questions that fit into a pipe (64 KiB) and answers that are read before the next question.
    """

    def __init__(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
        self._words = [str(word) for word in argv]
        try:
            self._child = subprocess.Popen(
                self._words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise _not_started(self._words, error) from error
        assert self._child.stdin is not None and self._child.stdout is not None
        self._in, self._out = self._child.stdin, self._child.stdout

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: bytes, *, last: bool = False) -> None:
        """Write a question; with `last`, close the process's input after it. Raises ProcessFailed when it has ended."""
        try:
            self._in.write(question)
            self._in.flush()
            if last:
                self._in.close()
        except OSError as error:
            raise self._ended() from error

    def line(self, limit: int = 4096) -> bytes:
        """Read a line without its end. Raises ProcessFailed when none comes, or a longer one than `limit` bytes."""
        line = self._out.readline(limit)
        if not line.endswith(b"\n"):
            raise self._ended()
        return line[:-1]

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes. Raises ProcessFailed when there are fewer."""
        data = self._out.read(size)
        if len(data) != size:
            raise self._ended()
        return data

    def chunks(self) -> Iterator[bytes]:
        """Read until the process ends. Raises ProcessFailed unless it ends well."""
        while data := self._out.read1(CHUNK):  # type: ignore[attr-defined]
            yield data
        if self._child.wait() != 0:
            raise self._ended()

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()

    def _ended(self) -> "ProcessFailed":
        self.close()
        return _failed(self._words, Completed(self._child.returncode, b"", b""))


def _not_started(words: Sequence[str], error: OSError, cwd: Path | None = None) -> ProcessFailed:
    missing = isinstance(error, FileNotFoundError) and (cwd is None or cwd.is_dir())
    hint = f"Is {Path(words[0]).name} installed? On a laptop `kubenode doctor` names the package." if missing else ""
    return ProcessFailed(words, f"`{words[0]}` cannot be started: {error.strerror or error}", hint=hint)


def _failed(words: Sequence[str], completed: Completed, where: str = "") -> ProcessFailed:
    said = (completed.stderr or completed.stdout).decode(errors="replace").strip().splitlines()
    tail = "\n".join(said[-15:])
    return ProcessFailed(
        words, f"`{' '.join(_shown(words)[:6])}` exited with {completed.returncode}{where}: {tail}", completed
    )


def _shown(words: Sequence[str]) -> Sequence[str]:
    """Return a command line without the limits around it."""
    return words[words.index("--") + 1 :] if words[0] == _LIMITER else words


def _tail(path: Path, size: int = _TAIL) -> bytes:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - size))
        return file.read()
