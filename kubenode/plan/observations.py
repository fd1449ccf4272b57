"""Reads node reports (status.json) back, so that a laptop decides about recorded observations as the node would."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from kubenode.errors import UsageError
from kubenode.model.documents import Role
from kubenode.model.journal import Journal, Poisoned
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.version import Version

T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """What a node said of itself: the facts a plan for it is made from."""

    node: str
    observed: Observed
    journal: Journal
    stale: str = ""
    """Why the node starts nothing new, see `kubenode.plan.decide.decide`; empty when it said nothing of the kind."""


def reports(document: object) -> tuple[Report, ...]:
    """Read one report, or a list of reports. Raises UsageError saying which field of which report is wrong."""
    items = document if isinstance(document, list) else [document]
    return tuple(_report(item, number) for number, item in enumerate(items, 1))


def _report(item: object, number: int) -> Report:
    try:
        if not isinstance(item, dict):
            raise ValueError("it is no JSON object")
        if item.get("observed") is None:
            raise ValueError(f"the machine could not be observed: {item.get('message', 'no reason given')}")
        return Report(
            node=_text(item["node"]),
            observed=_observed(item["observed"]),
            journal=Journal(
                superseded=item.get("superseded"),
                poisoned=tuple(map(_poisoned, item.get("poisoned") or ())),
            ),
            stale=next((_text(it["message"]) for it in item.get("conditions") or () if _is_stale(it)), ""),
        )
    except KeyError as error:
        missing = f"the field {error} is missing"
        raise _wrong(number, missing) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _wrong(number, str(error)) from error


def _wrong(number: int, what: str) -> UsageError:
    return UsageError(
        f"observation {number} cannot be used: {what}",
        hint="Give what a node wrote to /var/lib/kubenode/status.json, or a list of such documents.",
    )


def _observed(it: dict[str, Any]) -> Observed:
    booted = it["booted"]
    return Observed(
        boot_id=_text(it["boot_id"]),
        booted=BootedSlot(
            Slot(booted["slot"]), Version(booted["version"]), _text(booted["root_hash"]), bool(booted["trial"])
        ),
        entries=tuple(
            BootEntry(Version(entry["version"]), _text(entry["root_hash"]), entry["tries_left"], entry["tries_done"])
            for entry in it["entries"]
        ),
        spare=it.get("spare"),
        staged=_optional(it.get("staged"), lambda kept: StagedImage(Version(kept["version"]), kept["root_hash"])),
        fetched=frozenset(map(_text, it.get("fetched") or ())),
        partial=frozenset(map(_text, it.get("partial") or ())),
        kubernetes=_optional(it.get("kubernetes"), Role),
    )


def _is_stale(condition: dict[str, Any]) -> bool:
    return condition.get("type") == "Fresh" and condition.get("status") == "False"


def _poisoned(it: dict[str, Any]) -> Poisoned:
    return Poisoned(Version(it["version"]), _text(it["root_hash"]), it.get("manifest"), it.get("reason", ""))


def _optional(value: Any, read: Callable[[Any], T]) -> T | None:
    return None if value is None else read(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
