"""What a member of a cluster opens of the fleet's sealed secrets: just what it is asked for, with real age files."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kubenode.errors import HostError
from kubenode.fleet import tokens
from kubenode.fleet.cluster_ca import CLUSTER_CA, ca_cert_hash, encode_ca_set
from kubenode.fleet.secrets import NodeSecret, render, sealed_path, with_seal
from kubenode.host import age
from kubenode.host.cluster_ca import make_ca_set
from kubenode.host.membersecrets import MemberSecrets
from kubenode.model.documents import ClusterCA, Fleet, FleetDocuments, Node, Pool, Role, Sealed, SealedSecret

CP, W1, W2 = age.new_identity(), age.new_identity(), age.new_identity()
CA = make_ca_set(datetime.now(UTC))
TOKENS = {"cp-1": "aaaaaa.0123456789abcdef", "w-1": "bbbbbb.0123456789abcdef", "w-2": "cccccc.0123456789abcdef"}
RECIPIENTS = {"cp-1": CP.recipient, "w-1": W1.recipient, "w-2": W2.recipient}


def put(files: dict[str, bytes], secret: SealedSecret, plain: bytes) -> None:
    """Seal a secret to the control plane and the nodes that it names."""
    readers = sorted({"cp-1", *secret.nodes})
    ciphertext = age.seal(plain, [RECIPIENTS[node] for node in readers])
    sealed = Sealed("", tuple((node, RECIPIENTS[node]) for node in readers), ())
    described = with_seal(secret, sealed, ciphertext)
    files[f"secrets/{secret.name}.yaml"] = render(described)
    files[sealed_path(secret.name)] = ciphertext


@pytest.fixture
def files() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    public = ClusterCA(CA["ca.crt"].decode(), ca_cert_hash(CA["ca.crt"]))
    put(found, SealedSecret(CLUSTER_CA, Sealed(""), roles=(Role.CONTROL_PLANE,), cluster_ca=public), encode_ca_set(CA))
    for node, token in TOKENS.items():
        put(found, tokens.describe(node, ()), token.encode())
    return found


class Opener:
    """Opens with one machine's identity and notes what."""

    def __init__(self, identity: age.NewIdentity) -> None:
        self._identities = age.parse_identities(identity.text.encode(), "identity.key")
        self.opened: list[str] = []

    def __call__(self, secret: NodeSecret) -> bytes:
        self.opened.append(secret.name)
        return age.open_secret(secret, self._identities)


def of(node: str, files: dict[str, bytes], opens: Callable[[NodeSecret], bytes]) -> MemberSecrets:
    pools = {"planes": Pool("planes", Role.CONTROL_PLANE, "node"), "workers": Pool("workers", Role.WORKER, "node")}
    nodes = {
        name: Node(name, "planes" if name == "cp-1" else "workers", age_recipient=key)
        for name, key in RECIPIENTS.items()
    }
    return MemberSecrets(files, FleetDocuments(Fleet("lab", "f" * 8, ()), pools=pools, nodes=nodes), node, opens)


def test_only_what_is_asked_for_is_opened(files: dict[str, bytes]) -> None:
    opener = Opener(CP)
    mine = of("cp-1", files, opener)
    assert mine.ca_certificate == CA["ca.crt"] and mine.ca_cert_hash == ca_cert_hash(CA["ca.crt"])
    assert opener.opened == [], "that is public"
    assert mine.tokens_of(frozenset({"w-2", "w-9"})) == {"w-2": TOKENS["w-2"]}
    assert opener.opened == ["bootstrap-token-w-2"]
    assert mine.ca_set() == CA
    assert mine.own_token() == TOKENS["cp-1"]


