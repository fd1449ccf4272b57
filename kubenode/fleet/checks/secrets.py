"""Sealed secrets: each file with its description, sealed to exactly those who need it now, going to one place."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from kubenode.errors import Location
from kubenode.fleet.ageheader import is_age, stanzas
from kubenode.fleet.checks.machines import OWNED
from kubenode.fleet.cluster_ca import CLUSTER_CA, ca_cert_hash
from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.problems import Problem, Severity, choices, did_you_mean, problem
from kubenode.fleet.reading import Reading
from kubenode.fleet.recipients import canonical, stanza_of
from kubenode.fleet.secrets import all_recipients, digest, needed_by, sealed_path
from kubenode.fleet.tokens import nodes_without, secret_name
from kubenode.model.documents import Role, SealedSecret
from kubenode.trust.policy import POLICY_PATH

_KUBEADMS = ("/etc/kubernetes/pki", "/etc/kubernetes/manifests", "/etc/kubernetes/patches")
_OWNED = (*(path for path in OWNED if path != "/etc/kubernetes"), *_KUBEADMS)
"""A secret may stand in /etc/kubernetes itself (an EncryptionConfiguration does), but not among kubeadm's files."""


def check_recipients(reading: Reading) -> Iterator[Problem]:
    """Find recipients of nodes and people that nothing can be sealed to."""
    places: list[tuple[str, tuple[str | int, ...], str]] = [
        (path_of(Kind.NODE, name), ("spec", "identity", "ageRecipient"), node.age_recipient)
        for name, node in reading.nodes.items()
        if node.age_recipient is not None
    ]
    for person in reading.value(POLICY_PATH, "spec", "people") or {}:
        listed = reading.value(POLICY_PATH, "spec", "people", person, "ageRecipients") or []
        for index, text in enumerate(listed):
            places.append((POLICY_PATH, ("spec", "people", person, "ageRecipients", index), text))
    for path, at, text in places:
        try:
            canonical(text)
        except ValueError as error:
            hint = "Paste the whole line that `kubenode seed`, age-keygen or a .pub file says."
            yield problem(reading.at(path, *at), "bad-recipient", f"nothing can be sealed to this: {error}", hint)


def check_sealed(reading: Reading) -> Iterator[Problem]:
    """Find sealed files and descriptions that do not belong together, and seals for others than those who need them."""
    for path, data in reading.files.items():
        if path.startswith("secrets/") and path.endswith(".age") and is_age(data):
            yield from _check_description(reading, path)
    for name, secret in reading.secrets.items():
        found = list(_check_names(reading, name, secret))
        yield from found or [*_check_file(reading, name, secret), *_check_readers(reading, name, secret)]
        wrong = list(_check_cluster_ca(reading, name, secret))
        yield from wrong
        yield from _check_token(reading, name, secret)
        if name == CLUSTER_CA and not wrong:
            yield from _check_tokens(reading)


def _check_description(reading: Reading, path: str) -> Iterator[Problem]:
    name = path.removeprefix("secrets/").removesuffix(".age")
    if "/" in name:
        hint = f"Move it to secrets/{name.rpartition('/')[2]}.age."
        yield problem(Location(path), "misplaced-file", "sealed files stand directly in secrets/", hint)
    elif not reading.exists(Kind.SEALED_SECRET, name):
        message = f"nothing says who needs this file: {path_of(Kind.SEALED_SECRET, name)} is missing"
        hint = f"Was sealing it interrupted? Seal it again: kubenode seal {name} FILE --for ..."
        yield problem(Location(path), "seal-without-description", message, hint)


def _check_names(reading: Reading, name: str, secret: SealedSecret) -> Iterator[Problem]:
    """Find nodes, pools and people that there are none of."""
    path = path_of(Kind.SEALED_SECRET, name)
    for key, kind, values in (("nodes", Kind.NODE, secret.nodes), ("pools", Kind.POOL, secret.pools)):
        for index, value in enumerate(values):
            if not reading.exists(kind, value):
                known = reading.names(kind)
                hint = did_you_mean(value, known) or (f"Known: {choices(known)}." if known else "There is none yet.")
                where = reading.at(path, "spec", "for", key, index)
                yield problem(where, f"unknown-{kind.lower()}", f"there is no {kind.lower()} {value!r}", hint)
    people = reading.value(POLICY_PATH, "spec", "people")
    for index, person in enumerate(secret.operators if people is not None else ()):
        where = reading.at(path, "spec", "operators", index)
        if person not in people:
            hint = did_you_mean(person, people) or f"People: {choices(people)}."
            yield problem(where, "unknown-person", f"{person!r} is not one of spec.people in {POLICY_PATH}", hint)
        elif not people[person].get("ageRecipients"):
            message = f"the operator {person!r} has no ageRecipients in {POLICY_PATH}, so nothing can be sealed to them"
            yield problem(where, "no-recipient", message, "Add one there, or take the operator out here.")


