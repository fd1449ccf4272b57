"""What is wrong outside: the fleet repo, the stores, the disk, the machine; and what the node says about it."""

from dataclasses import replace

import pytest

from kubenode.agent import health, tick
from kubenode.agent.tick import run_tick
from kubenode.errors import ExitCode, HostError, NoSpace, StateLost, TryLater
from kubenode.model.decision import Act, Converged, FetchRelease, Stuck, Wait
from kubenode.model.documents import Role
from kubenode.model.journal import Journal
from kubenode.model.state import TrustState
from tests.sim.fleet import IDENTITY, root_hash
from tests.sim.machine import World
from tests.sim.ports import Download, SimHealth, SimMachine, SimSlots, SimStaging, SimState, SimStore
from tests.sim.test_sim_updates import check, code, finish


def condition(result, kind):
    return next((it.status, it.reason) for it in result.status.conditions if it.type == kind)


def ticks(world, count):
    for _ in range(count):
        result = world.tick()
    return result


@pytest.fixture
def world(fleet):
    return World.installed(fleet, "1.0", "2.0", "1.0")


# The fleet repo.


def test_first_contact_without_network(world):
    world.online = False
    result = world.tick()
    assert (code(result), result.exit_code) == ("TryLater", ExitCode.TRY_LATER)
    assert condition(result, "Trusted") == ("Unknown", "NotRead")
    assert world.trust is None
    world.online = True
    check(world, finish(world), {"2.0"})


def test_without_network_what_is_staged_is_finished(fleet, world):
    world.head = fleet.commit(world.anchor, "2.0", halted=True)
    finish(world)
    world.head = fleet.commit(world.head, "2.0")
    world.git_head = world.head  # Fetched, and then the network goes away.
    world.online = False
    result = world.tick()
    assert condition(result, "Trusted") == ("True", "Trusted") and result.exit_code is ExitCode.OK
    result = world.tick()
    assert code(result) == "Converged" and str(world.running.version) == "2.0"
    assert "does not answer" in result.status.conditions[0].message


@pytest.mark.parametrize("what", ["stranger", "rewound", "fork"])
def test_an_untrusted_head_changes_nothing(fleet, world, what):
    check(world, finish(world), {"2.0"})
    trusted = world.trust.commit
    other = fleet.commit(world.anchor, "3.0")
    world.head = {
        "stranger": fleet.commit(world.head, "3.0", signer="mallory"),
        "rewound": world.anchor,
        "fork": other,
    }[what]
    result = world.tick()
    assert result.exit_code is ExitCode.UNTRUSTED
    status, reason = condition(result, "Trusted")
    assert status == "False" and reason == ("UnknownSigner" if what == "stranger" else "NotDescendant")
    assert result.status.hint or what != "stranger"
    assert code(result) == "Converged" and world.trust.commit == trusted == result.status.commit


def test_the_last_trusted_commit_is_carried_out_while_the_head_is_refused(fleet, world):
    world.tick()
    world = World.installed(fleet, "1.0", "2.0", "1.0")
    world.head = fleet.commit(world.anchor, "2.0", halted=True)
    finish(world)
    good = fleet.commit(world.head, "2.0")
    world.git_head = good
    world.online = False
    world.crash_at = frozenset({len(world.trace) + 3})  # Dies when the good commit has just been saved.
    world.tick()
    assert world.trust.commit == good
    world.online = True
    world.head = fleet.commit(good, "3.0", signer="mallory")
    for _ in range(3):
        result = world.tick()
    assert str(world.running.version) == "2.0" and result.exit_code is ExitCode.UNTRUSTED


def test_another_fleets_history_is_refused_before_anything_is_saved(fleet, world):
    other = "apiVersion: kubenode.dev/v1alpha1\nkind: Fleet\nmetadata: {name: x}\nspec: {id: other, stores: [a]}\n"
    world.head = fleet.commit(world.anchor, "2.0", extra={"fleet.yaml": other})
    result = world.tick()
    assert condition(result, "Trusted") == ("False", "FleetIdMismatch")
    assert world.trust.commit == world.anchor