def test_a_worker_knows_the_ca_and_its_own_token(files: dict[str, bytes]) -> None:
    mine = of("w-1", files, Opener(W1))
    assert (mine.ca_certificate, mine.own_token()) == (CA["ca.crt"], TOKENS["w-1"])
    assert mine.tokens_of(frozenset(TOKENS)) == {"w-1": TOKENS["w-1"]}, "the others' are not for it"
    with pytest.raises(HostError, match="the cluster's CA set is not sealed to w-1"):
        mine.ca_set()


@pytest.mark.parametrize("how", ["stale", "missing", "swapped", "no description"])
def test_one_bad_secret_spoils_no_other(files: dict[str, bytes], how: str) -> None:
    name = "bootstrap-token-w-1"
    match how:
        case "stale":
            old = files[f"secrets/{name}.yaml"]
            files[f"secrets/{name}.yaml"] = old.replace(CP.recipient.encode(), age.new_identity().recipient.encode())
        case "missing":
            del files[sealed_path(name)]
        case "swapped":
            files[sealed_path(name)] = files[sealed_path("bootstrap-token-w-2")]
        case "no description":
            files[f"secrets/{name}.yaml"] = b"["
    mine = of("cp-1", files, Opener(CP))
    assert mine.ca_set() == CA
    assert mine.tokens_of(frozenset({"cp-1", "w-2"})) == {"cp-1": TOKENS["cp-1"], "w-2": TOKENS["w-2"]}
    with pytest.raises(HostError, match=name) as refused:
        mine.tokens_of(frozenset({"w-1"}))
    assert refused.value.hint


def test_another_ca_than_described(files: dict[str, bytes]) -> None:
    """A control plane that founded a cluster with it would be refused by every node that joins."""
    other = make_ca_set(datetime.now(UTC))
    public = ClusterCA(CA["ca.crt"].decode(), ca_cert_hash(CA["ca.crt"]))
    secret = SealedSecret(CLUSTER_CA, Sealed(""), roles=(Role.CONTROL_PLANE,), cluster_ca=public)
    put(files, secret, encode_ca_set(other))
    with pytest.raises(HostError, match="holds another CA than its description says"):
        of("cp-1", files, Opener(CP)).ca_set()


@pytest.mark.parametrize("plain", [b"", b"secret horse", b"AAAAAA.0123456789abcdef", b"\xff\xfe"])
def test_what_is_no_token(files: dict[str, bytes], plain: bytes) -> None:
    put(files, tokens.describe("w-1", ()), plain)
    with pytest.raises(HostError, match="the secret 'bootstrap-token-w-1' does not hold a bootstrap token") as refused:
        of("w-1", files, Opener(W1)).own_token()
    assert "horse" not in str(refused.value)


def test_a_damaged_ca_set_is_not_quoted(files: dict[str, bytes]) -> None:
    public = ClusterCA(CA["ca.crt"].decode(), ca_cert_hash(CA["ca.crt"]))
    secret = SealedSecret(CLUSTER_CA, Sealed(""), roles=(Role.CONTROL_PLANE,), cluster_ca=public)
    put(files, secret, b"secret horse")
    with pytest.raises(HostError, match="the secret 'cluster-ca' is damaged") as refused:
        of("cp-1", files, Opener(CP)).ca_set()
    assert refused.value.__cause__ is None and "horse" not in str(refused.value)


def test_a_fleet_without_secrets() -> None:
    mine = of("cp-1", {}, Opener(CP))
    with pytest.raises(HostError, match="the fleet has a cluster and no CA set of it"):
        _ = mine.ca_certificate
    with pytest.raises(HostError, match="the fleet has no bootstrap token for cp-1"):
        mine.own_token()
    assert mine.tokens_of(frozenset({"w-1"})) == {}


def test_a_token_under_another_name_is_none(files: dict[str, bytes]) -> None:
    secret = replace(tokens.describe("w-1", ()), bootstrap_token_of="w-2")
    put(files, secret, TOKENS["w-1"].encode())
    assert of("w-1", files, Opener(W1)).tokens_of(frozenset({"w-1"})) == {}