def _check_file(reading: Reading, name: str, secret: SealedSecret) -> Iterator[Problem]:
    """Find a sealed file that is missing, another one, damaged, or sealed to another number of recipients."""
    path = sealed_path(name)
    at = reading.at(path_of(Kind.SEALED_SECRET, name), "spec", "sealed", "sha256")
    again = f"Was sealing it interrupted? Do it again: kubenode seal {name} FILE, or kubenode seal --reseal {name}"
    if path not in reading.files:
        yield problem(at, "seal-differs", f"the sealed file {path} is missing", again)
        return
    data = reading.files[path]
    if not is_age(data):
        return  # Plain text, which others say.
    if digest(data) != secret.sealed.sha256:
        yield problem(at, "seal-differs", f"{path} is not the file with this digest", again)
        return
    try:
        found = Counter(stanzas(data))
    except ValueError as error:
        yield problem(Location(path), "bad-seal", f"this is not a whole age file: {error}", again)
        return
    # An X25519 recipient leaves no trace in a header but its number; an SSH key leaves a short hash.
    named = Counter((stanza[0],) if stanza[0] == "X25519" else stanza[:2] for stanza in found.elements())
    try:
        wanted = Counter(stanza_of(canonical(recipient)) for recipient in all_recipients(secret.sealed))
    except ValueError:
        return  # Said of the description.
    if named != wanted:
        message = f"the file is sealed to {_counted(named)}, but its description lists {_counted(wanted)}"
        yield problem(Location(path), "bad-seal", message, f"Seal it again: kubenode seal --reseal {name}")


def _counted(kinds: Mapping[tuple[str, ...], int]) -> str:
    words = [f"{number} of {' '.join(kind)}" for kind, number in sorted(kinds.items())]
    return ", ".join(words) or "nobody"


def _check_readers(reading: Reading, name: str, secret: SealedSecret) -> Iterator[Problem]:
    """Find nodes and operators that need the secret and cannot open it, and others that can."""
    path = path_of(Kind.SEALED_SECRET, name)
    where = reading.at(path, "spec", "sealed")
    sealed, missing, needing = dict(secret.sealed.nodes), [], set()
    owners = Counter(node.age_recipient for node in reading.nodes.values())  # Shared ones are a mistake already.
    for node in reading.nodes.values():
        if not needed_by(secret, node, reading.pools.get(node.pool)):
            continue
        needing.add(node.name)
        if node.age_recipient is None:
            message = f"node {node.name!r} needs the secret {name!r}, but has no age recipient to seal it to"
            hint = f"Make its identity, then seal again: kubenode seed {node.name}"
            yield problem(reading.at(path_of(Kind.NODE, node.name), "spec"), "no-recipient", message, hint)
        elif sealed.get(node.name) != node.age_recipient and owners[node.age_recipient] == 1:
            missing.append(f"node {node.name}")
    theirs = dict(secret.sealed.operators)
    people: Any = reading.value(POLICY_PATH, "spec", "people") or {}
    for person in secret.operators:
        if person in people and {*map(_plain, people[person]["ageRecipients"])} != {
            *map(_plain, theirs.get(person, ()))
        }:
            missing.append(f"operator {person}")
    if missing:
        message = f"it is not sealed to the present keys of {choices(missing)}"
        yield problem(where, "stale-seal", message, f"Seal it again: kubenode seal --reseal {name}")
    others = [f"node {node}" for node in sealed if node not in needing and _is_known(reading, node)]
    others += [f"operator {person}" for person in theirs if person not in secret.operators]
    if others:
        message = f"{choices(others)} can open it and {'does' if len(others) == 1 else 'do'} not need it any more"
        hint = f"Change what is in it (they may have read it): kubenode seal {name} FILE"
        yield problem(where, "seal-too-wide", message, hint, severity=Severity.WARNING)


def _is_known(reading: Reading, node: str) -> bool:
    """Say whether it is certain what a node is: it is gone, or its document and its pool's are sound."""
    if not reading.exists(Kind.NODE, node):
        return True
    return node in reading.nodes and reading.nodes[node].pool in reading.pools


def _plain(recipient: str) -> str:
    try:
        return canonical(recipient)
    except ValueError:
        return recipient


