"""Debian's cosign for the contract tests: from PATH, else its package of Debian unstable in the user's cache.

The package is fetched by apt with a configuration of our own, so apt checks the archive's signatures against
debian-archive-keyring, and nothing on this machine is installed or changed. The index of unstable is some 10 MB to
download; it is thrown away afterwards, only the binary stays.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from kubenode.host.apt import KEYRING, mirrors
from kubenode.image.mkosi_tool import cache_folder

MINIMUM_MAJOR = 3
"""cosign 2 knows no log entries of Rekor v2."""
TIMEOUT = 240


class Unavailable(Exception):
    """There is no usable cosign, and why."""


def find_cosign() -> Path:
    """Return a cosign of version 3 or newer, fetching it when there is none. Raise Unavailable."""
    cached = cache_folder() / "cosign" / "usr" / "bin" / "cosign"
    for candidate in (shutil.which("cosign"), cached if cached.is_file() else None):
        if candidate is not None and _major(Path(candidate)) >= MINIMUM_MAJOR:
            return Path(candidate)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and KEYRING.exists()):
        raise Unavailable(f"no cosign {MINIMUM_MAJOR} in PATH, and no apt with {KEYRING} to fetch Debian's")
    _fetch(cached.parents[2])
    if _major(cached) < MINIMUM_MAJOR:
        raise Unavailable(f"Debian's cosign does not run here, or is older than {MINIMUM_MAJOR}")
    return cached


def _major(cosign: Path) -> int:
    """Return the major version; Debian's binary does not know its own, then it is the one of its package."""
    note = cosign.parents[2] / "version"
    try:
        done = subprocess.run([cosign, "version"], capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return 0
    said = re.search(r"GitVersion:\s+v?(\d+)\.", done.stdout + done.stderr)
    packaged = re.match(r"(\d+)\.", note.read_text()) if note.is_file() else None
    found = said or packaged
    return int(found[1]) if found and done.returncode == 0 else 0


def _fetch(folder: Path) -> None:
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        for name in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial", "download"):
            (work / name).mkdir(parents=True, exist_ok=True)
        (work / "state/status").touch()
        source = f"Types: deb\nURIs: {mirrors().main}\nSuites: sid\nComponents: main\nSigned-By: {KEYRING}\n"
        (work / "etc/fetch.sources").write_text(source)
        (work / "apt.conf").write_text(
            f'Dir "{work}";\nDir::Etc "{work}/etc";\nDir::Etc::sourcelist "{work}/etc/fetch.sources";\n'
            f'Dir::Etc::sourceparts "/dev/null";\nDir::Etc::parts "/dev/null";\nDir::State "{work}/state";\n'
            f'Dir::State::status "{work}/state/status";\nDir::Cache "{work}/cache";\nAcquire::Languages "none";\n'
            f'Acquire::PDiffs "false";\nAcquire::Retries "1";\nAcquire::http::Timeout "20";\nAPT::Sandbox::User "";\n'
            f'Acquire::Check-Valid-Until "{_valid_until()}";\n'
        )
        environment = {**os.environ, "APT_CONFIG": str(work / "apt.conf"), "LC_ALL": "C"}
        _run(["apt-get", "update"], work, environment)
        _run(["apt-get", "download", "cosign"], work / "download", environment)
        packages = sorted((work / "download").glob("cosign_*.deb"))
        if not packages:
            raise Unavailable("Debian unstable has no cosign for this machine")
        _run(["dpkg-deb", "-x", str(packages[-1]), str(work / "package")], work, environment)
        (work / "package" / "version").write_text(packages[-1].name.split("_")[1])
        shutil.rmtree(folder, ignore_errors=True)
        (work / "package").rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _valid_until() -> str:
    """Return this machine's own setting: one that uses a frozen mirror has switched the check off for all of apt."""
    done = subprocess.run(
        ["apt-config", "dump", "Acquire::Check-Valid-Until"], capture_output=True, text=True, check=False
    )
    return "false" if '"false"' in done.stdout else "true"


def _run(argv: list[str], where: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=where, env=environment, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(argv[:2])} took longer than {TIMEOUT} seconds") from None
    said = (done.stderr or done.stdout).strip().splitlines()
    if done.returncode != 0 or any(line.startswith("Err:") for line in done.stdout.splitlines()):
        raise Unavailable(f"{' '.join(argv[:2])} failed: {said[-1] if said else done.returncode}")
