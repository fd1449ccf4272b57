"""The steps that people are shown are those that nodes decide: the first of them is always the decision's own."""

from dataclasses import replace

import pytest

from kubenode.model.decision import Act, Converged, Wait
from kubenode.model.documents import Rollout
from kubenode.plan.ahead import ahead, waves, window
from kubenode.plan.backoff import step_of
from kubenode.plan.node import Node
from tests.sim.facts import NOW, desired, observed
from tests.sim.facts import window as opening
from tests.sim.situations import R1, STAGES, Situation, plane, release, worker

EVERY = [
    pytest.param(make(stage, **options), id=f"{make.__name__}-{stage}-{options}")
    for stage in STAGES
    for make, options in ((plane, {}), (plane, {"passed": True}), (worker, {}))
]


def node_of(situation: Situation) -> Node:
    return Node(situation.want, situation.see, situation.journal, NOW)


def kinds(situation: Situation) -> list[str]:
    node = node_of(situation)
    return [it.kind for it in ahead(node, situation.decide(), waves(node).get(node.name))]


@pytest.mark.parametrize("situation", EVERY)
def test_the_first_step_is_the_decided_one_and_is_not_there_twice(situation: Situation) -> None:
    decision = situation.decide()
    found = kinds(situation)
    assert found and not isinstance(decision, Converged)
    if isinstance(decision, Act):
        assert found[0] == step_of(decision.action)
    assert found[-1] == "release"
    before = found[: found.index("reboot")]
    assert before.count("fetch") <= 1 and before.count("drain") <= 1 and found.count("reboot") == 1


@pytest.mark.parametrize(
    ("situation", "first", "left_out"),
    [
        (plane("running"), "fetch", ()),
        (plane("staged"), "pull", ("fetch", "write")),
        (plane("pulled"), "acquire", ("fetch", "write", "pull")),
        (worker("staged"), "prepare", ("fetch", "write", "upgrade", "pull")),
        (worker("leased"), "cordon", ("prepare", "acquire")),
        (worker("drained"), "activate", ("prepare", "acquire", "cordon", "drain")),
        (worker("activated"), "reboot", ("activate", "drain")),
    ],
)
def test_what_is_done_is_left_out(situation: Situation, first: str, left_out: tuple[str, ...]) -> None:
    found = kinds(situation)
    assert found[0] == first
    assert not set(found) & set(left_out)


def test_a_control_plane_moves_its_static_pods_before_it_restarts_and_cannot_take_that_back() -> None:
    steps = ahead(node_of(plane("running")), Wait("X", "."))
    upgrade = next(it for it in steps if it.kind == "upgrade")
    order = [(it.phase, it.kind) for it in steps if it.kind in ("upgrade", "reboot")]
    assert order == [("pass one", "upgrade"), ("pass two", "reboot")]
    assert upgrade.text == "kubeadm upgrade v1.31.4 -> v1.32.3 (apply on the first, node on the others)"
    assert "stay at v1.32.3" in upgrade.barrier
    assert all(it.barrier == "" for it in ahead(node_of(worker("running")), Wait("X", ".")))


def test_each_hop_has_its_own_passes_and_ends_the_release_before_the_last() -> None:
    far = release("3.0", "v1.33.1")
    situation = plane("running").wants(releases=(far, release("2.0", "v1.32.3"), R1))
    steps = ahead(node_of(situation), situation.decide())
    assert [it.release for it in steps if it.kind == "upgrade"] == ["2.0", "3.0"]
    writes = [it for it in steps if it.kind == "write"]
    assert [it.text for it in writes] == ["write release 2.0 to slot b", "write release 3.0 to slot a"]
    assert writes[1].barrier == "slot a no longer holds release 1.0"


def test_a_chore_comes_before_the_way() -> None:
    situation = plane("pulled").here(leftovers=True).rollout("planes", windows=(opening((1,), "09:00", 2),))
    situation = situation.wants(halted=True)
    assert kinds(situation)[:2] == ["prune", "acquire"]


def test_waves_are_those_of_the_rollout() -> None:
    def numbers(*amounts: str) -> list[tuple[int, int]]:
        situation = worker("running").rollout("workers", waves=amounts)
        return [(it.number, it.of) for it in waves(node_of(situation)).values()]

    assert numbers("1", "50%", "100%") == [(1, 3), (2, 3), (3, 3), (3, 3)]
    assert numbers("100%") == [(1, 1)] * 4
    assert numbers("2") == [(1, 2), (1, 2), (2, 2), (2, 2)]
    assert waves(Node(desired("2.0"), observed("1.0"), plane("running").journal, NOW)) == {}


def test_windows_are_open_or_say_when() -> None:
    def said(*windows: object) -> str:
        want = replace(desired("2.0"), windows=windows)  # type: ignore[arg-type]
        return window(Node(want, observed("1.0"), plane("running").journal, NOW))

    assert said() == ""
    assert said(opening((0,), "11:00", 2)) == "open"
    assert said(opening((1,), "09:00", 2)) == "opens 2026-11-24 09:00 UTC"
    assert said(opening((), "09:00", 2)) == "never opens"


def test_a_machine_without_kubernetes_has_four_steps() -> None:
    node = Node(desired("2.0"), observed("1.0", spare="0.9"), plane("running").journal, NOW)
    assert [it.kind for it in ahead(node, Wait("X", "."))] == ["fetch", "write", "activate", "reboot"]
    assert Rollout().waves == ("100%",)
