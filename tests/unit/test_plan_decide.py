"""The planner rule by rule, and as goldens: facts -> decision, both as JSON in golden/plan."""

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kubenode.model.decision import (
    Act,
    ActivateSlot,
    Converged,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    Stuck,
    Wait,
    WriteSlot,
)
from kubenode.model.documents import Role
from kubenode.model.journal import Journal
from kubenode.model.observed import Slot
from kubenode.plan.decide import decide
from tests.sim.facts import (
    NOW,
    decision_to_json,
    desired,
    entry,
    facts_from_json,
    failed,
    manifest,
    member,
    observed,
    poisoned,
    release,
    root,
    window,
)

GOLDEN = Path(__file__).parent / "golden" / "plan"
EMPTY = Journal()
CLOSED = (window((5,), "02:00", 4),)  # Saturdays; NOW is a Monday.


def act(decision):
    assert isinstance(decision, Act), decision
    return decision.action


def reason(decision):
    assert isinstance(decision, Wait | Stuck), decision
    return decision.reason


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden(path):
    document = json.loads(path.read_text())
    found = decision_to_json(decide(*facts_from_json(document)))
    if os.environ.get("KUBENODE_GOLDEN") == "write":
        path.write_text(json.dumps({**document, "decision": found}, indent=2, ensure_ascii=False) + "\n")
    assert found == document["decision"], "run with KUBENODE_GOLDEN=write and read the diff"


def test_there_are_goldens():
    assert len(list(GOLDEN.glob("*.json"))) >= 15


# The way of a plain update, step by step.


def test_an_update_step_by_step():
    want = desired("2.0", "1.0")
    see = observed("1.0")
    assert act(decide(want, see, EMPTY, NOW)) == FetchRelease(release("2.0"))
    see = observed("1.0", fetched=("2.0",))
    assert act(decide(want, see, EMPTY, NOW)) == WriteSlot(release("2.0"), Slot.B)
    see = observed("1.0", fetched=("2.0",), spare="2.0", staged="2.0")
    assert act(decide(want, see, EMPTY, NOW)) == ActivateSlot(release("2.0"))
    see = observed("1.0", entry("2.0", 3), fetched=("2.0",), spare="2.0")
    assert act(decide(want, see, EMPTY, NOW)) == Reboot(release("2.0"))
    see = observed("2.0", entry("1.0"), slot=Slot.B, own=entry("2.0", 2, 1), trial=True, fetched=("2.0",), spare="1.0")
    assert reason(decide(want, see, EMPTY, NOW)) == "TrialBoot"
    see = observed("2.0", entry("1.0"), slot=Slot.B, fetched=("2.0",), spare="1.0")
    assert act(decide(want, see, EMPTY, NOW)) == PruneStaging(frozenset({manifest("2.0")}), staged=False)
    see = observed("2.0", entry("1.0"), slot=Slot.B, spare="1.0")
    assert isinstance(decide(want, see, EMPTY, NOW), Converged)


def test_the_old_fallback_leaves_the_esp_before_its_slot_is_written():
    see = observed("2.0", entry("1.0"), slot=Slot.B, spare="1.0", fetched=("3.0",))
    assert act(decide(desired("3.0"), see, EMPTY, NOW)) == RetireEntry(entry("1.0"))


def test_the_fallback_stays_while_the_release_is_downloaded():
    see = observed("2.0", entry("1.0"), slot=Slot.B, spare="1.0")
    assert act(decide(desired("3.0"), see, EMPTY, NOW)) == FetchRelease(release("3.0"))


def test_a_staged_release_whose_evidence_is_gone_is_fetched_again():
    see = observed("1.0", spare="2.0", staged="2.0")
    assert act(decide(desired("2.0"), see, EMPTY, NOW)) == FetchRelease(release("2.0"))


@pytest.mark.parametrize(
    "see",
    [
        observed("1.0", fetched=("2.0",), spare=None, staged="2.0"),
        observed("1.0", fetched=("2.0",), spare="2.0"),
        observed("1.0", fetched=("2.0",), spare="0.9", staged="2.0"),
    ],
    ids=["half a slot", "no UKI", "another slot"],
)
def test_what_is_half_staged_is_written_again(see):
    assert act(decide(desired("2.0"), see, EMPTY, NOW)) == WriteSlot(release("2.0"), Slot.B)


# Trials and failures.


def test_nothing_happens_in_a_trial_boot_even_with_failed_entries():
    see = observed("2.0", entry("9.0", 0, 3), own=entry("2.0", 2, 1), trial=True, partial=("1.0",))
    assert reason(decide(desired("1.0"), see, EMPTY, NOW)) == "TrialBoot"


