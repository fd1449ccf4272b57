"""Mistakes in sealed secrets. `registry` of the example is sealed to cp-2, the workers, alice and bob."""

import hashlib
import re
from collections.abc import Callable

from fleets.mutations import NODE, POLICY, Case, Files, both, copy_file, put, remove, write

from kubenode.fleet.problems import Severity
from kubenode.host.age import seal

SECRET, SEALED = "secrets/registry.yaml", "secrets/registry.age"
OTHER = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
WORKER_1 = "age1sgtv4ee7955p03dmy62lksktrhpmadm6vg0y6dr6gllvtd4qvcnq2mg20x"
CP_1 = "age1l8qup7ys5r7kzftw3727vnjafmun803a0h2cvujxvqzh3jp4h5lsal56ra"
AGAIN = "kubenode seal --reseal registry"
# A CA certificate as kubeadm has them (P-256), and the hash that openssl says of it.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBhTCCASugAwIBAgIUFsNLlU6egHZc3OjVnlVwJ2KUfggwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAeFw0yNjExMjUwMDUwMjBaFw0zNjExMjIw
MTUwMjBaMBUxEzARBgNVBAMMCmt1YmVybmV0ZXMwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARucSKoU5ayJ4lvNIKK6HE0OVJKzdJXhG/yAC86uMOL7S5CDnXKCB5A
iWqYHtiBSldKcVRy8JgaTZi5D4tCYNICo1kwVzAOBgNVHQ8BAf8EBAMCAqQwDwYD
VR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQURJJRTB/5Q3C3xrKDdSai2ENkTqowFQYD
VR0RBA4wDIIKa3ViZXJuZXRlczAKBggqhkjOPQQDAgNIADBFAiEAn9dO6tNw6x6v
9w+wK9OOIH6i5c9OeEek0CDWEjKWdr0CIHiqdtOlygDn2+OosKdlg6DCvla6R70U
QGimMOTdJsn6
-----END CERTIFICATE-----
"""
CERTIFICATE_HASH = "sha256:daf1f207b6f114e1670d7663f3bcde4242f546b87aecc878450da29f3cbe2e34"


def sealed_as(change: Callable[[bytes], bytes]) -> Callable[[Files], None]:
    """Replace the sealed file, and write its digest into the description."""

    def edit(files: Files) -> None:
        files[SEALED] = change(files[SEALED])
        digest = hashlib.sha256(files[SEALED]).hexdigest()
        files[SECRET] = re.sub(rb"sha256:[0-9a-f]{64}", f"sha256:{digest}".encode(), files[SECRET])

    return edit


def renamed(name: str) -> Callable[[Files], None]:
    """Add a second secret like `registry`, of another name."""
    path = f"secrets/{name}.yaml"
    copies = both(copy_file(SEALED, f"secrets/{name}.age"), copy_file(SECRET, path))
    return both(copies, put(path, "name: registry", f"name: {name}"))


def token_of(name: str, node: str) -> Callable[[Files], None]:
    """Say that a secret holds a node's bootstrap token, and give it no place on nodes."""

    def edit(files: Files) -> None:
        path = f"secrets/{name}.yaml"
        put(path, "  sealed:\n", f"  bootstrapTokenOf: {node}\n  sealed:\n")(files)
        files[path] = re.sub(rb"  file:\n(    .*\n)+", b"", files[path])

    return edit


def with_ca(name: str, certificate: str = CERTIFICATE, digest: str = CERTIFICATE_HASH) -> Callable[[Files], None]:
    """Give the description of a secret the public half of a cluster's CA set, and no place on nodes."""
    lines = "".join(f"      {line}\n" for line in certificate.splitlines())
    block = f"  clusterCA:\n    caCertHash: {digest}\n    certificate: |\n{lines}  sealed:\n"

    def edit(files: Files) -> None:
        path = f"secrets/{name}.yaml"
        put(path, "  sealed:\n", block)(files)
        files[path] = re.sub(rb"  file:\n(    .*\n)+", b"", files[path])

    return edit


def add_worker(files: Files) -> None:
    text = files[NODE].decode().replace("worker-1", "worker-3").replace("192.0.2.21", "192.0.2.23")
    files["nodes/worker-3.yaml"] = re.sub(r"    sshKey: .*\n", "", text.replace(WORKER_1, OTHER)).encode()


def drop_recipients_of_alice(files: Files) -> None:
    text = files[POLICY].decode()
    files[POLICY] = re.sub(r"      ageRecipients:\n        - .* alice@laptop\n", "", text).encode()


