"""Facts for the planner in short form: builders for tests, and JSON for the goldens."""

import dataclasses
from datetime import UTC, datetime, time, timedelta
from enum import Enum
from typing import Any

from kubenode.model.decision import Decision
from kubenode.model.desired import DesiredState
from kubenode.model.documents import Release, Role, Window
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.kubernetes import KubernetesVersion, LocalKubernetes
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.version import Version

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # A Monday.


def root(version: str) -> str:
    return f"root-{version}"


def manifest(version: str) -> str:
    return f"manifest-{version}"


def release(version: str, floor: str | None = None) -> Release:
    return Release(Version(version), manifest(version), root(version), floor=Version(floor) if floor else None)


def entry(version: str, left: int | None = None, done: int = 0) -> BootEntry:
    return BootEntry(Version(version), root(version), left, done)


def desired(*releases: str | Release, halted: bool = False, windows: tuple[Window, ...] = ()) -> DesiredState:
    return DesiredState(
        fleet_id="fleet",
        commit="c0ffee" * 6 + "abcd",
        node="n1",
        pool="workers",
        role=Role.STANDALONE,
        channel="stable",
        releases=tuple(release(it) if isinstance(it, str) else it for it in releases),
        stores=("https://images.example.net",),
        windows=windows,
        halted=halted,
    )


def member(role: Role | None) -> LocalKubernetes | None:
    """What a machine shows that has joined a cluster, and nothing else."""
    return LocalKubernetes(KubernetesVersion("v1.34.2"), role) if role else None


def observed(
    booted: str,
    *others: BootEntry,
    slot: Slot = Slot.A,
    own: BootEntry | None = None,
    trial: bool = False,
    spare: str | None = None,
    staged: str | None = None,
    fetched: tuple[str, ...] = (),
    partial: tuple[str, ...] = (),
    kubernetes: Role | None = None,
) -> Observed:
    """One look at a machine that runs `booted` with a good entry, unless `own` is another."""
    return Observed(
        boot_id="boot",
        booted=BootedSlot(slot, Version(booted), root(booted), trial),
        entries=(own or entry(booted), *others),
        spare=root(spare) if spare else None,
        staged=StagedImage(Version(staged), root(staged)) if staged else None,
        fetched=frozenset(map(manifest, fetched)),
        partial=frozenset(map(manifest, partial)),
        kubernetes=member(kubernetes),
    )


def poisoned(version: str) -> Poisoned:
    return Poisoned(Version(version), root(version), manifest(version), "its trial failed")


def failed(step: str, version: str, times: int, ago: timedelta = timedelta(0), error: str = "it broke") -> Journal:
    return Journal(attempts={f"{step}:{manifest(version)}": Attempt(times, NOW - ago, error)})


def window(days: tuple[int, ...], start: str, hours: float, zone: str = "UTC") -> Window:
    return Window(frozenset(days), time.fromisoformat(start), timedelta(hours=hours), zone)


def facts_from_json(document: dict[str, Any]) -> tuple[DesiredState, Observed, Journal, datetime]:
    """Read the facts of a golden; what is left out is nothing."""
    want, see, remember = document["desired"], document["observed"], document.get("journal", {})
    return (
        desired(
            *(release(it["version"], it.get("floor")) for it in want["releases"]),
            halted=want.get("halted", False),
            windows=tuple(
                window(tuple(it["days"]), it["start"], it["hours"], it.get("zone", "UTC"))
                for it in want.get("windows", ())
            ),
        ),
        dataclasses.replace(
            observed(
                see["booted"]["version"],
                slot=Slot(see["booted"]["slot"]),
                trial=see["booted"].get("trial", False),
                spare=see.get("spare"),
                staged=see.get("staged"),
                fetched=tuple(see.get("fetched", ())),
                partial=tuple(see.get("partial", ())),
                kubernetes=Role(see["kubernetes"]) if "kubernetes" in see else None,
            ),
            entries=tuple(entry(it["version"], it.get("left"), it.get("done", 0)) for it in see["entries"]),
        ),
        Journal(
            attempts={
                key: Attempt(it["failures"], datetime.fromisoformat(it["last"]), it["error"])
                for key, it in remember.get("attempts", {}).items()
            },
            superseded=root(remember["superseded"]) if "superseded" in remember else None,
            poisoned=tuple(map(poisoned, remember.get("poisoned", ()))),
        ),
        datetime.fromisoformat(document["now"]),
    )


def decision_to_json(decision: Decision) -> Any:
    """Write a decision for people: kinds by name, releases by version."""
    return _plain(decision)


def _plain(value: Any) -> Any:
    match value:
        case Release():
            return str(value.version)
        case Version():
            return str(value)
        case datetime():
            return value.isoformat()
        case Enum():
            return value.value
        case tuple():
            return [_plain(item) for item in value]
        case frozenset():
            return sorted(_plain(item) for item in value)
        case _ if dataclasses.is_dataclass(value):
            plain = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return {"kind": type(value).__name__, **plain}
        case _:
            return value
