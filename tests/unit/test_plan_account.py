"""What a node tells for laptops: they decide by its account as the node does; a bad one is that node's own trouble."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kubenode.host.kube.live import SILENT_AFTER, Live, live
from kubenode.model.journal import Attempt, Journal
from kubenode.model.kubernetes import ClusterView, NodeReport
from kubenode.model.observed import Observed
from kubenode.model.plain import bare, plain
from kubenode.model.restore import restore
from kubenode.model.state import Condition, NodeStatus
from kubenode.plan.decide import decide
from kubenode.plan.observations import MAX_ACCOUNT, account, digest, read
from tests.sim.facts import NOW, poisoned
from tests.sim.situations import R2, STAGES, Situation, plane, worker

JOURNAL = Journal(attempts={f"fetch:{R2.manifest}": Attempt(2, NOW - timedelta(seconds=30), "no route")})


def status_of(situation: Situation) -> NodeStatus:
    journal = situation.journal
    return NodeStatus(
        situation.want.node,
        NOW,
        "c" * 40,
        "Waiting",
        "It waits.",
        observed=situation.see,
        poisoned=journal.poisoned,
        attempts=journal.attempts,
        superseded=journal.superseded,
    )


def shown(situation: Situation, written: str, **fields: Any) -> ClusterView:
    """The cluster as it is when the node has told this."""
    name = situation.want.node
    report = situation.view.by_name[name].report
    assert report is not None
    told = replace(report, **{"account": digest(written), "at": NOW, **fields})
    return replace(situation.node(name, report=told).view, me="", etcd=None)


def looked(situation: Situation, written: str | None = None, **fields: Any) -> Live:
    written = account(status_of(situation)) if written is None else written
    return live(shown(situation, written, **fields), {situation.want.node: written}, NOW)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("make", [plane, worker])
@pytest.mark.parametrize("journal", [Journal(), JOURNAL, replace(JOURNAL, poisoned=(poisoned("9.0"),), superseded="x")])
def test_a_laptop_decides_by_an_account_as_the_node_does(make: Any, stage: str, journal: Journal) -> None:
    situation = replace(make(stage), journal=journal)
    found = looked(situation)
    (report,) = found.reports
    own = situation.node(situation.want.node, report=found.view.by_name[situation.want.node].report)
    assert decide(own.want, report.observed, report.journal, NOW, stale=report.stale) == own.decide()
    assert found.messages[situation.want.node] == "It waits."


def test_a_stale_node_says_so() -> None:
    situation = worker("running")
    fresh = Condition("Fresh", "False", "Stale", "the stamp is old")
    written = account(replace(status_of(situation), conditions=(fresh, Condition("Staged", "True", "Staged", "."))))
    assert looked(situation, written).reports[0].stale == "the stamp is old"


def test_an_account_is_small_and_the_same_for_the_same_facts() -> None:
    status = status_of(plane("saved"))
    assert account(status) == account(replace(status, at=NOW + timedelta(hours=1), phase="Else"))
    assert len(account(status)) < 2_000
    assert "cluster" not in json.loads(account(status))["observed"]
    long = replace(status, message="é" * 100_000, attempts={"x": Attempt(1, NOW, "é" * 100_000)})
    assert len(account(long)) <= MAX_ACCOUNT
    many = {f"step-{number}:{'a' * 64}": Attempt(1, NOW, "x" * 200) for number in range(64)}
    written = account(replace(status, attempts=many))
    assert len(written) < 200
    with pytest.raises(ValueError, match="its account would have"):
        read(json.loads(written))


def test_an_account_has_no_secrets() -> None:
    """Every node, and whoever may read Nodes, reads it; errors quote programs, and not every one of them is ours."""
    secret = "abcdef.0123456789abcdef"
    words = f"{'x ' * 55}{secret} and {'y ' * 185}{secret}"
    fresh = Condition("Fresh", "False", "Stale", f"{secret} is old")
    status = replace(
        status_of(worker("running")), message=words, attempts={"join:x": Attempt(1, NOW, words)}, conditions=(fresh,)
    )
    assert "abcdef" not in account(status)


def test_words_of_a_node_cannot_play_with_a_terminal() -> None:
    fresh = Condition("Fresh", "False", "Stale", "\x1b[2Jstale\nvery")
    status = replace(
        status_of(worker("running")),
        message="\x1b]0;me\x07\u202e\ud800",
        attempts={"fetch:\x1b[31m": Attempt(1, NOW, "one\ntwo \x9b2J", "\x1b")},
        conditions=(fresh,),
    )
    (report,) = looked(worker("running"), account(status)).reports
    assert report.stale == "\\x1b[2Jstale very"
    assert repr(report).isprintable() and "'\\x1b" not in repr(report)
    assert report.journal.attempts["fetch:\\x1b[31m"].error == "one two \\x9b2J"


def test_bare_values_are_restored() -> None:
    for situation in (plane("saved"), worker("activated")):
        see = replace(situation.see, cluster=None)
        assert restore(Observed, bare(see)) == see == restore(Observed, plain(see))


@pytest.mark.parametrize(
    ("written", "fields", "why"),
    [
        (None, {"account": ""}, "does not tell what it sees"),
        (None, {"at": None}, "does not tell what it sees"),
        (None, {"account": "0" * 16}, "is not the one that its report names"),
        (None, {"at": NOW - SILENT_AFTER - timedelta(seconds=1)}, "has said nothing since 2026-11-23 05:59 UTC"),
        ("x" * (MAX_ACCOUNT + 1), {}, "is not the one that its report names"),
        ("[" * 8_000, {}, "cannot be used"),
        ("7", {}, "cannot be used: it is no JSON object"),
        ('{"node": "w-1"}', {}, "cannot be used: the machine could not be observed"),
        (account(status_of(worker("running", "w-2"))), {}, "is that of w-2"),
    ],
)
def test_what_is_of_no_use_makes_the_node_silent(written: str | None, fields: dict[str, Any], why: str) -> None:
    found = looked(worker("running"), written, **fields)
    assert found.reports == ()
    assert why in found.silent["w-1"]
    assert "no agent has reported" not in found.silent["w-1"]


def test_a_machine_that_has_restarted_since_is_silent_until_it_tells() -> None:
    situation = worker("running")
    written = account(status_of(situation))
    view = shown(situation, written)
    nodes = tuple(replace(it, boot_id="later") if it.name == "w-1" else it for it in view.nodes)
    found = live(replace(view, nodes=nodes), {"w-1": written}, NOW)
    assert "has restarted since" in found.silent["w-1"]


def test_every_wrong_field_is_a_silent_node_at_most() -> None:
    written = json.loads(account(status_of(replace(plane("saved"), journal=JOURNAL))))

    def leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [at, *(found for key, inner in items for found in leaves(inner, (*at, key)))]

    for at in leaves(written)[1:]:
        for wrong in (None, 7, "x", [], {}, [7], {"a": 1}, "0001-01-01T00:00:00+23:59"):
            broken = json.loads(json.dumps(written))
            inner = broken
            for key in at[:-1]:
                inner = inner[key]
            inner[at[-1]] = wrong
            situation = plane("saved")
            found = looked(situation, json.dumps(broken))
            for report in found.reports:
                decide(situation.want, report.observed, report.journal, NOW, stale=report.stale)
            assert len(found.reports) + ("cp-1" in found.silent) == 1, (at, wrong)


def test_reports_of_older_agents_are_read_and_older_agents_read_ours() -> None:
    """A fleet in the middle of an update has both."""
    report = plane("running").view.by_name["cp-1"].report
    assert report is not None
    written = plain(replace(report, account="x", at=NOW))
    assert isinstance(written, dict)
    old = {key: value for key, value in written.items() if key not in ("account", "at")}
    assert restore(NodeReport, old) == report
    # What an older agent knows of ours is what it knew before.
    assert {**written, "more": 1}.keys() - old.keys() == {"account", "at", "more"}
    assert restore(NodeReport, {**written, "more": 1}) == replace(report, account="x", at=NOW)
