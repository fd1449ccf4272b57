"""The cluster's CA set, as OpenSSL sees it: what kubeadm would have made, and a hash that it computes too."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubenode.fleet.cluster_ca import CA_FILES, ca_cert_hash, decode_ca_set, encode_ca_set
from kubenode.host.cluster_ca import make_ca_set

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl (Debian: apt install openssl)")
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
NAMES = {"ca": "kubernetes", "etcd/ca": "etcd-ca", "front-proxy-ca": "front-proxy-ca"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    for name, data in decode_ca_set(encode_ca_set(make_ca_set(NOW))).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def openssl(*words: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *map(str, words)], input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_files_are_kubeadms(pki: Path) -> None:
    found = {path.relative_to(pki).as_posix() for path in pki.rglob("*") if path.is_file()}
    assert found == set(CA_FILES)


@pytest.mark.parametrize(("path", "name"), NAMES.items())
def test_each_authority(pki: Path, path: str, name: str) -> None:
    text = openssl("x509", "-in", pki / f"{path}.crt", "-noout", "-text", "-nameopt", "RFC2253").decode()
    assert f"Subject: CN={name}\n" in text
    assert f"Issuer: CN={name}\n" in text
    assert "CA:TRUE" in text and "Digital Signature, Key Encipherment, Certificate Sign" in text
    assert f"DNS:{name}" in text
    assert "Not Before: Nov 25 11:00:00 2026 GMT" in text
    assert "Not After : Nov 22 12:00:00 2036 GMT" in text
    assert (pki / f"{path}.key").read_text().startswith("-----BEGIN EC PRIVATE KEY-----\n")
    public = openssl("pkey", "-in", pki / f"{path}.key", "-pubout")
    assert openssl("x509", "-in", pki / f"{path}.crt", "-noout", "-pubkey") == public


def test_the_hash_is_kubeadms_recipe(pki: Path) -> None:
    """kubeadm join: openssl x509 -pubkey ... | openssl pkey -pubin -outform der | openssl dgst -sha256 -hex."""
    public = openssl("x509", "-pubkey", "-noout", "-in", pki / "ca.crt")
    der = openssl("pkey", "-pubin", "-outform", "der", stdin=public)
    digest = openssl("dgst", "-sha256", "-hex", "-r", stdin=der).decode().split()[0]
    assert ca_cert_hash((pki / "ca.crt").read_bytes()) == f"sha256:{digest}"


def test_it_issues_certificates_that_verify(pki: Path, tmp_path: Path) -> None:
    request = tmp_path / "kubelet.csr"
    openssl(
        *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "kubelet.key", "-out", request),
        *("-subj", "/O=system:nodes/CN=system:node:cp-1"),
    )
    leaf = tmp_path / "kubelet.crt"
    openssl(
        *("x509", "-req", "-in", request, "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-days", "365"),
        *("-CAcreateserial", "-CAserial", tmp_path / "serial", "-out", leaf),
    )
    at = str(int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()))
    said = openssl("verify", "-attime", at, "-no_check_time", "-CAfile", pki / "ca.crt", leaf).decode()
    assert said == f"{leaf}: OK\n"
    refused = subprocess.run(
        ["openssl", "verify", "-no_check_time", "-CAfile", pki / "etcd/ca.crt", leaf], capture_output=True, check=False
    )
    assert refused.returncode != 0


def test_the_service_account_key(pki: Path) -> None:
    assert openssl("pkey", "-in", pki / "sa.key", "-pubout") == (pki / "sa.pub").read_bytes()
    assert (pki / "sa.key").read_text().startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert b"(2048 bit" in openssl("pkey", "-in", pki / "sa.key", "-noout", "-text")


def test_no_two_sets_are_alike() -> None:
    first, second = make_ca_set(NOW), make_ca_set(NOW)
    assert not set(first.values()) & set(second.values())
    assert len(set(first.values())) == len(CA_FILES)