def test_a_failed_trial_is_remembered_then_removed_then_said():
    want = desired("2.0", "1.0")
    see = observed("1.0", entry("2.0", 0, 3), spare="2.0", fetched=("2.0",))
    poison = act(decide(want, see, EMPTY, NOW))
    assert poison == PoisonRelease(release("2.0").version, root("2.0"), manifest("2.0"))
    known = Journal(poisoned=(poisoned("2.0"),))
    assert act(decide(want, see, known, NOW)) == RetireEntry(entry("2.0", 0, 3))
    see = replace(see, entries=see.entries[:1])
    assert act(decide(want, see, known, NOW)) == PruneStaging(frozenset({manifest("2.0")}), staged=False)
    see = replace(see, fetched=frozenset())
    stuck = decide(want, see, known, NOW)
    assert reason(stuck) == "ReleasePoisoned"
    assert "2.0" in stuck.message and stuck.hint


def test_a_failed_release_that_left_the_channel_is_poisoned_by_root_hash():
    see = observed("1.0", entry("2.0", 0, 3), spare="2.0")
    assert act(decide(desired("3.0"), see, EMPTY, NOW)).manifest is None
    known = Journal(poisoned=(replace(poisoned("2.0"), manifest=None),))
    assert reason(decide(desired("2.0"), observed("1.0"), known, NOW)) == "ReleasePoisoned"


def test_a_release_signed_again_is_still_poisoned():
    known = Journal(poisoned=(replace(poisoned("2.0"), root_hash="other"),))
    assert reason(decide(desired("2.0"), observed("1.0"), known, NOW)) == "ReleasePoisoned"


def test_what_runs_and_was_blessed_is_good_even_if_it_failed_once():
    assert isinstance(decide(desired("2.0"), observed("2.0"), Journal(poisoned=(poisoned("2.0"),)), NOW), Converged)


@pytest.mark.parametrize("journal", [EMPTY, Journal(superseded=root("2.0"))], ids=["journal lost", "journal kept"])
def test_a_superseded_entry_is_not_a_failed_one(journal):
    see = observed("1.0", entry("2.0", 0, 0), spare="2.0")
    assert isinstance(decide(desired("1.0"), see, journal, NOW), Converged)


def test_a_superseded_entry_that_was_booted_by_hand_is_told_by_the_journal():
    see = observed("1.0", entry("2.0", 0, 1), spare="2.0")
    assert isinstance(decide(desired("1.0"), see, Journal(superseded=root("2.0")), NOW), Converged)


# Entries that may not stay.


def test_an_activated_release_is_taken_back_when_the_channel_moves():
    see = observed("1.0", entry("2.0", 3), spare="2.0", fetched=("2.0",))
    assert act(decide(desired("3.0", "2.0"), see, EMPTY, NOW)) == RetireEntry(entry("2.0", 3))
    assert act(decide(desired("1.0"), see, EMPTY, NOW)) == RetireEntry(entry("2.0", 3))


def test_an_activated_older_release_is_taken_back_too():
    see = observed("2.0", entry("1.0", 3), own=entry("2.0", 0), spare="1.0", fetched=("1.0",))
    assert act(decide(desired("2.0"), see, EMPTY, NOW)) == RestoreEntry(entry("2.0", 0))
    see = observed("2.0", entry("1.0", 3), spare="1.0", fetched=("1.0",))
    assert act(decide(desired("2.0"), see, EMPTY, NOW)) == RetireEntry(entry("1.0", 3))


def test_a_newer_good_entry_that_would_start_next_is_removed():
    see = observed("1.0", entry("2.0"), spare="2.0")
    assert act(decide(desired("1.0"), see, EMPTY, NOW)) == RetireEntry(entry("2.0"))
    assert act(decide(desired("2.0"), see, EMPTY, NOW)) == RetireEntry(entry("2.0")), "it must be tried with a counter"


def test_an_entry_without_its_slot_is_removed():
    see = observed("2.0", entry("1.0"), spare=None)
    assert act(decide(desired("2.0"), see, EMPTY, NOW)) == RetireEntry(entry("1.0"))


def test_the_older_good_entry_stays_as_the_fallback():
    see = observed("2.0", entry("1.0"), spare="1.0")
    assert isinstance(decide(desired("2.0"), see, EMPTY, NOW), Converged)


def test_an_activated_release_with_a_half_written_slot_is_not_started():
    see = observed("1.0", entry("2.0", 3), spare=None, fetched=("2.0",))
    assert act(decide(desired("2.0"), see, EMPTY, NOW)) == RetireEntry(entry("2.0", 3))


def test_without_an_own_entry_nothing_is_touched():
    see = replace(observed("1.0"), entries=(entry("2.0", 3),), spare=root("2.0"), fetched=frozenset({manifest("2.0")}))
    stuck = decide(desired("2.0"), see, EMPTY, NOW)
    assert reason(stuck) == "BootEntryMissing" and stuck.hint


# Downgrades.


