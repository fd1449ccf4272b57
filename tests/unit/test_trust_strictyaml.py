"""The strict YAML reader: what is refused, where, and that nothing but a KubenodeError comes out."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.errors import FleetInvalid, KubenodeError, Location
from kubenode.trust.strictyaml import MAX_BYTES, load

DOCUMENT = b"""\
# a comment
apiVersion: kubenode.dev/v1alpha1
spec:
  windows:
    - days: [Sat, Sun]
      start: "02:00"
      until: 2026-12-01T00:00:00Z
  maxUnavailable: 10%
  factor: 1.5
  count: 0x10
  empty:
  halted: false
"""


def test_values_are_plain() -> None:
    assert load(DOCUMENT, "f.yaml").value == {
        "apiVersion": "kubenode.dev/v1alpha1",
        "spec": {
            "windows": [{"days": ["Sat", "Sun"], "start": "02:00", "until": "2026-12-01T00:00:00Z"}],
            "maxUnavailable": "10%",
            "factor": 1.5,
            "count": 16,
            "empty": None,
            "halted": False,
        },
    }


@pytest.mark.parametrize(
    ("keys", "line", "column"),
    [
        ((), 2, 1),
        (("spec", "windows", 0, "days", 1), 5, 19),
        (("spec", "maxUnavailable"), 8, 19),
        (("spec", "windows", 0, "nothing", 3), 5, 7),
        (("nothing",), 2, 1),
    ],
)
def test_positions(keys: tuple[str | int, ...], line: int, column: int) -> None:
    assert load(DOCUMENT, "f.yaml").locate(*keys) == Location("f.yaml", line, column)


def test_positions_of_keys() -> None:
    document = load(DOCUMENT, "f.yaml")
    assert document.locate_key("spec", "maxUnavailable") == Location("f.yaml", 8, 3)
    assert document.locate_key("spec", "windows", 0, "start") == Location("f.yaml", 6, 7)
    assert document.locate_key("spec", "nothing") == document.locate("spec")


def test_empty_documents_have_no_value() -> None:
    assert load(b"", "f").value is None
    assert load(b"# only a comment\n", "f").locate("a") == Location("f")


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"a: 1\nb: 2\na: 3\n", "f:3:1", "appears twice"),
        (b"a: {x: 1, 'x': 2}", "f:1:11", "appears twice"),
        (b"a: &x 1", "f:1:4", "anchor"),
        (b"a: *x", "f:1:4", "alias"),
        (b"a: &x [*x]", "f:1:4", "anchor"),
        (b"a: !!str 1", "f:1:4", "tag"),
        (b"a: !x y", "f:1:4", "tag"),
        (b"!!python/object/apply:os.system [id]", "f:1:1", "tag"),
        (b"a: 1\n---\nb: 2\n", "f:2:1", "second document"),
        (b"%YAML 1.1\n---\na: 1\n", "f:1:1", "directives"),
        (b"%FOO\n---\na: 1\n", "f:1:1", "directives"),
        (b"<<: {a: 1}", "f:1:1", "not a string"),
        (b"1: a", "f:1:1", "not a string"),
        (b"null: a", "f:1:1", "not a string"),
        (b"? [a]\n: 1", "f:1:3", "must be a plain string"),
        (b"a: yes", "f:1:4", "different YAML readers"),
        (b"on: 1", "f:1:1", "different YAML readers"),
        (b"a: 0755", "f:1:4", "different YAML readers"),
        (b"a: 1_000", "f:1:4", "different YAML readers"),
        (b"a: 12e4567", "f:1:4", "different YAML readers"),
        (b"a: 9223372036854775808", "f:1:4", "64 bits"),
        (b"a: 1.0e999", "f:1:4", "too large"),
        (b'a: "\\0"', "f:1:4", "control character"),
        (b'a: "\\ud800"', "f:1:4", "control character"),
        (b"a: \x00", "f:1:4", "U+0000"),
        (b"a: 1\rb: 2", "f:1:5", "carriage return"),
        ("a: 1 # \u202e".encode(), "f:1:8", "U+202E"),
        ("a: 1 # \u2028b: 2".encode(), "f:1:8", "U+2028"),
        ("a: \ufeffb".encode(), "f:1:4", "byte order mark"),
        (b"\xef\xbb\xbfa: 1", "f", "byte order mark"),
        ("a: 1".encode("utf-16"), "f", "byte order mark"),
        (b"a: 1\nb: x\xff", "f:2:5", "not UTF-8"),
        (b"a: " + b"[" * 100, "f:1:35", "nested more than"),
        (b"- " * 100, "f:1:65", "nested more than"),
        (b"x" * 40_000, "f:1:1", "longer than"),
        (b" " * (MAX_BYTES + 1), "f", "at most"),
        (b"[" + b"1,\n" * 60_000 + b"]", "f:50000:1", "more than 50,000 values"),
        (b"a: [1,\n", "f:2:1", "not valid YAML"),
        (b"\ta: 1", "f:1:1", "not valid YAML"),
        (b'a: "\\U99999999"', "f", "not valid YAML"),
    ],
)
def test_refusals_name_the_place(data: bytes, place: str, words: str) -> None:
    with pytest.raises(FleetInvalid) as caught:
        load(data, "f")
    assert str(caught.value.location) == place
    assert words in caught.value.message


def test_quoting_makes_everything_a_string() -> None:
    assert load(b'{a: "yes", b: \'0755\', "1": "1_000", "<<": "~"}', "f").value == {
        "a": "yes",
        "b": "0755",
        "1": "1_000",
        "<<": "~",
    }


def test_windows_line_ends_are_read() -> None:
    assert load(b"a: 1\r\nb: 2\r\n", "f").value == {"a": 1, "b": 2}


def test_five_thousand_lines_load_quickly() -> None:
    lines = "".join(f"  - name: node-{number}\n    address: 192.0.2.1\n" for number in range(2500))
    start = time.process_time()
    document = load(f"nodes:\n{lines}".encode(), "f")
    assert time.process_time() - start < 10
    assert document.locate("nodes", 2499, "name").line == 5000


SOUP = st.lists(
    st.sampled_from([*"-:?[]{}&*!|>'\"%@`#, \n\tab01~<\\", "---", "...", "\\x", "- ", ": ", "\n  ", "é", "\U0001f600"]),
    max_size=60,
).map("".join)


@given(st.one_of(st.binary(max_size=200), SOUP.map(str.encode)))
@settings(max_examples=600, deadline=None)
def test_only_kubenode_errors_escape(data: bytes) -> None:
    try:
        document = load(data, "f")
    except KubenodeError as error:
        assert error.message
    else:
        _check_plain(document.value)


def _check_plain(value: object) -> None:
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for item in value.values():
            _check_plain(item)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item)
    else:
        assert value is None or isinstance(value, str | int | float | bool)
        if isinstance(value, str):
            value.encode()
