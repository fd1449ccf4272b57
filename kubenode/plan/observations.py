"""Reads node reports (status.json) back, so that a laptop decides about recorded observations as the node would."""

from dataclasses import dataclass

from kubenode.errors import UsageError
from kubenode.model.journal import Journal, Poisoned
from kubenode.model.observed import Observed
from kubenode.model.restore import restore


@dataclass(frozen=True)
class Report:
    """What a node said of itself: the facts a plan for it is made from."""

    node: str
    observed: Observed
    journal: Journal


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
            observed=restore(Observed, item["observed"]),
            journal=Journal(
                superseded=item.get("superseded"),
                poisoned=tuple(restore(Poisoned, bad) for bad in item.get("poisoned") or ()),
            ),
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


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