def test_a_downgrade_supersedes_the_running_entry():
    see = observed("2.0", fetched=("1.0",), spare="1.0", staged="1.0")
    assert act(decide(desired("1.0", "2.0"), see, EMPTY, NOW)) == ActivateSlot(release("1.0"), entry("2.0"))
    see = observed("2.0", entry("1.0", 3), own=entry("2.0", 0), fetched=("1.0",), spare="1.0")
    assert act(decide(desired("1.0", "2.0"), see, Journal(superseded=root("2.0")), NOW)) == Reboot(release("1.0"))


def test_an_interrupted_downgrade_goes_on():
    see = observed("2.0", own=entry("2.0", 0), fetched=("1.0",), spare="1.0", staged="1.0")
    action = act(decide(desired("1.0"), see, Journal(superseded=root("2.0")), NOW))
    assert action == ActivateSlot(release("1.0"), entry("2.0", 0))


def test_an_older_activated_release_that_would_not_be_chosen_is_not_rebooted_into():
    see = observed("2.0", entry("1.0", 3), fetched=("1.0",), spare="1.0")
    assert act(decide(desired("1.0"), see, EMPTY, NOW)) == RetireEntry(entry("1.0", 3))


@pytest.mark.parametrize("want", [desired("2.0"), desired("3.0", "2.0")], ids=["back", "onwards"])
@pytest.mark.parametrize("journal", [EMPTY, Journal(superseded=root("2.0"))], ids=["journal lost", "journal kept"])
def test_an_abandoned_downgrade_is_taken_back(want, journal):
    see = observed("2.0", own=entry("2.0", 0), fetched=("1.0",), spare="1.0", staged="1.0")
    assert act(decide(want, see, journal, NOW)) == RestoreEntry(entry("2.0", 0))


def test_a_release_that_is_not_marked_good_is_no_fallback():
    see = observed("1.0", own=entry("1.0", 2, 1), fetched=("2.0",), spare="2.0", staged="2.0")
    assert reason(decide(desired("2.0"), see, EMPTY, NOW)) == "NoFallback"


# Gates.


STAGED = observed("1.0", fetched=("2.0",), spare="2.0", staged="2.0")
ACTIVATED = observed("1.0", entry("2.0", 3), fetched=("2.0",), spare="2.0")


@pytest.mark.parametrize("gate", [{"halted": True}, {"windows": CLOSED}], ids=["halted", "closed"])
def test_staging_is_never_held_back(gate):
    want = desired("2.0", **gate)
    assert act(decide(want, observed("1.0"), EMPTY, NOW)) == FetchRelease(release("2.0"))
    assert act(decide(want, observed("1.0", fetched=("2.0",)), EMPTY, NOW)) == WriteSlot(release("2.0"), Slot.B)


def test_halted():
    assert reason(decide(desired("2.0", halted=True), STAGED, EMPTY, NOW)) == "Halted"
    # A power cut would start it: what was activated before the halt is taken back.
    assert act(decide(desired("2.0", halted=True), ACTIVATED, EMPTY, NOW)) == RetireEntry(entry("2.0", 3))


def test_members_of_a_cluster_that_git_does_not_declare():
    stuck = decide(desired("2.0"), replace(STAGED, kubernetes=member(Role.WORKER)), EMPTY, NOW)
    assert reason(stuck) == "ClusterNotDeclared" and "worker" in stuck.message
    # What was activated before the machine joined would take it out of the cluster at the next power cut.
    assert act(decide(desired("2.0"), replace(ACTIVATED, kubernetes=member(Role.WORKER)), EMPTY, NOW)) == RetireEntry(
        entry("2.0", 3)
    )
    both = decide(desired("2.0", halted=True), replace(STAGED, kubernetes=member(Role.WORKER)), EMPTY, NOW)
    assert reason(both) == "Halted"


def test_members_of_a_cluster_whose_agent_does_not_look_after_clusters():
    here = replace(STAGED, kubernetes=member(Role.WORKER))
    stuck = decide(replace(desired("2.0"), role=Role.WORKER), here, EMPTY, NOW)
    assert reason(stuck) == "KubernetesUpdatesNotSupported" and "nothing that disturbs is done" in stuck.message


@pytest.mark.parametrize("see", [STAGED, ACTIVATED], ids=["staged", "activated"])
def test_windows(see):
    wait = decide(desired("2.0", windows=CLOSED), see, EMPTY, NOW)
    assert reason(wait) == "OutsideWindow"
    assert wait.until == NOW.replace(day=28, hour=2)
    opened = decide(desired("2.0", windows=CLOSED), see, EMPTY, wait.until)
    assert isinstance(act(opened), ActivateSlot | Reboot)
    assert reason(decide(desired("2.0", windows=(window((), "02:00", 4),)), see, EMPTY, NOW)) == "NoWindow"


# Stale: nobody vouches that the commit is the newest.

