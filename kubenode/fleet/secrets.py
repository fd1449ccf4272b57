"""Sealed secrets: who needs one, whom it must be sealed to, and what a node opens. Pure: nothing is decrypted here.

`secrets/<name>.age` is an age file, `secrets/<name>.yaml` the SealedSecret that describes it. age does not say who
sealed a file, and a header does not name its X25519 recipients: the document, in a signed commit, does both.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kubenode.errors import FleetInvalid, KubenodeError, Location, UsageError
from kubenode.fleet import decode
from kubenode.fleet.edit import quoted, replace_block
from kubenode.fleet.layout import API_VERSION, Kind, names_of, path_of
from kubenode.fleet.problems import choices, did_you_mean
from kubenode.fleet.recipients import canonical
from kubenode.model.documents import FleetDocuments, Node, Pool, Role, Sealed, SealedSecret, SecretFile
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.strictyaml import MAX_BYTES, load

MAX_SECRET = 512 << 10
"""Bytes of plain text: sealed and armored it stays below what is read of a file."""
MAX_SEALED = MAX_BYTES
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class NodeSecret:
    """A sealed file that a node is to open; `file` says where it goes, None when it is for kubenode itself."""

    name: str
    ciphertext: bytes
    file: SecretFile | None


def sealed_path(name: str) -> str:
    """Return the path of the sealed file of a secret."""
    return f"secrets/{name}.age"


def load_secrets(files: Mapping[str, bytes]) -> dict[str, SealedSecret]:
    """Read every SealedSecret; unknown fields are passed over. Raises FleetInvalid."""
    found = {name: load_secret(files, name) for name in names_of(Kind.SEALED_SECRET, files)}
    return {name: secret for name, secret in found.items() if secret is not None}


def load_secret(files: Mapping[str, bytes], name: str) -> SealedSecret | None:
    """Read the SealedSecret of this name, None when there is none. Raises FleetInvalid."""
    path = path_of(Kind.SEALED_SECRET, name)
    return decode.sealed_secret(load(files[path], path), name) if path in files else None


def needed_by(secret: SealedSecret, node: Node, pool: Pool | None) -> bool:
    """Say whether a node needs a secret: by its name, its pool's name or its pool's role."""
    return node.name in secret.nodes or node.pool in secret.pools or (pool is not None and pool.role in secret.roles)


def nodes_needing(secret: SealedSecret, documents: FleetDocuments) -> list[Node]:
    """Return the nodes that need a secret, by name."""
    nodes = sorted(documents.nodes.values(), key=lambda node: node.name)
    return [node for node in nodes if needed_by(secret, node, documents.pools.get(node.pool))]


def operators_recipients(files: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the recipients of every person of the trust policy as written there; empty for those without.

    Only reads; that the policy is sound, and who signed it, is for others to say. Raises FleetInvalid for no YAML.
    """
    value: Any = load(files.get(POLICY_PATH, b""), POLICY_PATH).value
    for key in ("spec", "people"):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return {}
    found = {}
    for person, entry in value.items():
        listed = entry.get("ageRecipients") if isinstance(entry, dict) else None
        texts = listed if isinstance(listed, list) else []
        found[person] = tuple(text for text in texts if isinstance(text, str))
    return found


def recipients_now(secret: SealedSecret, documents: FleetDocuments, people: Mapping[str, tuple[str, ...]]) -> Sealed:
    """Return whom a secret must be sealed to now, in canonical form, with an empty digest.

    `people` is what `operators_recipients` returns. Raises FleetInvalid, with a hint, for a node or an operator
    without a usable recipient.
    """
    nodes = []
    for node in nodes_needing(secret, documents):
        path = Location(path_of(Kind.NODE, node.name))
        if node.age_recipient is None:
            hint = f"Make its identity first: kubenode seed {node.name}"
            raise FleetInvalid(f"node {node.name!r} has no age recipient to seal to", location=path, hint=hint)
        nodes.append((node.name, _usable(node.age_recipient, f"node {node.name!r}", path)))
    operators = []
    for person in sorted(secret.operators):
        path = Location(POLICY_PATH)
        if not people.get(person):
            hint = f"Add spec.people.{person}.ageRecipients: age1..., or a line of an ed25519 or RSA .pub file."
            raise FleetInvalid(f"the operator {person!r} has no age recipient to seal to", location=path, hint=hint)
        operators.append((person, tuple(_usable(text, f"operator {person!r}", path) for text in people[person])))
    return Sealed("", tuple(nodes), tuple(operators))


