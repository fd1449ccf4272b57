"""A plan as people and programs read it: change first, then drift, then what was not seen."""

import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import typer

from kubenode.cli.output import WIDTH_OF_FILES, styled
from kubenode.model.decision import Act, Converged, Decision, Stuck, Wait
from kubenode.model.plain import plain, tagged
from kubenode.model.texts import printable
from kubenode.plan.drift import Drift
from kubenode.plan.groups import Group, alike, groups, kind_of, names
from kubenode.plan.whole import FleetPlan, NodePlan

_LABEL = 12


def document(plan: FleetPlan) -> dict[str, Any]:
    """Return the plan as plain values: `commit` and `nodes` with their decisions, and all that is around them."""
    return {
        "commit": plan.commit,
        "at": plain(plan.at),
        "halted": plan.halted,
        "nodes": [_node(it) for it in plan.nodes],
        "drift": [plain(it) for it in plan.drift],
        "leaving": list(plan.leaving),
        "unseen": dict(plan.unseen),
        "notes": list(plan.notes),
        "summary": {
            "work": len(plan.work),
            "done": sum(it.settled for it in plan.nodes),
            "stuck": len(plan.stuck),
            "drift": len(plan.drifts),
            "unseen": len(plan.unseen),
        },
    }


def closing(plan: FleetPlan) -> str:
    """Return the last sentences: how many nodes have work, and how many nobody knows of."""
    done, work = sum(it.settled for it in plan.nodes), len(plan.work)
    said = (
        f"At commit {plan.commit[:12]}, of {count(len(plan.nodes), 'node')} {work:,} {'has' if work == 1 else 'have'} "
        f"work, {done:,} {'is' if done == 1 else 'are'} done, {len(plan.stuck):,} stuck."
    )
    if plan.drifts:
        said += f" Drift: {len(plan.drifts):,}."
    if plan.unseen:
        said += f" Not seen, so nobody knows: {names(plan.unseen)}."
    return said


def show(plan: FleetPlan, *, everything: bool) -> None:
    """Print the plan for people, on stdout."""
    some = 0 if everything else 3
    blocks = [
        _changes(plan, some),
        _settled(plan, some),
        _drift(plan, some),
        _unseen(plan, some),
    ]
    lines = [line for block in blocks if (found := list(block)) for line in ("", styled(found[0]), *found[1:])]
    typer.echo("\n".join(lines[1:]))
    for note in plan.notes:
        typer.echo(f"\n{wrapped(note, '')}")


def _node(it: NodePlan) -> dict[str, Any]:
    return {
        "node": it.node,
        "decision": tagged(it.decision),
        "pool": it.pool,
        "role": it.role.value,
        "releases": list(it.releases),
        "kubernetes": list(it.kubernetes),
        "wave": None if it.wave is None else plain(it.wave),
        "window": it.window,
        "steps": [plain(step) for step in it.steps],
        "drift": [plain(found) for found in it.drift],
        "told": plain(it.told),
    }


def _changes(plan: FleetPlan, some: int) -> Iterator[str]:
    changing = [it for it in plan.nodes if not it.settled]
    if not changing and not plan.leaving:
        return
    yield f"Change: what git wants and is not so yet ({count(len(changing), 'node')})"
    if plan.halted:
        yield "  The fleet is halted: nothing that disturbs begins."
    for group in groups(changing):
        yield from _group(plan, group, some)
    for name in plan.leaving:
        yield f"  {name} is not in git any more: a control plane drains it and removes it from the cluster."


def _group(plan: FleetPlan, group: Group, some: int) -> Iterator[str]:
    first = group.first
    yield wrapped(f"{first.pool}, {count(len(group.nodes), 'node')}: {names(group.nodes, some)}", "  ")
    if len(first.releases) > 1:
        yield _field("release", " -> ".join(first.releases))
    if len(first.kubernetes) > 1:
        yield _field("Kubernetes", " -> ".join(first.kubernetes))
    decisions = group.decisions
    for some_of in decisions:
        label, text = _next(some_of.first.decision)
        yield _field(label, text if len(decisions) == 1 else f"{names(some_of.nodes, some)}: {text}")
    if first.window:
        yield _field("window", first.window)
    if group.waves and first.wave is not None:
        waves = (f"{number} of {first.wave.of}: {names(members, some)}" for number, members in group.waves.items())
        yield _field("waves", "; ".join(waves))
    yield from _steps(first)
    told = min((it.told for it in group.members if it.told is not None), default=None)
    if told is not None and (plan.at - told).total_seconds() >= 3600:
        yield _field("seen", f"as told {int((plan.at - told).total_seconds() // 3600)} h ago")


