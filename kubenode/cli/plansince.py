"""`kubenode plan --since`: what two commits want differently. It looks at no machine, so it serves a pull request."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from kubenode.cli.clone import committed
from kubenode.cli.output import Format, print_json, say
from kubenode.cli.plansources import selected
from kubenode.cli.planview import count, wrapped
from kubenode.errors import FleetInvalid, UsageError
from kubenode.fleet.desired import desired_states
from kubenode.fleet.layout import KUBEADM_FOLDER
from kubenode.fleet.load import load_fleet
from kubenode.model.desired import DesiredState
from kubenode.model.documents import FleetDocuments
from kubenode.model.plain import plain
from kubenode.plan.changes import NodeChange, changes
from kubenode.plan.groups import names


def show_since(fleet: Path, old: str, new: str, output: Format, only: Sequence[str], *, everything: bool) -> bool:
    """Print what changes between two commits and return whether any node is to become something else.

    Raises FleetInvalid, saying in which commit.
    """
    before, after = committed(fleet, old), committed(fleet, new)
    documents = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    (was, old_states), (now, new_states) = _read(old, before), _read(new, after)
    found = changes(old_states, new_states)
    if only:
        chosen = _chosen(was, now, only)
        found = tuple(it for it in found if it.node in chosen)
    kubeadm = [path for path in documents if path.startswith(KUBEADM_FOLDER)]
    if output is Format.JSON:
        nodes = [plain(it) for it in found]
        result = {"since": old, "commit": new, "nodes": nodes, "documents": documents, "configuration": kubeadm}
        print_json("PlanChanges", result)
    else:
        _show(found, documents, kubeadm, some=0 if everything else 3)
    whole = len(new_states)
    said = f"From commit {old[:12]} to {new[:12]}: {count(len(documents), 'document')} differ"
    said = said.replace("1 document differ", "1 document differs")
    if not found:
        say(f"{said}, and no node is to become anything else.")
    else:
        say(f"{said}, and {len(found):,} of {count(whole, 'node')} are to change. What they run now was not looked at.")
    return bool(found)


def _read(commit: str, files: Mapping[str, bytes]) -> tuple[FleetDocuments, dict[str, DesiredState]]:
    try:
        documents = load_fleet(files)
        return documents, desired_states(documents, commit, documents.nodes)
    except FleetInvalid as error:
        message = f"commit {commit[:12]}: {error.message}"
        raise FleetInvalid(message, hint=error.hint, location=error.location) from error


def _chosen(old: FleetDocuments, new: FleetDocuments, only: Sequence[str]) -> frozenset[str]:
    """Return the nodes that `--only` means in either commit."""
    found: frozenset[str] = frozenset()
    for word in only:
        for documents, last in ((old, False), (new, True)):
            try:
                found |= selected(documents, [word])
            except UsageError:
                # A node or pool that only the newer or the older commit has.
                if last and word not in {*old.nodes, *old.pools}:
                    raise
    return found


def _show(found: Sequence[NodeChange], documents: Sequence[str], kubeadm: Sequence[str], some: int) -> None:
    groups: dict[object, list[NodeChange]] = {}
    for it in found:
        groups.setdefault((it.kind, it.pool, it.fields), []).append(it)
    for members in groups.values():
        first = members[0]
        typer.echo(wrapped(f"{first.pool}, {first.kind}: {names((it.node for it in members), some)}", ""))
        for field in first.fields:
            value = f"{field.old} -> {field.new}" if first.kind == "changed" else field.new or field.old
            more = f" ({', '.join(kubeadm)})" if field.field == "configuration" and kubeadm else ""
            typer.echo(wrapped(f"{field.field:<14} {value or 'none'}{more}", "    "))
        typer.echo("")
    if documents:
        typer.echo(wrapped(f"Documents: {names(documents, 0 if not some else 8)}", ""))
