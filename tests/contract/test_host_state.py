import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubenode.errors import HostError, StateLost, TryLater
from kubenode.host.clock import SystemClock
from kubenode.host.paths import Paths
from kubenode.host.state import StateFolder
from kubenode.host.statefiles import Generation, _checksum, decode_journal, decode_trust, encode_trust
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.state import NodeStatus, Seed, Stamp, TrustState
from kubenode.model.version import Version

BAD = (
    Poisoned(Version("1.1"), "ab" * 32, None, "never passed"),
    Poisoned(Version("1.2"), "cd" * 32, "ef" * 32, 'ü\n"quoted"'),
)
TRUST = TrustState("6f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11", "a" * 40, BAD)
NEWER = TrustState(TRUST.fleet_id, "b" * 40, BAD)
WHEN = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
JOURNAL = Journal({"fetch:" + "1" * 64: Attempt(3, WHEN, "no network", "BundleInvalid")}, "2" * 64)
SEED = {"fleetUrl": "https://git.example.net/f", "fleetId": TRUST.fleet_id, "anchor": "a" * 40, "node": "node-1"}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (Paths(tmp_path).state).mkdir(parents=True)
    return Paths(tmp_path)


@pytest.fixture
def state(paths: Paths) -> StateFolder:
    return StateFolder(paths, {})


@pytest.fixture
def copies(paths: Paths) -> tuple[Path, Path]:
    return paths.state / "trust.json", paths.state / "trust.backup.json"


def test_the_trust_state_comes_back(state: StateFolder, copies: tuple[Path, Path]):
    assert state.load_trust() is None
    state.save_trust(TRUST)
    assert state.load_trust() == TRUST
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert json.loads(copies[0].read_bytes())["apiVersion"] == "kubenode.dev/v1alpha1"
    assert copies[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "flipped", "nonsense", "nested"])
