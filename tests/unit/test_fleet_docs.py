"""docs/fleet.md says what the schemas and the checks say."""

import re

from fleets import cases_documents, cases_references, cases_secrets, cases_trust
from fleets.reference import DOC, updated

CASES = [*cases_documents.CASES, *cases_references.CASES, *cases_secrets.CASES, *cases_trust.CASES]


def test_the_tables_are_those_of_the_schemas() -> None:
    text = DOC.read_text()
    assert text == updated(text), "run: python tests/unit/fleets/reference.py"


def test_every_rule_is_explained_and_every_explained_rule_has_a_test() -> None:
    table = DOC.read_text().partition("## Problems")[2]
    explained = {
        rule for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for rule in re.findall(r"`(.*?)`", row)
    }
    assert explained == {case.rule for case in CASES}
