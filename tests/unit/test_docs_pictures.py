"""The pictures of the README: every one there, of real output, and as the command prints it today."""

import re
import xml.dom.minidom
from pathlib import Path

import pytest

from docs.generate.pictures import FOLDER, PICTURES, ROOT, Picture, make_all, screens, take

BY_NAME = {it.name: it for it in PICTURES}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    make_all(folder)
    return folder


def test_there_is_a_file_for_every_picture_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.svg" for name in BY_NAME}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_picture_is_whole_and_asks_no_server(name: str) -> None:
    text = (FOLDER / f"{name}.svg").read_text()
    xml.dom.minidom.parseString(text)
    assert f"{BY_NAME[name].command}</text>" in text.replace("&#160;", " ")
    addresses = set(re.findall(r"""(?:href|src|url)\s*[=(]\s*["']?([^"')\s]+)""", text))
    assert {it for it in addresses if not it.startswith("#")} == set()


@pytest.mark.parametrize("name", ["validate", "plan", "status", "apply", "simulate", "verify"])
def test_a_picture_shows_what_the_command_prints_now(name: str, example: Path) -> None:
    taken = take(BY_NAME[name], example)
    assert taken == (FOLDER / f"{name}.svg").read_text(), "run: python -m docs.generate.pictures"


def test_what_rich_takes_back_is_on_an_earlier_screen() -> None:
    printed = (
        "one\n\x1b[?25lframe 1\nat work\r\x1b[2K\x1b[1A\x1b[2Kframe 2\nthere\r\x1b[2K\x1b[1A\x1b[2K\x1b[?25hdone\n"
    )
    assert screens(printed) == [["one", "frame 1", "at work"], ["one", "frame 2", "there"], ["one", "done"]]


def test_a_command_that_ends_otherwise_gives_no_picture(example: Path) -> None:
    with pytest.raises(ValueError, match="ended with 1, not 0"):
        take(Picture("validate", "kubenode validate draft", 0), example)


def test_the_readme_shows_pictures_that_exist() -> None:
    shown = re.findall(r"!\[[^\]]+\]\((docs/pictures/[a-z-]+\.svg)\)", (ROOT / "README.md").read_text())
    assert len(shown) >= 3
    assert all((ROOT / path).is_file() for path in shown)


def test_the_readme_is_short_and_keeps_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 250
    assert "## Two commands" in text and "./run demo --yes" in text and "./run test --yes" in text
    for rival in ("Talos", "Flatcar", "Bottlerocket", "Kairos", "Fedora CoreOS"):
        assert f"[{rival}][" in text