CASES = [
    # The two files.
    Case(
        "plain Secret",
        write("secrets/x.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n"),
        "wrong-kind",
        "secrets/x.yaml",
        "kind: Secret",
        "kind is 'Secret', but a SealedSecret belongs here",
        "seal the file with `kubenode seal` and remove this one",
    ),
    Case("no sealed file", remove(SEALED), "seal-differs", SECRET, "sha256:", f"the sealed file {SEALED} is missing"),
    Case(
        "no description",
        remove(SECRET),
        "seal-without-description",
        SEALED,
        "",
        f"nothing says who needs this file: {SECRET} is missing",
        "kubenode seal registry FILE --for ...",
    ),
    Case(
        "sealed file in a folder",
        copy_file(SEALED, "secrets/a/x.age"),
        "misplaced-file",
        "secrets/a/x.age",
        "",
        "directly in secrets/",
        "secrets/x.age",
    ),
    Case(
        "another sealed file",
        lambda files: files.update({SEALED: files[SEALED] + b"\n"}),
        "seal-differs",
        SECRET,
        "sha256:",
        f"{SEALED} is not the file with this digest",
        f"Was sealing it interrupted? Do it again: kubenode seal registry FILE, or {AGAIN}",
    ),
    Case(
        "cut file",
        sealed_as(lambda data: data[:300]),
        "bad-seal",
        SEALED,
        "",
        "this is not a whole age file: its last line is not -----END AGE ENCRYPTED FILE-----: was it cut off?",
    ),
    Case(
        "fewer recipients",
        sealed_as(lambda data: seal(b"x", [OTHER])),
        "bad-seal",
        SEALED,
        "",
        "the file is sealed to 1 of X25519, but its description lists 3 of X25519, 1 of ssh-ed25519 ",
        AGAIN,
    ),
    # Who can open it.
    Case(
        "rotated identity",
        put(NODE, WORKER_1, OTHER),
        "stale-seal",
        SECRET,
        "sha256:",
        "it is not sealed to the present keys of node worker-1",
        f"Seal it again: {AGAIN}",
    ),
    Case(
        "new node",
        add_worker,
        "stale-seal",
        SECRET,
        "sha256:",
        "it is not sealed to the present keys of node worker-3",
    ),
    Case(
        "operator's new key",
        put(POLICY, "      ageRecipients:\n", f"      ageRecipients:\n        - {OTHER}\n"),
        "stale-seal",
        SECRET,
        "sha256:",
        "it is not sealed to the present keys of operator alice",
    ),
    Case(
        "node that left",
        remove("nodes/worker-2.yaml"),
        "seal-too-wide",
        SECRET,
        "sha256:",
        "node worker-2 can open it and does not need it any more",
        "kubenode seal registry FILE",
        Severity.WARNING,
    ),
    Case(
        "operator that left",
        put(SECRET, "operators: [alice, bob]", "operators: [alice]"),
        "seal-too-wide",
        SECRET,
        "sha256:",
        "operator bob can open it",
        "Change what is in it",
        Severity.WARNING,
    ),
    Case(
        "node without identity",
        put(NODE, f"    ageRecipient: {WORKER_1}\n", ""),
        "no-recipient",
        NODE,
        "pool",
        "node 'worker-1' needs the secret 'registry', but has no age recipient to seal it to",
        "kubenode seed worker-1",
    ),
    Case(
        "operator without recipient",
        drop_recipients_of_alice,
        "no-recipient",
        SECRET,
        "[alice, bob]",
        "the operator 'alice' has no ageRecipients",
    ),
    Case(
        "changed character in a node's recipient",
        put("nodes/cp-1.yaml", CP_1, CP_1.replace("l56ra", "l56re")),
        "bad-recipient",
        "nodes/cp-1.yaml",
        "age1",
        "nothing can be sealed to this: the checksum of the age recipient is wrong",
        "kubenode seed",
    ),
    Case(
        "cut key of a person",
        put(POLICY, "ci@example.net\n", "ci@example.net\n      ageRecipients: [ssh-ed25519 AAAA]\n"),
        "bad-recipient",
        POLICY,
        "[ssh-ed25519 AAAA]",
        "nothing can be sealed to this",
    ),
    Case(
        "key that cannot open anything",
        put(POLICY, "ci@example.net\n", "ci@example.net\n      ageRecipients: [ecdsa-sha2-nistp256 AAAA]\n"),
        "bad-value",
        POLICY,
        "ecdsa",
        "not a valid age recipient or SSH key",
        "age1",
    ),
    # Names.
    Case(
        "unknown node",
        put(SECRET, "[cp-2]", "[cp-4]"),
        "unknown-node",
        SECRET,
        "cp-4",
        "there is no node 'cp-4'",
        "Did you mean 'cp-",
    ),
    Case(
        "unknown pool in a secret",
        put(SECRET, "[workers]", "[worker]"),
        "unknown-pool",
        SECRET,
        "[worker]",
        "there is no pool 'worker'",
        "Did you mean 'workers'?",
    ),
    Case(
        "unknown operator",
        put(SECRET, "[alice, bob]", "[alicia, bob]"),
        "unknown-person",
        SECRET,
        "alicia",
        "'alicia' is not one of spec.people in trust/policy.yaml",
        "Did you mean 'alice'?",
    ),
    # Where it goes.
    Case(
        "kubeadm's folder",
        put(SECRET, "/etc/containerd/registry.json", "/etc/kubernetes/pki/ca.key"),
        "owned-path",
        SECRET,
        "path",
        "/etc/kubernetes/pki/ca.key is not a secret's to set",
    ),
    Case(
        "kubeadm's kubeconfig",
        put(SECRET, "/etc/containerd/registry.json", "/etc/kubernetes/admin.conf"),
        "owned-path",
        SECRET,
        "path",
        "admin.conf is not",
    ),
    Case(
        "path outside",
        put(SECRET, "/etc/containerd/registry.json", "/etc/../usr/x"),
        "bad-value",
        SECRET,
        "path",
        "spec.file.path is '/etc/../usr/x'",
    ),
    Case(
        "over a pool's file",
        put(SECRET, "/etc/containerd/registry.json", "/etc/cni/net.d/10-bridge.conflist"),
        "duplicate-item",
        SECRET,
        "path",
        "/etc/cni/net.d/10-bridge.conflist is also where a file of pool 'workers' goes",
    ),
    Case(
        "two to one place",
        renamed("zeta"),
        "duplicate-item",
        "secrets/zeta.yaml",
        "path",
        "/etc/containerd/registry.json is also where the secret 'registry' goes, on the same node",
    ),
    # Bootstrap tokens.
    Case(
        "token of nobody",
        put(SECRET, "  sealed:\n", "  bootstrapTokenOf: cp-9\n  sealed:\n"),
        "unknown-node",
        SECRET,
        "cp-9",
        "there is no node 'cp-9'",
    ),
    Case(
        "token in another secret",
        put(SECRET, "  sealed:\n", "  bootstrapTokenOf: cp-1\n  sealed:\n"),
        "token-place",
        SECRET,
        "cp-1",
        "the token of 'cp-1' belongs into the secret 'bootstrap-token-cp-1'",
        "kubenode seal --bootstrap-tokens",
    ),
    Case(
        "token for others",
        both(renamed("bootstrap-token-cp-1"), token_of("bootstrap-token-cp-1", "cp-1")),
        "token-place",
        "secrets/bootstrap-token-cp-1.yaml",
        "cp-1",
        "a bootstrap token is for its node and the control planes",
    ),
    Case(
        "no tokens",
        both(renamed("cluster-ca"), with_ca("cluster-ca")),
        "no-token",
        "secrets/cluster-ca.yaml",
        "caCertHash",
        "no bootstrap token, so they could not join the cluster (again): cp-1, cp-2, cp-3, worker-1, worker-2",
        "kubenode seal --bootstrap-tokens",
        Severity.WARNING,
    ),
    # The cluster's CA set.
    Case(
        "CA in another secret",
        with_ca("registry"),
        "ca-hash",
        SECRET,
        "caCertHash",
        "belongs to the secret 'cluster-ca'",
    ),
    Case(
        "CA facts missing",
        both(renamed("cluster-ca"), put("secrets/cluster-ca.yaml", "registry.json", "ca.json")),
        "ca-hash",
        "secrets/cluster-ca.yaml",
        "for:",
        "belongs to the secret 'cluster-ca', and only there",
        "kubenode seal --cluster-ca",
    ),
    Case(
        "another CA hash",
        both(renamed("cluster-ca"), with_ca("cluster-ca", digest="sha256:" + "0" * 64)),
        "ca-hash",
        "secrets/cluster-ca.yaml",
        "caCertHash",
        f"the hash of the certificate's public key is {CERTIFICATE_HASH}",
    ),
    Case(
        "no certificate",
        both(renamed("cluster-ca"), with_ca("cluster-ca", certificate="x")),
        "ca-hash",
        "secrets/cluster-ca.yaml",
        "|",
        "this is not one PEM certificate of a CA",
    ),
]
