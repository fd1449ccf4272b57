"""Recipients, headers of age files, descriptions of secrets, and what a node is given to open."""

import dataclasses
from collections.abc import Mapping

import pytest
from fleets.cases_secrets import CERTIFICATE, CERTIFICATE_HASH, OTHER, SEALED, SECRET, WORKER_1
from fleets.mutations import EXAMPLE, NODE, put

from kubenode.errors import FleetInvalid, UsageError
from kubenode.fleet import cluster_ca, secrets
from kubenode.fleet.ageheader import stanzas
from kubenode.fleet.edit import insert
from kubenode.fleet.identity import with_recipient
from kubenode.fleet.load import load_fleet
from kubenode.fleet.recipients import canonical, stanza_of
from kubenode.host.tree import read_folder
from kubenode.model.documents import ClusterCA, Role, Sealed, SealedSecret, SecretFile
from kubenode.trust.keys import PublicKey
from kubenode.trust.strictyaml import load

ALICE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJpE8Caydn0ndcSrlNhor7TOIwYZm8Ow/eZModuUGO/6"


@pytest.fixture(scope="module")
def example() -> Mapping[str, bytes]:
    return read_folder(EXAMPLE).files


# Recipients.


def test_canonical_recipients() -> None:
    assert canonical(WORKER_1) == WORKER_1
    assert canonical(f"{ALICE} alice@laptop") == ALICE
    assert stanza_of(WORKER_1) == ("X25519",)
    algorithm, tag = stanza_of(ALICE)
    assert (algorithm, tag[:5]) == ("ssh-ed25519", PublicKey.parse(ALICE).fingerprint.removeprefix("SHA256:")[:5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected `TYPE BASE64"),
        ("age1", "62 characters"),
        (WORKER_1[:-1], "62 characters"),
        (WORKER_1.upper().replace("AGE1", "age1"), "62 characters"),
        (WORKER_1.replace("sgtv", "sgtw"), "checksum of the age recipient is wrong"),
        ("age1" + "q" * 58, "checksum"),
        ("sk-ssh-ed25519@openssh.com AAAA", "base64|key"),
        ("AGE-SECRET-KEY-1ABC", "expected `TYPE"),
    ],
)
def test_unusable_recipients(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canonical(text)


# Headers.


def test_the_examples_header(example: Mapping[str, bytes]) -> None:
    found = stanzas(example[SEALED])
    assert sorted(stanza[0] for stanza in found) == ["X25519"] * 3 + ["ssh-ed25519"] * 2
    assert stanza_of(ALICE) in [stanza[:2] for stanza in found]


HEAD = b"age-encryption.org/v1\n"
BODY = b"A" * 43 + b"\n"
MAC = b"--- " + b"A" * 43 + b"\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin"),
        (b"age-encryption.org/v2\n", "does not begin"),
        (HEAD, "header is cut off"),
        (HEAD + b"-> X25519 abc\n", "header is cut off"),
        (HEAD + b"-> X25519 abc\n" + BODY, "header is cut off"),
        (HEAD + b"-> X25519 abc\n" + BODY + b"--- short\n" + b"x" * 32, "last line of its header"),
        (HEAD + b"-> X25519 abc\n" + BODY + MAC + b"x" * 31, "cut off after the header"),
        (HEAD + b"->\n" + MAC + b"x" * 32, "a line that is no recipient"),
        (HEAD + b"-> X25519  a\n" + BODY + MAC + b"x" * 32, "a line that is no recipient"),
        (HEAD + b"X25519\n" + MAC + b"x" * 32, "a line that is no recipient"),
        (HEAD + b"-> X25519 abc\n" + b"A" * 65 + b"\n" + MAC, "a damaged key"),
        (HEAD + b"-> X25519 abc\n" + b"*\n" + MAC, "a damaged key"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "its last line is not"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nA\n-----END AGE ENCRYPTED FILE-----\n", "not base64"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nAA\nAAAA\n-----END AGE ENCRYPTED FILE-----\n", "not as long"),
    ],
)
def test_broken_headers(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stanzas(data)


def test_grease_is_passed_over_and_other_kinds_are_not() -> None:
    lines = b"-> X25519 abc\n" + BODY + b"-> x-grease a b\n\n-> piv-p256 q\n" + b"A" * 64 + b"\n\n"
    assert stanzas(HEAD + lines + MAC + b"x" * 32) == [("X25519", "abc"), ("piv-p256", "q")]


# Descriptions.

PLAIN = SealedSecret("s", Sealed("0" * 64, (), (("alice", (ALICE,)),)), operators=("alice",))
FULL = SealedSecret(
    "on",
    Sealed("1" * 64, (("1", WORKER_1),), (("alice", (ALICE, OTHER)), ("x.y", (OTHER,)))),
    nodes=("1", "on"),
    pools=("workers",),
    roles=(Role.CONTROL_PLANE,),
    operators=("alice", "x.y"),
    file=SecretFile("/etc/a/b", 0o440, "root:adm"),
    cluster_ca=ClusterCA(CERTIFICATE, CERTIFICATE_HASH),
)


@pytest.mark.parametrize("secret", [PLAIN, FULL])
def test_what_is_written_is_read_again(secret: SealedSecret) -> None:
    data = secrets.render(secret)
    assert secrets.load_secrets({f"secrets/{secret.name}.yaml": data}) == {secret.name: secret}


def test_sealing_again_keeps_comments(example: Mapping[str, bytes]) -> None:
    old = example[SECRET].replace(b"  operators:", b"  # Ask bob first.\n  operators:", 1)
    (secret,) = secrets.load_secrets({SECRET: old}).values()
    new = dataclasses.replace(secret, sealed=Sealed("2" * 64, (("worker-1", OTHER),), (("alice", (ALICE,)),)))
    data = secrets.render(new, old)
    assert secrets.load_secrets({SECRET: data}) == {"registry": new}
    assert data.split(b"  sealed:\n")[0] == old.split(b"  sealed:\n")[0]


def test_a_description_in_braces_is_written_anew() -> None:
    sealed = f"{{sha256: 'sha256:{'0' * 64}', operators: {{alice: ['{ALICE}']}}}}"
    old = (
        "apiVersion: kubenode.dev/v1alpha1\nkind: SealedSecret\nmetadata: {name: s}\n"
        f"spec: {{operators: [alice], sealed: {sealed}}}\n"
    )
    assert secrets.load_secrets({"secrets/s.yaml": old.encode()}) == {"s": PLAIN}
    assert secrets.render(PLAIN, old.encode()) == secrets.render(PLAIN)


def test_unknown_fields_are_passed_over(example: Mapping[str, bytes]) -> None:
    newer = example[SECRET].replace(b"  operators:", b"  rotation: {every: 90d}\n  operators:", 1)
    newer = newer.replace(b"kubenode.dev/v1alpha1", b"kubenode.dev/v2")
    assert secrets.load_secrets({SECRET: newer}) == secrets.load_secrets({SECRET: example[SECRET]})


def test_readers(example: Mapping[str, bytes]) -> None:
    documents = load_fleet(example)
    found = secrets.parse_readers(["pool:workers", "node:cp-1", "role:worker", "node:cp-1"], documents)
    assert found == (("cp-1",), ("workers",), (Role.WORKER,))


@pytest.mark.parametrize(
    ("reader", "message", "hint"),
    [
        ("pool:worker", "there is no pool 'worker'", "Did you mean 'workers'?"),
        ("node:x", "there is no node 'x'", "Known: cp-1, cp-2, cp-3, edge-1, worker-1, worker-2."),
        ("role:workers", "there is no role 'workers'", "Did you mean 'worker'?"),
        ("workers", "'workers' does not say who needs the secret", "Write node:NAME, pool:NAME or role:ROLE"),
        ("group:x", "'group:x' does not say", "Write node:NAME"),
    ],
)
def test_unknown_readers(example: Mapping[str, bytes], reader: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        secrets.parse_readers([reader], load_fleet(example))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_who_was_dropped() -> None:
    before = Sealed("", (("a", WORKER_1), ("b", OTHER)), (("alice", (ALICE,)), ("bob", (OTHER,))))
    after = Sealed("", (("a", OTHER),), (("alice", (ALICE, OTHER)),))
    assert secrets.dropped(before, before) == ""
    assert secrets.dropped(before, after) == "node a, node b, operator bob"


# What a node opens.


@pytest.mark.parametrize(
    ("node", "theirs"),
    [("worker-1", ["registry"]), ("cp-2", ["registry"]), ("cp-1", []), ("edge-1", []), ("nobody", [])],
)
def test_a_node_gets_its_own_secrets(example: Mapping[str, bytes], node: str, theirs: list[str]) -> None:
    for documents in (load_fleet(example), load_fleet(example, node=node)):
        found = secrets.secrets_for(example, documents, node)
        assert [it.name for it in found] == theirs
        assert all(it.ciphertext == example[SEALED] and it.file is not None for it in found)


def test_a_role_reaches_its_nodes(example: Mapping[str, bytes]) -> None:
    files = {**example, SECRET: example[SECRET].replace(b"pools: [workers]", b"roles: [worker]")}
    assert [it.name for it in secrets.secrets_for(files, load_fleet(files, node="worker-2"), "worker-2")] == [
        "registry"
    ]


def refused(files: Mapping[str, bytes]) -> FleetInvalid:
    with pytest.raises(FleetInvalid) as caught:
        secrets.secrets_for(files, load_fleet(files, node="worker-1"), "worker-1")
    return caught.value


def test_a_swapped_file_is_not_opened(example: Mapping[str, bytes]) -> None:
    error = refused({**example, SEALED: example[SEALED] + b"\n"})
    assert str(error) == f"{SEALED}: {SEALED} is not the sealed file that {SECRET} describes"
    assert error.hint == "On a laptop: kubenode seal --reseal registry"
    missing = {path: data for path, data in example.items() if path != SEALED}
    assert refused(missing).message == error.message


def test_a_new_identity_needs_a_new_seal(example: Mapping[str, bytes]) -> None:
    files = dict(example)
    put(NODE, WORKER_1, OTHER)(files)
    assert refused(files).message == "the secret 'registry' is not sealed to the present identity of node 'worker-1'"


def test_nobody_to_seal_to(example: Mapping[str, bytes]) -> None:
    documents = load_fleet(example)
    secret = secrets.load_secrets(example)["registry"]
    people = secrets.operators_recipients(example)
    now = secrets.recipients_now(secret, documents, people)
    assert dataclasses.replace(now, sha256=secret.sealed.sha256) == secret.sealed
    with pytest.raises(FleetInvalid, match="the operator 'ci' has no age recipient to seal to"):
        secrets.recipients_now(dataclasses.replace(secret, operators=("ci",)), documents, people)
    documents.nodes["cp-2"] = dataclasses.replace(documents.nodes["cp-2"], age_recipient=None)
    with pytest.raises(FleetInvalid, match="node 'cp-2' has no age recipient to seal to") as caught:
        secrets.recipients_now(secret, documents, people)
    assert caught.value.hint == "Make its identity first: kubenode seed cp-2"


@pytest.mark.parametrize(
    "policy", [b"", b"x", b"[]", b"spec: {people: [a]}", b"spec: {people: {a: b, c: {ageRecipients: {}}}}"]
)
def test_odd_policies_name_nobody(policy: bytes) -> None:
    assert all(it == () for it in secrets.operators_recipients({"trust/policy.yaml": policy}).values())


# The cluster's CA set.


def test_the_hash_is_that_of_openssl() -> None:
    assert cluster_ca.ca_cert_hash(CERTIFICATE.encode()) == CERTIFICATE_HASH


@pytest.mark.parametrize("data", [b"", b"x", CERTIFICATE.encode() * 2, CERTIFICATE.encode()[:300]])
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(ValueError, match="not one PEM certificate of a CA"):
        cluster_ca.ca_cert_hash(data)


def test_ca_sets_as_one_secret() -> None:
    files = {path: f"content of {path}".encode() for path in cluster_ca.CA_FILES}
    assert cluster_ca.decode_ca_set(cluster_ca.encode_ca_set(files)) == files


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SECRET", "the cluster's CA set is not JSON"),
        (b"\xffSECRET", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"kind": "SECRET"}', "this is not a cluster's CA set"),
        (b'{"kind": "ClusterCASet", "files": "SECRET"}', "has no files"),
        (b'{"kind": "ClusterCASet", "files": {"ca.crt": "SECRET"}}', "has no ca.key"),
    ],
)
def test_what_is_no_ca_set(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        cluster_ca.decode_ca_set(data)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


# Node documents.

START = "apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: n}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("spec: {pool: p}\n", f"spec: {{pool: p, identity: {{ageRecipient: {OTHER}}}}}\n"),
        ("spec: {pool: p, }\n", f"spec: {{pool: p, identity: {{ageRecipient: {OTHER}}}, }}\n"),
        (
            "spec:\n  # The pool.\n  pool: p  # c\n# End.\n",
            f"spec:\n  # The pool.\n  pool: p  # c\n  identity: {{ageRecipient: {OTHER}}}\n# End.\n",
        ),
        ("spec:\n  pool: p", f"spec:\n  pool: p\n  identity: {{ageRecipient: {OTHER}}}\n"),
        ("spec:\r\n  pool: p\r\n", f"spec:\r\n  pool: p\r\n  identity: {{ageRecipient: {OTHER}}}\r\n"),
        (
            f"spec:\n  identity:\n    ageRecipient: {WORKER_1}  # old\n  pool: p\n",
            f"spec:\n  identity:\n    ageRecipient: {OTHER}  # old\n  pool: p\n",
        ),
        (
            f"spec:\n  identity:\n    sshKey: {ALICE} n\n  pool: p\n",
            f"spec:\n  identity:\n    sshKey: {ALICE} n\n    ageRecipient: {OTHER}\n  pool: p\n",
        ),
        (
            "spec:\n  pool: p\n  disk: |-\n    /dev/vda\n",
            f"spec:\n  pool: p\n  disk: |-\n    /dev/vda\n  identity: {{ageRecipient: {OTHER}}}\n",
        ),
    ],
)
def test_an_identity_is_put_in_and_nothing_else_changes(before: str, after: str) -> None:
    assert with_recipient((START + before).encode(), "n", OTHER).decode() == START + after


@pytest.mark.parametrize("before", ["spec: {pool: p, identity: {}}\n", "spec:\n  pool: p\n  identity:\n"])
def test_documents_that_a_person_must_change(before: str) -> None:
    with pytest.raises(FleetInvalid) as caught:
        with_recipient((START + before).encode(), "n", OTHER)
    assert caught.value.hint == f"Write it by hand: spec.identity.ageRecipient: {OTHER}"


def test_nothing_is_put_into_what_is_no_mapping() -> None:
    for text in ("a: 1\n", "a: []\n", "a: {}\n", "b: 1\n"):
        with pytest.raises(KeyError):
            insert(text, "k", "v", "a")
    assert load(insert("a:\n- b: [1,\n    2]\n", "k", "v").encode(), "x").value == {"a": [{"b": [1, 2]}], "k": "v"}
