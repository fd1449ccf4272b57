"""The API server's certificate gets the names that git wants, and a power cut never leaves half a pair."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubenode.errors import HostError
from kubenode.host import member as module
from kubenode.host import memberfile, servingcertificate
from kubenode.host.booted import Running
from kubenode.host.localkubernetes import local_kubernetes
from kubenode.host.paths import Paths
from kubenode.model.kubernetes import KubernetesVersion
from tests.unit.test_kubeletconfig import INSTALLER
from tests.unit.test_member import OLD, RELEASE, Node

NOW = datetime(2026, 12, 1, tzinfo=UTC)
PAIR = (servingcertificate.KEY, servingcertificate.CERTIFICATE)


def pair(folder: Path, *names: str) -> None:
    """Write a key and a certificate for these names, as kubeadm does."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 7, NOW, NOW + timedelta(days=365))
    wanted = x509.SubjectAlternativeName([x509.DNSName(it) for it in names])
    made = builder.add_extension(wanted, critical=False).sign(key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    (folder / servingcertificate.KEY).write_bytes(private)
    (folder / servingcertificate.CERTIFICATE).write_bytes(made.public_bytes(encoding))


def fits(folder: Path) -> bool:
    """Say whether a key belongs to the certificate beside it."""
    key = serialization.load_pem_private_key((folder / servingcertificate.KEY).read_bytes(), None)
    certificate = x509.load_pem_x509_certificate((folder / servingcertificate.CERTIFICATE).read_bytes())
    return key.public_key() == certificate.public_key()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A control plane whose certificate is for cp-1; its kubeadm makes one for what is in ROOT/wanted."""
    monkeypatch.setattr(module, "running", lambda paths: Running(OLD, "a" * 64))
    run = module.process.run
    monkeypatch.setattr(
        module.process, "run", lambda argv, **given: None if argv[0] == "systemctl" else run(argv, **given)
    )
    made = Node(tmp_path / "root")
    made.member.init(KubernetesVersion("v1.34.2"))
    pair(pki(made), "cp-1")
    for binary in (tmp_path / "root/usr/bin/kubeadm", tmp_path / "root/spare/usr/bin/kubeadm"):
        copy = f"cp {tmp_path}/wanted/* {pki(made)}/{servingcertificate.FOLDER}/; exit 0"
        case = f'"init phase certs apiserver"*) {copy} ;;\n"init phase"*'
        binary.write_text(binary.read_text().replace('"init phase"*', case))
    return made


def pki(node: Node) -> Path:
    return node.paths.kubernetes / "pki"


def shown(node: Node) -> frozenset[str]:
    """The names that the API server's certificate is for."""
    return servingcertificate.names(pki(node) / servingcertificate.CERTIFICATE)


def test_a_new_name_in_git_reaches_the_certificate_and_the_api_server_is_restarted(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts: list[frozenset[str]] = []
    monkeypatch.setattr(module.staticpods, "restart", lambda paths: restarts.append(shown(node)))
    pair(tmp_path / "wanted", "cp-1", "api.example.net")
    node.member.reconfigure("d" * 64, first=True)
    assert restarts == [{"cp-1", "api.example.net"}]
    assert fits(pki(node)) and not (pki(node) / servingcertificate.FOLDER).exists()
    assert (pki(node) / servingcertificate.KEY).stat().st_mode & 0o777 == 0o600
    assert not memberfile.read(node.paths).restarting
    given = [it for it in node.calls if it.startswith("init phase certs apiserver")]
    assert len(given) == 1

    at = pki(node) / servingcertificate.CERTIFICATE
    before = at.read_bytes()
    pair(tmp_path / "wanted", "api.example.net", "cp-1")
    node.member.reconfigure("e" * 64, first=True)
    assert len(restarts) == 1 and at.read_bytes() == before, "the same names in another order are no reason"


def test_kubeadm_makes_it_beside_the_clusters_own_with_the_clusters_ca(node: Node, tmp_path: Path) -> None:
    with servingcertificate.making(node.paths) as made:
        assert {it.name: it.read_bytes() for it in made.folder.iterdir()} == {
            "ca.crt": b"certificate",
            "ca.key": b"key",
        }
    assert f'"certificatesDir": "{made.folder}"'.encode() in node.member._documents(
        KubernetesVersion("v1.34.2"), pki=made.folder
    )


def test_an_upgrade_brings_the_names_along(node: Node, tmp_path: Path) -> None:
    for first in (True, False):
        pair(tmp_path / "wanted", "cp-1", f"{first}.example.net")
        before = len(node.calls)
        node.member.upgrade(RELEASE, first=first)
        calls = node.calls[before:]
        certified = next(i for i, it in enumerate(calls) if it.startswith("init phase certs apiserver"))
        upgraded = next(i for i, it in enumerate(calls) if it.startswith("upgrade "))
        assert certified < upgraded, (
            "the upgrade restarts the API server, and kubeadm renews with the names that are there"
        )
        assert shown(node) == {"cp-1", f"{first}.example.net"} and fits(pki(node))
        assert not memberfile.read(node.paths).restarting


def test_an_api_server_that_still_runs_with_the_old_certificate_counts_as_having_to_be_restarted(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(paths: Paths) -> None:
        raise HostError("the static pod kube-apiserver was not started anew")

    monkeypatch.setattr(module.staticpods, "restart", stops)
    pair(tmp_path / "wanted", "api.example.net")
    with pytest.raises(HostError, match="not started anew"):
        node.member.reconfigure("d" * 64, first=True)
    here = local_kubernetes(node.paths)
    assert here is not None and here.certificates_until == datetime(1970, 1, 1, tzinfo=UTC)
    assert here.configuration != "d" * 64


@pytest.mark.parametrize("replaced", [0, 1, 2])
@pytest.mark.parametrize("by", ["the kubelet's unit", "the next call"])
def test_a_power_cut_between_key_and_certificate_is_mended(node: Node, tmp_path: Path, replaced: int, by: str) -> None:
    folder = pki(node) / servingcertificate.FOLDER
    pair(folder, "api.example.net")
    (folder / servingcertificate.READY).touch()
    for name in PAIR[:replaced]:
        (folder / name).replace(pki(node) / name)
    assert fits(pki(node)) == (replaced != 1)
    if by == "the next call":
        with servingcertificate.making(node.paths):
            pass
    else:
        script = tmp_path / "script"
        script.write_text(INSTALLER.read_text().replace("/etc/kubernetes/pki", str(pki(node))))
        subprocess.run(["sh", str(script), str(tmp_path / "no set")], check=True)
    assert fits(pki(node)) and shown(node) == {"api.example.net"}
    assert not folder.exists()


def test_a_pair_that_was_not_whole_when_the_power_failed_is_made_anew(node: Node) -> None:
    folder = pki(node) / servingcertificate.FOLDER
    pair(folder, "api.example.net")
    (folder / servingcertificate.CERTIFICATE).write_bytes(b"-----BEGIN")
    with servingcertificate.making(node.paths) as made:
        assert not (made.folder / servingcertificate.CERTIFICATE).exists()
    assert fits(pki(node)) and shown(node) == {"cp-1"}


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_bytes(b"-----BEGIN")
    with pytest.raises(HostError, match=r"x\.crt cannot be read"):
        servingcertificate.names(tmp_path / "x.crt")
