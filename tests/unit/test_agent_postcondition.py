"""Each action's postcondition: false before, true after, false for what only looks like it."""

from dataclasses import replace

import pytest

from kubenode.agent.postcondition import holds
from kubenode.model.decision import (
    ActivateSlot,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    WriteSlot,
)
from kubenode.model.journal import Journal
from kubenode.model.observed import Slot
from tests.sim.facts import entry, manifest, observed, poisoned, release, root

NEW = release("2.0")
BAD = Journal(poisoned=(poisoned("2.0"),))
CASES = [
    (FetchRelease(NEW), observed("1.0", partial=("2.0",)), observed("1.0", fetched=("2.0",))),
    (RetireEntry(entry("2.0")), observed("1.0", entry("2.0", 3)), observed("1.0")),
    (RestoreEntry(entry("1.0", 0)), observed("1.0", own=entry("1.0", 0)), observed("1.0")),
    (RestoreEntry(entry("1.0", 0)), replace(observed("1.0"), entries=()), observed("1.0")),
    (WriteSlot(NEW, Slot.B), observed("1.0", spare="2.0"), observed("1.0", spare="2.0", staged="2.0")),
    (WriteSlot(NEW, Slot.B), observed("1.0", staged="2.0"), observed("1.0", spare="2.0", staged="2.0")),
    (ActivateSlot(NEW), observed("1.0", entry("2.0")), observed("1.0", entry("2.0", 3))),
    (
        ActivateSlot(release("1.0"), entry("2.0")),
        observed("2.0", entry("1.0", 3)),
        observed("2.0", entry("1.0", 3), own=entry("2.0", 0)),
    ),
    (Reboot(NEW), observed("1.0"), observed("2.0")),
    (
        PruneStaging(frozenset({manifest("2.0")}), False),
        observed("1.0", partial=("2.0",)),
        observed("1.0", staged="2.0"),
    ),
    (PruneStaging(frozenset(), True), observed("1.0", staged="2.0"), observed("1.0", fetched=("2.0",))),
]


@pytest.mark.parametrize(("action", "before", "after"), CASES)
def test_holds(action, before, after):
    assert not holds(action, before, Journal())
    assert holds(action, after, Journal())


def test_poisoned():
    action = PoisonRelease(NEW.version, root("2.0"), None)
    assert not holds(action, observed("1.0"), Journal())
    assert holds(action, observed("1.0"), BAD)


def test_the_running_slot_is_never_a_success():
    assert not holds(WriteSlot(NEW, Slot.A), observed("1.0", spare="2.0", staged="2.0"), Journal())
