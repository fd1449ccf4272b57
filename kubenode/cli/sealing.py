"""What `seal` and `unseal` do with the operator's clone: reading it, describing a secret, writing both its files."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from kubenode.cli.clone import git
from kubenode.errors import FleetInvalid, Location, UsageError
from kubenode.fleet import scalars, tokens
from kubenode.fleet.cluster_ca import CA_CERTIFICATE, CLUSTER_CA, ca_cert_hash
from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.load import load_fleet
from kubenode.fleet.problems import Severity, choices, did_you_mean
from kubenode.fleet.secrets import (
    MAX_SEALED,
    all_recipients,
    described,
    digest,
    dropped,
    is_name,
    load_secrets,
    operators_recipients,
    parse_readers,
    recipients_now,
    render,
    sealed_path,
    with_seal,
)
from kubenode.fleet.validate import validate
from kubenode.host.age import Identity, parse_identities, read_identity, seal
from kubenode.host.files import write_atomically
from kubenode.host.tree import read_folder
from kubenode.model.documents import ClusterCA, FleetDocuments, Role, Sealed, SealedSecret, SecretFile

__all__ = ["described", "dropped"]


@dataclass(frozen=True)
class FleetRead:
    """The working tree of a fleet repo, read once; `people` are the recipients that the trust policy lists."""

    folder: Path
    files: Mapping[str, bytes]
    documents: FleetDocuments
    secrets: Mapping[str, SealedSecret]
    people: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Prepared:
    """A secret sealed in memory: its description as value and as document, and the sealed file."""

    secret: SealedSecret
    document: bytes
    ciphertext: bytes


def read_fleet(folder: Path) -> FleetRead:
    """Read the working tree. Raises FleetInvalid, UsageError."""
    files = read_folder(folder).files
    return FleetRead(folder, files, load_fleet(files), load_secrets(files), operators_recipients(files))


def check_name(name: str) -> None:
    """Raise UsageError for a name that a new secret cannot have."""
    if not is_name(name):
        hint = "Lower-case letters, digits and dashes, at most 63 characters."
        raise UsageError(f"{name[:80]!r} cannot be the name of a secret", hint=hint)
    if name == CLUSTER_CA:
        hint = f"kubenode seal --cluster-ca makes it, kubenode seal --reseal {CLUSTER_CA} seals it again."
        raise UsageError(f"{name!r} is the name of the cluster's CA set", hint=hint)


def known(read: FleetRead, name: str) -> SealedSecret:
    """Return the secret of this name. Raises UsageError."""
    if name not in read.secrets:
        others = f"Known: {choices(read.secrets)}." if read.secrets else "Make it: kubenode seal NAME FILE --for ..."
        hint = did_you_mean(name, read.secrets) or others
        raise UsageError(f"there is no secret {name[:80]!r} in {read.folder}", hint=hint)
    return read.secrets[name]


def describe(
    read: FleetRead, name: str, readers: Sequence[str] | None, operators: Sequence[str] | None, file: SecretFile | None
) -> SealedSecret:
    """Return the description of a secret, its seal still the old one or missing. Raises UsageError."""
    old = read.secrets.get(name)
    if old is None and not readers:
        hint = "For example --for pool:workers, --for node:cp-1 or --for role:control-plane; repeatable."
        raise UsageError(f"nothing says who needs {name!r}", hint=hint)
    secret = replace(old, file=file) if old else SealedSecret(name, Sealed(""), file=file)
    if readers:
        nodes, pools, roles = parse_readers(readers, read.documents)
        secret = replace(secret, nodes=nodes, pools=pools, roles=roles)
    if operators or old is None:
        secret = replace(secret, operators=_operators(read, operators or ()))
    return secret


def cluster_ca(read: FleetRead, operators: Sequence[str] | None, files: Mapping[str, bytes]) -> SealedSecret:
    """Return the description of the cluster's CA set. Raises UsageError."""
    certificate = files[CA_CERTIFICATE]
    public = ClusterCA(certificate.decode(), ca_cert_hash(certificate))
    people = _operators(read, operators or ())
    return SealedSecret(CLUSTER_CA, Sealed(""), roles=(Role.CONTROL_PLANE,), operators=people, cluster_ca=public)


def bootstrap_token(read: FleetRead, node: str, operators: Sequence[str] | None) -> SealedSecret:
    """Return the description of a node's bootstrap token. Raises UsageError."""
    return tokens.describe(node, _operators(read, operators or ()))


def _operators(read: FleetRead, named: Sequence[str]) -> tuple[str, ...]:
    for person in named:
        if person not in read.people:
            hint = did_you_mean(person, read.people) or f"People: {choices(read.people)}."
            raise UsageError(f"the trust policy has no person {person[:80]!r}", hint=hint)
    found = tuple(sorted(set(named or (person for person, theirs in read.people.items() if theirs))))
    if not found:
        hint = "Add spec.people.NAME.ageRecipients to trust/policy.yaml: an age recipient, or the person's SSH key."
        raise UsageError("no operator could open it: nobody in the trust policy has ageRecipients", hint=hint)
    return found


