"""How a status looks: who needs a person first, then who is at work, who waits for what, and every node in a table."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kubenode.cli.output import count
from kubenode.cli.statuslook import Fleet, Sight
from kubenode.errors import ExitCode
from kubenode.plan.status import Row, Standing, folded, shown

if TYPE_CHECKING:
    from rich.table import Table

FOLD_ABOVE = 40
"""Nodes; of more, pools are shown in one line each."""
MOST_SHOWN = 15
"""Reasons of one kind that are told."""
_COLOURS = {
    Standing.STUCK: "red",
    Standing.SILENT: "yellow",
    Standing.BUSY: "cyan",
    Standing.WAITING: "",
    Standing.UNSEEN: "dim",
    Standing.DONE: "green",
}
_WORDS = {
    Standing.STUCK: "stuck",
    Standing.SILENT: "silent",
    Standing.BUSY: "at work",
    Standing.WAITING: "waiting",
    Standing.UNSEEN: "not visible from here",
    Standing.DONE: "done",
}
Cells = dict[str, tuple[str, str]]
"""A line of a table: column to text and style."""
_LEAST_NEEDED = ("WAVE", "SEEN", "SLOT", "KUBERNETES", "POOL")
"""Columns that are left out first where there is no room."""


def exit_code(rows: Iterable[Row]) -> ExitCode:
    """Return what a status says to scripts: 4 when a node is stuck, 75 when one is silent, else 0."""
    standings = {row.standing for row in rows}
    if Standing.STUCK in standings:
        return ExitCode.STUCK
    return ExitCode.TRY_LATER if Standing.SILENT in standings else ExitCode.OK


def sentence(fleet: Fleet, sight: Sight) -> str:
    """Return the closing sentence: how many nodes stand where, at which commit."""
    return f"At commit {fleet.commit[:12]}, of {count(len(sight.rows), 'node')} {counts(sight.rows)}."


def counts(rows: Sequence[Row]) -> str:
    """Return "3 done, 1 at work, 2 stuck": how many nodes stand where."""
    order = sorted(Standing, reverse=True)
    found = {it: sum(row.standing is it for row in rows) for it in order}
    return ", ".join(f"{number} {_WORDS[it]}" for it, number in found.items() if number) or "none is declared"


def head_lines(fleet: Fleet, sight: Sight) -> Iterator[str]:
    """Yield what is to be known before any node."""
    if fleet.halted:
        yield "The fleet is halted: nodes fetch and write releases, and start nothing that disturbs (kubenode resume)."
    if sight.strangers:
        yield f"Nodes that git does not know: {listed(sight.strangers)}."


def problem_lines(rows: Sequence[Row], width: int) -> Iterator[tuple[str, str]]:
    """Yield (line, style): who needs a person and why, then who is at work, then what the others wait for.

    Nodes of which the same is to be said share a line: a thousand times the same reason is one reason.
    """
    groups: dict[tuple[Standing, str, str], list[str]] = {}
    for row in rows:
        for note in row.notes:
            groups.setdefault((Standing.SILENT, note, ""), []).append(row.node)
        if row.standing is Standing.BUSY:
            held = f" ({', '.join(row.seen.leases)})" if row.seen.leases else ""
            groups.setdefault((row.standing, f"{held}: {row.why or row.phase}", ""), []).append(row.node)
        elif row.standing is not Standing.DONE:
            hint = row.word.hint if row.standing is Standing.STUCK else ""
            groups.setdefault((row.standing, row.why or row.phase, hint), []).append(row.node)
    told: Counter[Standing] = Counter()
    for (standing, why, hint), nodes in sorted(groups.items(), key=lambda it: it[0][0]):
        told[standing] += 1
        if told[standing] > MOST_SHOWN:
            continue
        noted = any(why in row.notes for row in rows if row.node == nodes[0])
        yield from _wrapped(_told(standing, why, nodes, noted=noted), width, _COLOURS[standing])
        if hint:
            yield from _wrapped(f"Next: {hint}", width, "", indent="  ")
    for standing, number in told.items():
        if number > MOST_SHOWN:
            yield f"and {number - MOST_SHOWN} more reasons of nodes that are {_WORDS[standing]} (--output json)", ""


def _told(standing: Standing, why: str, nodes: Sequence[str], *, noted: bool) -> str:
    if noted or standing in (Standing.WAITING, Standing.UNSEEN):
        return f"{listed(nodes)}: {why}"
    verb = "is" if len(nodes) == 1 else "are"
    if standing is Standing.BUSY:
        return f"{listed(nodes)} {verb} at work{why}"
    return f"{listed(nodes)} {verb} {_WORDS[standing]}: {why}"


def table(rows: Sequence[Row], width: int, most: int = FOLD_ABOVE) -> "Table":
    """Return the nodes as a table that fits into `width` columns, or their pools when there are more than `most`."""
    if len(rows) <= most:
        return _fitting([_cells(row) for row in rows], width)
    return _fitting([_pool_cells(it) for it in folded(rows)], width)


def _cells(row: Row) -> Cells:
    word, target = row.word, row.wanted.target
    running = str(word.release) if word.release is not None else "?"
    arrived = word.root_hash == target.root_hash
    kubelet = str(row.kubelet) if row.kubelet is not None else "-"
    own, of = row.wanted.wave
    return {
        "NODE": (row.node, ""),
        "POOL": (row.wanted.pool, ""),
        "SLOT": (word.slot.value if word.slot is not None else "-", ""),
        "RELEASE": (running if arrived else f"{running} -> {target.version}", "" if arrived else "bold"),
        "KUBERNETES": (kubelet, ""),
        "STATE": (row.phase, _COLOURS[row.standing]),
        "WAVE": (f"{own}/{of}" if of > 1 else "-", ""),
        "SEEN": (f"{shown(row.age)} ago" if row.age is not None else "-", ""),
    }


def _pool_cells(fold: Any) -> Cells:
    running = ", ".join(f"{number} x {release}" for release, number in fold.releases.items())
    cells = {"POOL": (fold.pool, ""), "NODES": (str(fold.nodes), "")}
    for standing in sorted(Standing, reverse=True):
        number = fold.standings[standing]
        name = "UNSEEN" if standing is Standing.UNSEEN else _WORDS[standing].upper()
        cells[name] = (str(number) if number else "-", _COLOURS[standing] if number else "")
    return cells | {
        "TARGET": (str(fold.target.version), ""),
        "RUNNING": (running, ""),
        "KUBERNETES": (", ".join(fold.kubelets) or "-", ""),
    }


def _fitting(lines: Sequence[Cells], width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    columns = list(lines[0]) if lines else []
    sizes = {name: max(len(name), *(len(line[name][0]) for line in lines)) for name in columns}
    # A column that says nothing anywhere takes no room.
    columns = [name for name in columns if any(line[name][0] != "-" for line in lines)]
    for name in _LEAST_NEEDED:
        if name in columns[1:] and sum(sizes[it] + 2 for it in columns) - 2 > width:
            columns.remove(name)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(name, no_wrap=True, overflow="ellipsis")
    for line in lines:
        made.add_row(*(Text(line[name][0], style=line[name][1]) for name in columns))
    return made


def as_json(fleet: Fleet, sight: Sight) -> dict[str, Any]:
    """Return the status as plain values: every node, however many."""
    return {
        "commit": fleet.commit,
        "halted": fleet.halted,
        "at": sight.at.isoformat(),
        "nodes": [_node_json(fleet, row) for row in sight.rows],
        "strangers": list(sight.strangers),
        "unseen": list(sight.unseen),
    }


def _node_json(fleet: Fleet, row: Row) -> dict[str, Any]:
    word, member, target = row.word, row.seen.member, row.wanted.target
    return {
        "node": row.node,
        "pool": row.wanted.pool,
        "role": row.wanted.role.value,
        "standing": row.standing.name.lower(),
        "phase": word.phase,
        "why": row.why,
        "hint": word.hint,
        "notes": list(row.notes),
        "slot": word.slot.value if word.slot is not None else None,
        "release": str(word.release) if word.release is not None else None,
        "target": str(target.version),
        "kubernetes": str(row.kubelet) if row.kubelet is not None else None,
        "targetKubernetes": target.kubernetes,
        "commit": word.commit or None,
        "behind": fleet.commits.behind.get(word.commit),
        "wave": row.wanted.wave[0],
        "waves": row.wanted.wave[1],
        "leases": list(row.seen.leases),
        "ready": member.ready if member is not None else None,
        "cordoned": member.cordoned if member is not None else None,
        "at": word.at.isoformat() if word.at is not None else None,
    }


def _wrapped(text: str, width: int, style: str, indent: str = "") -> Iterator[tuple[str, str]]:
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False)
    yield from ((line, style) for line in lines)


def listed(names: Sequence[str], limit: int = 6) -> str:
    """Return names for a sentence; of many the first few."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
