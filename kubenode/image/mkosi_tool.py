"""Where mkosi comes from: the builder's own one when it is new enough, else the distribution's package in a cache.

The package is fetched by apt with a configuration of our own, so apt checks the archive's signatures against
debian-archive-keyring, and nothing on the builder is installed or changed.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.process import run

MINIMUM_VERSION = 25
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://security.debian.org/debian-security"
SUITE = "trixie"


@dataclass(frozen=True)
class Mirrors:
    """The archive addresses of Debian and of its security updates."""

    main: str = MIRROR
    security: str = SECURITY_MIRROR


@dataclass(frozen=True)
class Mkosi:
    """A usable mkosi: how it is called, and what its environment must hold besides the caller's."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def cache_folder() -> Path:
    """Return the user's cache of kubenode: `$XDG_CACHE_HOME/kubenode` or `~/.cache/kubenode`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "kubenode"


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


def apt_sources(mirror: Mirrors, suite: str = SUITE) -> str:
    """Return the deb822 sources of a build: the suite, its updates and its security updates."""
    return "".join(
        f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n\n"
        for uri, suites in ((mirror.main, f"{suite} {suite}-updates"), (mirror.security, f"{suite}-security"))
    )


def version_of(output: str) -> int:
    """Return the major version in what `mkosi --version` prints; 0 when it cannot be read."""
    match = re.search(r"mkosi\s+v?(\d+)", output)
    return int(match[1]) if match else 0


def find_mkosi(cache: Path) -> Mkosi:
    """Return mkosi from PATH when its version is 25 or newer, else from the cache, fetching it there first."""
    if path := shutil.which("mkosi"):
        completed = run([path, "--version"], timeout=30, check=False)
        if version_of(completed.text) >= MINIMUM_VERSION:
            return Mkosi((path,))
    package = cache / "mkosi" / "package"
    if not (package / "usr/bin/mkosi").exists():
        _fetch(cache / "mkosi", package)
    modules = package / "usr/lib/python3/dist-packages"
    return Mkosi((sys.executable, "-B", "-m", "mkosi"), {"PYTHONPATH": str(modules)})


def _fetch(folder: Path, package: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and KEYRING.exists()):
        raise HostError(
            f"mkosi {MINIMUM_VERSION} or newer is not installed, and apt or {KEYRING} is missing to fetch it",
            hint="install mkosi >= 25, or on Debian the packages apt and debian-archive-keyring",
        )
    apt = folder / "apt"
    for name in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial", "download"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "state/status").touch()
    (apt / "etc/fetch.sources").write_text(apt_sources(mirrors()))
    config = apt / "apt.conf"
    config.write_text(
        f'Dir "{apt}";\nDir::Etc "{apt}/etc";\nDir::Etc::sourcelist "{apt}/etc/fetch.sources";\n'
        f'Dir::Etc::sourceparts "/dev/null";\nDir::Etc::parts "/dev/null";\nDir::State "{apt}/state";\n'
        f'Dir::State::status "{apt}/state/status";\nDir::Cache "{apt}/cache";\nAcquire::Languages "none";\n'
        f'APT::Sandbox::User "";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}
    run(["apt-get", "update"], timeout=300, env=env)
    run(["apt-get", "download", "mkosi"], timeout=300, env=env, cwd=apt / "download")
    packages = sorted((apt / "download").glob("mkosi_*.deb"))
    if not packages:
        raise HostError("apt downloaded no mkosi package", hint=f"see {apt}")
    staging = folder / "package.new"
    shutil.rmtree(staging, ignore_errors=True)
    run(["dpkg-deb", "-x", packages[-1], staging], timeout=60)
    staging.rename(package)