def place(old: SealedSecret | None, path: str | None, mode: str | None, owner: str | None) -> SecretFile | None:
    """Return where nodes put a secret: where it was, with what is given changed. Raises UsageError."""
    file = old.file if old else None
    if path is not None:
        file = replace(file, path=path) if file else SecretFile(path)
    if file is None:
        if mode or owner:
            raise UsageError("--mode and --owner need --path", hint="It is the file's place on the node.")
        return None
    try:
        file = replace(file, mode=scalars.mode(mode)) if mode is not None else file
    except ValueError as error:
        raise UsageError(str(error), hint="For example: --mode 0640") from error
    return replace(file, owner=owner) if owner else file


def prepare(read: FleetRead, secret: SealedSecret, plain: bytes) -> Prepared:
    """Seal in memory to those who need the secret now. Raises UsageError, FleetInvalid."""
    recipients = recipients_now(secret, read.documents, read.people)
    count = len(all_recipients(recipients))
    ciphertext = seal(plain, all_recipients(recipients))
    if len(ciphertext) > MAX_SEALED:
        raise UsageError(
            f"sealed to {count} recipients {secret.name!r} has {len(ciphertext):,} bytes, over {MAX_SEALED:,}",
            hint="Seal it to fewer nodes, or make it smaller.",
        )
    sealed = with_seal(secret, recipients, ciphertext)
    old = read.secrets.get(secret.name)
    # Comments stay when nothing but the seal changes.
    same = old is not None and replace(old, sealed=sealed.sealed) == sealed
    document = render(sealed, read.files[path_of(Kind.SEALED_SECRET, secret.name)] if same else None)
    return Prepared(sealed, document, ciphertext)


def save(read: FleetRead, prepared: Sequence[Prepared]) -> list[SealedSecret]:
    """Write sealed files, each followed by its description; return the descriptions.

    A kill in between leaves a description with another digest, which `validate` explains; sealing again repairs it.
    Raises FleetInvalid, and writes nothing, when the fleet would get a mistake.
    """
    written: dict[str, bytes] = {}
    for it in prepared:
        written[sealed_path(it.secret.name)] = it.ciphertext
        written[path_of(Kind.SEALED_SECRET, it.secret.name)] = it.document
    for problem in validate({**read.files, **written}) if prepared else ():
        if problem.severity is Severity.ERROR and problem.path in written:
            raise FleetInvalid(problem.message, location=problem.location, hint=problem.hint)
    (read.folder / "secrets").mkdir(exist_ok=True)
    for path, data in written.items():
        write_atomically(read.folder / path, data, 0o644)
    return [it.secret for it in prepared]


def sealed_bytes(read: FleetRead, secret: SealedSecret) -> bytes:
    """Return the sealed file that a description is about: the one in the folder, or else the committed one.

    age does not say who sealed a file: one with another digest may be a stranger's, and is never opened.
    Raises FleetInvalid when there is none with the right digest.
    """
    path = sealed_path(secret.name)
    found = [read.files[path]] if path in read.files else []
    found.append(git(read.folder, "cat-file", "blob", f"HEAD:./{path}", check=False).stdout)
    for data in found:
        if digest(data) == secret.sealed.sha256:
            return data
    raise FleetInvalid(
        f"this is not the sealed file that {path_of(Kind.SEALED_SECRET, secret.name)} describes",
        location=Location(path),
        hint=f"Restore both from git, or seal the secret anew: kubenode seal {secret.name} FILE",
    )


def identities(fleet: Path, keys: Sequence[Path]) -> list[Identity]:
    """Return the operator's private keys: those named, or the clone's signing key. Raises UsageError, HostError."""
    ask = _ask if sys.stdin.isatty() else None
    chosen = list(keys)
    if not chosen:
        configured = git(fleet, "config", "--type=path", "user.signingKey", check=False).text.strip()
        key = Path(configured.removesuffix(".pub"))
        if not configured or not key.is_file():
            hint = "Name your age identity or SSH private key: --identity ~/.ssh/id_ed25519"
            raise UsageError("no key to open it with is named, and the clone has no signing key in a file", hint=hint)
        chosen = [key]
    found: list[Identity] = []
    for key in chosen:
        if key == Path("-"):
            found += parse_identities(sys.stdin.buffer.read(), "what stdin gave")
        else:
            found += read_identity(key, ask)
    return found


def _ask(prompt: str) -> str:
    answer = typer.prompt(prompt, hide_input=True, err=True)
    assert isinstance(answer, str)
    return answer