def _usable(text: str, whose: str, where: Location) -> str:
    try:
        return canonical(text)
    except ValueError as error:
        raise FleetInvalid(
            f"the age recipient of {whose} cannot be used: {error}",
            location=where,
            hint="Recipients are age1... or the line of an SSH key (ed25519, RSA): see docs/secrets.md.",
        ) from error


def all_recipients(sealed: Sealed) -> list[str]:
    """Return every recipient of a seal once, in a stable order."""
    listed = [recipient for _, recipient in sealed.nodes]
    listed += [recipient for _, theirs in sealed.operators for recipient in theirs]
    return list(dict.fromkeys(listed))


def described(sealed: Sealed) -> str:
    """Return whom a file is sealed to, in words for people."""
    words = []
    if sealed.nodes:
        words.append(f"{'node' if len(sealed.nodes) == 1 else 'nodes'} {choices(node for node, _ in sealed.nodes)}")
    people = [person for person, _ in sealed.operators]
    words.append(f"{'operator' if len(people) == 1 else 'operators'} {choices(people)}")
    return " and ".join(words)


def dropped(before: Sealed, after: Sealed) -> str:
    """Return who could open a secret before and cannot any more, in words for people; empty when nobody."""
    gone = [f"node {node}" for node, key in before.nodes if dict(after.nodes).get(node) != key]
    kept = dict(after.operators)
    for person, keys in before.operators:
        if not set(keys) <= set(kept.get(person, ())):
            gone.append(f"operator {person}")
    return choices(gone)


def is_name(text: str) -> bool:
    """Say whether a secret can have this name."""
    return _NAME.fullmatch(text) is not None


def parse_readers(
    readers: Sequence[str], documents: FleetDocuments
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Role, ...]]:
    """Read "node:NAME", "pool:NAME" and "role:ROLE"; return nodes, pools and roles. Raises UsageError."""
    roles_known = [role.value for role in Role]
    known: dict[str, Collection[str]] = {"node": documents.nodes, "pool": documents.pools, "role": roles_known}
    found: dict[str, set[str]] = {kind: set() for kind in known}
    for reader in readers:
        kind, colon, name = reader.partition(":")
        if kind not in known or not colon:
            hint = "Write node:NAME, pool:NAME or role:ROLE, for example --for pool:workers."
            raise UsageError(f"{reader[:80]!r} does not say who needs the secret", hint=hint)
        if name not in known[kind]:
            others = f"Known: {choices(known[kind])}." if known[kind] else f"There is no {kind} yet."
            hint = did_you_mean(name, known[kind]) or others
            raise UsageError(f"there is no {kind} {name[:80]!r}", hint=hint)
        found[kind].add(name)
    nodes, pools, roles = (tuple(sorted(found[kind])) for kind in known)
    return nodes, pools, tuple(Role(role) for role in roles)


def digest(ciphertext: bytes) -> str:
    """Return the sha256 of a sealed file (64 hex digits)."""
    return hashlib.sha256(ciphertext).hexdigest()


def with_seal(secret: SealedSecret, recipients: Sealed, ciphertext: bytes) -> SealedSecret:
    """Return the secret's description with a new seal: its recipients, and the digest of the sealed file."""
    return replace(secret, sealed=replace(recipients, sha256=digest(ciphertext)))


def secrets_for(files: Mapping[str, bytes], documents: FleetDocuments, node: str) -> tuple[NodeSecret, ...]:
    """Return the sealed files that a node needs, each as the trusted documents describe it.

    `files` are those of a trusted commit. Raises FleetInvalid as `secret_for`, for the first that is wrong.
    """
    found = (secret_for(files, documents, node, name) for name in names_of(Kind.SEALED_SECRET, files))
    return tuple(it for it in found if it is not None)


