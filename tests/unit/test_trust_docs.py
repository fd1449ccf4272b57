"""docs/trust.md: each attack of its table has a reason that exists and tests that exist."""

import ast
import re
from pathlib import Path

from kubenode.trust.reasons import Reason

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "trust.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.partition("| attack | reason | test |\n|---|---|---|\n")[2].partition("\n\n")[0].splitlines()
]
COMMITS = (
    {reason for reason in Reason if reason.name.startswith(("COMMIT", "UNSIGNED", "UNSUPPORTED", "BAD", "UNKNOWN"))}
    | {Reason.ANCHOR_MISSING, Reason.NOT_DESCENDANT, Reason.TOO_MUCH_EVIDENCE, Reason.NOT_ALLOWED}
    | {Reason.NO_RULE_MATCHES, Reason.THRESHOLD_NOT_MET, Reason.POLICY_INVALID, Reason.POLICY_LOCKS_OUT}
    | {Reason.UNSAFE_ENTRY, Reason.FLEET_ID_MISMATCH, Reason.OBJECT_MISMATCH}
)


def functions() -> set[str]:
    """The names of all functions at the top of test modules."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    return found


def test_every_attack_has_tests_that_exist() -> None:
    assert len(ROWS) > 40
    known = functions()
    for row in ROWS:
        assert len(row) == 3, row
        named = re.findall(r"`(\w+)`", row[2])
        assert named, f"no test for: {row[0]}"
        assert [name for name in named if name not in known] == [], row[0]


def test_every_attack_has_a_reason_that_exists() -> None:
    said = {code for row in ROWS for code in re.findall(r"`(\w+)`", row[1])}
    assert said <= {reason.value for reason in Reason}
    assert said >= {reason.value for reason in COMMITS}
    for row in ROWS:
        assert re.fullmatch(r"`\w+`|no effect|made harmless", row[1]), row


def test_the_payload_in_the_text_is_the_one_that_is_signed() -> None:
    from kubenode.trust.approvals import payload

    shown = TEXT.partition("over these four lines:\n\n")[2].partition("\n\n")[0]
    lines = [line.strip().split(" ")[0] for line in shown.splitlines()]
    assert lines == [line.split(" ")[0] for line in payload("f", "p", "t").decode().splitlines()]
