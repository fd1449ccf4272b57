import json
from dataclasses import replace
from datetime import timedelta

import pytest

from kubenode.agent import report
from kubenode.agent.tick import tell_the_others
from kubenode.errors import HostError
from kubenode.model.decision import (
    Act,
    ActivateSlot,
    Converged,
    FetchRelease,
    PruneStaging,
    Reboot,
    Stuck,
    Wait,
    WriteSlot,
)
from kubenode.model.journal import Attempt, Journal
from kubenode.model.kubernetes import NodeReport
from kubenode.model.observed import Slot
from kubenode.model.state import NodeStatus
from kubenode.model.version import Version
from kubenode.plan.observations import digest, read
from tests.sim.facts import NOW, desired, entry, observed, release
from tests.sim.situations import worker

NEW = release("2.0")
EMPTY = Journal()
STAGED = observed("1.0", spare="2.0", staged="2.0")


@pytest.mark.parametrize(
    ("decision", "see", "words"),
    [
        (Converged("."), observed("2.0"), "Up to date"),
        (Stuck("X", ".", "."), STAGED, "Stuck"),
        (Wait("TrialBoot", "."), observed("2.0", trial=True), "Trial boot"),
        (Wait("Restarting", "."), STAGED, "Restarting"),
        (Wait("Backoff", "."), STAGED, "Retrying"),
        (Wait("OutsideWindow", "."), STAGED, "Staged"),
        (Wait("TryLater", "."), observed("1.0"), "Waiting"),
        (Wait("HostFailed", "."), None, "Waiting"),
        (Act(FetchRelease(NEW), "."), observed("1.0"), "Fetching"),
        (Act(WriteSlot(NEW, Slot.B), "."), observed("1.0"), "Staging"),
        (Act(ActivateSlot(NEW), "."), STAGED, "Activating"),
        (Act(Reboot(NEW), "."), STAGED, "Restarting"),
        (Act(PruneStaging(frozenset(), True), "."), STAGED, "Tidying up"),
    ],
)
def test_phases(decision, see, words):
    assert report.phase(decision, desired("2.0"), see) == words


def conditions(decision, see, journal=EMPTY):
    return {it.type: (it.status, it.reason) for it in report.conditions(decision, desired("2.0"), see, journal)}


@pytest.mark.parametrize(
    ("see", "staged", "up_to_date"),
    [
        (None, ("Unknown", "NotObserved"), ("Unknown", "NotKnown")),
        (observed("1.0"), ("False", "NotStaged"), ("False", "OtherRelease")),
        (STAGED, ("True", "Staged"), ("False", "OtherRelease")),
        (observed("1.0", entry("2.0", 3), spare="2.0"), ("True", "Activated"), ("False", "OtherRelease")),
        (observed("2.0", trial=True), ("False", "NotNeeded"), ("False", "TrialBoot")),
        (observed("2.0"), ("False", "NotNeeded"), ("True", "UpToDate")),
    ],
)
def test_conditions(see, staged, up_to_date):
    found = conditions(Converged("."), see)
    assert (found["Staged"], found["UpToDate"], found["Stalled"]) == (staged, up_to_date, ("False", "Proceeding"))


def test_stalled_says_why():
    assert conditions(Stuck("NoWindow", ".", "."), STAGED)["Stalled"] == ("True", "NoWindow")
    refused = Journal(attempts={"fetch:x": Attempt(2, NOW, "the bundle does not verify", "BundleInvalid")})
    assert conditions(Wait("Backoff", "."), STAGED, refused)["Stalled"] == ("True", "BundleInvalid")
    assert conditions(Wait("OutsideWindow", "."), STAGED, refused)["Stalled"] == ("False", "Proceeding")


def test_a_node_tells_what_is_new_and_repeats_itself_now_and_then():
    """Every write wakes whoever watches Nodes, and a laptop must be able to tell a quiet node from a dead one."""
    others = NodeReport(Version("1.0"), "root-1.0", NOW - timedelta(days=1), frozenset({"bad"}), "conf")
    status = NodeStatus("n1", NOW, "c" * 40, "Up to date", "All is well.", observed=observed("1.0"))
    told = report.news(others, status)
    assert told is not None
    shown, account = told
    assert (shown.account, shown.at, shown.commit) == (digest(account), NOW, "c" * 40)
    assert read(json.loads(account)).observed == observed("1.0")
    # What the others decide by is the planner's to change.
    assert replace(shown, phase="", commit="", account="", at=None) == others
    later = NOW + timedelta(minutes=14)
    assert report.news(shown, replace(status, at=later)) is None
    for changed in (
        replace(status, at=later, phase="Waiting"),
        replace(status, at=later, message="All is still well."),
        replace(status, at=later, observed=observed("1.0", fetched=("2.0",))),
        replace(status, at=later, attempts={"fetch:x": Attempt(1, NOW)}),
        replace(status, at=NOW + timedelta(minutes=15)),
        replace(status, at=NOW - timedelta(hours=1)),
    ):
        assert report.news(shown, changed) is not None


class Hands:
    """A cluster that takes reports, or fails as it is told."""

    def __init__(self, error: Exception | None = None):
        self.error = error
        self.told = []

    def report(self, *told):
        self.told.append(told)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [HostError("refused"), ValueError("our mistake"), RecursionError(), OSError(28, "")])
def test_a_tick_never_fails_because_it_cannot_tell(error):
    see = worker("running").see
    hands = Hands(error)
    tell_the_others(hands, see, NodeStatus("w-1", NOW, None, "Up to date", "All is well.", observed=see))
    assert len(hands.told) == 1
    broken = NodeStatus("w-1", NOW, None, "Up to date", 7, observed=see)
    tell_the_others(hands, see, broken)
    assert len(hands.told) == 1, "what cannot be written down is not told"


def test_without_a_cluster_nobody_is_told():
    see = worker("running").see
    status = NodeStatus("w-1", NOW, None, "Up to date", "All is well.", observed=see)
    tell_the_others(None, see, status)
    for unseen in (None, replace(see, cluster=None)):
        hands = Hands()
        tell_the_others(hands, unseen, status)
        assert hands.told == []
