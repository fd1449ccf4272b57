"""Whatever stands in secrets/: problems for people and FleetInvalid for nodes, and nothing else happens."""

import base64
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kubenode.errors import FleetInvalid, HostError, UsageError
from kubenode.fleet.ageheader import BINARY_BEGIN, stanzas
from kubenode.fleet.load import load_fleet
from kubenode.fleet.recipients import canonical
from kubenode.fleet.secrets import secrets_for
from kubenode.fleet.validate import validate
from kubenode.host.age import new_identity, parse_identities, seal, unseal
from kubenode.host.tree import read_folder

EXAMPLE = read_folder(Path(__file__).parents[2] / "fleet-example").files
SECRET, SEALED = "secrets/registry.yaml", "secrets/registry.age"
OWN = new_identity()
IDENTITIES = parse_identities(OWN.text.encode(), "key")
ARMORED = seal(b"plain text", [OWN.recipient])
BINARY = base64.b64decode(b"".join(ARMORED.split(b"\n")[1:-2]))
SLOW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FAST = settings(max_examples=300, deadline=None)
RECIPIENT = next(line.split()[-1] for line in EXAMPLE["nodes/cp-1.yaml"].decode().splitlines() if "age1" in line)


def test_the_binary_form_is_read() -> None:
    assert [it[0] for it in stanzas(BINARY)] == ["X25519"]
    assert unseal(BINARY, IDENTITIES, "x") == b"plain text"


@FAST
@given(data=st.binary(max_size=400))
@example(b"->")
def test_any_header(data: bytes) -> None:
    for whole in (data, BINARY_BEGIN + data, ARMORED[:36] + data, BINARY[:60] + data):
        try:
            found = stanzas(whole)
        except ValueError as error:
            assert str(error)
        else:
            assert all(it and it[0] for it in found)


@FAST
@given(start=st.integers(0, 600), length=st.integers(0, 30), new=st.binary(max_size=10), armored=st.booleans())
def test_a_changed_file_opens_to_what_was_sealed_or_not_at_all(
    start: int, length: int, new: bytes, armored: bool
) -> None:
    old = ARMORED if armored else BINARY
    changed = old[:start] + new + old[start + length :]
    try:
        assert unseal(changed, IDENTITIES, "x") == b"plain text"
    except HostError as error:
        assert "plain text" not in str(error)


@SLOW
@given(
    path=st.sampled_from([SECRET, SEALED]),
    start=st.integers(0, 1600),
    length=st.integers(0, 60),
    new=st.binary(max_size=20),
)
def test_any_change_of_a_secret(path: str, start: int, length: int, new: bytes) -> None:
    old = EXAMPLE[path]
    files = {**EXAMPLE, path: old[:start] + new + old[start + length :]}
    problems = validate(files)
    for node in ("worker-1", "cp-2"):
        try:
            found = secrets_for(files, load_fleet(files, node=node), node)
        except FleetInvalid as error:
            # What a node refuses, a laptop has refused before.
            assert [it for it in problems if it.path.startswith("secrets/")], error
        else:
            assert all(it.ciphertext == EXAMPLE[SEALED] for it in found)


@FAST
@given(at=st.integers(0, 61), character=st.characters(min_codepoint=33, max_codepoint=126))
def test_one_wrong_character_of_a_recipient_is_noticed(at: int, character: str) -> None:
    changed = RECIPIENT[:at] + character + RECIPIENT[at + 1 :]
    if changed == RECIPIENT:
        assert canonical(changed) == RECIPIENT
    else:
        with pytest.raises(ValueError):
            canonical(changed)


@FAST
@given(
    data=st.binary(max_size=200),
    prefix=st.sampled_from([b"", b"AGE-SECRET-KEY-1", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"]),
)
def test_any_identity(data: bytes, prefix: bytes) -> None:
    with pytest.raises(UsageError):
        parse_identities(prefix + data, "key")
