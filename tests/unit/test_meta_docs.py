"""What the documentation says is so: commands, options, exit codes, links."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from cliworld import kubenode

from docs.generate.errors import EXIT_CODES
from kubenode.errors import ExitCode

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "fleet-example").rglob("*.md")])
_BLOCK = re.compile(r"^```(?:sh|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(kubenode [a-z][^`\n]*)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def commands() -> list[tuple[str, str]]:
    """Return (file, command line) of every kubenode command in a code block or between backticks."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text()
        lines = [
            line.strip().removeprefix("$ ")
            for block in _BLOCK.findall(text)
            for line in block.replace("\\\n", " ").splitlines()
        ]
        lines = [line for line in lines if line.startswith(("kubenode ", "./run demo"))] + _INLINE.findall(text)
        found += [(path.relative_to(ROOT).as_posix(), line) for line in lines]
    return sorted(set(found))


def helped(words: list[str]) -> tuple[list[str], str]:
    """Return the command that the first words name and its help; groups are followed."""
    name: list[str] = []
    text = kubenode("--help").out
    for word in words[:2]:
        done = kubenode(*name, word, "--help")
        if done.code != 0 or not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        name, text = [*name, word], done.out
        if "COMMAND [ARGS]" not in text:
            break
    return name, text


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize(("where", "line"), commands())
def test_documented_commands_exist(where: str, line: str) -> None:
    line = line.replace("./run demo", "kubenode demo")
    words = shlex.split(re.split(r" && | \| |;| #", re.sub(r"\$\([^)]*\)", "X", line))[0].replace("...", ""))[1:]
    if words[0].startswith("-"):
        name, text = [], kubenode("--help").out
    else:
        name, text = helped(words)
        assert name, f"{where}: there is no command `{line}`"
    for word in words:
        if re.fullmatch(r"--[a-z][a-z-]*(=.*)?|-[A-Za-z]", word):
            option = word.partition("=")[0]
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{where}: `{line}` has no {option}"


def test_messages_and_comments_name_existing_commands() -> None:
    files = [path for top in ("kubenode", "schemas", "fleet-example") for path in (ROOT / top).rglob("*")]
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in files
        if path.suffix in (".py", ".json", ".yaml")
        for name in re.findall(r"`kubenode ([a-z][a-z-]*)", path.read_text())
    }
    listed = set(re.findall(r"│ ([a-z]+) ", kubenode("--help").out.partition("Commands")[2]))
    assert {name for _, name in named} >= {"new", "doctor"}
    assert sorted((where, name) for where, name in named if name not in listed) == []


def test_examples_in_the_help_are_complete() -> None:
    listed = re.findall(r"│ ([a-z]+) ", kubenode("--help").out.partition("Commands")[2])
    assert {"new", "validate", "plan", "trust"} <= set(listed)
    for name in listed:
        text = kubenode(name, "--help").out
        if "COMMAND [ARGS]" not in text:
            assert f"Example: kubenode {name}" in text, name


def test_exit_codes_of_the_readme() -> None:
    table = (ROOT / "README.md").read_text().partition("| exit code |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE)
    assert rows == [(str(int(code)), EXIT_CODES[code]) for code in ExitCode]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(path: Path) -> None:
    for target in _LINK.findall(path.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{target} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{target} names no heading"


def test_no_paths_of_a_developers_machine() -> None:
    # In pieces, so that this file passes its own test. mkosi itself calls its sandbox's folders so (mkosi(1), SCRIPTS).
    forbidden = re.compile(r"(?<![\w.~-])/(?:wo" + r"rk/(?!(?:src|dest|build|out)\b)|ro" + r"ot/)")
    argv = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, check=False)
    names = listed.stdout.decode().split("\0")[:-1]
    if not names:
        pytest.skip("not a git checkout")
    for name in names:
        path = ROOT / name
        if not path.is_file() or name == "uv.lock":
            continue
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
            assert not forbidden.search(line), f"{name}:{number} names a path of one machine: {line.strip()[:100]}"
