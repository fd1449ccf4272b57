"""Freshness: every rule as a row, every attack with its own reason, every state of the clock."""

import base64
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.errors import Untrusted
from kubenode.model.state import Stamp
from kubenode.trust import headfile
from kubenode.trust.freshness import CLOCK_BEHIND, FRESH, NOT_REQUIRED, Verdict, judge
from kubenode.trust.headfile import verify
from kubenode.trust.policy import Freshness
from kubenode.trust.reasons import Reason
from tests.gitrepo import SigningKey
from tests.stamps import FLEET, ISSUED, envelope, stamp

HEAD, OLD, UNKNOWN = "a" * 40, "b" * 40, "c" * 40
HISTORY = (HEAD, OLD)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SigningKey]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: SigningKey.make(folder, name) for name in ("stamp", "next", "mallory")}


@pytest.fixture(scope="module")
def required(keys: dict[str, SigningKey]) -> Freshness:
    return Freshness(7 * 86400, (keys["stamp"].key, keys["next"].key))


def kept(required: Freshness, serial: int, head: str = HEAD, **changes: Any) -> Stamp:
    known = Stamp(head, serial, ISSUED, ISSUED + 30 * DAY, required.keys[0].fingerprint)
    return replace(known, **changes)


def ask(
    required: Freshness | None, before: Stamp | None, offered: bytes | None, now: datetime = ISSUED + DAY
) -> Verdict:
    return judge(required, FLEET, before, offered, now, lambda commit: commit in HISTORY)


def test_no_policy_no_demand(required: Freshness) -> None:
    before = kept(required, 3)
    verdict = ask(None, before, b"garbage")
    assert (verdict.fresh, verdict.reason, verdict.kept, verdict.stale) == (None, NOT_REQUIRED, before, "")
    assert "would not be noticed" in verdict.message


@pytest.mark.parametrize(
    ("before", "serial", "head", "age", "fresh", "reason"),
    [
        # The first stamp, the next, the same again.
        (None, 1, HEAD, DAY, True, FRESH),
        (1, 2, HEAD, DAY, True, FRESH),
        (2, 2, HEAD, DAY, True, FRESH),
        # The stamp lags behind the branch: fine up to maxAge.
        (1, 2, OLD, DAY, True, FRESH),
        (1, 2, HEAD, 7 * DAY, True, FRESH),
        (1, 2, HEAD, 7 * DAY + timedelta(seconds=1), False, Reason.HEAD_STALE),
        (1, 2, HEAD, 30 * DAY, False, Reason.HEAD_EXPIRED),
        # What it vouches for was not given to this machine.
        (1, 2, UNKNOWN, DAY, False, Reason.HEAD_WITHHELD),
        (None, 1, UNKNOWN, DAY, False, Reason.HEAD_WITHHELD),
        # Played back: the remembered stamp counts while it lasts, then this is the reason.
        (3, 2, HEAD, DAY, True, FRESH),
        (3, 2, HEAD, 8 * DAY, False, Reason.HEAD_REWOUND),
        # One number for two heads: only who has the key can do that.
        (2, 2, OLD, DAY, False, Reason.HEAD_EQUIVOCATION),
    ],
)
def test_rules(
    required: Freshness,
    keys: dict[str, SigningKey],
    before: int | None,
    serial: int,
    head: str,
    age: timedelta,
    fresh: bool,
    reason: str,
) -> None:
    remembered = kept(required, before) if before is not None else None
    verdict = ask(required, remembered, stamp(head, serial, keys["stamp"]), ISSUED + age)
    assert (verdict.fresh, verdict.reason) == (fresh, reason), verdict.message
    assert bool(verdict.stale) is not fresh
    assert verdict.kept is not None and verdict.kept.serial == max(serial, before or 0), "serials only rise"


def test_nothing_was_ever_seen(required: Freshness) -> None:
    verdict = ask(required, None, None)
    assert (verdict.fresh, verdict.reason, verdict.kept) == (False, Reason.HEAD_MISSING, None)


def test_the_remembered_stamp_is_enough_while_it_lasts(required: Freshness) -> None:
    before = kept(required, 3)
    assert ask(required, before, None, ISSUED + 7 * DAY).fresh is True
    late = ask(required, before, None, ISSUED + 8 * DAY)
    assert (late.fresh, late.reason, late.kept) == (False, Reason.HEAD_STALE, before)
    assert late.message == (
        "the newest stamp (3) was issued at 2026-11-23 12:00 UTC, longer ago than the maxAge of 7d; "
        "this machine's clock says 2026-12-01 12:00 UTC"
    )


