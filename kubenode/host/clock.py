"""The time of day; the only place that asks the operating system for it."""

from datetime import UTC, datetime


class SystemClock:
    """Implements `kubenode.ports.Clock` with the system clock."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)
