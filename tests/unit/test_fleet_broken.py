"""One mistake in the example fleet gives one problem: its rule, place and message."""

from collections.abc import Mapping

import pytest
from fleets import cases_documents, cases_references, cases_secrets, cases_trust
from fleets.mutations import EXAMPLE, FLEET, NODE, POLICY, ROOT, WORKERS, Case, put, remove

from kubenode.fleet.problems import Severity
from kubenode.fleet.validate import is_valid, validate
from kubenode.host.tree import read_folder

CASES = [*cases_documents.CASES, *cases_references.CASES, *cases_secrets.CASES, *cases_trust.CASES]


@pytest.fixture(scope="module")
def example() -> Mapping[str, bytes]:
    return read_folder(EXAMPLE).files


def test_the_example_has_no_problem(example: Mapping[str, bytes]) -> None:
    assert validate(example) == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_mistake_gives_one_problem(case: Case, example: Mapping[str, bytes]) -> None:
    files = dict(example)
    case.edit(files)
    problems = validate(files)
    assert len(problems) == 1, "\n".join(str(problem) for problem in problems)
    (found,) = problems
    assert (found.rule, found.path, found.severity) == (case.rule, case.path, case.severity)
    assert case.message in found.message
    assert case.hint in found.hint
    if case.at:
        assert found.line is not None and found.column is not None
        assert case.at in files[case.path].decode(errors="replace").splitlines()[found.line - 1]
    assert is_valid(problems) is (case.severity is Severity.WARNING)


def test_every_mistake_is_found_at_once(example: Mapping[str, bytes]) -> None:
    files = dict(example)
    put(NODE, "pool: workers", "pool: worker")(files)
    put(WORKERS, "soak: 30m", "soak: long")(files)
    remove(ROOT)(files)
    assert [problem.rule for problem in validate(files)] == ["unknown-pool", "bad-value", "missing-file"]


def test_an_empty_folder_gives_three_problems() -> None:
    assert [problem.path for problem in validate({})] == [FLEET, POLICY, ROOT]


def test_problems_are_printed_as_file_line_column(example: Mapping[str, bytes]) -> None:
    files = dict(example)
    put(NODE, "pool: workers", "pool: worker")(files)
    (found,) = validate(files)
    assert str(found) == (
        f"{NODE}:7:9: error: there is no pool 'worker': the file pools/worker.yaml is missing [unknown-pool]"
    )
