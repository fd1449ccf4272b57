"""Every rule of `validate` is explained, and every explained rule is found in a broken fleet."""

import pytest
from fleets import cases_documents, cases_references, cases_secrets, cases_trust

from kubenode.errors import Location
from kubenode.fleet.problems import problem
from kubenode.fleet.rules import RULES

CASES = [*cases_documents.CASES, *cases_references.CASES, *cases_secrets.CASES, *cases_trust.CASES]
OF_THE_DISK = {"not-a-file"}
"""What only a folder can have, not a commit: `validate` itself finds it."""


def test_every_rule_is_explained_and_every_explained_rule_has_a_test() -> None:
    assert RULES.keys() - OF_THE_DISK == {case.rule for case in CASES}


@pytest.mark.parametrize("rule", RULES)
def test_a_problem_always_says_what_to_do(rule: str) -> None:
    where = Location("fleet.yaml", 1, 1)
    assert problem(where, rule, "wrong").hint == RULES[rule].advice
    assert problem(where, rule, "wrong", "Do that.").hint == "Do that."
    assert RULES[rule].advice.endswith(".") and not RULES[rule].meaning.endswith(".")
