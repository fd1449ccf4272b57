"""Keeps what nodes waited for, joined together where many waited for the same."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kubenode.model.decision import Wait
from kubenode.plan.simulate.timeline import Pause


@dataclass
class _Span:
    begin: timedelta
    end: timedelta
    message: str
    until: datetime | None
    nodes: set[str]


@dataclass
class Pauses:
    """What was waited for, by pool, wave and reason; spans that touch are one."""

    spans: dict[tuple[str, int | None, str], list[_Span]] = field(default_factory=dict)

    def add(
        self, pool: str, wave: int | None, wait: Wait, begin: timedelta, end: timedelta, nodes: Iterable[str]
    ) -> None:
        """Note that nodes have waited; ends come in order."""
        if begin >= end:
            return
        known = self.spans.setdefault((pool, wave, wait.reason), [])
        if known and begin <= known[-1].end:
            last = known[-1]
            last.begin, last.end = min(last.begin, begin), end
            last.until = wait.until or last.until
            last.nodes.update(nodes)
        else:
            known.append(_Span(begin, end, wait.message, wait.until, set(nodes)))

    def all(self) -> tuple[Pause, ...]:
        """Return everything, by beginning."""
        found = [
            Pause(it.begin, it.end, pool, wave, reason, it.message, it.until, tuple(sorted(it.nodes)))
            for (pool, wave, reason), spans in self.spans.items()
            for it in spans
        ]
        return tuple(sorted(found, key=lambda it: (it.begin, it.end, it.pool, it.wave or 0, it.reason)))