def secret_for(files: Mapping[str, bytes], documents: FleetDocuments, node: str, name: str) -> NodeSecret | None:
    """Return one sealed file, None when there is none of this name or the node does not need it.

    Raises FleetInvalid when its description is broken, the sealed file is missing or is another one than described,
    or was not sealed to the node's present identity.
    """
    secret, me = load_secret(files, name), documents.nodes.get(node)
    if secret is None or me is None or not needed_by(secret, me, documents.pools.get(me.pool)):
        return None
    path = sealed_path(name)
    again = f"On a laptop: kubenode seal --reseal {name}"
    if path not in files or digest(files[path]) != secret.sealed.sha256:
        message = f"{path} is not the sealed file that {path_of(Kind.SEALED_SECRET, name)} describes"
        raise FleetInvalid(message, location=Location(path), hint=again)
    if me.age_recipient is None or dict(secret.sealed.nodes).get(node) != me.age_recipient:
        message = f"the secret {name!r} is not sealed to the present identity of node {node!r}"
        raise FleetInvalid(message, location=Location(path_of(Kind.SEALED_SECRET, name)), hint=again)
    return NodeSecret(name, files[path], secret.file)


def render(secret: SealedSecret, old: bytes | None = None) -> bytes:
    """Return `secrets/<name>.yaml`; with `old`, only its seal is replaced and comments stay.

    Raises FleetInvalid when the result does not say what it should.
    """
    path = path_of(Kind.SEALED_SECRET, secret.name)
    if old is not None:
        try:
            data = replace_block(old.decode(), _seal_lines(secret.sealed), "spec", "sealed").encode()
            if decode.sealed_secret(load(data, path), secret.name) == secret:
                return data
        except (KubenodeError, KeyError, ValueError):
            pass  # Not laid out as kubenode does: written anew.
    data = "\n".join([*_head_lines(secret), *(f"  {line}" for line in _seal_lines(secret.sealed)), ""]).encode()
    if decode.sealed_secret(load(data, path), secret.name) != secret:
        raise FleetInvalid(
            f"{path} cannot be written",
            location=Location(path),
            hint="Move the description away, and seal the secret again with --for; it writes a new one.",
        )
    return data


def _head_lines(secret: SealedSecret) -> list[str]:
    lines = [
        "# yaml-language-server: $schema=../schemas/sealed-secret.json",
        f"# Describes {secret.name}.age beside it; written by `kubenode seal`.",
        f"apiVersion: {API_VERSION}",
        f"kind: {Kind.SEALED_SECRET}",
        "metadata:",
        f"  name: {quoted(secret.name)}",
        "spec:",
    ]
    readers = {"nodes": secret.nodes, "pools": secret.pools, "roles": secret.roles}
    if any(readers.values()):
        lines.append("  for:")
        lines += [f"    {key}: {_flow(values)}" for key, values in readers.items() if values]
    lines.append(f"  operators: {_flow(secret.operators)}")
    if secret.file is not None:
        lines += ["  file:", f"    path: {quoted(secret.file.path)}"]
        lines += [f'    mode: "{secret.file.mode:04o}"', f"    owner: {quoted(secret.file.owner)}"]
    if secret.bootstrap_token_of is not None:
        lines.append(f"  bootstrapTokenOf: {quoted(secret.bootstrap_token_of)}")
    if secret.cluster_ca is not None:
        lines += ["  clusterCA:", f"    caCertHash: {secret.cluster_ca.ca_cert_hash}", "    certificate: |"]
        lines += [f"      {line}" for line in secret.cluster_ca.certificate.splitlines()]
    return lines


def _seal_lines(sealed: Sealed) -> list[str]:
    lines = ["sealed:", f"  sha256: sha256:{sealed.sha256}"]
    if sealed.nodes:
        lines.append("  nodes:")
        lines += [f"    {quoted(node)}: {recipient}" for node, recipient in sealed.nodes]
    lines.append("  operators:")
    for person, recipients in sealed.operators:
        lines.append(f"    {quoted(person)}:")
        lines += [f"      - {recipient}" for recipient in recipients]
    return lines


def _flow(values: tuple[str, ...]) -> str:
    return f"[{', '.join(quoted(value) for value in values)}]"
