"""Words of others: what they must not do to a terminal, and what must not leave the machine in them."""

import json
import time

import pytest

from kubenode.cli import output
from kubenode.errors import HostError
from kubenode.host.kube.errors import Malformed
from kubenode.host.kube.reading import name_of
from kubenode.model.texts import harmless, printable, redacted

TOKEN = "abcdef.0123456789abcdef"
PEM = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0c2VjcmV0c2VjcmV0\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (f"kubeadm join k8s.example.net --token {TOKEN}.", "kubeadm join k8s.example.net --token [redacted]."),
        (f'token id "{TOKEN}" is invalid', 'token id "[redacted]" is invalid'),
        ("[upload-certs] Using certificate key:\n" + "a1" * 32, "[upload-certs] Using certificate key:[redacted]"),
        ("--certificate-key " + "a1" * 32 + " --v=5", "--certificate-key[redacted] --v=5"),
        (f"it was {PEM}, sorry", "it was [redacted], sorry"),
        (PEM[:40] + " and the rest was cut off", "[redacted]"),
        ("said: c2VjcmV0c2VjcmV0c2VjcmV0\nc2Vj\n-----END EC PRIVATE KEY-----", "said: [redacted]"),
        ("client-key-data: LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCg==", "client-key-data: [redacted]"),
        ("Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl", "Bearer [redacted]"),
        ("AGE-SECRET-KEY-1QQQQQQQQ", "[redacted]"),
        ("https://me:secret@store.example.net/x", "https://[redacted]@store.example.net/x"),
    ],
)
def test_secrets_are_taken_out(said: str, left: str) -> None:
    assert redacted(said) == left


@pytest.mark.parametrize(
    "said",
    [
        "sha256:" + "a1" * 32,
        f"release 2026.11 (root hash {'b' * 64}) failed its gate",
        "kubeadm upgrade apply v1.34.2 failed: kube-apiserver did not change after 5m0s",
        "https://k8s.example.net:6443/healthz: Get: dial tcp 10.0.0.1:6443: connection refused",
    ],
)
def test_what_people_need_stays(said: str) -> None:
    assert redacted(said) == said


@pytest.mark.parametrize("said", ["a" * 99_000, "eyJ" * 30_000, "-----BEGIN " * 9_000, "://" * 30_000, "A" * 16 + "\n"])
def test_hostile_text_costs_no_time(said: str) -> None:
    began = time.process_time()
    redacted(said * 3)
    assert time.process_time() - began < 2


def test_no_control_character_is_left() -> None:
    assert printable("\x1b[2Jgone\nnew \u202e\x9b\ud800 é") == "\\x1b[2Jgone\\nnew \\u202e\\x9b\\ud800 é"
    assert harmless({"a\x07": ["one\n two", {"b": 7}], "c": None}) == {"a\\x07": ["one two", {"b": 7}], "c": None}


def test_what_is_said_cannot_play_with_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("one\x1b[2J\n  two\r\x9b")
    output.show_error(HostError("it said \x1b]0;me\x07", hint="do\x1b[31m"))
    output.print_json("Test", {"said": "\x1b[2J \x9b2J \u202e \ud800 é"})
    output.print_table(("Holder",), [("\x1b[2Jme",)])
    shown = capsys.readouterr()
    assert "one\\x1b[2J\n  two\\r\\x9b\n" in shown.err
    assert "it said \\x1b]0;me\\x07" in shown.err and "do\\x1b[31m" in shown.err
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\ud800"} & set(shown.out)
    document = shown.out[: shown.out.index("Holder")]
    assert json.loads(document)["said"] == "\x1b[2J \x9b2J \u202e \ud800 é"


def test_a_name_is_a_name() -> None:
    assert name_of({"metadata": {"name": "worker-1"}}) == "worker-1"
    with pytest.raises(Malformed, match=r"metadata\.name should be a name"):
        name_of({"metadata": {"name": "worker-1\x1b[2J"}})
