"""Kubeconfig files: those of kubeadm and kubelet are read; what proves nothing, or runs programs, is refused."""

import base64
import ssl
from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host.kube.kubeconfig import Access, load_kubeconfig
from kubenode.host.kube.tls import client_context
from tests.contract.kube_world import write_kubeconfig
from tests.fakes.kubeapi.pki import Authority

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("kubernetes-admin", ("system:masters",))
SERVER = "https://k8s.example.net:6443"
CA = base64.b64encode(AUTHORITY.pair.certificate).decode()
USER = (
    f"client-certificate-data: {base64.b64encode(PAIR.certificate).decode()}\n"
    f"    client-key-data: {base64.b64encode(PAIR.key).decode()}"
)
TEXT = f"""apiVersion: v1
kind: Config
current-context: here
contexts:
- name: here
  context: {{cluster: c, user: u}}
- name: there
  context: {{cluster: c2, user: u}}
clusters:
- name: c
  cluster:
    server: {SERVER}
    certificate-authority-data: {CA}
- name: c2
  cluster:
    server: https://[2001:db8::1]:6443/
    certificate-authority-data: {CA}
    tls-server-name: kubernetes
users:
- name: u
  user:
    {USER}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config"
    path.write_text(text)
    return path


@pytest.mark.parametrize("embedded", [True, False])
def test_what_kubeadm_and_kubelet_write(tmp_path: Path, embedded: bool) -> None:
    path = tmp_path / "kubelet.conf"
    write_kubeconfig(path, SERVER, AUTHORITY, PAIR, embedded=embedded)
    access = load_kubeconfig(path)
    assert (access.server, access.ca, access.source) == (SERVER, AUTHORITY.pair.certificate, str(path))
    assert client_context(access.ca, access.certificate, access.key, "x").verify_mode is ssl.CERT_REQUIRED


def test_another_context(tmp_path: Path) -> None:
    access = load_kubeconfig(write(tmp_path, TEXT), "there")
    assert (access.server, access.name) == ("https://[2001:db8::1]:6443", "kubernetes")
    with pytest.raises(HostError, match="no context is called 'elsewhere'"):
        load_kubeconfig(write(tmp_path, TEXT), "elsewhere")


def test_files_are_found_beside_it_and_tokens_are_read(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pair.certificate)
    (tmp_path / "token").write_text("secret\n")
    text = TEXT.replace(f"certificate-authority-data: {CA}", "certificate-authority: ca.crt", 1)
    access = load_kubeconfig(write(tmp_path, text.replace(USER, "tokenFile: token")))
    assert (access.ca, access.token, access.certificate) == (AUTHORITY.pair.certificate, "secret", None)
    assert load_kubeconfig(write(tmp_path, TEXT.replace(USER, "token: other"))).token == "other"


@pytest.mark.parametrize(
    ("change", "by", "said"),
    [
        (f"server: {SERVER}", "server: http://k8s.example.net:6443", "is no https address"),
        (f"server: {SERVER}", "server: https://", "is no https address"),
        (f"server: {SERVER}", "server: https://x:99999", "is no https address"),
        (f"server: {SERVER}", "server: 7", "server should be text, there is int '7'"),
        (
            f"server: {SERVER}",
            f"server: {SERVER}\n    insecure-skip-tls-verify: true",
            "insecure-skip-tls-verify is set",
        ),
        (f"server: {SERVER}", f"server: {SERVER}\n    proxy-url: http://x", "'proxy-url' is not supported"),
        (f"certificate-authority-data: {CA}", "x: y", "the cluster has no certificate-authority"),
        (f"certificate-authority-data: {CA}", "certificate-authority-data: '%%%'", "is not base64"),
        (
            f"certificate-authority-data: {CA}",
            "certificate-authority: gone.crt",
            "gone.crt cannot be read: No such file",
        ),
        (USER, "exec: {command: aws}", "'exec' is not supported"),
        (USER, "auth-provider: {name: gcp}", "'auth-provider' is not supported"),
        (USER, "username: admin", "'username' is not supported"),
        (USER, "x: y", "neither a client certificate nor a token"),
        (USER, USER.partition("\n")[0], "client-certificate and client-key go together"),
        ("current-context: here", "x: y", "current-context should be text, there is nothing"),
        ("current-context: here", "current-context: gone", "no context is called 'gone'"),
        ("cluster: c,", "cluster: gone,", "no cluster is called 'gone'"),
        ("user: u}", "user: gone}", "no user is called 'gone'"),
        ("contexts:", "contexts: text\nx:", "contexts should be a list, there is str 'text'"),
        ("- name: here\n  context: {cluster: c, user: u}", "- here", "was expected in an object"),
        ("kind: Config", "kind: [", "not valid YAML"),
        ("kind: Config", "kind: !!python/object:os.system x", "tag"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: str, by: str, said: str) -> None:
    assert change in TEXT
    with pytest.raises(HostError) as refused:
        load_kubeconfig(write(tmp_path, TEXT.replace(change, by, 1)))
    assert said in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read: No such file"):
        load_kubeconfig(tmp_path / "gone")
    with pytest.raises(HostError, match="cannot be read: Is a directory"):
        load_kubeconfig(tmp_path)
    with pytest.raises(HostError, match="is larger than 1048576 bytes"):
        load_kubeconfig(write(tmp_path, "#" * (1 << 21)))


def test_keys_are_not_in_messages() -> None:
    access = Access(SERVER, b"ca", b"certificate", b"key-material", "token-material")
    assert "material" not in repr(access)


@pytest.mark.parametrize(
    ("ca", "certificate", "key", "said"),
    [
        (b"nothing", None, None, "the CA certificate cannot be read"),
        (b"\xff", None, None, "the CA certificate cannot be read"),
        (AUTHORITY.pair.certificate, PAIR.certificate, AUTHORITY.pair.key, "are not usable"),
        (AUTHORITY.pair.certificate, PAIR.certificate, b"nothing", "are not usable"),
        (AUTHORITY.pair.certificate, PAIR.certificate[:200], PAIR.key, "are not usable"),
    ],
)
def test_certificates_that_are_none(ca: bytes, certificate: bytes | None, key: bytes | None, said: str) -> None:
    with pytest.raises(HostError, match=f"admin.conf: .*{said}"):
        client_context(ca, certificate, key, "admin.conf")
