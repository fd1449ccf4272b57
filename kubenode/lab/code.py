"""What an image may take of this package: a kept release that has something else in it tests yesterday's agent."""

import hashlib
from pathlib import Path

import kubenode


def digest(package: Path | None = None) -> str:
    """Return the sha256 (hex) of the package without the lab."""
    package = package or Path(kubenode.__file__).parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        if path.is_file() and inside.parts[0] != "lab" and "__pycache__" not in inside.parts:
            found.update(f"{inside} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()
