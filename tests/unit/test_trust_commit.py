"""Raw commit objects: what is signed, and everything that is not a commit as git writes it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.errors import KubenodeError, Untrusted
from kubenode.trust.commit import MAX_COMMIT, object_id, parse_commit
from kubenode.trust.reasons import Reason

TREE, P1, P2 = "1" * 40, "a" * 40, "b" * 40
IDENT = "Alice Example <alice@example.net> 1767225600 +0100"
SIG = "gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n \n -----END SSH SIGNATURE-----\n"


def raw(
    head: str = f"tree {TREE}\n",
    parents: str = f"parent {P1}\n",
    idents: str = f"author {IDENT}\ncommitter {IDENT}\n",
    extra: str = SIG,
    rest: str = "\nadd a node\n\nbecause\n",
) -> bytes:
    return (head + parents + idents + extra + rest).encode()


def parse(data: bytes):  # type: ignore[no-untyped-def]
    return parse_commit(object_id("commit", data), data)


def test_the_parts() -> None:
    commit = parse(raw(parents=f"parent {P1}\nparent {P2}\n"))
    assert commit.tree == TREE
    assert commit.parents == (P1, P2)
    assert commit.author == "Alice Example <alice@example.net>"
    assert commit.subject == "add a node"
    assert commit.signature == b"-----BEGIN SSH SIGNATURE-----\nAAAA\n\n-----END SSH SIGNATURE-----\n"
    assert commit.payload == raw(parents=f"parent {P1}\nparent {P2}\n", extra="")


@pytest.mark.parametrize(
    "extra",
    [
        "encoding ISO-8859-1\n" + SIG,
        SIG + "encoding ISO-8859-1\n",
        "mergetag object 1\n type commit\n" + SIG + "mergetag object 2\n \n x\n",
        "change-id abc\n" + SIG,
    ],
)
def test_the_payload_is_everything_but_the_signature(extra: str) -> None:
    assert parse(raw(extra=extra)).payload == raw(extra=extra.replace(SIG, ""))


def test_root_unsigned_and_empty_messages() -> None:
    commit = parse(raw(parents="", extra="", rest="\n"))
    assert (commit.parents, commit.signature, commit.subject) == ((), None, "")
    assert parse(raw(rest="\n\n\n")).payload == raw(extra="", rest="\n\n\n")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no blank line"),
        (raw(rest=""), "no blank line"),
        (raw(head=""), "in this order"),
        (raw(head=f"tree {TREE}\ntree {TREE}\n"), "in this order"),
        (raw(head=f"parent {P1}\ntree {TREE}\n"), "in this order"),
        (raw(parents=f"parent {P1}\nparent {P1}\n"), "named twice"),
        (raw(parents=f"parent {P1[:-1]}\n"), "40 lower-case hex"),
        (raw(parents=f"parent {P1.upper()}\n"), "40 lower-case hex"),
        (raw(parents=f"parent  {P1}\n"), "40 lower-case hex"),
        (raw(parents=f"parent {P1} \n"), "40 lower-case hex"),
        (raw(parents="".join(f"parent {n:040x}\n" for n in range(70))), "more than 64 parents"),
        (raw(head=f"tree {'1' * 64}\n"), "40 lower-case hex"),
        (raw(idents=f"committer {IDENT}\nauthor {IDENT}\n"), "in this order"),
        (raw(idents=f"author {IDENT}\nauthor {IDENT}\ncommitter {IDENT}\n"), "in this order"),
        (raw(idents=f"author {IDENT}\ncommitter {IDENT}\ncommitter {IDENT}\n"), "repeated"),
        (raw(idents=f"author {IDENT}\ncommitter nobody\n"), "author or committer"),
        (raw(idents=f"author {IDENT}\ncommitter a <b> 012 +0000\n"), "author or committer"),
        (raw(idents=f"author a\n <b> 1 +0000\ncommitter {IDENT}\n"), "continuation"),
        (raw(extra=f"parent {P2}\n" + SIG), "repeated or out of order"),
        (raw(extra=SIG + f"tree {TREE}\n"), "repeated or out of order"),
        (raw(extra=SIG + SIG), "stands twice"),
        (raw(extra="encoding a\nencoding b\n"), "stands twice"),
        (raw(extra=SIG.replace("gpgsig", "gpgsig-sha256")), "another object format"),
        (raw(extra=SIG + SIG.replace("gpgsig", "gpgsig-sha256")), "another object format"),
        (raw(extra=SIG + SIG.replace("gpgsig", "gpgsigx")), "another object format"),
        (raw(extra="gpgsig\n"), "is not `name value`"),
        (raw(extra="\tx y\n"), "is not `name value`"),
        (raw(extra="x\ty\n"), "is not `name value`"),
        (b" " + raw(), "continuation"),
        (raw(rest="\nhello\0world\n"), "NUL"),
        (raw(head=f"tree {TREE}\0\n"), "NUL"),
        (raw().replace(b"\n", b"\r\n"), "no blank line"),
    ],
)
def test_malformed_commits(data: bytes, words: str) -> None:
    with pytest.raises(Untrusted) as caught:
        parse(data)
    assert caught.value.reason == Reason.COMMIT_MALFORMED
    assert words in caught.value.message


def test_the_bytes_must_have_the_id() -> None:
    data = raw()
    with pytest.raises(Untrusted) as caught:
        parse_commit(object_id("commit", data), data + b"x")
    assert caught.value.reason == Reason.OBJECT_MISMATCH
    with pytest.raises(Untrusted) as caught:
        parse_commit(object_id("blob", data), data)
    assert caught.value.reason == Reason.OBJECT_MISMATCH


@pytest.mark.parametrize(
    ("oid", "reason"),
    [
        ("1" * 64, Reason.UNSUPPORTED_OBJECT_FORMAT),
        ("1" * 39, Reason.COMMIT_MALFORMED),
        ("A" * 40, Reason.COMMIT_MALFORMED),
        ("HEAD", Reason.COMMIT_MALFORMED),
        ("1" * 40 + "\n", Reason.COMMIT_MALFORMED),
    ],
)
def test_odd_ids(oid: str, reason: Reason) -> None:
    with pytest.raises(Untrusted) as caught:
        parse_commit(oid, raw())
    assert caught.value.reason == reason


def test_huge_commits() -> None:
    with pytest.raises(Untrusted) as caught:
        parse_commit("1" * 40, bytes(MAX_COMMIT + 1))
    assert caught.value.reason == Reason.TOO_MUCH_EVIDENCE


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_only_kubenode_errors_escape_and_nothing_is_lost(data: st.DataObject) -> None:
    base = bytearray(raw(extra="mergetag a\n b\n" + SIG))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(base)))
        base[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\n", b"\n ", b"gpgsig x\n", b"parent ", b"\0"]))
        )
    try:
        commit = parse(bytes(base))
    except KubenodeError:
        return
    # Whatever is accepted: putting the signature back gives the same bytes, so the payload hides nothing.
    head, _, message = commit.payload.partition(b"\n\n")
    if commit.signature is None:
        assert commit.payload == bytes(base)
    else:
        folded = b"gpgsig " + commit.signature.removesuffix(b"\n").replace(b"\n", b"\n ") + b"\n"
        assert bytes(base).replace(folded, b"", 1) == commit.payload
    assert message is not None and head.startswith(b"tree ")


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(KubenodeError):
        parse(data)
