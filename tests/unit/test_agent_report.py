import pytest

from kubenode.agent import report
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
from kubenode.model.observed import Slot
from tests.sim.facts import NOW, desired, entry, observed, release

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
