from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

import pytest

from kubenode.agent.memory import MAX_ATTEMPTS, Memory
from kubenode.errors import HostError, NoSpace, StateLost, TryLater, Untrusted
from kubenode.model.decision import (
    ActivateSlot,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    Reconfigure,
    WriteSlot,
)
from kubenode.model.documents import Role
from kubenode.model.journal import Attempt, Journal
from kubenode.model.kubernetes import ClusterView, KubernetesVersion, LocalKubernetes
from kubenode.model.observed import Slot
from kubenode.model.state import TrustState
from kubenode.plan.backoff import step_key
from tests.sim.facts import NOW, entry, manifest, observed, poisoned, release, root

NEW = release("2.0")
EMPTY = Journal()


class Store:
    """A state store that counts what is written, or refuses to."""

    def __init__(self, trust=None, journal=EMPTY, full=False):
        self.trust, self.journal, self.full, self.writes = trust, journal, full, 0

    def lock(self):
        return nullcontext()

    def load_trust(self):
        return self.trust

    def load_journal(self):
        return self.journal

    def save_trust(self, state):
        self.trust = state
        self._write()

    def save_journal(self, journal):
        self._write()
        self.journal = journal

    def _write(self):
        if self.full:
            raise NoSpace("the disk is full")
        self.writes += 1


def test_what_may_kill_the_machine_is_counted_before_it_begins():
    for action, key in ((WriteSlot(NEW, Slot.B), "write"), (Reboot(NEW), "reboot"), (ActivateSlot(NEW), "activate")):
        store = Store()
        Memory(store, read_only=False).begin(action, NOW)
        assert store.journal.attempts[f"{key}:{manifest('2.0')}"].failures == 1
        # Killed here; the next try counts on, and its failure is not counted twice.
        memory = Memory(store, read_only=False)
        memory.begin(action, NOW)
        memory.fail(action, NOW, HostError("no"))
        assert store.journal.attempts[f"{key}:{manifest('2.0')}"] == Attempt(2, NOW, "no")
        memory.succeed(action)
        assert store.journal == Journal()


def test_a_restart_does_not_begin_when_it_cannot_be_counted():
    with pytest.raises(NoSpace):
        Memory(Store(full=True), read_only=False).begin(Reboot(NEW), NOW)


@pytest.mark.parametrize("action", [FetchRelease(NEW), PruneStaging(frozenset({"x"}), False)])
def test_what_frees_space_or_only_downloads_needs_no_space_to_begin(action):
    Memory(Store(full=True), read_only=False).begin(action, NOW)


def test_failures_count_up_with_their_reason():
    store = Store()
    memory = Memory(store, read_only=False)
    memory.fail(FetchRelease(NEW), NOW, TryLater("no store answers"))
    memory.fail(FetchRelease(NEW), NOW, Untrusted("BundleInvalid", "the bundle does not verify"))
    found = store.journal.attempts[f"fetch:{manifest('2.0')}"]
    assert (found.failures, found.error, found.reason) == (2, "the bundle does not verify", "BundleInvalid")


def test_the_superseded_entry_is_known_before_it_is_marked_and_forgotten_when_it_is_good():
    store = Store()
    memory = Memory(store, read_only=False)
    memory.begin(ActivateSlot(release("1.0"), entry("2.0")), NOW)
    assert store.journal.superseded == root("2.0")
    memory.settle(observed("2.0", own=entry("2.0", 0)), None)
    assert store.journal.superseded == root("2.0")
    memory.settle(observed("2.0"), None)
    assert store.journal.superseded is None


def test_an_arrival_clears_the_failures_of_its_release_once_it_is_blessed():
    attempts = {f"{step}:{manifest('2.0')}": Attempt(1, NOW) for step in ("fetch", "write", "activate", "reboot")}
    other = {f"write:{manifest('3.0')}": Attempt(1, NOW)}
    store = Store(journal=Journal(attempts={**attempts, **other}))
    memory = Memory(store, read_only=False)
    memory.settle(observed("2.0", trial=True), manifest("2.0"))
    assert len(store.journal.attempts) == 5
    memory.settle(observed("2.0"), manifest("2.0"))
    assert store.journal.attempts == other


def test_documents_that_are_rendered_have_no_failures_any_more():
    """A control plane's API may be away right after its pods' restart: the step had worked all the same."""
    at, other = f"configure:{'c' * 64}", f"configure:{'d' * 64}"
    store = Store(journal=Journal(attempts={at: Attempt(1, NOW), other: Attempt(4, NOW)}))
    memory = Memory(store, read_only=False)
    here = LocalKubernetes(KubernetesVersion("v1.34.2"), Role.CONTROL_PLANE, configuration="c" * 64)
    seen = ClusterView("cp-1", KubernetesVersion("v1.34.2"), (), {}, configuration="c" * 64)
    # Rendered here and not in the cluster: the step is due again, and what failed of it must be counted.
    for cluster in (None, replace(seen, configuration="e" * 64), replace(seen, configuration=None)):
        memory.settle(replace(observed("2.0"), kubernetes=here, cluster=cluster), None)
        assert store.journal.attempts.keys() == {at, other}, cluster
    memory.settle(replace(observed("2.0"), kubernetes=here, cluster=seen), None)
    assert store.journal.attempts == {other: Attempt(4, NOW)}
    assert step_key(Reconfigure("c" * 64, first=True)) == at


def test_the_journal_does_not_grow_for_ever():
    store = Store()
    memory = Memory(store, read_only=False)
    for number in range(MAX_ATTEMPTS + 20):
        memory.fail(FetchRelease(release(f"{number}.0")), NOW + timedelta(minutes=number), TryLater("no"))
    assert len(store.journal.attempts) == MAX_ATTEMPTS
    assert f"fetch:{manifest('0.0')}" not in store.journal.attempts


def test_the_poisoned_stay_when_the_commit_moves_on():
    store = Store(TrustState("fleet", "a" * 40))
    memory = Memory(store, read_only=False)
    memory.poison(PoisonRelease(NEW.version, root("2.0"), None), "it failed")
    memory.trust_commit("fleet", "b" * 40, None)
    assert store.trust.commit == "b" * 40
    assert [bad.root_hash for bad in Memory(store, read_only=False).journal.poisoned] == [root("2.0")]


def test_nothing_is_poisoned_without_a_place_to_remember_it():
    with pytest.raises(StateLost):
        Memory(Store(), read_only=False).poison(PoisonRelease(NEW.version, root("2.0"), None), "it failed")


def test_unchanged_state_is_not_written_again_and_a_dry_run_writes_nothing():
    store = Store(TrustState("fleet", "a" * 40, (poisoned("9.0"),)))
    memory = Memory(store, read_only=False)
    memory.trust_commit("fleet", "a" * 40, None)
    memory.settle(observed("1.0"), None)
    assert store.writes == 0
    dry = Memory(store, read_only=True)
    dry.trust_commit("fleet", "b" * 40, None)
    dry.settle(observed("1.0"), None)
    dry.fail(FetchRelease(NEW), NOW, TryLater("no"))
    assert store.writes == 0 and store.trust.commit == "a" * 40