def test_a_seed_of_another_fleet_is_refused(world):
    world.trust = TrustState("another fleet", world.anchor)
    result = world.tick()
    assert code(result) == "FleetIdMismatch" and result.exit_code is ExitCode.UNTRUSTED


@pytest.mark.parametrize(
    "extra",
    [
        {"nodes/n1.yaml": "kind: Node"},
        {"pools/machines.yaml": "["},
        {"channels/stable.yaml": "a: 1"},
        {"fleet.yaml": "["},
    ],
)
def test_broken_documents_of_a_trusted_commit(fleet, world, extra):
    world.head = fleet.commit(world.anchor, "2.0", extra=extra)
    result = world.tick()
    assert (code(result), result.exit_code) == ("FleetInvalid", ExitCode.STUCK)
    assert next(iter(extra)) in result.status.message and result.status.hint
    assert world.trust.commit == world.head, "trust never waits for documents"
    world.head = fleet.commit(world.head, "2.0")
    check(world, finish(world), {"2.0"})


# The stores.


@pytest.mark.parametrize(
    ("stores", "reason"),
    [
        (["liar"], "ArtifactDigestMismatch"),
        (["liar", "liar"], "ArtifactDigestMismatch"),
        (["old"], "ManifestDigestMismatch"),
        (["down"], "Backoff"),
    ],
)
def test_only_bad_stores(world, stores, reason):
    world.stores = stores
    for _ in range(8):
        result = world.tick()
        assert code(result) == "Backoff"
        status, why = condition(result, "Stalled")
        assert (status, why) == ("True", reason)
        assert result.exit_code is (ExitCode.OK if reason == "Backoff" else ExitCode.UNTRUSTED)
        assert not any(step.startswith("slots.") for step in world.trace)
        assert not any(it.files for it in world.downloads.values()), "nothing that was refused is kept"
    world.stores = ["honest"]
    check(world, finish(world), {"2.0"})


def test_a_builder_that_is_not_accepted(fleet, world):
    world.head = fleet.commit(world.anchor, "2.0", builder="somebody@example.net")
    result = world.tick()
    assert condition(result, "Stalled") == ("True", "BuilderNotAllowed")
    assert IDENTITY in condition_message(result, "Stalled")


def condition_message(result, kind):
    return next(it.message for it in result.status.conditions if it.type == kind)


def test_a_builder_that_is_taken_from_the_policy_stops_what_is_staged(fleet, world):
    world.head = fleet.commit(world.anchor, "2.0", halted=True)
    finish(world)
    assert world.staged is not None
    world.head = fleet.commit(world.head, "2.0", builder="somebody@example.net")
    result = ticks(world, 3)
    assert str(world.running.version) == "1.0" and not world.restarts
    assert condition(result, "Stalled") == ("True", "BuilderNotAllowed")


def test_a_root_hash_that_the_manifest_does_not_have(fleet, world):
    path = "releases/2.0.yaml"
    text = fleet.objects[world.head].blobs
    document = next(data for data in text.values() if b"version: '2.0'" in data).decode()
    wrong = document.replace(root_hash("2.0"), root_hash("3.0"))
    assert wrong != document
    world.head = fleet.commit(world.head, "2.0", extra={path: wrong})
    result = world.tick()
    assert condition(result, "Stalled") == ("True", "ReleaseMismatch")
    assert not any(step.startswith("slots.") for step in world.trace)


def test_a_download_that_rots_in_staging_is_fetched_again(fleet, world):
    world.crash_at = frozenset({world.trace_at("staging.completed")})
    world.tick()
    (download,) = world.downloads.values()
    assert download.complete and world.uuids[world.running.slot.other] is None
    name = next(iter(download.files))
    download.files[name] = b"rotten"
    check(world, finish(world), {"2.0"})