def _check_cluster_ca(reading: Reading, name: str, secret: SealedSecret) -> Iterator[Problem]:
    """Find a CA certificate that is none or has another hash, and CA facts in or missing from the wrong secret."""
    path = path_of(Kind.SEALED_SECRET, name)
    if (secret.cluster_ca is not None) != (name == CLUSTER_CA):
        message = f"spec.clusterCA belongs to the secret {CLUSTER_CA!r}, and only there"
        hint = "Make the cluster's CA set with: kubenode seal --cluster-ca"
        yield problem(reading.at(path, "spec", "clusterCA"), "ca-hash", message, hint)
    elif secret.cluster_ca is not None:
        try:
            found = ca_cert_hash(secret.cluster_ca.certificate.encode())
        except ValueError as error:
            yield problem(reading.at(path, "spec", "clusterCA", "certificate"), "ca-hash", str(error))
            return
        if found != secret.cluster_ca.ca_cert_hash:
            where = reading.at(path, "spec", "clusterCA", "caCertHash")
            yield problem(where, "ca-hash", f"the hash of the certificate's public key is {found}", "Write this one.")


def _check_token(reading: Reading, name: str, secret: SealedSecret) -> Iterator[Problem]:
    """Find a token that its node or the control planes could not use, or that others could."""
    node = secret.bootstrap_token_of
    if node is None:
        return
    where = reading.at(path_of(Kind.SEALED_SECRET, name), "spec", "bootstrapTokenOf")
    again = f"Delete both its files and make it again: kubenode seal --bootstrap-tokens ({secret_name(node)})"
    if not reading.exists(Kind.NODE, node):
        hint = did_you_mean(node, reading.names(Kind.NODE)) or "Delete both files of the secret."
        yield problem(where, "unknown-node", f"there is no node {node!r}", hint)
    elif name != secret_name(node):
        yield problem(
            where, "token-place", f"the token of {node!r} belongs into the secret {secret_name(node)!r}", again
        )
    elif (secret.nodes, secret.pools, secret.roles) != ((node,), (), (Role.CONTROL_PLANE,)):
        message = (
            f"a bootstrap token is for its node and the control planes: for: nodes [{node}], roles [control-plane]"
        )
        yield problem(where, "token-place", message, again)
    elif secret.file is not None:
        yield problem(where, "token-place", "a bootstrap token is for kubenode itself, not for a file", again)


def _check_tokens(reading: Reading) -> Iterator[Problem]:
    """Find nodes that could not join. Asked once the cluster's CA set is there: before it nothing joins anyway."""
    if reading.fleet is None or reading.fleet.cluster is None:
        return
    lacking = [node.name for node in nodes_without(reading.nodes, reading.pools, reading.secrets)]
    if lacking:
        message = f"no bootstrap token, so they could not join the cluster (again): {choices(lacking)}"
        where = reading.at(path_of(Kind.SEALED_SECRET, CLUSTER_CA), "spec", "clusterCA")
        yield problem(where, "no-token", message, "kubenode seal --bootstrap-tokens", severity=Severity.WARNING)


def check_places(reading: Reading) -> Iterator[Problem]:
    """Find secrets that would be put over files of others, or over each other on one node."""
    for name, secret in reading.secrets.items():
        if secret.file is None:
            continue
        where = reading.at(path_of(Kind.SEALED_SECRET, name), "spec", "file", "path")
        file = secret.file.path
        if any(file == owned or file.startswith(f"{owned}/") for owned in _OWNED) or _is_kubeconfig(file):
            hint = "Choose another path; a program is told its path in its own configuration."
            yield problem(where, "owned-path", f"{file} is not a secret's to set", hint)
        other = _shares_path(reading, name, secret)
        if other:
            message = f"{file} is also where {other} goes, on the same node"
            yield problem(where, "duplicate-item", message, "Choose another path for one of them.")


def _is_kubeconfig(file: str) -> bool:
    return file.startswith("/etc/kubernetes/") and file.endswith(".conf")


def _shares_path(reading: Reading, name: str, secret: SealedSecret) -> str:
    """Return what else goes to the secret's path on one of its nodes, empty when nothing does."""
    assert secret.file is not None
    path = secret.file.path
    pools = {it.name for it in reading.pools.values() if any(file.path == path for file in it.files)}
    others = [it for it in reading.secrets.values() if it.name < name and it.file is not None and it.file.path == path]
    if not pools and not others:
        return ""
    for node in reading.nodes.values():
        pool = reading.pools.get(node.pool)
        if needed_by(secret, node, pool):
            if node.pool in pools:
                return f"a file of pool {node.pool!r}"
            other = next((it.name for it in others if needed_by(it, node, pool)), None)
            if other is not None:
                return f"the secret {other!r}"
    return ""
