"""Commits, trailers and signatures as an attacker may write them: no crash, and nothing is accepted unvouched."""

from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.errors import KubenodeError, Untrusted
from kubenode.trust import approvals
from kubenode.trust.commit import object_id, parse_commit
from kubenode.trust.evidence import CommitEvidence
from kubenode.trust.reasons import Reason
from kubenode.trust.trailers import trailers
from tests.gitrepo import FLEET_ID, SigningKey
from tests.unit.test_trust_approvals import NAMES, TREE, Repo

PIECES = [b"\n", b"\n\n", b"\n ", b" ", b"gpgsig ", b"tree ", b"parent ", b"v1 ", b"v2 ", b"\0", b"#", b":", b"=", b"-"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    folder: Path = tmp_path_factory.mktemp("keys")
    return Repo({name: SigningKey.make(folder, name) for name in NAMES})


@st.composite
def changes(draw: st.DrawFn, size: int) -> list[tuple[int, int, bytes]]:
    """Some places, how many bytes go, and what comes instead."""
    piece = st.one_of(st.sampled_from(PIECES), st.binary(max_size=3))
    return draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, 3), piece), min_size=1, max_size=4))


def changed(raw: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    data = bytearray(raw)
    for at, gone, piece in places:
        data[at : at + gone] = piece
    return bytes(data)


def shuffled(data: st.DataObject, raw: bytes) -> bytes:
    """Lines of the object left out, doubled and swapped."""
    lines = raw.split(b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        one, other = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        what = data.draw(st.sampled_from(["swap", "double", "drop"]))
        if what == "swap":
            lines[one], lines[other] = lines[other], lines[one]
        elif what == "double":
            lines.insert(other, lines[one])
        elif len(lines) > 2:
            del lines[one]
    return b"\n".join(lines)


def mutated(data: st.DataObject, raw: bytes) -> bytes:
    return shuffled(data, raw) if data.draw(st.booleans()) else changed(raw, data.draw(changes(len(raw))))


def accepted(repo: Repo, good: CommitEvidence, raw: bytes) -> bool:
    """Let an attacker's object take the place of the good one, under its own id and with the same changed paths."""
    evidence = CommitEvidence(object_id("commit", raw), raw, good.changed, good.policy)
    try:
        repo.trust(evidence)
    except Untrusted as error:
        assert error.reason
        assert error.message
        return False
    return True


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_signed_commit_is_accepted_only_with_the_same_content(repo: Repo, data: st.DataObject) -> None:
    good = repo.commit("alice", "fleet.yaml", by=("bob",))
    raw = mutated(data, good.raw)
    if accepted(repo, good, raw):
        # All that may differ is how the signature's base64 is broken into lines.
        found = parse_commit(object_id("commit", raw), raw)
        assert found.payload == parse_commit(good.oid, good.raw).payload


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_approved_commit_is_accepted_only_with_the_same_files_and_parent(
    repo: Repo, data: st.DataObject
) -> None:
    good = repo.commit(None, "fleet.yaml", by=("alice", "bob"))
    raw = mutated(data, good.raw)
    if accepted(repo, good, raw):
        found = parse_commit(object_id("commit", raw), raw)
        assert (found.tree, found.parents[0]) == (TREE, repo.anchor.oid)
        values = {it.value for it in trailers(found.message) if it.name.lower() == approvals.TRAILER.lower()}
        assert values >= {it.value for it in trailers(parse_commit(good.oid, good.raw).message)}


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_approval_never_counts(repo: Repo, data: st.DataObject) -> None:
    name, _, value = repo.approval("bob").partition(" ")
    new = changed(value.encode(), data.draw(changes(len(value))))
    message = b"change\n\n" + name.encode() + b" " + new
    good = repo.commit("alice", "fleet.yaml", by=("bob",))
    raw = parse_commit(good.oid, good.raw).payload.partition(b"\n\n")[0] + b"\n\n" + message + b"\n"
    try:
        commit = parse_commit(object_id("commit", raw), raw)
    except KubenodeError:
        return
    for approval in approvals.read_approvals(commit, FLEET_ID):
        assert not approval.counts or approval.value == value.encode()


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_message_is_read(repo: Repo, message: bytes) -> None:
    good = repo.commit(None, "nodes/a")
    raw = good.raw.partition(b"\n\n")[0] + b"\n\n" + message
    assert not accepted(repo, good, raw)


@pytest.mark.parametrize("line", ["K:", " x", "x", "Kubenode-Approval: x"])
def test_a_message_of_a_mebibyte_is_read_quickly(repo: Repo, line: str) -> None:
    """Whoever can push can write one: the work grows with its size, not with the square of it."""
    text = "title\n\nKey: value\n" + f"{line}\n" * ((1 << 20) // (len(line) + 1) - 1000)
    with pytest.raises(Untrusted) as caught:
        start = process_time()
        repo.trust(repo.commit(None, "nodes/a", message=text))
    assert process_time() - start < 10
    assert caught.value.reason in (Reason.UNSIGNED_COMMIT, Reason.TOO_MUCH_EVIDENCE)
