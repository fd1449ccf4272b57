import pytest

from kubenode.model.journal import Journal
from kubenode.plan import slots
from tests.sim.facts import entry, observed, poisoned, release


@pytest.mark.parametrize(
    ("see", "activated"),
    [
        (observed("1.0", entry("2.0", 3), spare="2.0"), True),
        (observed("1.0", entry("2.0", 1, 2), spare="2.0"), True),
        (observed("1.0", entry("2.0", 3), spare=None), False),
        (observed("1.0", entry("2.0", 3), spare="1.5"), False),
        (observed("1.0", entry("2.0"), spare="2.0"), False),
        (observed("1.0", entry("2.0", 0, 3), spare="2.0"), False),
        (observed("3.0", entry("2.0", 3), spare="2.0"), False),
        (observed("3.0", entry("2.0", 3), own=entry("3.0", 0), spare="2.0"), True),
    ],
)
def test_activated(see, activated):
    assert slots.is_activated(release("2.0"), see) is activated


@pytest.mark.parametrize(
    ("other", "first"),
    [(entry("2.0"), True), (entry("2.0", 3), True), (entry("2.0", 0), False), (entry("0.9"), False)],
)
def test_the_loader_prefers_newer_entries_that_are_not_bad(other, first):
    assert slots.starts_next(other, observed("1.0", other)) is first
    assert slots.starts_next(other, observed("1.0", other, own=entry("1.0", 0))) is (other.tries_left != 0)


def test_the_good_entry_of_the_running_release_counts():
    see = observed("1.0", entry("1.0", 0), own=entry("1.0"))
    assert slots.booted_entry(see) == entry("1.0")
    assert slots.other_entries(see) == ()


def test_a_poisoned_fallback_is_no_fallback():
    see = observed("2.0", entry("1.0"), spare="1.0")
    assert slots.stray_entries(see, Journal(), None) == ()
    assert slots.stray_entries(see, Journal(poisoned=(poisoned("1.0"),)), None) == (entry("1.0"),)
