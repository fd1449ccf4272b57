"""Our reading of trailers against git's own: never one more than `git interpret-trailers --parse` finds."""

import os
import re
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kubenode.trust.trailers import trailers, with_trailer, without_trailers

NAME, VALUE = "Kubenode-Approval", "v1 a b c+/="
LINE = f"{NAME}: {VALUE}".encode()
ODD = re.compile(rb"\r|^(#|Conflicts:)", re.MULTILINE)
"""What git reads by configuration or in ways of its own; there we find less."""


def git_trailers(message: bytes, *words: str) -> list[bytes]:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    argv = ["git", "interpret-trailers", "--parse", "--no-divider", "--unfold", *words]
    done = subprocess.run(argv, input=message, capture_output=True, env=environment, check=True, cwd="/")
    return done.stdout.splitlines()


def git_adds(message: bytes) -> bytes:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    argv = ["git", "interpret-trailers", "--no-divider", "--if-exists", "add", "--trailer", f"{NAME}: {VALUE}"]
    return subprocess.run(argv, input=message, capture_output=True, env=environment, check=True, cwd="/").stdout


def ours(message: bytes) -> list[bytes]:
    return [re.sub(rb"[ \t]+", b" ", it.name.encode() + b": " + it.value).strip() for it in trailers(message)]


def theirs(message: bytes) -> list[bytes]:
    # Of a "(cherry picked from ...)" line git makes a trailer without colon: it is nobody's name.
    found = [re.sub(rb"[ \t]+", b" ", line).strip() for line in git_trailers(message)]
    return [line for line in found if not line.startswith(b"(cherry")]


MESSAGES = [
    b"",
    b"\n",
    b"title",
    b"title\n",
    LINE,
    b"title\n" + LINE,
    b"title\n\n" + LINE,
    b"title\n\n" + LINE + b"\n\n\n",
    b"title\n\nbody\n\n" + LINE + b"\nSigned-off-by: A <a@b>\n",
    b"title\n\nbody\n" + LINE,
    b"title\n\nbody\n" + LINE + b"\nSigned-off-by: A <a@b>\n",
    b"title\n\n" + LINE + b"\n\nmore\n",
    b"title\n\n" + LINE + b"\n---\n a | 1 +\n",
    b"title\n\n" + LINE + b"\n\n---\n a | 1 +\n",
    b"title\n\n" + LINE + b"\n(cherry picked from commit 1234)\n",
    b"title\n\n" + LINE + b"\n folded\n",
    b"title\n\n  " + LINE + b"\n",
    b"title\n\nkey : " + LINE + b"\n",
    b"title\n\n" + LINE.lower() + b"\n",
    b"title\n\ntext one\ntext two\ntext three\ntext four\n" + LINE + b"\nSigned-off-by: x\n",
    b"title\n \t\n" + LINE + b"\n",
    b"\n\n" + LINE + b"\n",
    b"title\n\nx\xff\xfe: y\n" + LINE + b"\n",
]
PIECES = [b"", b"", b"title", b"text: here", b"words", LINE, b" folded", b"\tfolded", b"Signed-off-by: a", b"A : b"]
PIECES += [b"(cherry picked from commit 1)", b"A:", b": x", b"A b: c", b"---", b"https://x", b"  ", b"\x0bA: b"]
OTHERS = [piece for piece in PIECES if piece != LINE]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_read_as_git_reads_them(message: bytes) -> None:
    assert ours(message) == theirs(message)


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map(b"\n".join))
@settings(max_examples=150, deadline=None)
def test_any_mixture_of_lines_is_read_as_git_reads_it(message: bytes) -> None:
    assert ours(message) == theirs(message)


@given(st.lists(st.sampled_from([*PIECES, b"# comment", b"#", b"x: y\r", b"\r", b"Conflicts:"]), max_size=9))
@settings(max_examples=150, deadline=None)
@example([b"title", b"", b"# comment", LINE])
@example([b"title", b"", LINE, b"", b"Conflicts:", b"\tfile"])
def test_nothing_is_found_that_git_does_not_find(lines: list[bytes]) -> None:
    message = b"\n".join(lines)
    found = ours(message)
    assert found == theirs(message) or (ODD.search(message) and set(found) <= set(theirs(message)))


@pytest.mark.parametrize("message", [message for message in MESSAGES if message.strip() and b"key :" not in message])
def test_a_trailer_is_added_where_git_adds_it(message: bytes) -> None:
    added = with_trailer(message, NAME, VALUE)
    assert added.rstrip(b"\n") == git_adds(message).rstrip(b"\n") or not message.endswith(b"\n")
    assert ours(added) == [*ours(message), LINE] == theirs(added)


@given(st.lists(st.sampled_from([*OTHERS, b"# comment", b"x: y\r", b"Conflicts:"]), max_size=9).map(b"\n".join))
@settings(max_examples=200, deadline=None)
def test_an_added_trailer_is_found_and_can_be_taken_away(message: bytes) -> None:
    added = with_trailer(message, NAME, VALUE)
    assert ours(added)[-1] == LINE
    assert message.rstrip() in added
    assert LINE not in ours(without_trailers(added, NAME, frozenset({VALUE.encode()})))