def test_one_damaged_copy_is_repaired_from_the_other(
    state: StateFolder, copies: tuple[Path, Path], which: int, damage: str
):
    state.save_trust(TRUST)
    whole = copies[0].read_bytes()
    match damage:
        case "missing":
            copies[which].unlink()
        case "empty":
            copies[which].write_bytes(b"")
        case "torn":
            copies[which].write_bytes(whole[: len(whole) // 2])
        case "flipped":
            copies[which].write_bytes(whole.replace(b"a" * 40, b"a" * 39 + b"b"))
        case "nonsense":
            copies[which].write_bytes(b"\xff\x00")
        case "nested":
            copies[which].write_bytes(b"[" * 200_000)
    damaged = [copy.read_bytes() if copy.exists() else None for copy in copies]
    assert state.load_trust() == TRUST
    # Without the lock, nothing is written: a tick may be at it.
    assert damaged == [copy.read_bytes() if copy.exists() else None for copy in copies]
    with state.lock():
        assert state.load_trust() == TRUST
    assert [copy.read_bytes() for copy in copies] == [whole, whole]


def test_every_torn_length_is_noticed(state: StateFolder, copies: tuple[Path, Path]):
    state.save_trust(TRUST)
    whole = copies[0].read_bytes()
    # The last byte is the end of the line, which says nothing.
    for size in range(len(whole) - 1):
        with pytest.raises(ValueError):
            decode_trust(whole[:size])
    for position in range(0, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        with contextlib.suppress(ValueError):
            assert decode_trust(bytes(flipped)).state == TRUST


def test_the_newer_copy_wins_whichever_it_is(state: StateFolder, copies: tuple[Path, Path]):
    state.save_trust(TRUST)
    old = copies[0].read_bytes()
    state.save_trust(NEWER)
    for older in copies:
        new = copies[1 - copies.index(older)].read_bytes()
        older.write_bytes(old)
        with state.lock():
            assert state.load_trust() == NEWER
        assert older.read_bytes() == new


def test_both_copies_unreadable_is_the_end(state: StateFolder, copies: tuple[Path, Path]):
    state.save_trust(TRUST)
    for second in (b"torn", None):
        copies[0].write_bytes(b"{")
        copies[1].write_bytes(second) if second else copies[1].unlink()
        with pytest.raises(StateLost, match=r"trust\.json"):
            state.load_trust()
        with pytest.raises(StateLost):
            # Nor may it be written over, as if it were a first contact.
            state.save_trust(TRUST)


def test_a_later_release_may_add_keys(state: StateFolder, copies: tuple[Path, Path]):
    state.save_trust(TRUST)
    document = json.loads(copies[0].read_bytes())
    document["later"] = document["content"]["later"] = {"a": [1, 2]}
    from kubenode.host.statefiles import _checksum

    document["sha256"] = _checksum(document["content"])
    for copy in copies:
        copy.write_text(json.dumps(document, indent=4))
    assert state.load_trust() == TRUST
    assert decode_trust(encode_trust(decode_trust(copies[0].read_bytes()))).state == TRUST


def test_the_journal_comes_back_without_the_poisoned(state: StateFolder, paths: Paths):
    assert state.load_journal() == Journal()
    state.save_journal(Journal(JOURNAL.attempts, JOURNAL.superseded, BAD))
    assert state.load_journal() == JOURNAL
    document = json.loads((paths.state / "journal.json").read_bytes())
    document["later"] = 1
    document["attempts"]["fetch:" + "1" * 64]["later"] = 1
    del document["attempts"]["fetch:" + "1" * 64]["reason"]
    assert decode_journal(json.dumps(document).encode()).attempts["fetch:" + "1" * 64].failures == 3


def test_a_torn_journal_is_set_aside_and_three_are_kept(state: StateFolder, paths: Paths):
    state.save_journal(JOURNAL)
    whole = (paths.state / "journal.json").read_bytes()
    damaged = [
        whole[:-9],
        b"",
        b"[]",
        whole.replace(b'"failures": 3', b'"failures": "x"'),
        whole.replace(b"Journal", b"Other"),
    ]
    for data in damaged:
        (paths.state / "journal.json").write_bytes(data)
        assert state.load_journal() == Journal() and (paths.state / "journal.json").exists()
        with state.lock():
            assert state.load_journal() == Journal()
            assert state.load_journal() == Journal()
    kept = sorted(path.name for path in paths.state.glob("journal.json*"))
    assert kept == ["journal.json.bad-3", "journal.json.bad-4", "journal.json.bad-5"]
    assert (paths.state / "journal.json.bad-5").read_bytes() == damaged[-1]


def test_the_lock_is_held_once(state: StateFolder, paths: Paths):
    with state.lock():
        for other in (state, StateFolder(paths, {})):
            with pytest.raises(TryLater), other.lock():
                pass
    with StateFolder(paths, {}).lock():
        pass


def test_the_status_is_for_people_and_never_fails(state: StateFolder, paths: Paths):
    status = NodeStatus("node-1", WHEN, "a" * 40, "Converged", "all is well", poisoned=BAD)
    state.save_status(status)
    path = paths.state / "status.json"
    document = json.loads(path.read_bytes())
    assert document["kind"] == "NodeStatus" and document["poisoned"][0]["version"] == "1.1"
    assert document["at"] == "2026-01-02T03:04:05.000006+00:00" and path.stat().st_mode & 0o777 == 0o644
    path.unlink()
    path.mkdir()
    state.save_status(status)


@pytest.mark.parametrize("place", ["credentials", "system", "state"])
def test_the_seed_is_found(tmp_path: Path, paths: Paths, place: str):
    folder = {
        "credentials": tmp_path / "creds",
        "system": tmp_path / "run/credentials/@system",
        "state": paths.state,
    }
    names = {"credentials": "kubenode.seed", "system": "kubenode.seed", "state": "seed.json"}
    order = list(folder)
    for other in order[order.index(place) :]:
        folder[other].mkdir(parents=True, exist_ok=True)
        (folder[other] / names[other]).write_text(json.dumps({**SEED, "node": other}))
    state = StateFolder(paths, {"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")})
    assert state.seed() == Seed(SEED["fleetUrl"], SEED["fleetId"], SEED["anchor"], place, "main")


def test_a_machine_without_seed_says_where_it_looked(state: StateFolder):
    with pytest.raises(HostError, match=r"@system/kubenode\.seed, .*seed\.json"):
        state.seed()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be used"),
        ("[]", "JSON object"),
        (json.dumps({**SEED, "fleet": "x"}), "unknown key 'fleet'"),
        (json.dumps({k: v for k, v in SEED.items() if k != "node"}), "node is missing"),
        (json.dumps({**SEED, "anchor": "A" * 40}), "anchor is"),
        (json.dumps({**SEED, "anchor": "a" * 39}), "anchor is"),
        (json.dumps({**SEED, "anchor": "a" * 40 + "\n"}), "anchor is"),
        (json.dumps({**SEED, "fleetId": "my-fleet"}), "fleetId is"),
        (json.dumps({**SEED, "node": "../x"}), "node is"),
        (json.dumps({**SEED, "fleetUrl": 7}), "fleetUrl is not a string"),
        (json.dumps({**SEED, "branch": "-x"}), "branch is"),
        ('{"node": "a", "node": "b"}', "twice"),
        ("\ufeff{}", "cannot be used"),
        ("x" * (2 << 20), "larger than"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_wrong_seed_is_named(state: StateFolder, paths: Paths, text: str, message: str):
    (paths.state / "seed.json").write_text(text)
    with pytest.raises(HostError, match=message):
        state.seed()


STAMP = Stamp("c" * 40, 7, WHEN.replace(microsecond=0), WHEN.replace(microsecond=0, year=2027), "SHA256:abc")
STAMPED = TrustState(TRUST.fleet_id, "b" * 40, BAD, STAMP)


def test_the_newest_stamp_comes_back(state: StateFolder, copies: tuple[Path, Path]):
    state.save_trust(STAMPED)
    assert state.load_trust() == STAMPED
    copies[0].unlink()
    assert state.load_trust() == STAMPED


def test_the_release_before_and_the_release_after_read_the_trust_state():
    # One from before stamps has no such key, and one from later has keys that nobody knows yet.
    document = json.loads(encode_trust(Generation(3, TRUST)))
    assert "stamp" not in document["content"]
    assert decode_trust(json.dumps(document).encode()).state.stamp is None
    content = json.loads(encode_trust(Generation(3, STAMPED)))["content"]
    content["stamp"]["later"] = content["later"] = 1
    later = {**document, "content": content, "sha256": _checksum(content)}
    assert decode_trust(json.dumps(later).encode()).state == STAMPED


@pytest.mark.parametrize(
    "change",
    [
        {"serial": "7"},
        {"serial": 0},
        {"serial": True},
        {"issued": "2026-01-02T03:04:05"},
        {"expires": 7},
        {"head": "x"},
    ],
)
def test_a_stamp_that_is_none_is_damage(change: dict[str, object]):
    document = json.loads(encode_trust(Generation(3, STAMPED)))
    document["content"]["stamp"] |= change
    document["sha256"] = _checksum(document["content"])
    with pytest.raises(ValueError):
        decode_trust(json.dumps(document).encode())


def test_the_clock_is_never_before_the_image(tmp_path: Path):
    epoch = tmp_path / "clock-epoch"
    epoch.touch()
    os.utime(epoch, (4102444800, 4102444800))
    assert SystemClock(epoch).now() == datetime(2100, 1, 1, tzinfo=UTC)
    assert SystemClock(tmp_path / "none").now() < datetime(2100, 1, 1, tzinfo=UTC)
