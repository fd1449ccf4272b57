"""The agent as it lies in an image: the `kubenode` package with its Python dependencies, built for the node's Python.

The versions are those of the environment that runs the build, so what was tested is what is shipped.
"""

import ast
import hashlib
import importlib.metadata
import re
import shutil
from collections.abc import Iterator
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
ENTRY = "kubenode.cli.agent"
"""What /usr/bin/kubenode of an image runs."""
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
    """Lay out `/usr/lib/kubenode` below `target`: what the agent imports of the package, and its dependencies."""
    library = target / "usr/lib/kubenode"
    shutil.copytree(install_dependencies(pins, cache), library, symlinks=True)
    for pattern in JUNK:
        for path in list(library.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for path in imported(agent_source).values():
        copy = library / "kubenode" / path.relative_to(agent_source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)


def imported(package: Path, entry: str = ENTRY) -> dict[str, Path]:
    """Return the modules of a package that one of them imports, itself included, with their files, by name.

    Imports inside functions count, those for type checkers do not. Raises HostError when the entry is not there.
    """
    root = package.parent
    found: dict[str, Path] = {}
    todo = [entry]
    while todo:
        name = todo.pop()
        place = root.joinpath(*name.split("."))
        path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if name in found or not path.is_file():
            continue  # `from kubenode.errors import HostError` may name a module or something in one.
        found[name] = path
        parent = name.rpartition(".")[0]
        todo += [it for it in (parent, *_imports(ast.parse(path.read_bytes()))) if it.split(".")[0] == package.name]
    if entry not in found:
        raise HostError(f"{package} has no {entry}", hint="Name the folder of the kubenode package.")
    return dict(sorted(found.items()))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names of all that may be a module."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names):
                yield from (it.name for it in names)
            case ast.ImportFrom(str(module), names):
                yield module
                yield from (f"{module}.{it.name}" for it in names)
            case ast.If(ast.Name("TYPE_CHECKING"), _, otherwise):
                for it in otherwise:
                    yield from _imports(it)
            case _:
                yield from _imports(node)