def test_partial_downloads_are_continued(world, monkeypatch):
    world.crash_at = frozenset({world.trace_at("staging.append")})
    world.tick()
    ((name, kept),) = next(iter(world.downloads.values())).files.items()
    assert 0 < len(kept) < len(world.fleet.releases["2.0"].files[name])
    asked = []
    real = SimStore.artifact
    monkeypatch.setattr(SimStore, "artifact", lambda self, *what: asked.append(what[1:]) or real(self, *what))
    check(world, finish(world), {"2.0"})
    assert asked[0] == (name, len(kept)) and len(asked) == 3


def test_a_download_without_its_evidence_is_fetched_again(world):
    world.crash_at = frozenset({world.trace_at("staging.completed")})
    world.tick()
    next(iter(world.downloads.values())).evidence = None
    check(world, finish(world), {"2.0"})


# The disk.


def test_a_full_disk_is_cleared_and_waited_for(world):
    world.capacity = 60
    result = ticks(world, 3)
    assert code(result) == "Backoff" and "full" in result.decision.message
    assert not world.downloads, "the room is left to others"


def test_a_disk_that_fills_up_during_a_download_is_cleared(world, monkeypatch):
    monkeypatch.setattr(SimStaging, "require_space", lambda self, digest, size: None)
    world.capacity = 60
    result = ticks(world, 2)
    assert code(result) == "Backoff" and "staging.append node_2.0.root" in world.trace
    assert not world.downloads, "the room is left to others"
    world.capacity = 10**6
    check(world, finish(world), {"2.0"})


def test_leftovers_that_fill_the_disk_go_before_a_download(fleet, world):
    world.downloads["old"] = Download(files={"x": b"x" * 990}, complete=True)
    world.capacity = 1000
    check(world, finish(world), {"2.0"})


def test_a_journal_that_cannot_be_written_stops_before_anything_dangerous(world, monkeypatch):
    def full(self, journal):
        raise NoSpace("no space left on device")

    monkeypatch.setattr(SimState, "save_journal", full)
    result = ticks(world, 5)
    assert (code(result), result.exit_code) == ("HostFailed", ExitCode.FAILURE)
    assert not world.restarts and not any(step.startswith(("slots.", "machine.")) for step in world.trace)
    monkeypatch.undo()
    check(world, finish(world), {"2.0"})


def test_a_disk_that_does_not_keep_what_is_written(world, monkeypatch):
    monkeypatch.setattr(SimSlots, "write", lambda self, release, slot, progress: self.world.step("lost"))
    result = ticks(world, 12)
    assert code(result) == "WriteBudget" and result.exit_code is ExitCode.STUCK
    assert world.trace.count("lost") == 5 and "does not show" in result.decision.message


def test_a_loader_that_never_chooses_the_release_is_no_reboot_loop(world, monkeypatch):
    monkeypatch.setattr(World, "boot", lambda self: setattr(self, "restart_wanted", False))
    result = ticks(world, 12)
    assert code(result) == "RebootBudget" and sum(world.restarts.values()) == 3
    assert result.decision.hint


def test_lost_trust_is_not_rebuilt(world, monkeypatch):
    finish(world)

    def lost(self):
        raise StateLost("both copies of trust.json are unreadable")

    monkeypatch.setattr(SimState, "load_trust", lost)
    result = world.tick()
    assert (code(result), result.exit_code) == ("StateLost", ExitCode.STUCK)
    assert result.status.hint and condition(result, "Trusted")[0] == "Unknown"


# The machine.


def test_a_tick_does_so_much_and_no_more(world, monkeypatch):
    monkeypatch.setattr(tick, "MAX_ACTIONS", 2)
    result = world.tick()
    assert code(result) == "Unfinished" and [type(it).__name__ for it in result.done] == ["FetchRelease", "WriteSlot"]
    check(world, finish(world), {"2.0"})


def test_a_machine_that_cannot_be_observed_is_left_alone(world, monkeypatch):
    def blind(self):
        raise HostError("the ESP cannot be read", hint="Is it mounted?")

    monkeypatch.setattr(SimMachine, "observe", blind)
    result = world.tick()
    assert (code(result), result.exit_code) == ("HostFailed", ExitCode.FAILURE)
    assert "mounted" in result.status.message and result.status.observed is None
    assert not world.downloads


