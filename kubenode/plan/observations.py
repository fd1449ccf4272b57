"""What a node says of itself, so that a laptop decides as the node would: written small, and read back.

Two documents have the same form: the node's status.json, and its *account*, the annotation of its Node. The account
leaves out what the laptop sees itself (the cluster) and everything at its default. Nothing here is ever read by nodes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubenode.errors import UsageError
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.kubernetes import EtcdView
from kubenode.model.observed import Observed
from kubenode.model.plain import Plain, bare
from kubenode.model.restore import restore
from kubenode.model.state import NodeStatus
from kubenode.model.texts import harmless, redacted

MAX_ACCOUNT = 8 << 10
"""Bytes. Every Node is read by every agent at every tick, with its annotations."""
_SENTENCE, _ERROR = 500, 120
HINT = "Give what a node wrote to /var/lib/kubenode/status.json, or a list of such documents."
"""What to do about a record that is none."""


@dataclass(frozen=True)
class Report:
    """What a node said of itself: the facts a plan for it is made from.

    `message`: its own last sentence. `etcd`: what a control plane saw of etcd, in an account; a status.json has that in
    `observed.cluster`.
    """

    node: str
    observed: Observed
    journal: Journal
    stale: str = ""
    """Why the node starts nothing new, see `kubenode.plan.decide.decide`; empty when it said nothing of the kind."""
    message: str = ""
    etcd: EtcdView | None = field(default=None, repr=False)


def account(status: NodeStatus) -> str:
    """Return a node's account: JSON of at most MAX_ACCOUNT bytes (ASCII), the same for the same facts.

    One that would be larger says so and nothing else: half of a journal would make others decide differently. Secrets
    that programs print are taken out: whoever may read Nodes reads this.
    """
    document: dict[str, Plain] = {"node": status.node, "message": redacted(status.message)[:_SENTENCE]}
    if status.observed is not None:
        document["observed"] = bare(replace(status.observed, cluster=None, answers=(), invited=None))
        if status.observed.cluster is not None and status.observed.cluster.etcd is not None:
            document["etcd"] = bare(status.observed.cluster.etcd)
    attempts = {key: replace(it, error=redacted(it.error)[:_ERROR]) for key, it in status.attempts.items()}
    document |= {
        "attempts": bare(attempts),
        "superseded": status.superseded,
        "poisoned": bare(tuple(replace(it, reason="") for it in status.poisoned)),
        "conditions": [
            bare(replace(it, message=redacted(it.message)[:_SENTENCE]))
            for it in status.conditions
            if (it.type, it.status) == ("Fresh", "False")
        ],
    }
    written = _json({key: value for key, value in document.items() if value not in (None, {}, [])})
    if len(written) > MAX_ACCOUNT:
        return _json({"node": status.node, "message": f"its account would have {len(written)} bytes"})
    return written


def digest(written: str) -> str:
    """Return the digest of an account by which its node's report names it."""
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def reports(document: object) -> tuple[Report, ...]:
    """Read one report, or a list of reports. Raises UsageError saying which field of which report is wrong."""
    items = document if isinstance(document, list) else [document]
    found = []
    for number, item in enumerate(items, 1):
        try:
            found.append(read(item))
        except ValueError as error:
            raise UsageError(f"observation {number} cannot be used: {error}", hint=HINT) from error
    return tuple(found)


def read(item: object) -> Report:
    """Read one document, a status.json or an account. Raises ValueError saying what is wrong with it.

    A node writes what it likes: every text is one printable line afterwards.
    """
    try:
        item = harmless(item)
        if not isinstance(item, dict):
            raise ValueError("it is no JSON object")
        if item.get("observed") is None:
            raise ValueError(f"the machine could not be observed: {item.get('message', 'no reason given')}")
        return Report(
            node=_text(item["node"]),
            observed=restore(Observed, item["observed"]),
            journal=Journal(
                attempts={_text(key): restore(Attempt, it) for key, it in _object(item.get("attempts")).items()},
                superseded=None if item.get("superseded") is None else _text(item["superseded"]),
                poisoned=tuple(restore(Poisoned, bad) for bad in item.get("poisoned") or ()),
            ),
            stale=next((_text(it["message"]) for it in item.get("conditions") or () if _is_stale(it)), ""),
            message=_text(item.get("message", "")),
            etcd=None if item.get("etcd") is None else restore(EtcdView, item["etcd"]),
        )
    except KeyError as error:
        raise ValueError(f"the field {error} is missing") from error
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _json(document: Mapping[str, Plain]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True, sort_keys=True)


def _is_stale(condition: dict[str, Any]) -> bool:
    return condition.get("type") == "Fresh" and condition.get("status") == "False"


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise ValueError(f"{value!r} is no object")
    return value or {}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
