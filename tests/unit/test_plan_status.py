"""Rows of a status and the end of a rollout, on facts made by hand."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import kubenode
from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import ClusterNode, KubernetesVersion
from kubenode.model.version import Version
from kubenode.plan.arrival import End, end_of, lagging
from kubenode.plan.kubernetes.rollout import wave_of
from kubenode.plan.status import (
    LOOKS_EVERY,
    OLD_AFTER,
    Commits,
    Row,
    Seen,
    Standing,
    Wanted,
    Word,
    folded,
    rows,
    shown,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
OLD = Release(Version("1.0.0"), "0" * 64, "a" * 64)
NEW = Release(Version("2.0.0"), "1" * 64, "b" * 64)
HEAD, BEFORE = "c" * 40, "d" * 40
COMMITS = Commits(HEAD, {HEAD: 0, BEFORE: 1})
WANTED = Wanted("workers", Role.WORKER, NEW, "cfg")
NODE = ClusterNode("w", True, KubernetesVersion("v1.34.2"))
DONE = Word(NEW.version, NEW.root_hash, phase="Up to date", commit=HEAD, configuration="cfg", at=NOW)
BEHIND = replace(DONE, release=OLD.version, root_hash=OLD.root_hash, commit=BEFORE)


def row(seen: Seen, wanted: Wanted = WANTED) -> Row:
    return rows({"w": wanted}, {"w": seen}, COMMITS, NOW)[0]


@pytest.mark.parametrize(
    ("change", "standing"),
    [
        ({}, Standing.DONE),
        ({"trial": True}, Standing.WAITING),
        ({"configuration": "old"}, Standing.WAITING),
        ({"commit": BEFORE}, Standing.WAITING),
        ({"commit": ""}, Standing.WAITING),
        ({"commit": "e" * 40}, Standing.WAITING),
        ({"root_hash": OLD.root_hash, "phase": "Waiting"}, Standing.WAITING),
        ({"root_hash": OLD.root_hash, "phase": "Staging"}, Standing.BUSY),
        ({"root_hash": OLD.root_hash, "phase": "Stuck"}, Standing.STUCK),
        ({"root_hash": OLD.root_hash, "phase": "Stuck", "commit": BEFORE}, Standing.WAITING),
        ({"root_hash": OLD.root_hash, "poisoned": frozenset((NEW.root_hash,))}, Standing.STUCK),
        # It failed once and runs since: a person has seen to it.
        ({"poisoned": frozenset((NEW.root_hash,))}, Standing.DONE),
        ({"refused": "a stranger signed it"}, Standing.STUCK),
        ({"at": NOW - OLD_AFTER - timedelta(seconds=1)}, Standing.SILENT),
        ({"at": NOW - OLD_AFTER}, Standing.DONE),
        ({"at": NOW + timedelta(days=1)}, Standing.DONE),
        ({"at": None}, Standing.DONE),
    ],
)
def test_a_node_that_answers(change: Mapping[str, object], standing: Standing) -> None:
    assert row(Seen(replace(DONE, **change), NODE)).standing is standing  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "standing"),
    [
        (Seen(), Standing.SILENT),
        (Seen(DONE), Standing.SILENT),
        (Seen(DONE, replace(NODE, ready=False)), Standing.SILENT),
        (Seen(DONE, replace(NODE, ready=False), leases=("slot",)), Standing.BUSY),
        (Seen(replace(DONE, phase="Restarting"), replace(NODE, ready=False)), Standing.BUSY),
        (Seen(DONE, NODE, leases=("slot",)), Standing.BUSY),
        (Seen(replace(DONE, at=NOW - timedelta(hours=3)), NODE, leases=("slot",)), Standing.BUSY),
        (Seen(DONE, replace(NODE, ready=False), leases=("slot",), since=NOW - timedelta(hours=3)), Standing.SILENT),
        (Seen(DONE, replace(NODE, ready=False), leases=("slot",), since=NOW - timedelta(minutes=9)), Standing.BUSY),
        (Seen(DONE, NODE, leases=("slot",), since=NOW - timedelta(hours=3)), Standing.BUSY),
        (Seen(DONE, NODE, silent="its account is damaged"), Standing.SILENT),
        (Seen(DONE, NODE, leases=("slot",), silent="it has restarted since"), Standing.BUSY),
        (Seen(outside=True, silent="no member"), Standing.UNSEEN),
        (Seen(DONE, outside=True), Standing.DONE),
    ],
)
def test_a_node_that_may_not_answer(seen: Seen, standing: Standing) -> None:
    found = row(seen)
    assert found.standing is standing
    assert found.why or standing in (Standing.DONE, Standing.BUSY)


def test_a_machine_without_kubernetes_needs_no_configuration() -> None:
    wanted = replace(WANTED, role=Role.STANDALONE, configuration="")
    assert row(Seen(replace(DONE, configuration=None), outside=True), wanted).standing is Standing.DONE


def test_the_worst_comes_first_and_then_what_has_a_note() -> None:
    seen = {
        "a": Seen(DONE, NODE),
        "b": Seen(DONE, replace(NODE, cordoned=True)),
        "c": Seen(replace(BEHIND, commit=HEAD, phase="Stuck"), NODE),
        "d": Seen(BEHIND, NODE),
    }
    found = rows(dict.fromkeys((*seen, "e"), WANTED), seen, COMMITS, NOW)
    assert [it.node for it in found] == ["c", "e", "d", "b", "a"]
    assert found[3].notes and found[3].standing is Standing.DONE
    (pool,) = folded(found)
    assert (pool.nodes, dict(pool.releases)) == (5, {"2.0.0": 2, "1.0.0": 2, "unknown": 1})
    assert pool.standings[Standing.DONE] == 2


def test_what_a_node_said_of_an_older_commit_is_not_its_phase_now() -> None:
    assert row(Seen(BEHIND, NODE)).phase == "Behind"
    assert row(Seen(replace(BEHIND, phase="Draining"), NODE)).phase == "Draining"


@pytest.mark.parametrize(
    ("size", "waves", "expected"),
    [
        (4, ("1", "50%", "100%"), [(1, 3), (2, 3), (3, 3), (3, 3)]),
        (3, ("1", "25%", "100%"), [(1, 2), (2, 2), (2, 2)]),
        (2, ("100%",), [(1, 1), (1, 1)]),
        # As the planner has it: the second waits for the first.
        (2, ("1",), [(1, 2), (2, 2)]),
        (4, ("1", "25%"), [(1, 2), (2, 2), (2, 2), (2, 2)]),
        (1, (), [(1, 1)]),
    ],
)
def test_waves_that_reach_no_further_are_none(size: int, waves: tuple[str, ...], expected: list[object]) -> None:
    assert [wave_of(place, size, waves) for place in range(size)] == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "119m"), (7200, "2h"), (172799, "47h"), (172800, "2d")],
)
def test_spans_of_time(seconds: int, text: str) -> None:
    assert shown(timedelta(seconds=seconds)) == text


def test_nodes_look_as_often_as_is_said() -> None:
    timer = Path(kubenode.__file__).parent / "image/mkosi/tree/usr/lib/systemd/system/kubenode-reconcile.timer"
    text = timer.read_text()
    minutes, seconds = (re.search(it, text) for it in (r"OnUnitInactiveSec=(\d+)min", r"RandomizedDelaySec=(\d+)s"))
    assert minutes and seconds
    longest = timedelta(minutes=int(minutes[1]), seconds=int(seconds[1]))
    assert longest < LOOKS_EVERY <= longest + timedelta(minutes=1)


# The end of a rollout.


def of(*words: Word | Seen) -> tuple[Row, ...]:
    seen = {f"n{at}": it if isinstance(it, Seen) else Seen(it, NODE) for at, it in enumerate(words)}
    return rows(dict.fromkeys(seen, WANTED), seen, COMMITS, NOW)


STUCK = replace(BEHIND, commit=HEAD, phase="Stuck")
WAITING = replace(BEHIND, commit=HEAD, phase="Waiting")
BUSY = replace(BEHIND, commit=HEAD, phase="Restarting")
UNSEEN = Seen(outside=True, silent="no member")


@pytest.mark.parametrize(
    ("found", "halted", "end"),
    [
        (of(DONE, DONE), False, End.ARRIVED),
        (of(), False, End.ARRIVED),
        (of(DONE, BEHIND), False, None),
        (of(DONE, WAITING), False, None),
        (of(DONE, BUSY), False, None),
        (of(DONE, STUCK), False, End.STUCK),
        (of(WAITING, STUCK), False, End.STUCK),
        (of(BUSY, STUCK), False, None),
        (of(BEHIND, STUCK), False, None),
        (of(Seen(), STUCK), False, End.STUCK),
        (of(DONE, Seen()), False, None),
        (of(DONE, UNSEEN), False, End.UNSEEN),
        (of(DONE, UNSEEN, Seen()), False, None),
        (of(DONE, WAITING), True, End.HALTED),
        (of(BEHIND, WAITING), True, None),
        (of(DONE, DONE), True, End.ARRIVED),
        (of(BUSY, WAITING), True, None),
    ],
)
def test_when_a_rollout_has_ended(found: tuple[Row, ...], halted: bool, end: End | None) -> None:
    assert end_of(found, lagging(found), halted=halted) is end
