"""Files in the wrong place, with the wrong ending, or with contents that do not belong into git."""

import re
from collections.abc import Iterator

from kubenode.errors import Location
from kubenode.fleet.layout import FOLDERS, TRUSTED_ROOT_PATH
from kubenode.fleet.problems import Problem, problem
from kubenode.fleet.reading import Reading
from kubenode.trust.strictyaml import MAX_BYTES

_YAML_LIKE = re.compile(r"\.ya?ml$", re.IGNORECASE)
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|AGE-SECRET-KEY-1[A-Z0-9]{20}")
_SEAL = "Seal it with `kubenode seal` for the nodes that need it."
_SEALED = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")
_BESIDE_SECRETS = ("README.md", ".gitkeep", ".gitignore")


def check_places(reading: Reading) -> Iterator[Problem]:
    """Find documents that would never be read: another ending, a folder below their folder."""
    for path in reading.files:
        folder, _, name = path.partition("/")
        where = Location(path)
        if folder not in {*FOLDERS, "kubeadm"} or not _YAML_LIKE.search(name) or name.startswith("patches/"):
            continue
        if not name.endswith(".yaml"):
            better = _YAML_LIKE.sub(".yaml", path)
            message = f"kubenode reads only files that end in .yaml from {folder}/, not this one"
            yield problem(where, "file-extension", message, f"Rename it to {better}.")
        elif "/" in name:
            message = f"documents stand directly in {folder}/; this one would not be read"
            yield problem(where, "misplaced-file", message, f"Move it to {folder}/{name.rpartition('/')[2]}.")


def check_secrets(reading: Reading) -> Iterator[Problem]:
    """Find plain text below secrets/, and private keys anywhere."""
    for path, data in reading.files.items():
        where = Location(path)
        found = _PRIVATE_KEY.search(data)
        if found:
            line = data.count(b"\n", 0, found.start()) + 1
            hint = "Everybody who can read the repo has it: replace the key, and seal the new one (secrets/*.age)."
            yield problem(Location(path, line, 1), "private-key", "the file contains a private key", hint)
        elif path.startswith("secrets/") and path.rpartition("/")[2] not in _BESIDE_SECRETS:
            if _YAML_LIKE.search(path):
                continue  # A document, or in the wrong place for one, which others say.
            if not path.endswith(".age"):
                message = "secrets/ is for sealed files (*.age); this one is plain text in git"
                yield problem(where, "secret-in-plain-text", message, f"{_SEAL} Then remove this one.")
            elif not data.startswith(_SEALED):
                yield problem(where, "secret-in-plain-text", "the file ends in .age but is not an age file", _SEAL)


def check_sizes(reading: Reading) -> Iterator[Problem]:
    """Find files that are rendered on nodes and are too large to be read there."""
    for name, pool in reading.pools.items():
        for index, file in enumerate(pool.files):
            if len(reading.files.get(file.source, b"")) > MAX_BYTES:
                where = reading.at(f"pools/{name}.yaml", "spec", "files", index, "contents", "source")
                yield problem(where, "file-too-large", f"{file.source} is larger than {MAX_BYTES:,} bytes")
    if len(reading.files.get(TRUSTED_ROOT_PATH, b"")) > MAX_BYTES:
        yield problem(Location(TRUSTED_ROOT_PATH), "file-too-large", f"the file is larger than {MAX_BYTES:,} bytes")
