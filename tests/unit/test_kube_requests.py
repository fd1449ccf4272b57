"""Which certificate requests are approved: the two that may be, and one case for each way to ask for more."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubenode.host.kube.requests import Unacceptable, read_request
from kubenode.model.desired import Peer
from kubenode.plan.kubernetes.requests import CLIENT_SIGNER, SERVING_SIGNER, is_ours, refusal
from tests.contract.kube_world import peers
from tests.fakes.kubeapi.pki import request

FLEET = peers(cp_1="control-plane", w1="workers", w2="workers")
FLEET["cp-1"] = replace(FLEET["cp-1"], address="192.0.2.11")
FLEET["w1"] = replace(FLEET["w1"], address="192.0.2.21")


def verdict(case: dict[str, Any], fleet: Mapping[str, Peer] = FLEET) -> str | None:
    """Return why a request is not approved, None when it is."""
    try:
        return refusal(read_request(case), fleet)
    except Unacceptable as error:
        return str(error)


AGENT = ("kubenode:agents", "kubenode:pool:workers")
CLIENT_USAGES = ["digital signature", "client auth"]
SERVING_USAGES = ["digital signature", "server auth"]


def asked(pem: bytes, signer: str, usages: list[str], user: str = "system:node:w1", **spec: Any) -> dict[str, Any]:
    fields = {
        "request": base64.b64encode(pem).decode(), "signerName": signer, "usages": usages, "username": user,
        "groups": ["system:nodes", "system:authenticated"],
    }  # fmt: skip
    return {"metadata": {"name": "csr-1"}, "spec": {**fields, **spec}}


def agent(
    name: str = "kubenode:agent:w1", groups: tuple[str, ...] = AGENT, usages: list[str] = CLIENT_USAGES, **rest: Any
) -> dict[str, Any]:
    return asked(request(name, groups), rest.pop("signer", CLIENT_SIGNER), usages, **rest)


def serving(
    hosts: tuple[str, ...] = ("w1", "192.0.2.21"), name: str = "system:node:w1",
    groups: tuple[str, ...] = ("system:nodes",), usages: list[str] = SERVING_USAGES, **rest: Any,
) -> dict[str, Any]:  # fmt: skip
    return asked(request(name, groups, hosts), SERVING_SIGNER, usages, **rest)


def with_pem(change: bytes, by: bytes) -> dict[str, Any]:
    return asked(request("kubenode:agent:w1", AGENT).replace(change, by), CLIENT_SIGNER, CLIENT_USAGES)


def small_rsa() -> dict[str, Any]:
    subject = x509.Name([
        *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in AGENT),
        x509.NameAttribute(NameOID.COMMON_NAME, "kubenode:agent:w1"),
    ])  # fmt: skip
    key = rsa.generate_private_key(65537, 1024)
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return asked(csr.public_bytes(serialization.Encoding.PEM), CLIENT_SIGNER, CLIENT_USAGES)


def forged() -> dict[str, Any]:
    """A request whose signature was made for another subject."""
    der = bytearray(
        x509.load_pem_x509_csr(request("kubenode:agent:w1", AGENT)).public_bytes(serialization.Encoding.DER)
    )
    der[-4] ^= 1
    pem = base64.encodebytes(bytes(der))
    return asked(
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + pem + b"-----END CERTIFICATE REQUEST-----\n",
        CLIENT_SIGNER,
        CLIENT_USAGES,
    )


def with_extension(*extensions: x509.ExtensionType) -> dict[str, Any]:
    return asked(request("kubenode:agent:w1", AGENT, extensions=extensions), CLIENT_SIGNER, CLIENT_USAGES)


@pytest.mark.parametrize(
    "case",
    [
        agent(),
        agent(usages=[*CLIENT_USAGES, "key encipherment"]),
        agent("kubenode:agent:cp-1", ("kubenode:pool:control-plane", "kubenode:agents"), user="system:node:cp-1"),
        serving(),
        serving(("192.0.2.21",)),
        serving(("w1",), usages=[*SERVING_USAGES, "key encipherment"]),
    ],
)
def test_what_is_approved(case: dict[str, Any]) -> None:
    assert verdict(case) is None


ATTACKS = {
    # Who asks.
    "another node's kubelet": (
        agent(user="system:node:w2"),
        "'system:node:w2' asks for a certificate of the node 'w1'",
    ),
    "an agent for itself": (
        agent(user="kubenode:agent:w1"),
        "'kubenode:agent:w1' asks for a certificate of the node 'w1'",
    ),
    "an administrator": (agent(user="kubernetes-admin"), "'kubernetes-admin' asks for a certificate of the node 'w1'"),
    "a bootstrap token": (
        agent(user="system:bootstrap:abcdef", groups=AGENT),
        "'system:bootstrap:abcdef' asks for a certificate of the node 'w1'",
    ),
    "the name without the group": (
        {**agent(), "spec": {**agent()["spec"], "groups": ["system:authenticated"]}},
        "'system:node:w1' is not in the group system:nodes",
    ),
    "a service account with that name in mind": (
        agent(user="system:serviceaccount:default:system:node:w1"),
        "'system:serviceaccount:default:system:node:w1' asks for a certificate of the node 'w1'",
    ),
    # For whom.
    "a node that is not in the fleet": (
        agent("kubenode:agent:w9", user="system:node:w9"),
        "the trusted fleet has no node 'w9'",
    ),
    "no node at all": (agent("kubenode:agent:", user="system:node:"), "the trusted fleet has no node ''"),
    "another agent": (agent("kubenode:agent:w2"), "'system:node:w1' asks for a certificate of the node 'w2'"),
    "two names": (
        asked(
            x509.CertificateSigningRequestBuilder()
            .subject_name(
                x509.Name(
                    [
                        x509.NameAttribute(NameOID.COMMON_NAME, "kubenode:agent:w1"),
                        x509.NameAttribute(NameOID.COMMON_NAME, "system:kube-controller-manager"),
                    ]
                )
            )
            .sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM),
            CLIENT_SIGNER,
            CLIENT_USAGES,
        ),
        "the subject has 2 common names",
    ),
    # With which groups.
    "system:masters": (
        agent(groups=(*AGENT, "system:masters")),
        "the groups are kubenode:agents, kubenode:pool:workers, system:masters; "
        "kubenode:agents, kubenode:pool:workers are due",
    ),
    "another pool": (
        agent(groups=("kubenode:agents", "kubenode:pool:control-plane")),
        "the groups are kubenode:agents, kubenode:pool:control-plane; kubenode:agents, kubenode:pool:workers are due",
    ),
    "all pools": (
        agent(groups=(*AGENT, "kubenode:pool:control-plane")),
        "the groups are kubenode:agents, kubenode:pool:control-plane, kubenode:pool:workers; "
        "kubenode:agents, kubenode:pool:workers are due",
    ),
    "no group": (agent(groups=()), "the groups are none; kubenode:agents, kubenode:pool:workers are due"),
    "the same group twice": (
        agent(groups=(*AGENT, "kubenode:agents")),
        "the subject has more than one common name and different organizations",
    ),
    "another attribute": (
        asked(
            x509.CertificateSigningRequestBuilder()
            .subject_name(
                x509.Name(
                    [
                        x509.NameAttribute(NameOID.COMMON_NAME, "kubenode:agent:w1"),
                        x509.NameAttribute(NameOID.EMAIL_ADDRESS, "root@example.net"),
                    ]
                )
            )
            .sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM),
            CLIENT_SIGNER,
            CLIENT_USAGES,
        ),
        "the subject has more than one common name and different organizations",
    ),
    # For what.
    "to serve": (
        agent(usages=["digital signature", "client auth", "server auth"]),
        "the usages are client auth, digital signature, server auth; client auth, digital signature are due",
    ),
    "to sign": (
        agent(usages=["digital signature", "client auth", "cert sign"]),
        "the usages are cert sign, client auth, digital signature; client auth, digital signature are due",
    ),
    "no usages": (agent(usages=[]), "the usages are none; client auth, digital signature are due"),
    "with an address": (
        asked(request("kubenode:agent:w1", AGENT, ("k8s.example.net",)), CLIENT_SIGNER, CLIENT_USAGES),
        "an agent's certificate names no address, k8s.example.net is asked for",
    ),
    "to be a CA": (
        with_extension(x509.BasicConstraints(ca=True, path_length=None)),
        "it asks for the extension 2.5.29.19",
    ),
    "with usages inside": (
        with_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
        "it asks for the extension 2.5.29.37",
    ),
    # How it is written.
    "not base64": (
        {**agent(), "spec": {**agent()["spec"], "request": "%%%"}},
        "it cannot be read as a certificate request",
    ),
    "garbage inside": (with_pem(b"M", b"A"), "it cannot be read as a certificate request"),
    "two requests in one": (
        asked(request("kubenode:agent:w1", AGENT) * 2, CLIENT_SIGNER, CLIENT_USAGES),
        "it is not exactly one PEM certificate request",
    ),
    "something before it": (
        asked(b"Subject: fine\n" + request("kubenode:agent:w1", AGENT), CLIENT_SIGNER, CLIENT_USAGES),
        "it is not exactly one PEM certificate request",
    ),
    "a huge one": (asked(b"x" * 20_000, CLIENT_SIGNER, CLIENT_USAGES), "the request is larger than 16384 bytes"),
    "a forged signature": (forged(), "it is not signed by its own key"),
    "a weak key": (small_rsa(), "its RSA key has 1024 bits"),
    # Serving certificates.
    "the address of a control plane": (
        serving(("w1", "192.0.2.11")),
        "192.0.2.11 is not declared for w1 in the fleet (spec.address of nodes/w1.yaml)",
    ),
    "the endpoint's name": (
        serving(("w1", "k8s.example.net")),
        "k8s.example.net is not declared for w1 in the fleet (spec.address of nodes/w1.yaml)",
    ),
    "all names": (serving(("*",)), "* is not declared for w1 in the fleet (spec.address of nodes/w1.yaml)"),
    "an address that nobody declared": (
        serving(("192.0.2.22",), "system:node:w2", user="system:node:w2"),
        "192.0.2.22 is not declared for w2 in the fleet (spec.address of nodes/w2.yaml)",
    ),
    "no address": (serving(()), "it names no address"),
    "another kubelet": (
        serving(name="system:node:w2"),
        "'system:node:w1' asks for a certificate of the node 'w2'",
    ),
    "the API server's name": (
        serving(name="kube-apiserver"),
        "the common name 'kube-apiserver' is no kubelet's",
    ),
    "more groups when serving": (
        serving(groups=("system:nodes", "system:masters")),
        "the groups are system:masters, system:nodes; system:nodes are due",
    ),
    "a client's usages when serving": (
        serving(usages=[*SERVING_USAGES, "client auth"]),
        "the usages are client auth, digital signature, server auth; digital signature, server auth are due",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_refused(attack: str) -> None:
    case, why = ATTACKS[attack]
    assert verdict(case) == why


@pytest.mark.parametrize("signer", ["kubernetes.io/kube-apiserver-client-kubelet", "example.net/own", ""])
def test_other_signers_are_not_ours(signer: str) -> None:
    with pytest.raises(Unacceptable, match="is not ours"):
        read_request(agent(signer=signer))


@pytest.mark.parametrize("name", ["jane", "system:masters", "kubenode:agents"])
def test_other_clients_are_not_ours(name: str) -> None:
    found = read_request(agent(name, ("system:masters",), user=name))
    assert not is_ours(found)
    assert "is not ours to approve" in (refusal(found, FLEET) or "")


def test_a_declared_name_is_compared_as_a_name() -> None:
    fleet = {"w1": replace(FLEET["w1"], address="w1.example.net")}
    assert verdict(serving(("w1", "w1.example.net")), fleet) is None
    for host in ("192.0.2.21", "w2.example.net", "x.w1.example.net"):
        assert "is not declared for w1" in (verdict(serving(("w1", host)), fleet) or "")


def test_an_address_is_compared_in_any_spelling() -> None:
    fleet = {"w1": replace(FLEET["w1"], address="2001:DB8:0:0::21")}
    assert verdict(serving(("2001:db8::21",)), fleet) is None
