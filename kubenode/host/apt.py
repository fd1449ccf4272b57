"""Packages of Debian by apt with a configuration of its own: nothing on this machine is installed or changed.

apt checks the archive's signatures against debian-archive-keyring, as it always does.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.process import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://security.debian.org/debian-security"


@dataclass(frozen=True)
class Mirrors:
    """The archive addresses of Debian and of its security updates."""

    main: str = MIRROR
    security: str = SECURITY_MIRROR


def parse_mirrors(sources: list[str]) -> Mirrors:
    """Take the Debian mirrors out of the texts of apt sources files (both of apt's formats)."""
    uris: list[str] = []
    for text in sources:
        for line in text.splitlines():
            if match := re.match(r"(?:URIs:|deb\s+(?:\[[^]]*\]\s+)?)\s*(\S.*)", line.strip()):
                uris += [word.rstrip("/") for word in match[1].split() if re.match(r"(https?|file)://", word)]
    main = next((uri for uri in uris if uri.endswith("/debian")), MIRROR)
    security = next((uri for uri in uris if uri.endswith("/debian-security")), SECURITY_MIRROR)
    return Mirrors(main, security)


def mirrors() -> Mirrors:
    """Return the mirrors of this builder when it runs Debian, else the public ones."""
    try:
        os_release = Path("/etc/os-release").read_text()
    except OSError:
        return Mirrors()
    if not re.search(r'^ID="?debian"?$', os_release, re.MULTILINE):
        return Mirrors()
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.sources"))]
    return parse_mirrors([file.read_text() for file in files if file.is_file()])


def sources(mirror: Mirrors, suite: str, types: str = "deb") -> str:
    """Return the deb822 sources of a suite, its updates and its security updates; `types` as in sources.list(5)."""
    return "".join(
        f"Types: {types}\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n\n"
        for uri, suites in ((mirror.main, f"{suite} {suite}-updates"), (mirror.security, f"{suite}-security"))
    )


class Apt:
    """apt for one suite, in a folder of its own: lists, downloads and configuration are below it."""

    def __init__(self, folder: Path, suite: str, *, types: str = "deb") -> None:
        """Write the configuration. Raises HostError when apt, dpkg-deb or the archive's keyring is missing."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and KEYRING.exists()):
            raise HostError(
                f"packages of Debian {suite} are needed, and apt or {KEYRING} is missing to fetch them",
                hint="on Debian, install the packages apt and debian-archive-keyring",
            )
        self.downloads = folder / "download"
        for name in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial", "download"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "state/status").touch()
        (folder / "etc/fetch.sources").write_text(sources(mirrors(), suite, types))
        config = folder / "apt.conf"
        config.write_text(
            f'Dir "{folder}";\nDir::Etc "{folder}/etc";\nDir::Etc::sourcelist "{folder}/etc/fetch.sources";\n'
            f'Dir::Etc::sourceparts "/dev/null";\nDir::Etc::parts "/dev/null";\nDir::State "{folder}/state";\n'
            f'Dir::State::status "{folder}/state/status";\nDir::Cache "{folder}/cache";\n'
            f'Acquire::Languages "none";\nAPT::Sandbox::User "";\n'
        )
        self._env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}

    def update(self) -> None:
        """Fetch the package lists. Raises ProcessFailed with apt's own words."""
        run(["apt-get", "update"], timeout=300, env=self._env)

    def download(self, packages: Sequence[str]) -> tuple[Path, ...]:
        """Download binary packages, after `update`, and return their files in the same order. Raises HostError."""
        run(["apt-get", "download", *packages], timeout=900, env=self._env, cwd=self.downloads)
        return tuple(self._newest(f"{name}_*.deb") for name in packages)

    def source(self, package: str) -> Path:
        """Download a source package, after `update`, and return its .dsc file. Raises HostError."""
        words = ["apt-get", "source", "--download-only", "--only-source", package]
        run(words, timeout=900, env=self._env, cwd=self.downloads)
        return self._newest(f"{package}_*.dsc")

    def _newest(self, pattern: str) -> Path:
        found = sorted(self.downloads.glob(pattern), key=lambda path: path.stat().st_mtime)
        if not found:
            raise HostError(f"apt downloaded no {pattern}", hint=f"see {self.downloads}")
        return found[-1]


def unpack(package: Path, folder: Path) -> None:
    """Unpack the files of a binary package below `folder`, made when missing. Raises ProcessFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    run(["dpkg-deb", "--extract", package, folder], timeout=300)
