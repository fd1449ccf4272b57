"""The time of day; the only place that asks the operating system for it."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path


class SystemClock:
    """Implements `kubenode.ports.Clock` with the system clock.

    `epoch` is a file whose modification time is the earliest time that can be right (systemd(1), clock-epoch). systemd
    sees to that when a machine starts; a clock that is set back later is held there too.
    """

    def __init__(self, epoch: Path | None = None) -> None:
        self._least = datetime.fromtimestamp(0, UTC)
        if epoch is not None:
            with suppress(OSError, OverflowError, ValueError):
                self._least = datetime.fromtimestamp(epoch.stat().st_mtime, UTC)

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return max(self._least, datetime.now(UTC))
