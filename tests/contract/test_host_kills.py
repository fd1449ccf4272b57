"""Processes that are killed with SIGKILL between any two steps, and what the next process finds."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kubenode.errors import TryLater
from kubenode.host import bootentries, files, gpt, process, slotwriter
from kubenode.host.paths import Paths
from kubenode.host.staging import Downloads
from kubenode.host.state import StateFolder
from kubenode.model.observed import Slot, StagedImage
from kubenode.model.state import TrustState
from kubenode.model.version import Version
from tests.contract.host_machine import FolderMachine, make_release

SMALL = make_release("2.0")


def die_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that is killed before its `step`-th change of a file or disk. Return whether it was."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(function: Callable[..., object]) -> Callable[..., object]:
            def call(*words: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*words, **options)

            return call

        status = 1
        try:
            # What every change goes through. A write is cut in the middle, too: of each chunk, half arrives first.
            whole = os.pwrite

            def torn(handle: int, data: bytes, offset: int) -> int:
                return whole(handle, bytes(data)[: max(1, len(data) // 2)], offset)

            slotwriter.os.pwrite = counted(torn)  # type: ignore[attr-defined]
            for name in ("fsync", "fchmod"):
                setattr(os, name, counted(getattr(os, name)))
            for name in ("rename", "replace", "unlink", "mkdir"):
                setattr(Path, name, counted(getattr(Path, name)))
            process.run = counted(process.run)  # type: ignore[assignment]
            assert gpt.process is process and bootentries.process is process and files.os is os
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed without being killed"
    return False


def quiet(_what: str, _done: int, _size: int) -> None:
    pass


def test_a_slot_write_killed_anywhere_leaves_nothing_or_everything(tmp_path: Path):
    machine = FolderMachine.installed(tmp_path, "1.0")
    before = make_release("1.5")
    machine.fetch(before)
    machine.slots.write(before.release, Slot.B, quiet)
    machine.fetch(SMALL)
    seen = set()
    step = 0
    killed = True
    while killed:
        step += 1
        killed = die_at(step, lambda: machine.slots.write(SMALL.release, Slot.B, quiet))
        shown = machine.machine.observe()
        seen.add((shown.spare, shown.staged))
        if shown.spare == SMALL.root_hash:
            root, verity, _ = SMALL.files.values()
            assert machine.read("root-b", len(root)) == root and machine.read("root-b-verity", len(verity)) == verity
        elif shown.spare is not None:
            assert shown.spare == before.root_hash
            assert machine.read("root-b", 600_00) == before.files["root_1.5.raw"][:600_00]
        assert shown.booted.slot is Slot.A and len(shown.entries) == 1
        if killed and step % 5 == 0:
            # The next attempt begins from whatever is there; the old release once more in between.
            machine.slots.write(before.release, Slot.B, quiet)
    assert step > 20
    assert seen == {
        (before.root_hash, StagedImage(Version("1.5"), before.root_hash)),
        (before.root_hash, None),
        (None, None),
        (SMALL.root_hash, None),
        (SMALL.root_hash, StagedImage(Version("2.0"), SMALL.root_hash)),
    }
    machine.boot()
    assert machine.machine.observe().booted.slot is Slot.A


def test_an_activation_killed_anywhere_can_be_repeated_and_the_machine_starts(tmp_path: Path):
    machine = FolderMachine.installed(tmp_path, "3.0")
    machine.fetch(SMALL)
    machine.slots.write(SMALL.release, Slot.B, quiet)
    booted = machine.machine.observe().entries[0]
    names = set()
    step = 0
    killed = True
    while killed:
        step += 1

        def activate() -> None:
            now = machine.machine.observe().entries
            own = next(entry for entry in now if entry.root_hash == booted.root_hash)
            machine.slots.activate(SMALL.release, own)

        killed = die_at(step, activate)
        names.add(tuple(name for name in machine.entry_names() if name.endswith(".efi")))
        shown = machine.machine.observe()
        assert all(entry.root_hash for entry in shown.entries) and not shown.booted.trial
    assert names == {
        ("kubenode_3.0.efi",),
        ("kubenode_3.0+0-0.efi",),
        ("kubenode_2.0+3.efi", "kubenode_3.0+0-0.efi"),
    }
    machine.boot()
    assert machine.machine.observe().booted.slot is Slot.B


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    step, killed, contents = 0, True, set()
    while killed:
        step += 1
        killed = die_at(step, lambda: files.write_atomically(path, b"new" * 100_000))
        contents.add(path.read_bytes()[:6])
        if path.read_bytes() != b"old":
            path.write_bytes(b"old")
    assert step > 3 and contents == {b"old", b"newnew"}
    assert [item.name for item in tmp_path.iterdir()] == ["file"], "leftovers were not removed"


def test_a_file_that_another_process_writes_is_no_leftover(tmp_path: Path):
    path = tmp_path / "file"
    with files.replacing(path) as slow:
        slow.write(b"slow")
        files.write_atomically(path, b"fast")
    assert path.read_bytes() == b"slow"


def test_a_killed_download_keeps_what_was_flushed_and_goes_on(tmp_path: Path):
    digest = "ab" * 32
    downloads = Downloads(tmp_path)

    def chunks():
        yield b"first "
        yield b"second "
        os.kill(os.getpid(), signal.SIGKILL)

    downloads.append(digest, "a", iter([b"kept "]))
    assert die_at(1000, lambda: downloads.append(digest, "a", chunks()))
    kept = b"".join(downloads.partial(digest, "a"))
    assert b"kept first second ".startswith(kept) and kept.startswith(b"kept ")
    assert downloads.listing() == (frozenset(), frozenset({digest}))


def test_the_lock_ends_with_its_process(tmp_path: Path):
    state = StateFolder(Paths(tmp_path))

    def hold() -> None:
        with state.lock():
            (tmp_path / "held").touch()
            signal.pause()

    child = os.fork()
    if child == 0:
        hold()
        os._exit(0)
    while not (tmp_path / "held").exists():
        os.sched_yield()
    with pytest.raises(TryLater, match="another tick"), state.lock():
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with state.lock():
        pass


def test_the_trust_state_killed_anywhere_is_the_old_or_the_new_one(tmp_path: Path):
    state = StateFolder(Paths(tmp_path))
    old, new = TrustState("fleet", "a" * 40), TrustState("fleet", "b" * 40)
    state.save_trust(old)
    step, killed, seen = 0, True, []
    while killed:
        step += 1
        killed = die_at(step, lambda: state.save_trust(new))
        with state.lock():
            seen.append(state.load_trust())
        contents = {(Paths(tmp_path).state / name).read_bytes() for name in ("trust.json", "trust.backup.json")}
        assert len(contents) == 1, "loading under the lock repairs the older copy"
        state.save_trust(old)
    assert set(seen) == {old, new} and seen[-1] == new
