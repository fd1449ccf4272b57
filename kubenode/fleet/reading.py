"""Reads every document as far as it can be read: what is sound, and a problem for each that is not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet import decode
from kubenode.fleet.explain import explain
from kubenode.fleet.layout import API_VERSION, FIXED, FLEET_PATH, Kind, kind_at, name_at, names_of, path_of
from kubenode.fleet.problems import Problem, did_you_mean, from_error, problem
from kubenode.model.documents import Channel, Fleet, Image, Node, Pool, Release
from kubenode.trust.strictyaml import Document, load

T = TypeVar("T")

_MISSING = {
    Kind.FLEET: "A fleet repo has a fleet.yaml at its top: is this the right folder?",
    Kind.TRUST_POLICY: "Without it nobody could change the repo; `kubenode new` writes one.",
}


@dataclass
class Reading:
    """The documents that passed their schema, by name. Checks skip what is not here: its problem is known."""

    files: Mapping[str, bytes]
    documents: dict[str, Document] = field(default_factory=dict)
    fleet: Fleet | None = None
    channels: dict[str, Channel] = field(default_factory=dict)
    releases: dict[str, Release] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)

    def names(self, kind: Kind) -> list[str]:
        """Return the names of all documents of a kind, sound or not."""
        return names_of(kind, self.files)

    def exists(self, kind: Kind, name: str) -> bool:
        """Say whether there is a document of this kind and name, sound or not."""
        return path_of(kind, name) in self.files

    def at(self, path: str, *keys: str | int) -> Location:
        """Return where a value stands in a file; the whole file when it is not there."""
        document = self.documents.get(path)
        return document.locate(*keys) if document else Location(path)

    def value(self, path: str, *keys: str | int) -> Any:
        """Return a plain value of a sound document, None when it is not there."""
        document = self.documents.get(path)
        value: Any = document.value if document else None
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def target(self, pool: Pool) -> Release | None:
        """Return the release a pool's nodes should run, None when that is not known."""
        if pool.release is not None:
            return self.releases.get(pool.release.text)
        channel = self.channels.get(pool.channel or "")
        return self.releases.get(channel.releases[0].text) if channel and channel.releases else None

    def pools_in_use(self) -> dict[str, Pool]:
        """Return the pools that have nodes."""
        used = {node.pool for node in self.nodes.values()}
        return {name: pool for name, pool in self.pools.items() if name in used}


def read_all(files: Mapping[str, bytes]) -> tuple[Reading, list[Problem]]:
    """Read every document of a fleet repo; a document with a problem is left out of the reading."""
    reading = Reading(files)
    problems: list[Problem] = []
    for path, kind in FIXED.items():
        if path not in files:
            problems.append(problem(Location(path), "missing-file", f"the file {path} is missing", _MISSING[kind]))
    for path in sorted(files):
        kind_here = kind_at(path)
        if kind_here is not None:
            found = _check(path, kind_here, files[path], reading)
            problems.extend(found)
    problems.extend(_decode(reading))
    return reading, problems


def _check(path: str, kind: Kind, data: bytes, reading: Reading) -> list[Problem]:
    try:
        document = load(data, path)
    except FleetInvalid as error:
        return [from_error(error, "yaml", path)]
    wrong = _check_header(document, kind)
    if wrong is not None:
        return [wrong]
    found = explain(kind, document)
    if not found:
        reading.documents[path] = document
        found = list(_check_name(document, kind, path))
    return found


def _check_header(document: Document, kind: Kind) -> Problem | None:
    value = document.value
    if value is None:
        return problem(Location(document.path), "empty-document", f"the document is empty; a {kind} belongs here")
    if not isinstance(value, dict):
        return None
    found = value.get("kind")
    if isinstance(found, str) and found != kind:
        near = did_you_mean(found, [kind])
        known = found in list(Kind)
        hint = near.capitalize() or ("Move it to the folder of its kind." if known else f"Write kind: {kind}.")
        message = f"kind is {found[:80]!r}, but a {kind} belongs here"
        return problem(document.locate("kind"), "wrong-kind", message, hint)
    version = value.get("apiVersion")
    if isinstance(version, str) and version != API_VERSION:
        message = f"apiVersion is {version[:80]!r}; this kubenode reads {API_VERSION}"
        return problem(document.locate("apiVersion"), "api-version", message)
    return None


def _check_name(document: Document, kind: Kind, path: str) -> list[Problem]:
    if path in FIXED:
        return []
    value: Any = document.value
    found, wanted = value["metadata"]["name"], name_at(path)
    if found != wanted:
        message = f"metadata.name is {found!r}, but the file is called {wanted!r}"
        hint = f"Write name: {wanted}, or rename the file to {found}.yaml."
        return [problem(document.locate("metadata", "name"), "name-differs", message, hint)]
    if kind is Kind.RELEASE and value["spec"]["version"] != wanted:
        message = f"spec.version is {value['spec']['version']!r}, but the release is called {wanted!r}"
        return [problem(document.locate("spec", "version"), "version-differs", message, f"Write version: {wanted}.")]
    return []


def _decode(reading: Reading) -> list[Problem]:
    problems: list[Problem] = []

    def read_kind(kind: Kind, read: Callable[[Document, str], T]) -> dict[str, T]:
        found: dict[str, T] = {}
        for path, document in list(reading.documents.items()):
            if kind_at(path) is kind:
                decoded = attempt(path, lambda document=document, path=path: read(document, name_at(path)))
                if decoded is not None:
                    found[name_at(path)] = decoded
        return found

    def attempt(path: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except FleetInvalid as error:
            # Names were compared already; what is left are values that a schema cannot judge (30 February).
            if not error.location or error.location != reading.documents[path].locate("metadata", "name"):
                problems.append(from_error(error, "bad-value", path))
            return None

    if FLEET_PATH in reading.documents:
        reading.fleet = attempt(FLEET_PATH, lambda: decode.fleet(reading.documents[FLEET_PATH]))
    reading.channels = read_kind(Kind.CHANNEL, decode.channel)
    reading.releases = read_kind(Kind.RELEASE, decode.release)
    reading.pools = read_kind(Kind.POOL, decode.pool)
    reading.nodes = read_kind(Kind.NODE, decode.node)
    reading.images = read_kind(Kind.IMAGE, decode.image)
    return problems