def broken(keys: dict[str, SigningKey]) -> dict[str, tuple[bytes, Reason]]:
    good = stamp(HEAD, 9, keys["stamp"])
    document = json.loads(good)
    payload = base64.b64decode(document["payload"])
    said = json.loads(payload)

    def signed(**changes: Any) -> bytes:
        return envelope(json.dumps({**said, **changes}).encode(), [keys["stamp"]])

    def around(**changes: Any) -> bytes:
        return json.dumps({**document, **changes}).encode()

    other = base64.b64encode(headfile.payload(FLEET, HEAD, 10, ISSUED, ISSUED + DAY)).decode()
    sig = document["signatures"][0]
    invalid, unknown, signature = Reason.HEAD_INVALID, Reason.HEAD_UNKNOWN_KEY, Reason.HEAD_SIGNATURE
    return {
        "empty": (b"", invalid),
        "garbage": (b"\xff\x00", invalid),
        "huge": (b" " * (headfile.MAX_BYTES + 1), invalid),
        "nested": (b"[" * 100_000, invalid),
        "a list": (b"[]", invalid),
        "key twice": (good.replace(b'{"payloadType"', b'{"payload": "", "payloadType"'), invalid),
        "payload type": (around(payloadType="application/vnd.in-toto+json"), invalid),
        "payload not base64": (around(payload="%%%"), invalid),
        "payload not JSON": (envelope(b"head", [keys["stamp"]]), invalid),
        "signatures missing": (json.dumps({k: document[k] for k in ("payload", "payloadType")}).encode(), invalid),
        "too many signatures": (around(signatures=[sig] * 9), invalid),
        "serial 0": (signed(serial=0), invalid),
        "serial true": (signed(serial=True), invalid),
        "serial text": (signed(serial="9"), invalid),
        "serial fraction": (signed(serial=9.5), invalid),
        "serial huge": (signed(serial=2**53), invalid),
        "head short": (signed(head="abc"), invalid),
        "head upper case": (signed(head="A" * 40), invalid),
        "local time": (signed(issued="2026-11-23T12:00:00+01:00"), invalid),
        "no such day": (signed(issued="2026-02-30T12:00:00Z"), invalid),
        "expires first": (signed(expires="2026-11-22T12:00:00Z"), invalid),
        "no fleet": (signed(fleetId=None), invalid),
        "unsigned": (stamp(HEAD, 9), unknown),
        "a stranger": (stamp(HEAD, 9, keys["mallory"]), unknown),
        "payload changed": (around(payload=other), signature),
        "another purpose": (stamp(HEAD, 9, keys["stamp"], namespace="git"), signature),
        "signature garbage": (around(signatures=[{"keyid": "", "sig": base64.b64encode(b"x").decode()}]), signature),
        "other fleet": (stamp(HEAD, 9, keys["stamp"], fleet_id=FLEET.replace("6f", "70")), Reason.HEAD_OTHER_FLEET),
    }


def test_broken_and_forged(required: Freshness, keys: dict[str, SigningKey]) -> None:
    before = kept(required, 3)
    for name, (data, reason) in broken(keys).items():
        with pytest.raises(Untrusted) as caught:
            verify(data, required.keys, FLEET)
        assert caught.value.reason == reason, name
        assert len(caught.value.message) < 400, name
        # Alone it makes stale; beside a good stamp it is said, and changes nothing while that one lasts.
        alone = ask(required, None, data)
        assert (alone.fresh, alone.reason, alone.kept) == (False, reason, None), name
        beside = ask(required, before, data)
        assert (beside.fresh, beside.reason, beside.kept) == (True, FRESH, before), name
        assert beside.refused is not None and reason in beside.message, name
        assert ask(required, before, data, ISSUED + 8 * DAY).reason == reason, name


def test_unknown_fields_are_ignored(required: Freshness, keys: dict[str, SigningKey]) -> None:
    payload = json.loads(headfile.payload(FLEET, HEAD, 4, ISSUED, ISSUED + DAY))
    document = json.loads(envelope(json.dumps({**payload, "later": 1}).encode(), [keys["stamp"]]))
    del document["signatures"][0]["keyid"]
    assert verify(json.dumps({**document, "later": 1}).encode(), required.keys, FLEET).serial == 4


def test_one_known_key_is_enough(required: Freshness, keys: dict[str, SigningKey]) -> None:
    found = verify(stamp(HEAD, 4, keys["mallory"], keys["next"]), required.keys, FLEET)
    assert found.key == keys["next"].key.fingerprint


