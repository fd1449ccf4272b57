"""Whole updates on a machine in a folder: written, activated, started, blessed, fallen back, gone back."""

from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.model.observed import BootEntry, Slot, StagedImage
from kubenode.model.version import Version
from tests.contract.host_machine import FolderMachine, make_release

NEW = make_release("2.0")
OLD = make_release("0.9")


def quiet(_what: str, _done: int, _size: int) -> None:
    pass


@pytest.fixture
def machine(tmp_path: Path) -> FolderMachine:
    return FolderMachine.installed(tmp_path, "1.0")


def stage(machine: FolderMachine, content=NEW) -> None:
    machine.fetch(content)
    machine.slots.write(content.release, machine.machine.observe().booted.slot.other, quiet)


def test_a_fresh_machine_shows_what_it_runs_and_nothing_else(machine: FolderMachine):
    seen = machine.machine.observe()
    assert (seen.booted.slot, str(seen.booted.version), seen.booted.trial) == (Slot.A, "1.0", False)
    assert seen.entries == (BootEntry(Version("1.0"), seen.booted.root_hash),)
    # Slot B has the random UUIDs that sfdisk gave it: they are no root hash.
    assert (seen.spare, seen.staged, seen.fetched, seen.partial) == (None, None, frozenset(), frozenset())
    assert seen.boot_id.endswith("000001")


def test_a_written_slot_does_not_start_by_itself(machine: FolderMachine):
    said: list[tuple[str, int, int]] = []
    machine.fetch(NEW)
    machine.slots.write(NEW.release, Slot.B, lambda *words: said.append(words))
    seen = machine.machine.observe()
    assert (seen.spare, seen.staged) == (NEW.root_hash, StagedImage(Version("2.0"), NEW.root_hash))
    assert seen.fetched == {NEW.digest}
    assert {what for what, _, _ in said} == {
        f"{do} root-b{kind}" for do in ("write", "verify") for kind in ("", "-verity")
    }
    assert all(0 < done <= size for _, done, size in said)
    machine.boot()
    assert machine.machine.observe().booted.slot is Slot.A


def test_an_update_is_tried_and_then_kept(machine: FolderMachine):
    stage(machine)
    machine.slots.activate(NEW.release, None)
    assert machine.entry_names() == ["kubenode_1.0.efi", "kubenode_2.0+3.efi"]
    machine.boot()
    seen = machine.machine.observe()
    assert (seen.booted.slot, seen.booted.trial, str(seen.booted.version)) == (Slot.B, True, "2.0")
    assert BootEntry(Version("2.0"), NEW.root_hash, 2, 1) in seen.entries
    machine.bless()
    seen = machine.machine.observe()
    assert not seen.booted.trial and BootEntry(Version("2.0"), NEW.root_hash) in seen.entries
    machine.slots.prune_staged()
    machine.boot()
    seen = machine.machine.observe()
    assert not seen.booted.trial and seen.staged is None and seen.booted.slot is Slot.B


def test_a_release_that_fails_is_left_after_three_tries(machine: FolderMachine):
    stage(machine)
    machine.slots.activate(NEW.release, None)
    for _ in range(3):
        machine.boot()
        seen = machine.machine.observe()
        # Also on the last try, when the counter is 0 already.
        assert seen.booted.trial and seen.booted.slot is Slot.B
    machine.boot()
    seen = machine.machine.observe()
    assert seen.booted.slot is Slot.A and not seen.booted.trial
    assert BootEntry(Version("2.0"), NEW.root_hash, 0, 3) in seen.entries


def test_a_trial_that_was_marked_bad_stays_a_trial(machine: FolderMachine):
    stage(machine)
    machine.slots.activate(NEW.release, None)
    machine.boot()
    machine.bless("bad")
    assert machine.machine.observe().booted.trial
    machine.boot()
    assert machine.machine.observe().booted.slot is Slot.A


def test_a_downgrade_supersedes_the_newer_release_which_stays_the_fallback(machine: FolderMachine):
    stage(machine, OLD)
    booted = machine.machine.observe().entries[0]
    machine.slots.activate(OLD.release, booted)
    assert machine.entry_names() == ["kubenode_0.9+3.efi", "kubenode_1.0+0-0.efi"]
    assert not machine.machine.observe().booted.trial
    for _ in range(3):
        machine.boot()
        assert str(machine.machine.observe().booted.version) == "0.9"
    machine.boot()
    seen = machine.machine.observe()
    # The loader counts the superseded entry too, so systemd blesses it again.
    assert str(seen.booted.version) == "1.0" and seen.booted.trial
    machine.bless()
    assert not machine.machine.observe().booted.trial


