"""The schemas: what they accept, and that they and the dataclasses say the same."""

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kubenode.fleet import decode, schemas
from kubenode.fleet.layout import Kind
from kubenode.model import documents as model
from kubenode.trust.strictyaml import load

FIXTURES = Path(__file__).parent / "fleets"
TITLED = {"metadata.name"}

# Field of a dataclass -> place in the schema, where it is not the same words in camel case.
PLACES: dict[type, dict[str, str]] = {
    model.Fleet: {"name": "metadata.name", "rollout_order": "spec.rollout.order", "halted": "spec.rollout.halted"},
    model.Cluster: {},
    model.Channel: {"name": "metadata.name"},
    model.Release: {},
    model.Pool: {"name": "metadata.name"},
    model.Rollout: {"drain_timeout": "drain.timeout", "drain_force": "drain.onTimeout"},
    model.Window: {},
    model.File: {"source": "contents.source"},
    model.Node: {
        "name": "metadata.name",
        "age_recipient": "spec.identity.ageRecipient",
        "ssh_key": "spec.identity.sshKey",
    },
    model.Image: {
        "name": "metadata.name",
        "distribution": "spec.base.distribution",
        "suite": "spec.base.suite",
        "modules": "spec.kernel.modules",
        "kernel_command_line": "spec.kernel.commandLine",
        "overlay": "spec.overlay",
    },
    model.KubernetesRecipe: {},
    model.BinarySource: {name: f"sha256.{name}" for name in ("kubeadm", "kubelet", "crictl")},
    model.StorageMount: {},
    model.SlotSizes: {},
    model.SealedSecret: {
        "name": "metadata.name",
        "nodes": "spec.for.nodes",
        "pools": "spec.for.pools",
        "roles": "spec.for.roles",
        "cluster_ca": "spec.clusterCA",
    },
    model.SecretFile: {},
    model.ClusterCA: {},
    model.Sealed: {},
}
# Where the schema of a dataclass starts.
ROOTS: dict[type, tuple[Kind, str]] = {
    model.Fleet: (Kind.FLEET, ""),
    model.Cluster: (Kind.FLEET, "spec.cluster"),
    model.Channel: (Kind.CHANNEL, ""),
    model.Release: (Kind.RELEASE, ""),
    model.Pool: (Kind.POOL, ""),
    model.Rollout: (Kind.POOL, "spec.rollout"),
    model.Window: (Kind.POOL, "spec.rollout.windows[]"),
    model.File: (Kind.POOL, "spec.files[]"),
    model.Node: (Kind.NODE, ""),
    model.Image: (Kind.IMAGE, ""),
    model.KubernetesRecipe: (Kind.IMAGE, "spec.kubernetes"),
    model.BinarySource: (Kind.IMAGE, "spec.kubernetes.source"),
    model.StorageMount: (Kind.IMAGE, "spec.storage[]"),
    model.SlotSizes: (Kind.IMAGE, "spec.slots"),
    model.SealedSecret: (Kind.SEALED_SECRET, ""),
    model.SecretFile: (Kind.SEALED_SECRET, "spec.file"),
    model.ClusterCA: (Kind.SEALED_SECRET, "spec.clusterCA"),
    model.Sealed: (Kind.SEALED_SECRET, "spec.sealed"),
}
# In the schema and in no dataclass of kubenode.model: for people, for validate, or read by kubenode.trust.
ELSEWHERE = {
    "Channel.spec.promotedFrom": "checked by kubenode.fleet.checks.releases",
    "Release.metadata.name": "the same as spec.version",
    "Release.spec.notes": "for people",
}


def leaves(kind: Kind, part: dict[str, Any], at: str = "") -> dict[str, dict[str, Any]]:
    """Return every place of a schema that holds a value, and the schema of it."""
    part = schemas.resolve(kind, part)
    if "properties" in part:
        found: dict[str, dict[str, Any]] = {}
        for name, child in part["properties"].items():
            found |= leaves(kind, child, f"{at}.{name}".removeprefix("."))
        return found
    items = schemas.resolve(kind, part["items"]) if "items" in part else {}
    return leaves(kind, items, f"{at}[]") if "properties" in items else {at: part}


def place(owner: type, name: str) -> str:
    root = ROOTS[owner][1]
    words = name.split("_")
    camel = words[0] + "".join(word.capitalize() for word in words[1:])
    inside = PLACES[owner].get(name, camel if root else f"spec.{camel}")
    return f"{root}.{inside}".removeprefix(".")


