"""Looks again and again: a screen that changes on a terminal, a line for each change anywhere else."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubenode.cli import statusview
from kubenode.cli.output import WIDTH_OF_FILES, say
from kubenode.cli.statuslook import Fleet, Sight
from kubenode.errors import KubenodeError
from kubenode.plan.status import Row, Standing

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LOOK_SECONDS = 5.0
NODES_PER_LOOK = 200
"""So many nodes more, and it is waited as long again: every look reads all of them."""
_LINES_AROUND = 14
"""Lines of a screen for what stands around the nodes; where these do not fit, pools are shown."""
MOST_LINES = 20
"""Lines of one look when nobody sees a screen."""


def console(*, stderr: bool = False) -> "Console":
    """Return where a status is shown; plain and 100 columns wide when it is no terminal."""
    from rich.console import Console

    probe = Console(stderr=stderr)
    width = None if probe.is_terminal else WIDTH_OF_FILES
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def show(fleet: Fleet, sight: Sight, *, every_node: bool = False) -> None:
    """Print a status once, on stdout."""
    screen = console()
    most = len(sight.rows) if every_node else statusview.FOLD_ABOVE
    for part in _parts(fleet, sight, screen.width, most=most):
        screen.print(part)


def _parts(fleet: Fleet, sight: Sight, width: int, *, most: int = statusview.FOLD_ABOVE) -> "Iterator[RenderableType]":
    """Yield what is shown; more than `most` nodes are folded into their pools."""
    from rich.text import Text

    lines = [(line, "yellow") for line in statusview.head_lines(fleet, sight)]
    lines += list(statusview.problem_lines(sight.rows, width))
    for line, style in lines:
        yield Text(line, style=style)
    if sight.rows:
        if lines:
            yield Text("")
        yield statusview.table(sight.rows, width, most)


@dataclass
class Watch:
    """Looks every few seconds and shows it, until the caller has seen enough.

    `look` is called again and again; when the API does not answer, `trouble` says so and the last sight stays.
    """

    fleet: Fleet
    look: Callable[[], Sight]
    title: str = ""
    last: Sight | None = None
    trouble: str = ""
    said: dict[str, str] = field(default_factory=dict)

    def sights(self) -> Generator[Sight, None, None]:
        """Yield what is seen, for ever; while there is `trouble`, what was seen last, again and again.

        Raises KubenodeError when nothing was ever seen.
        """
        screen = console(stderr=True)
        yield from self._on_screen(screen) if screen.is_terminal else self._in_lines()

    def _looks(self) -> Iterator[Sight]:
        while True:
            try:
                self.last, self.trouble = self.look(), ""
            except KubenodeError as error:
                # An API server that has just started refuses what it will allow in a moment.
                if self.last is None:
                    raise
                self.trouble = f"The cluster cannot be seen now; this is what was seen last. ({error.message})"
            yield self.last
            time.sleep(LOOK_SECONDS * (1 + len(self.last.rows) // NODES_PER_LOOK))

    def _on_screen(self, screen: "Console") -> Iterator[Sight]:
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        with Live(console=screen, auto_refresh=False, transient=True, vertical_overflow="ellipsis") as live:
            for sight in self._looks():
                shown = [Text(it, style="bold") for it in (self.title,) if it]
                shown += [Text(it, style="yellow") for it in (self.trouble,) if it]
                parts = _parts(self.fleet, sight, screen.width, most=max(0, screen.height - _LINES_AROUND))
                end = Text(f"{sight.at:%H:%M:%S} UTC. {statusview.sentence(self.fleet, sight)} Ctrl-C stops looking.")
                live.update(Group(*shown, *parts, end), refresh=True)
                yield sight

    def _in_lines(self) -> Iterator[Sight]:
        trouble = ""
        for sight in self._looks():
            if self.trouble and not trouble:
                say(self.trouble)
            trouble = self.trouble
            for line in changes(self.said, sight) if not trouble else ():
                say(line)
            yield sight


def changes(said: "dict[str, str]", sight: Sight) -> Iterator[str]:
    """Yield what is not as it was said before, nodes of which the same is to be said in one line.

    `said` (by node) is brought up to date. At first what is as it should be goes without saying.
    """
    first = not said
    news: dict[str, list[str]] = {}
    for row in sight.rows:
        text = _state(row)
        if said.get(row.node) != text and not (first and row.standing is Standing.DONE and not row.notes):
            news.setdefault(text, []).append(row.node)
        said[row.node] = text
    at = f"{sight.at:%H:%M:%S}"
    for text, nodes in list(news.items())[:MOST_LINES]:
        yield f"{at} {statusview.listed(nodes)}: {text}"
    if len(news) > MOST_LINES:
        yield f"{at} and {sum(map(len, list(news.values())[MOST_LINES:]))} more nodes changed"
    if news or first:
        yield f"{at} {statusview.counts(sight.rows)}"


def _state(row: Row) -> str:
    word, target = row.word, row.wanted.target
    release = f"{word.release or '?'}"
    arrived = word.root_hash == target.root_hash
    what = f"{row.phase}, release {release}" + ("" if arrived else f" -> {target.version}")
    return what if row.standing is Standing.DONE or not row.why else f"{what}: {row.why}"
