"""What must be true of every simulation, whatever was observed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.agent.postcondition import holds
from kubenode.model.decision import Act, Converged, Wait
from kubenode.plan.decide import decide
from kubenode.plan.observations import Report
from kubenode.plan.simulate import run
from kubenode.plan.simulate.timeline import Timeline
from tests.property.test_kubernetes_properties import facts as in_a_cluster
from tests.property.test_plan_properties import moments, some_facts, some_journal, some_stale
from tests.sim.facts import NOW


def check(want, see, journal, now, stale) -> Timeline:
    """Simulate one observed node; what it does first is what the planner says about the very same facts."""
    report = Report(want.node, see, journal, stale)
    timeline = run.simulate({want.node: want}, {want.node}, [report], now)
    assert timeline == run.simulate({want.node: want}, {want.node}, [report], now), "deterministic"
    decision = decide(want, see, journal, now, stale=stale)
    first = timeline.events[0] if timeline.events else None
    if isinstance(decision, Act):
        assert first is not None and not first.at
        assert (first.node, first.action, first.why) == (want.node, decision.action, decision.why)
    elif first is not None:
        assert first.at, "a node that waits does nothing yet"
    assert not timeline.endless
    (ending,) = timeline.endings
    assert not isinstance(ending.decision, Act), "it ends only when there is nothing to do"
    if isinstance(ending.decision, Converged):
        assert ending.release == want.target.version
    return timeline


@settings(max_examples=200, deadline=None)
@given(some_facts, some_journal, moments, some_stale)
def test_a_machine_begins_as_the_planner_says_and_ends(facts, journal, now, stale):
    want, see = facts
    timeline = check(want, see, journal, now, stale)
    ending = timeline.endings[0].decision
    if isinstance(ending, Wait) and ending.reason == "OutsideWindow":
        raise AssertionError(f"windows come: {ending}")


@settings(max_examples=200, deadline=None)
@given(in_a_cluster(), some_stale)
def test_a_member_begins_as_the_planner_says_and_ends(facts, stale):
    check(*facts, NOW, stale)


@settings(max_examples=100, deadline=None)
@given(in_a_cluster(joined=False))
def test_a_newcomer_begins_as_the_planner_says_and_ends(facts):
    check(*facts, NOW, "")


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        in_a_cluster(), in_a_cluster(joined=False), st.builds(lambda it, own: (*it, own), some_facts, some_journal)
    )
)
def test_what_is_done_shows_at_the_next_look(facts):
    """The model and the agent agree about when an action counts as done."""
    want, see, journal = facts

    class Looking(run._Run):
        def _finish(self, name, action, at):
            super()._finish(name, action, at)
            observed, machine = self._observe(name), self.machines[name]
            if observed.cluster is not None or self.desired[name].cluster is None:
                assert holds(action, observed, machine.journal), action

    Looking({want.node: want}, {want.node}, [Report(want.node, see, journal)], NOW).run()