def parts_of(kind: Kind) -> dict[str, tuple[type, Any]]:
    """Return the places that the dataclasses of one kind read."""
    found: dict[str, tuple[type, Any]] = {}
    nested = {root for owner, (other, root) in ROOTS.items() if other is kind and root}
    for owner, (other, _) in ROOTS.items():
        for field in fields(owner) if other is kind else ():
            where = place(owner, field.name)
            if where not in nested and f"{where}[]" not in nested:
                found[where] = (owner, field)
    return found


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.TRUST_POLICY])
def test_schema_and_dataclasses_have_the_same_fields(kind: Kind) -> None:
    in_schema = {where for where in leaves(kind, schemas.schema(kind)) if where not in ("apiVersion", "kind")}
    known = {where for where in in_schema if f"{kind}.{where}" not in ELSEWHERE}
    assert known == set(parts_of(kind))


def test_every_exception_is_still_needed() -> None:
    for name in ELSEWHERE:
        kind, _, where = name.partition(".")
        assert where in leaves(Kind(kind), schemas.schema(Kind(kind)))


@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.POOL, Kind.FLEET, Kind.SEALED_SECRET])
def test_defaults_are_the_same(kind: Kind) -> None:
    parts = leaves(kind, schemas.schema(kind))
    written = {where: part["default"] for where, part in parts.items() if "default" in part}
    assert written
    meaning = {
        "spec.files[].mode": lambda said: int(said, 8),
        "spec.file.mode": lambda said: int(said, 8),
        "spec.rollout.drain.onTimeout": lambda said: said == "force",
    }
    for where, said in written.items():
        owner, field = parts_of(kind)[where]
        default = meaning.get(where, lambda it: it)(said)
        assert field.default is not MISSING and field.default == default, f"{owner.__name__}.{field.name}"


@pytest.mark.parametrize("kind", Kind)
def test_schemas_are_valid_and_explain_every_field(kind: Kind) -> None:
    whole = schemas.schema(kind)
    jsonschema.Draft202012Validator.check_schema(whole)
    assert whole["$id"].endswith(schemas.FILES[kind])
    explained = 0

    def walk(part: dict[str, Any], at: str) -> None:
        nonlocal explained
        resolved = schemas.resolve(kind, part)
        assert resolved.get("title") and resolved.get("description"), at
        if resolved.get("type") == "object":
            assert resolved.get("additionalProperties") is not None, f"{at} allows unknown fields"
        if "pattern" in resolved:
            assert resolved.get("examples"), f"{at} has no example"
            assert resolved["pattern"].startswith("^") and resolved["pattern"].endswith("$"), at
        for example in resolved.get("examples", []):
            if "..." not in str(example):
                jsonschema.Draft202012Validator({**resolved, "$defs": whole.get("$defs", {})}).validate(example)
        explained += 1
        for name, child in resolved.get("properties", {}).items():
            walk(child, f"{at}.{name}")
        for key in ("items", "additionalProperties"):
            if isinstance(resolved.get(key), dict):
                walk(resolved[key], f"{at}[]")

    walk(whole, kind)
    assert explained > 5


def test_shared_definitions_are_the_same_everywhere() -> None:
    seen: dict[str, Any] = {}
    for kind in Kind:
        for name, definition in schemas.schema(kind).get("$defs", {}).items():
            assert seen.setdefault(name, definition) == definition, name


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        (Kind.FLEET, "fleet.yaml"),
        (Kind.TRUST_POLICY, "trust-policy.yaml"),
        (Kind.POOL, "pool.yaml"),
        (Kind.CHANNEL, "channel.yaml"),
    ],
)
def test_documents_as_people_first_wrote_them_are_accepted(kind: Kind, file: str) -> None:
    assert schemas.violations(kind, load((FIXTURES / file).read_bytes(), file).value) == []


def test_the_least_documents_are_accepted_and_read() -> None:
    head = "apiVersion: kubenode.dev/v1alpha1\nmetadata: {name: x}\n"
    for kind, spec, read in (
        (Kind.IMAGE, "{}", decode.image),
        (Kind.NODE, "{pool: p}", decode.node),
        (Kind.POOL, "{role: standalone, image: x, release: 1.0}", None),
        (Kind.POOL, '{role: standalone, image: x, release: "1.0"}', decode.pool),
        (Kind.CHANNEL, "{releases: []}", decode.channel),
    ):
        document = load(f"{head}kind: {kind}\nspec: {spec}\n".encode(), "x.yaml")
        found = schemas.violations(kind, document.value)
        assert bool(found) is (read is None)
        if read is not None:
            assert read(document, "x").name == "x"


def test_the_schema_files_are_json_of_stable_form() -> None:
    for kind in Kind:
        data = schemas.schema_bytes(kind)
        assert data.decode() == json.dumps(json.loads(data), indent=2, ensure_ascii=False) + "\n"