def test_ssh_keygen_agrees(required: Freshness, keys: dict[str, SigningKey], tmp_path: Path) -> None:
    document = json.loads(stamp(HEAD, 4, keys["stamp"]))
    (tmp_path / "sig").write_bytes(base64.b64decode(document["signatures"][0]["sig"]))
    (tmp_path / "allowed").write_text(f"stamp {keys['stamp'].public}\n")
    argv = ["ssh-keygen", "-Y", "verify", "-f", tmp_path / "allowed", "-I", "stamp", "-n", "kubenode-head"]
    message = headfile.signed_bytes(base64.b64decode(document["payload"]))
    done = subprocess.run([*argv, "-s", tmp_path / "sig"], input=message, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


# Clocks.


@pytest.mark.parametrize("now", [datetime(1970, 1, 1, tzinfo=UTC), ISSUED - 400 * DAY, ISSUED - timedelta(minutes=11)])
def test_a_clock_that_is_behind_is_held_at_the_newest_stamp(
    required: Freshness, keys: dict[str, SigningKey], now: datetime
) -> None:
    verdict = ask(required, None, stamp(HEAD, 1, keys["stamp"]), now)
    assert (verdict.fresh, verdict.reason) == (True, CLOCK_BEHIND)
    assert f"clock is behind: it says {now:%Y-%m-%d %H:%M} UTC" in verdict.message


def test_a_clock_that_is_a_little_behind_is_no_news(required: Freshness, keys: dict[str, SigningKey]) -> None:
    verdict = ask(required, None, stamp(HEAD, 1, keys["stamp"]), ISSUED - timedelta(minutes=10))
    assert (verdict.fresh, verdict.reason) == (True, FRESH)


def test_a_stamp_that_had_expired_when_a_newer_one_was_issued_is_not_revived_by_a_clock_behind(
    required: Freshness, keys: dict[str, SigningKey]
) -> None:
    # The old one is played back to a machine whose clock is years behind; it has seen a newer one.
    seen = kept(required, 5, issued=ISSUED + 40 * DAY, expires=ISSUED + 41 * DAY)
    verdict = ask(required, seen, stamp(HEAD, 4, keys["stamp"]), ISSUED - 400 * DAY)
    assert verdict.kept == seen and verdict.refused is not None
    assert verdict.refused.reason == Reason.HEAD_REWOUND


def test_a_clock_that_is_ahead_makes_stale_and_says_both_times(
    required: Freshness, keys: dict[str, SigningKey]
) -> None:
    verdict = ask(required, None, stamp(HEAD, 1, keys["stamp"]), ISSUED + 4000 * DAY)
    assert (verdict.fresh, verdict.reason) == (False, Reason.HEAD_EXPIRED)
    assert "issued at 2026-11-23 12:00 UTC" in verdict.message and "clock says 2037-11-05 12:00 UTC" in verdict.message


def test_a_stamping_machine_whose_clock_was_ahead_can_come_back(
    required: Freshness, keys: dict[str, SigningKey]
) -> None:
    seen = kept(required, 5, issued=ISSUED + 400 * DAY, expires=ISSUED + 430 * DAY)
    verdict = ask(required, seen, stamp(HEAD, 6, keys["stamp"]))
    assert (verdict.fresh, verdict.reason) == (True, FRESH)
    assert verdict.kept is not None and verdict.kept.issued == ISSUED


# Keys that come and go.


def test_a_stolen_key_that_counted_far_ahead_is_forgotten_with_the_key(
    required: Freshness, keys: dict[str, SigningKey]
) -> None:
    seen = kept(required, headfile.MAX_SERIAL, issued=ISSUED + 9999 * DAY, expires=ISSUED + 99999 * DAY)
    honest = stamp(HEAD, 7, keys["next"])
    blocked = ask(required, seen, honest)
    assert blocked.refused is not None and blocked.refused.reason == Reason.HEAD_REWOUND
    repaired = ask(replace(required, keys=(keys["next"].key,)), seen, honest)
    assert (repaired.fresh, repaired.reason) == (True, FRESH)
    assert repaired.kept is not None and repaired.kept.serial == 7


def test_a_key_that_was_removed_vouches_for_nothing(required: Freshness, keys: dict[str, SigningKey]) -> None:
    verdict = ask(replace(required, keys=(keys["next"].key,)), kept(required, 3), stamp(HEAD, 4, keys["stamp"]))
    assert (verdict.fresh, verdict.reason, verdict.kept) == (False, Reason.HEAD_UNKNOWN_KEY, None)


def test_the_same_stamp_issued_again_keeps_the_later_time(required: Freshness, keys: dict[str, SigningKey]) -> None:
    later = ask(required, kept(required, 3), stamp(HEAD, 3, keys["stamp"], issued=ISSUED + DAY), ISSUED + 2 * DAY)
    assert later.kept is not None and later.kept.issued == ISSUED + DAY
    earlier = ask(required, later.kept, stamp(HEAD, 3, keys["stamp"]), ISSUED + 2 * DAY)
    assert earlier.kept == later.kept


# Fuzzing.


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_or_are_accepted(required: Freshness, data: bytes) -> None:
    assert ask(required, None, data).fresh is False


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_changed_byte_changes_what_is_believed(
    required: Freshness, keys: dict[str, SigningKey], data: st.DataObject
) -> None:
    good = stamp(HEAD, 9, keys["stamp"])
    changed = bytearray(good)
    position = data.draw(st.integers(0, len(good) - 1))
    changed[position] = data.draw(st.integers(0, 255))
    verdict = ask(required, None, bytes(changed))
    # White space, the key id and names of further fields are not signed, and nothing is read from them.
    assert verdict.fresh is False or verdict.kept == verify(good, required.keys, FLEET)
