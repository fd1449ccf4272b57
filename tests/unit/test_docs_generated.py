"""Generated pages are up to date and say what they should: the reference, manual pages, errors and the fleet format."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from docs.generate.commands import commands
from docs.generate.errors import decisions
from docs.generate.man import escaped, text
from docs.generate.pages import DOCS, OWNED, pages
from kubenode.errors import ExitCode
from kubenode.trust.reasons import Reason

COMMANDS = commands()
PAGES = pages()
NEVER_PASSED = "run: python -m docs.generate"


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    path = DOCS / name
    assert path.exists() and path.read_text() == PAGES[name], NEVER_PASSED


@pytest.mark.parametrize("folder", OWNED)
def test_no_page_is_left_of_a_command_that_is_gone(folder: str) -> None:
    there = {path.relative_to(DOCS).as_posix() for path in (DOCS / folder).iterdir()}
    assert there - PAGES.keys() == set(), NEVER_PASSED


def test_every_command_has_a_page_and_a_manual_page() -> None:
    assert len(COMMANDS) > 20
    for it in COMMANDS:
        assert f"man/{it.man_name}.1" in PAGES
        assert not it.words or f"reference/{it.slug}.md" in PAGES
        if it.words and not it.group:
            assert f"]({it.slug}.md)" in PAGES["reference/README.md"]


@pytest.mark.parametrize("it", [it for it in COMMANDS if it.words and not it.group], ids=lambda it: it.name)
def test_every_command_has_an_example_of_itself(it: "object") -> None:
    assert it.examples  # type: ignore[attr-defined]
    for example in it.examples:  # type: ignore[attr-defined]
        assert f"{example} ".startswith(f"{it.name} ")  # type: ignore[attr-defined]


@pytest.mark.parametrize("it", COMMANDS, ids=lambda it: it.name)
def test_every_parameter_is_explained(it: "object") -> None:
    unexplained = [each.spelled for each in it.parameters if len(each.text) < 8]  # type: ignore[attr-defined]
    assert unexplained == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("it", COMMANDS, ids=lambda it: it.name)
def test_a_manual_page_is_good_troff(it: "object") -> None:
    path = DOCS / "man" / f"{it.man_name}.1"  # type: ignore[attr-defined]
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_a_manual_page_reads_well() -> None:
    argv = ["groff", "-man", "-Tascii", "-P-cbou", DOCS / "man" / "kubenode-trust-show.1"]
    said = " ".join(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    assert "NAME kubenode-trust-show - Show the trust policy of a commit" in said
    assert "EXAMPLES kubenode trust show -C homelab fleet.yaml" in said
    assert "3 untrusted: a signature, digest or policy was refused" in said


def test_troff_takes_no_text_for_a_request() -> None:
    assert text(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert escaped("a\\b-c “d” `e`") == "a\\eb\\-c \\[u201C]d\\[u201D] \\(gae\\(ga"


def test_wheels_install_the_manual_pages_where_man_looks() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"docs/man": "share/man/man1"}
    assert all(re.fullmatch(r"kubenode[a-z-]*\.1", path.name) for path in Path(DOCS / "man").iterdir())


def test_the_catalogue_of_errors_is_complete() -> None:
    page = PAGES["errors.md"]
    for code in ExitCode:
        assert f"| {int(code)} | " in page
    for reason in Reason:
        assert f"| `{reason}` | " in page
    assert {"ReleasePoisoned", "NoFallback", "RolloutClosed"} <= dict(decisions("Stuck")).keys()
    assert {"Halted", "EtcdUnhealthy", "Backoff"} <= dict(decisions("Wait")).keys()
    for _, said in decisions("Stuck"):
        assert len(said) == 2 and all(said), said


def test_the_order_of_changes_explains_no_code_that_is_gone() -> None:
    chapter = (DOCS / "kubernetes-order.md").read_text().partition("## What each wait means")[2]
    named = {
        code for row in re.findall(r"^\| (`.*?) \|", chapter, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)
    }
    assert len(named) > 30
    known = {*dict(decisions("Stuck")), *dict(decisions("Wait")), "UpgradeBudget"}
    assert named - known == set()
