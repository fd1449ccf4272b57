"""The table of attacks in docs/sigstore.md is true: its tests exist and its reasons are all there are."""

import re
from pathlib import Path

import pytest

from kubenode.trust.reasons import Reason

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "sigstore.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| `(\w+)` \| `(test_\w+\.py)::(test_\w+)` \|$", TEXT, re.MULTILINE)


def test_the_table_was_found() -> None:
    assert len(ROWS) >= 60
    section = TEXT.partition("### Attacks and the reason each one gets")[2].partition("\n## ")[0]
    assert section.count("\n| ") - 1 == len(ROWS), "a row of the table is not written like the others"


@pytest.mark.parametrize(("attack", "reason", "file", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_an_attack_has_its_test_and_reason(attack: str, reason: str, file: str, test: str) -> None:
    source = (ROOT / "tests" / "unit" / file).read_text()
    assert f"def {test}(" in source
    code = Reason(reason)
    assert f"Reason.{code.name}" in source or f'"{reason}"' in source or f"({reason})" in source


def test_every_reason_of_releases_is_documented() -> None:
    names = [member.name for member in Reason]
    first, last = names.index("ARTIFACT_DIGEST"), names.index("TRUSTED_ROOT_NOT_YET_VALID")
    wanted = {Reason[name].value for name in names[first : last + 1]}
    assert wanted - set(re.findall(r"`(\w+)`", TEXT)) == set()


def test_every_attack_of_the_corpus_is_documented() -> None:
    documented = {test for _, _, file, test in ROWS if file == "test_bundle_attacks.py"}
    tests = set(
        re.findall(r"^def (test_\w+)\(", (ROOT / "tests/unit/test_bundle_attacks.py").read_text(), re.MULTILINE)
    )
    assert documented <= tests
    assert sorted(tests - documented) == UNDOCUMENTED


UNDOCUMENTED = [
    "test_a_bundle_too_large",
    "test_a_root_without_timestamp_authority",
    "test_an_older_bundle_format",
    "test_no_timestamp_at_all_but_bytes",
    "test_rekor_v2_entry_of_another_artifact",
    "test_rekor_v2_entry_with_a_v1_body",
    "test_the_same_timestamp_twice",
    "test_too_many_timestamps",
    "test_unknown_fields",
]
"""Variations of what the table lists."""