def test_a_superseded_entry_is_no_trial_although_this_boot_began_as_one(machine: FolderMachine):
    stage(machine)
    machine.slots.activate(NEW.release, None)
    machine.boot()
    machine.bless()
    first = next(entry for entry in machine.machine.observe().entries if str(entry.version) == "1.0")
    machine.slots.retire(first)
    stage(machine, OLD)
    booted = machine.machine.observe().entries[0]
    machine.slots.activate(OLD.release, booted)
    assert "kubenode_2.0+0-0.efi" in machine.entry_names()
    assert not machine.machine.observe().booted.trial
    superseded = BootEntry(Version("2.0"), NEW.root_hash, 0, 0)
    machine.slots.restore(superseded)
    assert "kubenode_2.0.efi" in machine.entry_names()


def test_restore_never_ends_a_trial(machine: FolderMachine):
    stage(machine)
    machine.slots.activate(NEW.release, None)
    for _ in range(3):
        machine.boot()
    entry = next(entry for entry in machine.machine.observe().entries if entry.root_hash == NEW.root_hash)
    with pytest.raises(HostError, match="trial"):
        machine.slots.restore(entry)
    with pytest.raises(HostError, match="running"):
        machine.slots.restore(BootEntry(Version("1.0"), NEW.root_hash[::-1], 0, 0))


def test_what_runs_is_neither_written_nor_activated_nor_retired(machine: FolderMachine):
    machine.fetch(NEW)
    with pytest.raises(HostError, match="slot a runs"):
        machine.slots.write(NEW.release, Slot.A, quiet)
    running = machine.running
    assert running is not None
    with pytest.raises(HostError, match="runs"):
        machine.slots.activate(running.release, None)
    entry = machine.machine.observe().entries[0]
    with pytest.raises(HostError, match="never removed"):
        machine.slots.retire(entry)
    assert machine.entry_names() == ["kubenode_1.0.efi"]


def test_retire_removes_all_names_of_a_release_and_is_idempotent(machine: FolderMachine):
    stage(machine)
    machine.slots.activate(NEW.release, None)
    image = NEW.files["kubenode_2.0.efi"]
    (machine.paths.entries / "KUBENODE_2.0+1-2.EFI").write_bytes(image)
    entry = BootEntry(Version("2.0"), NEW.root_hash, 3, 0)
    assert entry in machine.machine.observe().entries
    machine.slots.retire(entry)
    machine.slots.retire(entry)
    assert machine.entry_names() == ["kubenode_1.0.efi"]


def test_an_unreadable_entry_is_seen_and_can_be_retired(machine: FolderMachine):
    (machine.paths.entries / "kubenode_3.0+3.efi").write_bytes(b"MZ torn")
    entry = BootEntry(Version("3.0"), "", 3, 0)
    assert entry in machine.machine.observe().entries
    machine.slots.retire(entry)
    assert machine.entry_names() == ["kubenode_1.0.efi"]
    (machine.paths.entries / "kubenode_1.0.efi").write_bytes(b"MZ torn")
    with pytest.raises(HostError, match="never removed"):
        machine.slots.retire(machine.machine.observe().entries[0])


def test_activation_is_repeatable_and_leaves_one_name(machine: FolderMachine):
    stage(machine)
    (machine.paths.entries / "kubenode_2.0.efi.new").write_bytes(b"leftover of a crash")
    (machine.paths.entries / "kubenode_2.0.efi").write_bytes(NEW.files["kubenode_2.0.efi"])
    machine.slots.activate(NEW.release, None)
    machine.slots.activate(NEW.release, None)
    assert machine.entry_names() == ["kubenode_1.0.efi", "kubenode_2.0+3.efi"]


def test_files_of_others_are_left_alone(machine: FolderMachine):
    for name in ("debian.efi", "kubenode_x.efi", "kubenode_1.0.efi.bak", "notes.txt"):
        (machine.paths.entries / name).write_bytes(b"x")
    assert len(machine.machine.observe().entries) == 1
    stage(machine)
    machine.slots.activate(NEW.release, None)
    assert {"debian.efi", "kubenode_x.efi", "kubenode_1.0.efi.bak", "notes.txt"} <= set(machine.entry_names())
