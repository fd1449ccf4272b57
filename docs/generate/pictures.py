"""Pictures of the command line for the README: real commands in a made-up fleet, `python -m docs.generate.pictures`.

A command runs on a terminal of 100 columns, and what stays on it becomes docs/pictures/NAME.svg. Keys, dates and ids of
the fleet are always the same, so a picture changes only when the command does. To add one, add a line to PICTURES.
"""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from docs.generate.cluster import make_cluster
from docs.generate.example import make_example
from docs.generate.svg import FORMAT

FOLDER = Path(__file__).parents[1] / "pictures"
ROOT = FOLDER.parents[1]
COLUMNS = 100
_CONTROL = re.compile(r"(\n|\r|\x1b\[1A|\x1b\[2K|\x1b\[\?25[lh])")
THEME = TerminalTheme(
    (24, 26, 31),
    (216, 222, 233),
    [(59, 66, 82), (255, 110, 103), (140, 207, 126), (229, 192, 123),
     (103, 176, 232), (198, 120, 221), (108, 182, 183), (216, 222, 233)],
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A picture's name, the command line that it shows, and the exit code that belongs to it.

    `scene`: what its cluster is like (`docs.generate.stage`), empty for none. `since` begins the first line that is
    shown; what is printed before has a picture of its own. `frame`: of a live view, the first screen with this word is
    shown, too.
    """

    name: str
    command: str
    code: int = 0
    scene: str = ""
    since: str = ""
    frame: str = ""


PICTURES = (
    Picture("validate", "kubenode validate draft", 1),
    Picture("trust-show", "kubenode trust show -C homelab"),
    Picture("verify", "kubenode verify out/2026.11.3 -C clone --channel stable", 3),
    Picture("plan", "kubenode plan -C homelab", scene="before"),
    Picture("status", "kubenode status -C homelab", 4, scene="middle"),
    Picture(
        "apply", "kubenode apply -C homelab --yes --timeout 6h", scene="following", since="1 commit", frame="Drain"
    ),
    Picture("simulate", "kubenode plan -C homelab --simulate", scene="before"),
    Picture("doctor", "kubenode doctor --for laptop --server 127.0.0.1:1", 75),
)


def main() -> None:
    """Take every picture, or those whose names are given."""
    wanted = sys.argv[1:] or [it.name for it in PICTURES]
    with tempfile.TemporaryDirectory(prefix="kubenode-pictures-") as name:
        make_all(Path(name))
        FOLDER.mkdir(exist_ok=True)
        for picture in PICTURES:
            if picture.name in wanted:
                (FOLDER / f"{picture.name}.svg").write_text(take(picture, Path(name)))
                print(f"took docs/pictures/{picture.name}.svg", file=sys.stderr)


def make_all(folder: Path) -> None:
    """Make the fleets that commands are run for; that of the scenes in `cluster`."""
    make_example(folder)
    (folder / "cluster").mkdir()
    make_cluster(folder / "cluster")


def take(picture: Picture, folder: Path) -> str:
    """Run the command in `folder` and return its picture. Raises ValueError when it ends with another exit code."""
    words = shlex.split(picture.command)[1:]
    if picture.scene:
        code, printed = on_a_terminal(["docs.generate.stage", picture.scene, *words], folder / "cluster")
    else:
        code, printed = on_a_terminal(["kubenode", *words], folder)
    if code != picture.code:
        raise ValueError(f"{picture.command!r} ended with {code}, not {picture.code}:\n{printed}")
    every = screens(printed)
    lines = every[-1]
    if picture.frame:
        frame = next(it for it in every if any(picture.frame in line for line in it))
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(frame, lines, strict=False)))
        lines = [*frame, "", "[...]", *lines[same:]]
    if picture.since:
        first = next(number for number, line in enumerate(lines) if line.startswith(picture.since))
        lines = ["[the plan]", *lines[first:]]
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="standard")
        console.print(Text.assemble(("$ ", "bold green"), (picture.command, "bold")))
        console.print(Text.from_ansi("\n".join(lines)))
        return console.export_svg(
            title=picture.command, theme=THEME, code_format=FORMAT, unique_id=f"kubenode-{picture.name}"
        )


def on_a_terminal(module: list[str], folder: Path) -> tuple[int, str]:
    """Run a module with words on a terminal of its own; return its exit code and what the terminal got."""
    argv = [sys.executable, "-m", *module]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    env = {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    child = subprocess.Popen(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 1 << 16):
            parts.append(part)
    except OSError:  # How a terminal of Linux says that nobody writes to it any more.
        pass
    os.close(ours)
    return child.wait(), b"".join(parts).decode().replace("\r\n", "\n")


def screens(printed: str) -> list[list[str]]:
    """Return the lines of every screen before rich takes back a part of it, and of the one that stays in the end."""
    found: list[list[str]] = []
    lines, at, written = [""], 0, False
    for part in _CONTROL.split(printed):
        if part == "\n":
            at += 1
            lines += [""] if at == len(lines) else []
        elif part == "\x1b[1A":
            at -= 1
        elif part == "\x1b[2K":
            found += [_filled(lines)] if written else []
            lines[at], written = "", False
        elif part and not _CONTROL.fullmatch(part):
            lines[at] += part
            written = True
    return [*found, _filled(lines)]


def _filled(lines: list[str]) -> list[str]:
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    return lines[:last]


if __name__ == "__main__":
    main()