def test_a_member_of_a_cluster_that_git_does_not_declare_is_not_touched(world):
    world.kubernetes = Role.CONTROL_PLANE
    result = finish(world)
    assert code(result) == "ClusterNotDeclared" and result.exit_code is ExitCode.STUCK
    assert condition(result, "Staged") == ("True", "Staged") and result.status.hint
    assert str(world.running.version) == "1.0" and len(world.esp) == 1
    world.kubernetes = None
    check(world, finish(world), {"2.0"})


def test_a_poisoned_release_is_never_tried_again_but_its_repair_is(fleet, world):
    world.verdicts = {"2.0": "dead"}
    assert code(finish(world)) == "ReleasePoisoned"
    boots = world.boots
    world.journal = Journal()  # The journal may be lost; the poisoned are kept with the trust.
    result = ticks(world, 30)
    assert code(result) == "ReleasePoisoned" and world.boots == boots
    assert [bad.root_hash for bad in result.status.poisoned] == [root_hash("2.0")]
    world.head = fleet.commit(world.head, "3.0", "2.0")
    check(world, finish(world), {"3.0"})


def test_a_superseded_release_can_be_returned_to(fleet):
    world = World.installed(fleet, "2.0", "1.0")
    check(world, finish(world), {"1.0"})
    assert not world.trust.poisoned
    world.head = fleet.commit(world.head, "2.0")
    check(world, finish(world), {"2.0"})


# The gate and the dry run.


def facts(world):
    return (world.trust, world.journal, list(world.esp), dict(world.uuids), world.staged, sorted(world.downloads))


def test_a_dry_run_shows_the_next_step_and_leaves_no_trace(fleet, world):
    world.head = fleet.commit(world.anchor, "1.0")
    finish(world)
    world.head = world.git_head = fleet.commit(world.head, "2.0")
    before, steps = facts(world), len(world.trace)
    result = run_tick(world.ports(), dry_run=True)
    assert isinstance(result.decision, Converged), "only the commit that is trusted already counts"
    world.crash_at = frozenset({steps + 5})
    world.tick()
    result = run_tick(world.ports(), dry_run=True)
    assert isinstance(result.decision, Act) and isinstance(result.decision.action, FetchRelease)
    assert result.decision.then and result.status.phase == "Fetching"
    assert facts(world)[2:] == before[2:] and len(world.statuses) == 1


def test_a_tick_gives_way_to_another(world, monkeypatch):
    def held(self):
        raise TryLater("another tick runs")

    monkeypatch.setattr(SimState, "lock", held)
    with pytest.raises(TryLater):
        run_tick(world.ports())
    finish_dry = run_tick(replace(world.ports()), dry_run=True)
    assert isinstance(finish_dry.decision, Wait | Stuck), "a dry run needs no lock"


def agent_check(world):
    return next(it for it in health.gate(world.ports(), SimHealth(True)) if it.name == health.AGENT_CHECK)


def test_the_gate_passes_before_the_first_contact(world):
    world.online = False
    assert agent_check(world).ok


def test_the_gate_needs_no_network_and_no_newer_head(fleet, world):
    finish(world)
    world.online = False
    world.git_head = fleet.commit(world.head, "3.0", signer="mallory")
    assert agent_check(world).ok, "an attacker's push must not fail a trial boot"


def test_the_gate_fails_when_the_agent_could_not_repair_the_machine(fleet, world, monkeypatch):
    finish(world)
    with monkeypatch.context() as patch:
        patch.setattr(SimMachine, "observe", lambda self: 1 / 0)
        assert not agent_check(world).ok
    with monkeypatch.context() as patch:
        patch.setattr(SimState, "load_trust", lambda self: TrustState("other", "0" * 40))
        assert not agent_check(world).ok
    world.trust = replace(world.trust, commit=fleet.commit(world.head, "2.0", extra={"nodes/n1.yaml": "["}))
    assert not agent_check(world).ok
