"""How a simulated rollout is shown: a table by wave, JSON, or a Gantt chart for mermaid."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from textwrap import fill
from typing import TYPE_CHECKING, Any

import typer

from kubenode.cli.output import WIDTH_OF_FILES, Format, conclude, print_json, print_table, say
from kubenode.errors import ExitCode

if TYPE_CHECKING:
    from datetime import datetime

    from kubenode.model.documents import FleetDocuments
    from kubenode.plan.observations import Report
    from kubenode.plan.simulate.rows import Row
    from kubenode.plan.simulate.timeline import Ending, Timeline

_POOL_WIDTH = 22
_MINUTE = timedelta(minutes=1)


def show_simulation(
    documents: "FleetDocuments",
    commit: str,
    known: "Sequence[Report]",
    now: "datetime",
    *,
    output: Format,
    graph: bool = False,
    detailed_exitcode: bool = False,
) -> typer.Exit:
    """Print the expected rollout of a commit, and return what to raise.

    Raises FleetInvalid as `desired_state` does.
    """
    from kubenode.fleet.desired import desired_states
    from kubenode.plan.simulate.run import simulate

    timeline = simulate(desired_states(documents, commit, [it.node for it in known]), documents.nodes, known, now)
    if graph:
        typer.echo("\n".join(_gantt(timeline)))
    elif output is Format.JSON:
        print_json("Simulation", {"commit": commit, **_plain(timeline)})
    else:
        _print_table(timeline)
    for note in (*timeline.notes, timeline.endless):
        if note:
            say(fill(f"Note: {note}", WIDTH_OF_FILES, subsequent_indent="  ", break_on_hyphens=False))
    conclude(_closing(timeline, commit))
    if timeline.endless:
        return typer.Exit(int(ExitCode.FAILURE))
    if timeline.stuck:
        return typer.Exit(int(ExitCode.STUCK))
    if timeline.events and detailed_exitcode:
        return typer.Exit(int(ExitCode.CHANGES))
    # As of a plan: what was not seen is never "nothing to do".
    blind = not known or (timeline.unseen and detailed_exitcode)
    return typer.Exit(int(ExitCode.TRY_LATER if blind else ExitCode.OK))


# The table.


def _print_table(timeline: "Timeline") -> None:
    from kubenode.plan.simulate.rows import rows

    found = rows(timeline)
    if found:
        sizes = _sizes(timeline)
        cells, shown = [], None
        for row in found:
            group = (row.pool, row.wave)
            title = _title(row, sizes) if group != shown else ""
            shown = group
            cells.append((title, _clock(row.begin), _clock(row.end), row.what))
        columns = ("Wave", "From", "To", "What")
        widths = [max(len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
        left = WIDTH_OF_FILES - sum(widths) - 2 * len(widths)
        print_table(
            (*columns, "Nodes"),
            [(*cell, _nodes(row.nodes, left)) for cell, row in zip(cells, found, strict=True)],
        )
    for heading, endings in (("Stuck", timeline.stuck), ("Held back", timeline.held_back)):
        for members in _alike(endings):
            _print_ending(heading, members)
    if timeline.unseen:
        typer.echo(f"\nNot observed, so not simulated: {_nodes(timeline.unseen, WIDTH_OF_FILES - 32)}")


def _print_ending(heading: str, members: "Sequence[Ending]") -> None:
    decision, names = members[0].decision, [it.node for it in members]
    reason = getattr(decision, "reason", "")
    title = f"{heading} on release {members[0].release} ({reason}): "
    typer.echo(f"\n{title}{_nodes(names, WIDTH_OF_FILES - len(title))}")
    text = " ".join((getattr(decision, "message", ""), getattr(decision, "hint", "")))
    typer.echo(fill(text, WIDTH_OF_FILES, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))


def _alike(endings: "Iterable[Ending]") -> "list[list[Ending]]":
    """Put endings together that differ by their nodes only."""
    found: dict[object, list[Ending]] = {}
    for it in endings:
        reason = getattr(it.decision, "reason", "")
        found.setdefault((it.pool, it.wave, it.release, type(it.decision), reason), []).append(it)
    return list(found.values())


def _sizes(timeline: "Timeline") -> dict[str, int]:
    """Return how many waves each pool has here."""
    sizes: dict[str, int] = {}
    for it in timeline.endings:
        sizes[it.pool] = max(sizes.get(it.pool, 0), it.wave or 0)
    return sizes


def _title(row: "Row", sizes: dict[str, int]) -> str:
    number = f" {row.wave}/{sizes[row.pool]}" if row.wave is not None and sizes[row.pool] > 1 else ""
    room = _POOL_WIDTH - len(number)
    pool = row.pool if len(row.pool) <= room else f"{row.pool[: room - 1]}…"
    return pool + number


def _nodes(names: Sequence[str], width: int) -> str:
    """Return as many names as fit, and how many more there are; of names that are too long only their number."""
    text = ", ".join(names)
    if len(names) == 1 and len(text) > width:
        return f"{text[: max(1, width - 1)]}…"
    for shown in range(len(names) - 1, 0, -1) if len(text) > width else ():
        if shown > width:  # No name is shorter than this.
            continue
        text = f"{', '.join(names[:shown])} and {len(names) - shown} more"
        if len(text) <= width:
            return text
    return text if len(text) <= width else f"{len(names)} nodes"


def _clock(offset: timedelta) -> str:
    minutes = offset // _MINUTE
    return f"t+{minutes // 60:02}:{minutes % 60:02}"


# The closing sentence.


def _closing(timeline: "Timeline", commit: str) -> str:
    said = f"At commit {commit[:12]}, "
    if not timeline.events:
        said += "nothing will be done"
    else:
        end = timeline.began + timeline.length
        said += f"about {_span(timeline.length)}, until {end:%a %Y-%m-%d %H:%M} UTC"
    opened = sorted({it.until for it in timeline.pauses if it.reason == "OutsideWindow" and it.until is not None})
    if opened:
        more = f" and {len(opened) - 2} more" if len(opened) > 2 else ""
        said += f" (windows: {', '.join(f'{it:%a %Y-%m-%d %H:%M} UTC' for it in opened[:2])}{more})"
    done, every = len(timeline.done), len(timeline.endings)
    said += f": {done} of {every} nodes arrive, {len(timeline.stuck)} stuck, {len(timeline.held_back)} held back"
    return f"{said}{', the simulation has no end' if timeline.endless else ''}."


def _span(length: timedelta) -> str:
    minutes = -(-length // _MINUTE)
    days, hours, rest = minutes // 1440, minutes % 1440 // 60, minutes % 60
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{rest} min" if rest else ""]
    return " ".join(filter(None, parts))


# For programs.


def _plain(timeline: "Timeline") -> dict[str, Any]:
    from kubenode.model.plain import tagged
    from kubenode.plan.simulate.durations import LOOK_EVERY, SECONDS
    from kubenode.plan.simulate.words import words

    return {
        "began": timeline.began.isoformat(),
        "seconds": round(timeline.length.total_seconds()),
        "events": [
            {
                "at": round(it.at.total_seconds()),
                "lasts": round(it.lasts.total_seconds()),
                "node": it.node,
                "pool": it.pool,
                "wave": it.wave,
                "action": type(it.action).__name__,
                "what": words(it.action, it.node),
                "why": it.why,
                "failed": it.failed,
            }
            for it in timeline.events
        ],
        "pauses": [
            {
                "begin": round(it.begin.total_seconds()),
                "end": round(it.end.total_seconds()),
                "pool": it.pool,
                "wave": it.wave,
                "reason": it.reason,
                "message": it.message,
                "until": it.until.isoformat() if it.until is not None else None,
                "nodes": list(it.nodes),
            }
            for it in timeline.pauses
        ],
        "nodes": [
            {
                "node": it.node,
                "pool": it.pool,
                "wave": it.wave,
                "release": it.release.text,
                "decision": tagged(it.decision),
            }
            for it in timeline.endings
        ],
        "unseen": list(timeline.unseen),
        "notes": list(timeline.notes),
        "endless": timeline.endless,
        "assumed": {
            "lookEvery": round(LOOK_EVERY.total_seconds()),
            "seconds": {kind.__name__: seconds for kind, seconds in SECONDS.items()},
        },
    }


def _gantt(timeline: "Timeline") -> "Iterable[str]":
    """Yield the lines of a Gantt chart. Colons and semicolons end a name for mermaid, # begins an entity."""
    from kubenode.plan.simulate.rows import rows

    yield "gantt"
    yield f"    title Expected from {timeline.began:%Y-%m-%d %H.%M} UTC"
    yield "    dateFormat YYYY-MM-DDTHH:mm:ss"
    yield "    axisFormat %d. %H:%M"
    sizes, shown = _sizes(timeline), None
    for row in rows(timeline):
        if (row.pool, row.wave) != shown:
            shown = (row.pool, row.wave)
            yield f"    section {_title(row, sizes)}"
        begin, end = (timeline.began + offset for offset in (row.begin, row.end))
        tag = "done, " if row.waits else ""
        name = f"{row.what} ({_nodes(row.nodes, 40)})".replace(":", ".").replace(";", ",").replace("#", "")
        yield f"    {name} :{tag}{begin:%Y-%m-%dT%H:%M:%S}, {end:%Y-%m-%dT%H:%M:%S}"
