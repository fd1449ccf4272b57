"""Reads every document as far as it can be read: what is sound, and a problem for each that is not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet import decode
from kubenode.fleet.explain import explain
from kubenode.fleet.layout import API_VERSION, FIXED, Kind, home_of, kind_at, name_at, names_of, path_of
from kubenode.fleet.problems import Problem, from_error, problem
from kubenode.model.documents import Channel, Fleet, Image, Node, Pool, Release, SealedSecret
from kubenode.trust.strictyaml import Document, load

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
    secrets: dict[str, SealedSecret] = field(default_factory=dict)

    def names(self, kind: Kind) -> list[str]:
        """Return the names of all documents of a kind, sound or not."""
        return names_of(kind, self.files)

    def exists(self, kind: Kind, name: str) -> bool:
        """Say whether there is a document of this kind and name, sound or not."""
        return path_of(kind, name) in self.files

    def complete(self, kind: Kind) -> bool:
        """Say whether every document of a kind is sound, so that counting them makes sense."""
        return all(path_of(kind, name) in self.documents for name in self.names(kind))

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
        belongs = kind_at(path)
        if belongs is not None:
            problems.extend(_read(reading, path, belongs))
    return reading, problems


def _read(reading: Reading, path: str, kind: Kind) -> list[Problem]:
    try:
        document = load(reading.files[path], path)
    except FleetInvalid as error:
        return [from_error(error, "yaml", path)]
    problems = _check_header(document, kind) or explain(kind, document) or _check_name(document, kind)
    if problems:
        return problems
    try:
        _keep(reading, document, kind, name_at(path))
    except FleetInvalid as error:
        # What a schema cannot judge, such as the 30th of February.
        return [from_error(error, "bad-value", path)]
    return []


def _keep(reading: Reading, document: Document, kind: Kind, name: str) -> None:
    match kind:
        case Kind.FLEET:
            reading.fleet = decode.fleet(document)
        case Kind.CHANNEL:
            reading.channels[name] = decode.channel(document, name)
        case Kind.RELEASE:
            reading.releases[name] = decode.release(document, name)
        case Kind.POOL:
            reading.pools[name] = decode.pool(document, name)
        case Kind.NODE:
            reading.nodes[name] = decode.node(document, name)
        case Kind.IMAGE:
            reading.images[name] = decode.image(document, name)
        case Kind.SEALED_SECRET:
            reading.secrets[name] = decode.sealed_secret(document, name)
        case Kind.TRUST_POLICY:
            pass  # Read by kubenode.trust, see checks.trust.
    reading.documents[document.path] = document


def _check_header(document: Document, kind: Kind) -> list[Problem]:
    value = document.value
    if value is None:
        message = f"the document is empty; a {kind} belongs here"
        return [problem(Location(document.path), "empty-document", message)]
    if not isinstance(value, dict):
        return []
    found, version = value.get("kind"), value.get("apiVersion")
    if isinstance(found, str) and found != kind:
        hint = f"Write kind: {kind}."
        if kind is Kind.SEALED_SECRET:
            hint = "secrets/ is in git for everybody to read: seal the file with `kubenode seal` and remove this one."
        elif found in list(Kind):
            hint = f"A {found} belongs in {home_of(Kind(found))}."
        message = f"kind is {found[:80]!r}, but a {kind} belongs here"
        return [problem(document.locate("kind"), "wrong-kind", message, hint)]
    if isinstance(version, str) and version != API_VERSION:
        message = f"apiVersion is {version[:80]!r}; this kubenode reads {API_VERSION}"
        return [problem(document.locate("apiVersion"), "api-version", message, f"Write apiVersion: {API_VERSION}.")]
    return []


def _check_name(document: Document, kind: Kind) -> list[Problem]:
    if document.path in FIXED:
        return []
    value: Any = document.value
    found, wanted = value["metadata"]["name"], name_at(document.path)
    if found != wanted:
        message = f"metadata.name is {found!r}, but the file is called {wanted!r}"
        hint = f"Write name: {wanted}, or rename the file to {found}.yaml."
        return [problem(document.locate("metadata", "name"), "name-differs", message, hint)]
    if kind is Kind.RELEASE and value["spec"]["version"] != wanted:
        message = f"spec.version is {value['spec']['version']!r}, but the release is called {wanted!r}"
        return [problem(document.locate("spec", "version"), "version-differs", message, f"Write version: {wanted}.")]
    return []