STALE = "the newest stamp is too old"


@pytest.mark.parametrize(
    "see",
    [
        observed("1.0"),
        observed("1.0", partial=("2.0",)),
        observed("1.0", fetched=("2.0",)),
        STAGED,
        observed("1.0", entry("0.9"), spare="0.9", fetched=("2.0",)),
    ],
    ids=["nothing done", "half a download", "downloaded", "staged", "an older fallback"],
)
def test_a_stale_node_begins_nothing_and_ends_nothing(see):
    assert isinstance(decide(desired("2.0"), see, EMPTY, NOW), Act)
    wait = decide(desired("2.0"), see, EMPTY, NOW, stale=STALE)
    assert wait == Wait(
        "Stale",
        "Release 2.0 is the target of channel `stable` and nothing new is started while this node is stale: "
        "the newest stamp is too old.",
    )


def test_a_stale_node_takes_back_an_activation_so_that_no_power_cut_starts_it():
    decision = decide(desired("2.0"), ACTIVATED, EMPTY, NOW, stale=STALE)
    assert act(decision) == RetireEntry(entry("2.0", 3))
    assert "does not know whether that is still wanted" in decision.why


def test_a_stale_node_still_keeps_itself_in_order():
    failed_trial = observed("1.0", entry("2.0", 0, 3), spare="2.0")
    assert isinstance(act(decide(desired("2.0"), failed_trial, EMPTY, NOW, stale=STALE)), PoisonRelease)
    marked = observed("1.0", own=entry("1.0", 0, 0))
    assert act(decide(desired("1.0"), marked, EMPTY, NOW, stale=STALE)) == RestoreEntry(entry("1.0", 0, 0))
    full = observed("1.0", fetched=("0.9",))
    assert isinstance(act(decide(desired("1.0"), full, EMPTY, NOW, stale=STALE)), PruneStaging)
    trial = observed("2.0", trial=True)
    assert reason(decide(desired("2.0"), trial, EMPTY, NOW, stale=STALE)) == "TrialBoot"


def test_a_stale_node_on_its_target_is_converged():
    assert isinstance(decide(desired("1.0"), observed("1.0"), EMPTY, NOW, stale=STALE), Converged)


# No way.


@pytest.mark.parametrize(
    ("want", "code"),
    [
        (desired(release("3.0", "2.0")), "NoUpgradePath"),
        (desired(), "NoRelease"),
        (desired(replace(release("1.0"), root_hash="other", manifest="m")), "VersionReused"),
    ],
    ids=str,
)
def test_stuck_with_a_hint(want, code):
    stuck = decide(want, observed("1.0"), EMPTY, NOW)
    assert reason(stuck) == code and stuck.hint.endswith(".")


def test_an_unknown_running_release_is_a_fine_start():
    assert act(decide(desired("3.0", "2.0"), observed("1.5"), EMPTY, NOW)) == FetchRelease(release("3.0"))


def test_leftovers_go_before_the_next_download():
    see = observed("1.0", spare="1.5", staged="1.5", fetched=("1.5",), partial=("1.6", "2.0"))
    action = act(decide(desired("2.0"), see, EMPTY, NOW))
    assert action == PruneStaging(frozenset({manifest("1.5"), manifest("1.6")}), staged=True)


# Failures.


def test_backoff_doubles_up_to_an_hour():
    for times, minutes in ((1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (400, 60)):
        early = failed("fetch", "2.0", times, timedelta(minutes=minutes, seconds=-1))
        wait = decide(desired("2.0"), observed("1.0"), early, NOW)
        assert reason(wait) == "Backoff" and wait.until == NOW + timedelta(seconds=1)
        due = failed("fetch", "2.0", times, timedelta(minutes=minutes))
        assert act(decide(desired("2.0"), observed("1.0"), due, NOW)) == FetchRelease(release("2.0"))


def test_a_clock_that_was_set_back_does_not_wait_for_years():
    journal = failed("fetch", "2.0", 7, timedelta(days=-3650))
    assert act(decide(desired("2.0"), observed("1.0"), journal, NOW)) == FetchRelease(release("2.0"))


@pytest.mark.parametrize(
    ("step", "times", "see", "code"),
    [
        ("write", 5, observed("1.0", fetched=("2.0",)), "WriteBudget"),
        ("activate", 5, STAGED, "ActivateBudget"),
        ("reboot", 3, ACTIVATED, "RebootBudget"),
    ],
)
def test_budgets(step, times, see, code):
    before = failed(step, "2.0", times - 1, timedelta(hours=1))
    assert isinstance(decide(desired("2.0"), see, before, NOW), Act)
    stuck = decide(desired("2.0"), see, failed(step, "2.0", times, timedelta(days=9)), NOW)
    assert reason(stuck) == code and "it broke" in stuck.message and stuck.hint
