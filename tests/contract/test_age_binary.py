"""Sealed files are age files: the `age` of the distribution opens what kubenode seals, and the other way round."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from kubenode.errors import HostError, UsageError
from kubenode.fleet import secrets as descriptions
from kubenode.fleet.ageheader import is_age, stanzas
from kubenode.fleet.load import load_fleet
from kubenode.fleet.recipients import canonical, stanza_of
from kubenode.fleet.secrets import secrets_for
from kubenode.host.age import (
    Identity,
    new_identity,
    parse_identities,
    read_identity,
    recipient_of,
    seal,
    unseal,
    unseal_for_node,
)
from kubenode.model.documents import Role, Sealed, SealedSecret, SecretFile

PLAIN = bytes(range(256)) * 700
needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="needs age (Debian: apt install age)")
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)")


def age(*words: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["age", *map(str, words)], input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def ssh_key(folder: Path, kind: str, passphrase: str = "") -> Path:
    path = folder / f"id_{kind}"
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "a@b", "-f", str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Private keys of every kind that opens files, by kind."""
    found = {kind: ssh_key(tmp_path, kind) for kind in ("ed25519", "rsa")}
    found["age"] = tmp_path / "identity.key"
    found["age"].write_text(new_identity().text)
    return found


def public(path: Path) -> str:
    pub = path.with_name(path.name + ".pub")
    return canonical(pub.read_text().strip()) if pub.exists() else recipient_of(path.read_bytes(), "x")


@needs_age
@needs_ssh
def test_age_opens_what_is_sealed_here(keys: dict[str, Path]) -> None:
    sealed = seal(PLAIN, [public(key) for key in keys.values()])
    assert sealed.startswith(b"-----BEGIN AGE ENCRYPTED FILE-----\n")
    for key in keys.values():
        assert age("--decrypt", "-i", key, stdin=sealed) == PLAIN


@needs_age
@needs_ssh
@pytest.mark.parametrize("armor", [["--armor"], []])
def test_what_age_seals_is_opened_here(keys: dict[str, Path], armor: list[str]) -> None:
    words = [word for key in keys.values() for word in ("-r", public(key))]
    sealed = age("--encrypt", *armor, *words, stdin=PLAIN)
    assert is_age(sealed)
    for key in keys.values():
        assert unseal(sealed, read_identity(key), "x") == PLAIN
    # The header says the same of age's files as of ours, which have grease.
    wanted = Counter(stanza_of(public(key)) for key in keys.values())
    for data in (sealed, seal(PLAIN, [public(key) for key in keys.values()])):
        assert Counter(it[:1] if it[0] == "X25519" else it[:2] for it in stanzas(data)) == wanted


@needs_age
def test_identities_of_age_keygen() -> None:
    made = subprocess.run(["age-keygen"], check=True, capture_output=True)
    recipient = recipient_of(made.stdout, "x")
    assert f"Public key: {recipient}" in made.stderr.decode()
    assert unseal(seal(b"x", [recipient]), parse_identities(made.stdout, "x"), "x") == b"x"
    ours = new_identity()
    shown = subprocess.run(["age-keygen", "-y"], input=ours.text.encode(), check=True, capture_output=True)
    assert shown.stdout.decode().strip() == ours.recipient


@needs_ssh
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_keys_with_a_passphrase_are_opened_in_memory(tmp_path: Path, kind: str) -> None:
    key = ssh_key(tmp_path, kind, "pass phrase")
    asked = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "pass phrase"

    assert unseal(seal(b"x", [public(key)]), read_identity(key, ask), "x") == b"x"
    assert asked == [f"Passphrase of {key}"]
    with pytest.raises(UsageError, match="the passphrase does not open"):
        read_identity(key, lambda prompt: "wrong")


@needs_ssh
def test_keys_that_only_sign(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no ed25519 or RSA key that opens sealed files") as caught:
        read_identity(ssh_key(tmp_path, "ecdsa"))
    assert "Security keys (sk-) and ECDSA keys cannot open files" in caught.value.hint


@pytest.mark.parametrize("at", [40, 200, -160, -80, -45])
def test_a_changed_byte_is_noticed(at: int) -> None:
    made = new_identity()
    sealed = bytearray(seal(b"secret content", [made.recipient]))
    sealed[at] = ord("A") if sealed[at] != ord("A") else ord("B")
    with pytest.raises(HostError) as caught:
        unseal(bytes(sealed), parse_identities(made.text.encode(), "key"), "secrets/x.age")
    assert caught.value.message.startswith("secrets/x.age ")
    assert "secret content" not in str(caught.value)


def test_a_node_opens_exactly_its_own_secrets() -> None:
    """Three machines, secrets for one, a pool, a role and nobody: each opens its own, and no other one."""
    identities = {name: new_identity() for name in ("cp-1", "w-1", "w-2")}
    head = "apiVersion: kubenode.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    files = {
        "fleet.yaml": head.format(
            kind="Fleet", name="f", spec="{id: 6f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11, stores: [x]}"
        ),
        "pools/cp.yaml": head.format(kind="Pool", name="cp", spec="{role: control-plane, image: x}"),
        "pools/w.yaml": head.format(kind="Pool", name="w", spec="{role: worker, image: x}"),
    }
    for name, made in identities.items():
        spec = f"{{pool: {name.partition('-')[0]}, identity: {{ageRecipient: {made.recipient}}}}}"
        files[f"nodes/{name}.yaml"] = head.format(kind="Node", name=name, spec=spec)
    tree = {path: text.encode() for path, text in files.items()}
    operator = new_identity().recipient
    cases = {
        "one": SealedSecret("one", Sealed(""), nodes=("w-2",), file=SecretFile("/etc/one")),
        "pool": SealedSecret("pool", Sealed(""), pools=("w",)),
        "role": SealedSecret("role", Sealed(""), roles=(Role.CONTROL_PLANE,)),
        "none": SealedSecret("none", Sealed("")),
    }
    for name, bare in cases.items():
        secret = descriptions.replace(bare, operators=("alice",))
        recipients = descriptions.recipients_now(secret, load_fleet(tree), {"alice": (operator,)})
        ciphertext = seal(f"content of {name}".encode(), descriptions.all_recipients(recipients))
        tree[f"secrets/{name}.age"] = ciphertext
        tree[f"secrets/{name}.yaml"] = descriptions.render(descriptions.with_seal(secret, recipients, ciphertext))
    theirs = {"cp-1": ["role"], "w-1": ["pool"], "w-2": ["one", "pool"]}
    for node, names in theirs.items():
        identity = own(identities[node].text)
        opened = unseal_for_node(secrets_for(tree, load_fleet(tree, node=node), node), identity)
        assert [(it.secret.name, it.content.decode()) for it in opened] == [(it, f"content of {it}") for it in names]
        for name in cases.keys() - names:
            with pytest.raises(HostError, match=f"secrets/{name}.age is not sealed to key"):
                unseal(tree[f"secrets/{name}.age"], [identity], f"secrets/{name}.age")


def own(text: str) -> Identity:
    (identity,) = parse_identities(text.encode(), "key")
    return identity
