"""The agent as it lies in an image: the `kubenode` package with its Python dependencies, built for the node's Python.

The versions are those of the environment that runs the build, so what was tested is what is shipped.
"""

import hashlib
import importlib.metadata
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from uv import find_uv_bin

from kubenode.errors import HostError
from kubenode.host.process import run

TARGET = {
    "python_version": "3.13",
    "python_full_version": "3.13.5",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "sys_platform": "linux",
    "os_name": "posix",
    "extra": "",
}
PLATFORM = "x86_64-manylinux_2_28"
NOT_ON_NODES = frozenset({"bcrypt", "gitpython", "jsonschema", "packaging", "uv"})
"""What only laptops and builders import: `validate` and this module."""
LAPTOP_ONLY = frozenset({"_data", "image", "lab", "__main__.py"})
"""What a node does not import, at the top of the kubenode package."""
NODE_CLI = frozenset(
    {"__init__.py", "agent.py", "app.py", "cluster.py", "node.py", "options.py", "output.py", "wire.py"}
)
"""All that a node imports of `kubenode.cli`: what is not named here is for laptops and builders."""
JUNK = ("**/__pycache__", "**/tests", "bin", "**/*.pyi", "**/py.typed", ".lock", "**/*.dist-info/RECORD")


@dataclass(frozen=True, order=True)
class Pin:
    """A Python distribution at one version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def dependencies(distribution: str = "kubenode") -> tuple[Pin, ...]:
    """List everything `distribution` needs at run time on the node, at the versions installed here."""
    found: dict[str, Pin] = {}
    todo: list[tuple[str, frozenset[str]]] = [(distribution, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            metadata = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise HostError(
                f"{name} is needed on the node but is not installed here", hint="run `uv sync` or reinstall kubenode"
            ) from error
        if name != distribution:
            found[name] = Pin(name, metadata.version)
        for text in metadata.requires or []:
            requirement = Requirement(text)
            if name == distribution and normal(requirement.name) in NOT_ON_NODES:
                continue
            if requirement.marker is None or any(
                requirement.marker.evaluate({**TARGET, "extra": extra}) for extra in extras or {""}
            ):
                todo.append((normal(requirement.name), frozenset(requirement.extras)))
    return tuple(sorted(found.values()))


def normal(name: str) -> str:
    """Return the normalised name of a Python distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def cache_key(pins: tuple[Pin, ...]) -> str:
    """Return the name of a set of pins in the cache."""
    return hashlib.sha256("\n".join(map(str, pins)).encode()).hexdigest()[:24]


def install_dependencies(pins: tuple[Pin, ...], cache: Path) -> Path:
    """Return a folder with the wheels of `pins` unpacked for the node; made once for each set."""
    target = cache / "python" / cache_key(pins)
    if target.is_dir():
        return target
    staging = target.with_suffix(".new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    run(
        [find_uv_bin(), "pip", "install", "--target", staging, "--python-version", TARGET["python_version"],
         "--python-platform", PLATFORM, "--only-binary", ":all:", "--no-deps", "--no-config", *map(str, pins)],
        timeout=600,
    )  # fmt: skip
    staging.rename(target)
    return target


def make_tree(agent_source: Path, pins: tuple[Pin, ...], cache: Path, target: Path) -> None:
    """Lay out `/usr/lib/kubenode` below `target`: the package, its schemas, its dependencies."""
    library = target / "usr/lib/kubenode"
    shutil.copytree(install_dependencies(pins, cache), library, symlinks=True)
    for pattern in JUNK:
        for path in list(library.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    package = library / "kubenode"
    shutil.copytree(agent_source, package, ignore=_only_the_agent(agent_source))
    schemas = next((p for p in (agent_source / "_data/schemas", agent_source.parent / "schemas") if p.is_dir()), None)
    if schemas is not None:
        shutil.copytree(schemas, package / "_data/schemas")


def _only_the_agent(source: Path) -> Callable[[str, list[str]], set[str]]:
    """Return what copytree shall leave out: caches, package data, and what only laptops import."""

    def ignore(folder: str, names: list[str]) -> set[str]:
        left_out = {"__pycache__"}
        if Path(folder) == source:
            left_out |= LAPTOP_ONLY
        elif Path(folder) == source / "cli":
            left_out |= set(names) - NODE_CLI
        return left_out & set(names)

    return ignore
