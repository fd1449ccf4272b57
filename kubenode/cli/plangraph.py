"""A plan as a graph in Mermaid: groups of equal nodes, their steps in order, and what has to be so in between."""

from collections.abc import Iterator

from kubenode.model.decision import Stuck, Wait
from kubenode.plan.ahead import Step
from kubenode.plan.groups import Group, groups, kind_of, names
from kubenode.plan.whole import FleetPlan


def mermaid(plan: FleetPlan) -> str:
    """Return a flowchart: a box for each group, its steps as a chain, later groups after the ones they wait for."""
    lines = ["flowchart TD"]
    before = ""
    for number, group in enumerate(groups(it for it in plan.nodes if not it.settled)):
        lines += [f"  {line}" for line in _group(number, group)]
        if group.first.wave is not None:
            # Members of the cluster stand in the order of changes, pool by pool; other machines wait for nobody.
            lines += [f"  {before} -.-> g{number}s0"] if before else []
            before = f"g{number}s{max(len(group.first.steps) - 1, 0)}"
    settled = [it.node for it in plan.nodes if it.settled]
    if settled:
        lines.append(f'  done["nothing to do: {_text(names(settled))}"]')
    if plan.unseen:
        lines.append(f'  unseen["not seen: {_text(names(plan.unseen))}"]')
        lines.append("  style unseen stroke-dasharray: 5 5")
    return "\n".join(lines)


def _group(number: int, group: Group) -> Iterator[str]:
    first = group.first
    waves = (
        f", {'wave' if len(group.waves) == 1 else 'waves'} {', '.join(map(str, group.waves))}" if group.waves else ""
    )
    yield f'subgraph g{number}["{_text(f"{first.pool}{waves}: {names(group.nodes)}")}"]'
    yield "  direction TB"
    for index, step in enumerate(first.steps):
        yield f"  g{number}s{index}{_box(step, several=len(first.releases) > 2)}"
        if index:
            yield f"  g{number}s{index - 1} --> g{number}s{index}"
    if not first.steps:
        yield f'  g{number}s0["{_text(kind_of(first.decision))}"]'
    for index, some in enumerate(group.decisions):
        if isinstance(some.first.decision, Wait | Stuck):
            held = _text(f"{names(some.nodes)}: {kind_of(some.first.decision)}")
            yield f'  g{number}h{index}>"{held}"] -.- g{number}s0'
    yield "end"


def _box(step: Step, *, several: bool) -> str:
    release = f"{step.release}: " if several and step.release else ""
    if step.kind == "wait":
        return f'{{{{"{_text(step.text)}"}}}}'
    barrier = f"<br/>⚠ {_text(step.barrier)}" if step.barrier else ""
    return f'["{_text(release + step.text)}{barrier}"]'


def _text(text: str) -> str:
    """Return text as Mermaid takes it between quotes."""
    shown = "".join(it if it.isprintable() else " " for it in text)
    return shown.replace("&", "&amp;").replace('"', "#quot;").replace("<", "&lt;").replace(">", "&gt;")
