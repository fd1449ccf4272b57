"""Pictures of the command line for the README: real commands in a made-up fleet, `python -m docs.generate.pictures`.

A command runs on a terminal of 100 columns, and what it prints becomes docs/pictures/NAME.svg. Keys, dates and ids of
the fleet are always the same, so a picture changes only when the command does. To add one, add a line to PICTURES.
"""

import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from docs.generate.example import make_example
from docs.generate.svg import FORMAT

FOLDER = Path(__file__).parents[1] / "pictures"
ROOT = FOLDER.parents[1]
COLUMNS = 100
THEME = TerminalTheme(
    (24, 26, 31),
    (216, 222, 233),
    [(59, 66, 82), (255, 110, 103), (140, 207, 126), (229, 192, 123),
     (103, 176, 232), (198, 120, 221), (108, 182, 183), (216, 222, 233)],
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A picture's name, the command line that it shows, and the exit code that belongs to it."""

    name: str
    command: str
    code: int = 0


PICTURES = (
    Picture("validate", "kubenode validate draft", 1),
    Picture("plan", "kubenode plan -C homelab --observed status.json", 4),
    Picture("trust-show", "kubenode trust show -C homelab"),
    Picture("verify", "kubenode verify out/2026.11.3 -C clone --channel stable", 3),
    Picture("doctor", "kubenode doctor --for laptop --server 127.0.0.1:1", 75),
)


def main() -> None:
    """Take every picture, or those whose names are given."""
    wanted = sys.argv[1:] or [it.name for it in PICTURES]
    with tempfile.TemporaryDirectory(prefix="kubenode-pictures-") as name:
        make_example(Path(name))
        FOLDER.mkdir(exist_ok=True)
        for picture in PICTURES:
            if picture.name in wanted:
                (FOLDER / f"{picture.name}.svg").write_text(take(picture, Path(name)))
                print(f"took docs/pictures/{picture.name}.svg", file=sys.stderr)


def take(picture: Picture, folder: Path) -> str:
    """Run the command in `folder` and return its picture. Raises ValueError when it ends with another exit code."""
    code, printed = on_a_terminal(picture.command, folder)
    if code != picture.code:
        raise ValueError(f"{picture.command!r} ended with {code}, not {picture.code}:\n{printed}")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="standard")
        console.print(Text.assemble(("$ ", "bold green"), (picture.command, "bold")))
        console.print(Text.from_ansi(printed.rstrip()))
        return console.export_svg(
            title=picture.command, theme=THEME, code_format=FORMAT, unique_id=f"kubenode-{picture.name}"
        )


def on_a_terminal(command: str, folder: Path) -> tuple[int, str]:
    """Run a kubenode command on a terminal of its own; return its exit code and what the terminal got."""
    argv = [sys.executable, "-m", "kubenode", *shlex.split(command)[1:]]
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


if __name__ == "__main__":
    main()