def _steps(node: NodePlan) -> Iterator[str]:
    """One line for each phase of each hop, and what cannot be taken back after it."""
    for (release, phase), steps in groupby(node.steps, lambda it: (it.release, it.phase)):
        every = list(steps)
        if len(node.releases) > 2 and release and phase == "any time":
            yield _field("hop", f"to release {release}")
        yield _field(phase, *(f"wait until {it.text}" if it.kind == "wait" else it.text for it in every))
        for barrier in (it.barrier for it in every if it.barrier):
            yield _field("barrier", f"after this {barrier}")


def _next(decision: Decision) -> tuple[str, str]:
    match decision:
        case Act(_, why):
            return "next", f"{kind_of(decision)}: {why}"
        case Wait(reason, message, until):
            return "held back", f"{reason}: {message}" + (f" Until {until:%Y-%m-%d %H:%M} UTC." if until else "")
        case Stuck(reason, message, hint):
            return "stuck", f"{reason}: {message} {hint}"
        case Converged(message):
            return "next", message


def _settled(plan: FleetPlan, some: int) -> Iterator[str]:
    done: dict[str, list[str]] = {}
    for it in plan.nodes:
        if it.settled:
            done.setdefault(it.pool, []).append(it.node)
    if done:
        yield f"Nothing to do ({count(sum(map(len, done.values())), 'node')})"
    for pool, members in done.items():
        yield wrapped(f"{pool}, {count(len(members), 'node')}: {names(members, some)}", "  ")


def _drift(plan: FleetPlan, some: int) -> Iterator[str]:
    found = plan.drifts
    if not found:
        return
    yield f"Drift: what moved without git ({len(found):,})"
    for same in alike(found):
        first = same[0]
        yield wrapped(names((it.object for it in same), some), "  ")
        yield _field(first.code, f"{first.field} is {_values(it.found for it in same)}; git: {_values_of(same)}.")
        yield _field("", f"{first.outcome}.")


def _values_of(same: tuple[Drift, ...]) -> str:
    return _values(it.wanted for it in same)


def _values(found: Iterable[str]) -> str:
    return names(dict.fromkeys(found))


def _unseen(plan: FleetPlan, some: int) -> Iterator[str]:
    why: dict[str, list[str]] = {}
    for name, reason in plan.unseen.items():
        why.setdefault(reason, []).append(name)
    if why:
        yield f"Not seen: nothing is known of these ({count(len(plan.unseen), 'node')})"
    for reason, members in why.items():
        yield wrapped(f"{names(members, some)}: {reason}", "  ")


def _field(label: str, *parts: str) -> str:
    """Return a label and its text; several parts are steps in order, and a line ends between two if it can."""
    indent = " " * (_LABEL + 4)
    lines: list[str] = []
    for part in (printable(parts[0]), *(f"> {printable(it)}" for it in parts[1:])):
        if lines and len(lines[-1]) + 1 + len(part) <= WIDTH_OF_FILES:
            lines[-1] += f" {part}"
        else:
            lines += _lines(part, indent, "  " if part.startswith("> ") else "")
    head = f"    {label:<{_LABEL}}"
    # A label that is longer than its column gets a line of its own.
    text = "\n".join(lines)
    if len(head) > len(indent):
        return f"    {label}\n{text}"
    return (styled(head, typer.colors.RED) if label == "stuck" else head) + text[len(indent) :]


def _lines(text: str, indent: str, further: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH_OF_FILES, initial_indent=indent, subsequent_indent=indent + further, break_on_hyphens=False
    )


def wrapped(text: str, indent: str) -> str:
    """Return text in lines that fit, the later ones further in."""
    return "\n".join(_lines(printable(text), indent, "  "))


def count(number: int, noun: str) -> str:
    """Return "1 node", "2,000 nodes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
