"""Where mkosi comes from: the builder's own one when it is new enough, else the distribution's package in a cache.

The package is fetched by `kubenode.host.apt`: nothing on the builder is installed or changed.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.apt import Apt, unpack
from kubenode.host.process import run

MINIMUM_VERSION = 25
SUITE = "trixie"


@dataclass(frozen=True)
class Mkosi:
    """A usable mkosi: how it is called, and what its environment must hold besides the caller's."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def cache_folder() -> Path:
    """Return the user's cache of kubenode: `$XDG_CACHE_HOME/kubenode` or `~/.cache/kubenode`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "kubenode"


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
    try:
        apt = Apt(folder / "apt", SUITE)
    except HostError as error:
        raise HostError(
            f"mkosi {MINIMUM_VERSION} or newer is not installed, and {error.message}",
            hint="install mkosi >= 25, or on Debian the packages apt and debian-archive-keyring",
        ) from error
    apt.update()
    (downloaded,) = apt.download(["mkosi"])
    staging = folder / "package.new"
    shutil.rmtree(staging, ignore_errors=True)
    unpack(downloaded, staging)
    staging.rename(package)
