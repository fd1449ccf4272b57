"""A fleet with everything around it, made only with the kubenode command and git, as an operator would.

Folder layout below `directory`: fleet/ (working clone), git/fleet.git (what nodes fetch), keys/, sigstore/, out/
(built releases), store/ (published releases), vm/, logs/.
"""

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.process import Completed, run
from kubenode.lab.qemu import HOST_ADDRESS
from kubenode.lab.serve import Faults, git_daemon, http_store
from kubenode.model.state import Seed

Show = Callable[[str], None]


@dataclass(frozen=True)
class Ports:
    """The loopback ports of the lab's two servers; kept in ports.json because fleet.yaml names one of them."""

    store: int
    git: int


class Workshop:
    """One fleet repo with its keys, its local Sigstore instance, its releases and its store."""

    def __init__(self, directory: Path, show: Show) -> None:
        self.directory = directory
        self.show = show
        self.fleet = directory / "fleet"
        self.keys = directory / "keys"
        self.store = directory / "store"
        self.out = directory / "out"
        self.logs = directory / "logs"
        self.bare = directory / "git" / "fleet.git"
        self.sigstore = directory / "sigstore"
        for folder in (self.keys, self.store, self.out, self.logs, self.bare.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.ports = self._ports()

    def _ports(self) -> Ports:
        kept = self.directory / "ports.json"
        if kept.exists():
            return Ports(**json.loads(kept.read_text()))
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            ports = Ports(first.getsockname()[1], second.getsockname()[1])
        kept.write_text(json.dumps({"store": ports.store, "git": ports.git}))
        return ports

    @property
    def fleet_url(self) -> str:
        """Where a guest fetches the fleet repo."""
        return f"git://{HOST_ADDRESS}:{self.ports.git}/fleet.git"

    @property
    def store_url(self) -> str:
        """Where a guest downloads releases."""
        return f"http://{HOST_ADDRESS}:{self.ports.store}"

    def kubenode(self, *words: str | Path, timeout: float = 300, check: bool = True) -> Completed:
        """Run a kubenode command as a person would, in a process of its own; shown with its closing sentence."""
        shown = " ".join(str(word) for word in words).replace(f"{self.directory}/", "")
        self.show(f"$ kubenode {shown}")
        start = time.monotonic()
        done = run([sys.executable, "-m", "kubenode", *words], timeout=timeout, cwd=self.directory, check=check)
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        self.show(f"  {(last or [''])[0]} ({time.monotonic() - start:.0f} s)")
        return done

    def git(self, *words: str | Path, cwd: Path | None = None) -> str:
        """Run git in the working clone and return what it printed."""
        return run(["git", *words], timeout=60, cwd=cwd or self.fleet).text.strip()

    def create(self) -> None:
        """Make the fleet repo with its keys and its local Sigstore instance, and the bare repo nodes fetch."""
        self.kubenode(
            *("new", self.fleet, "--signing-key", self.keys / "operator", "--sigstore", self.sigstore),
            *("--store", self.store_url),
        )
        self.git("clone", "--quiet", "--bare", self.fleet, self.bare, cwd=self.directory)
        self.git("remote", "add", "origin", self.bare)

    @property
    def head(self) -> str:
        """The head commit of the working clone."""
        return self.git("rev-parse", "HEAD")

    @property
    def anchor(self) -> str:
        """The first commit of the fleet: what machines trust from the start."""
        return self.git("rev-list", "--max-parents=0", "HEAD")

    @property
    def fleet_id(self) -> str:
        """The fleet's id, as its signed documents say."""
        for line in (self.fleet / "fleet.yaml").read_text().splitlines():
            if line.strip().startswith("id:"):
                return line.split(":", 1)[1].split("#")[0].strip().strip("\"'")
        raise HostError("fleet.yaml has no id")

    def build(self, version: str, image: str = "node") -> None:
        """Build and sign a release."""
        self.kubenode(
            *("build", image, "--version", version, "-C", self.fleet, "--output", self.out),
            *("--sigstore", self.sigstore),
            timeout=1800,
        )

    def publish(self, version: str) -> None:
        """Put a release in the store and its document into the fleet repo, signed and pushed."""
        self.kubenode("publish", self.out / version, "--store", self.store, "-C", self.fleet, "--commit")
        self.push()

    def promote(self, version: str, *channels: str) -> str:
        """Make a release the newest of each channel, signed and pushed; returns the commit."""
        for channel in channels:
            self.kubenode("promote", version, channel, "-C", self.fleet)
        self.push()
        return self.head

    def set_channels(self, versions: Sequence[str], channels: Sequence[str]) -> str:
        """Write the release lists of channels by hand (newest first), signed and pushed; returns the commit."""
        for channel in channels:
            self._edit(f"channels/{channel}.yaml", r"releases: \[.*\]", f"releases: [{', '.join(versions)}]")
        return self.commit(f"Channels list {', '.join(versions)}")

    def halt(self, halted: bool) -> str:
        """Turn the fleet's halt switch, signed and pushed; returns the commit."""
        self._edit("fleet.yaml", r"halted: \w+", f"halted: {str(halted).lower()}")
        return self.commit("Halt the fleet" if halted else "Resume the fleet")

    def _edit(self, path: str, pattern: str, replacement: str) -> None:
        file = self.fleet / path
        text, count = re.subn(pattern, replacement, file.read_text())
        if count != 1:
            raise HostError(f"{path} is not as the lab expects it: {count} matches of {pattern}")
        file.write_text(text)

    def commit(self, message: str) -> str:
        """Commit every change of a file, signed, and push it; returns the head."""
        if self.git("status", "--porcelain"):
            self.git("commit", "--quiet", "--all", "--message", message)
            self.push()
        return self.head

    def push(self) -> None:
        """Show the working clone's head to the nodes."""
        self.git("push", "--quiet", "--force", "origin", "HEAD:main")

    @contextmanager
    def serving(self) -> Iterator[Faults]:
        """Serve the store and the fleet repo for as long as the context lives; yields the store's faults."""
        with ExitStack() as stack:
            faults = stack.enter_context(http_store(self.store, self.ports.store))
            stack.enter_context(git_daemon(self.bare.parent, self.ports.git, self.logs / "git-daemon.log"))
            yield faults

    def seed(self, node: str, anchor: str) -> Seed:
        """Return the seed of a node."""
        return Seed(self.fleet_url, self.fleet_id, anchor, node)


def write_tree(root: Path, files: Sequence[tuple[str, str]]) -> None:
    """Write files (path below `root`, text), making folders as needed."""
    for name, text in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
