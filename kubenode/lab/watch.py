"""Something that is looked at again and again, beside what a story does."""

import threading
from types import TracebackType
from typing import Self

from kubenode.lab.failed import LabFailed


class Watch:
    """Calls `once` every `pause` seconds, from `with` to its end; what it raises is raised when the block ends."""

    def __init__(self, what: str, pause: float) -> None:
        """`what` is watched, for messages."""
        self._what = what
        self._pause = pause
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._broken: Exception | None = None

    def once(self) -> None:
        """Look once."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
        self.join()
        if kind is None and self._broken is not None:
            raise LabFailed(f"the watcher of {self._what} broke off") from self._broken

    def end(self) -> None:
        """Look no more, once the present look is over."""
        self._end.set()

    def join(self, timeout: float = 180) -> None:
        """Wait for the end of the present look; kubectl itself gives up earlier than after `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                self.once()
                self._end.wait(self._pause)
        except Exception as error:  # Given to the thread that waits
            self._broken = error
