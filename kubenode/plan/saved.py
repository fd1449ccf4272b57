"""A plan that was saved for `apply`: bound to a commit and to what was seen, and refused when either has moved on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kubenode.errors import UsageError
from kubenode.model.kubernetes import ClusterNode, ClusterView
from kubenode.model.plain import Plain, bare, plain
from kubenode.plan.groups import names
from kubenode.plan.observations import Report

API_VERSION = "cli.kubenode.dev/v1alpha1"
KIND = "SavedPlan"


@dataclass(frozen=True)
class Facts:
    """Digests (16 hex digits) of what a plan was made from: each seen node, and the cluster around them."""

    nodes: Mapping[str, str]
    cluster: str


@dataclass(frozen=True)
class SavedPlan:
    """What binds a saved plan; `plan` is the document that `kubenode plan --output json` prints."""

    fleet_id: str
    commit: str
    made: datetime
    facts: Facts
    plan: Mapping[str, Any]


def facts(reports: Iterable[Report], view: ClusterView | None) -> Facts:
    """Return the digests. `view`: the one look that all reports share, None when each was recorded with its own.

    What says nothing about what will be done is left out: times of reports, sentences for people.
    """
    known = tuple(reports)
    views = [view] if view is not None else [it.observed.cluster for it in known if it.observed.cluster is not None]
    # One look that many reports share counts once.
    looks = {id(it.nodes): it for it in views}
    return Facts({it.node: _digest(_node(it)) for it in known}, _digest([_cluster(it) for it in looks.values()]))


def stale(saved: SavedPlan, fleet_id: str, commit: str, now: Facts) -> tuple[str, ...]:
    """Return why a saved plan must not be applied any more, one sentence each; empty when it is as good as new."""
    found = []
    if saved.fleet_id != fleet_id:
        found.append(f"It is a plan of the fleet {saved.fleet_id}, and this is {fleet_id}.")
    if saved.commit != commit:
        found.append(f"It was made for commit {saved.commit[:12]}, and the fleet is at {commit[:12]}.")
    then = saved.facts
    moved = sorted(name for name in then.nodes if name in now.nodes and then.nodes[name] != now.nodes[name])
    gone, come = sorted(set(then.nodes) - set(now.nodes)), sorted(set(now.nodes) - set(then.nodes))
    if moved:
        are, were = ("is", "it was") if len(moved) == 1 else ("are", "they were")
        found.append(f"{names(moved)} {are} not as {were} when it was made.")
    if gone:
        found.append(f"{names(gone)} cannot be seen any more.")
    if come:
        found.append(f"{names(come)} could not be seen when it was made.")
    if then.cluster != now.cluster:
        found.append("The cluster is not as it was: its Nodes, API servers, leases or configuration have changed.")
    return tuple(found)


def encode(saved: SavedPlan) -> bytes:
    """Return a saved plan as JSON."""
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "fleetId": saved.fleet_id,
        "commit": saved.commit,
        "made": plain(saved.made),
        "facts": {"cluster": saved.facts.cluster, "nodes": dict(sorted(saved.facts.nodes.items()))},
        "plan": dict(saved.plan),
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def decode(data: bytes, where: str) -> SavedPlan:
    """Read a saved plan. Raises UsageError, naming `where`."""
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("kind") != KIND:
            raise ValueError(f"it is no {KIND}")
        if document.get("apiVersion") != API_VERSION:
            raise ValueError(f"its apiVersion is {str(document.get('apiVersion'))[:60]!r}, this is {API_VERSION}")
        made = datetime.fromisoformat(document["made"])
        seen, inside = document["facts"], document["plan"]
        texts = (document["fleetId"], document["commit"], seen["cluster"], *seen["nodes"].values())
        if made.tzinfo is None or not all(isinstance(it, str) for it in texts) or not isinstance(inside, dict):
            raise ValueError("one of its fields is of another kind")
        return SavedPlan(
            document["fleetId"], document["commit"], made, Facts(dict(seen["nodes"]), seen["cluster"]), inside
        )
    except KeyError as error:
        raise _wrong(where, f"the field {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _wrong(where, str(error)) from error


def _wrong(where: str, what: str) -> UsageError:
    return UsageError(f"{where} is not a saved plan: {what}", hint="`kubenode plan --save FILE` writes one.")


def _node(report: Report) -> Plain:
    own = replace(report.observed, cluster=None, answers=())
    return [bare(own), bare(report.journal), report.stale, bare(report.etcd)]


def _cluster(view: ClusterView) -> Plain:
    return [
        plain(view.version),
        plain(view.apiservers),
        view.configuration,
        [[it.name, it.holder] for it in view.leases],
        [_object(it) for it in view.nodes],
    ]


def _object(node: ClusterNode) -> Plain:
    told = node.report
    report = [] if told is None else [told.root_hash, told.configuration, plain(told.poisoned), plain(told.since)]
    return [
        node.name,
        node.ready,
        str(node.kubelet),
        node.boot_id,
        node.role,
        node.cordoned,
        node.cordoned_by_us,
        report,
    ]


def _digest(value: Plain) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
