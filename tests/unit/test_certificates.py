"""When a control plane's certificates end."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kubenode.host.certificates import UNREADABLE, earliest_end
from kubenode.host.kube.mint import Signer, mint
from kubenode.host.paths import Paths
from tests.fakes.kubeapi.pki import Authority

NOW = datetime.now(UTC).replace(microsecond=0)


def certificate(hours: int) -> bytes:
    pair = Authority().pair
    return mint(Signer(pair.certificate, pair.key, "a test"), "x", (), NOW, timedelta(hours=hours))[1]


def test_the_earliest_counts_in_files_and_kubeconfigs(tmp_path: Path) -> None:
    folder = Paths(tmp_path).kubernetes
    (folder / "pki/etcd").mkdir(parents=True)
    assert earliest_end(Paths(tmp_path)) is None
    (folder / "pki/apiserver.crt").write_bytes(certificate(9))
    (folder / "pki/ca.crt").write_bytes(certificate(1))
    assert earliest_end(Paths(tmp_path)) == NOW + timedelta(hours=9), "CAs are not renewed"
    (folder / "pki/etcd/peer.crt").write_bytes(certificate(8))
    assert earliest_end(Paths(tmp_path)) == NOW + timedelta(hours=8)
    encoded = base64.b64encode(certificate(7)).decode()
    (folder / "scheduler.conf").write_text(f"users:\n- user:\n    client-certificate-data: {encoded}\n")
    (folder / "kubelet.conf").write_text("users:\n- user:\n    client-certificate: /var/lib/kubelet/pki/x.pem\n")
    (folder / "admin.conf").write_text("users: [{user: {token: x}}]\n")
    assert earliest_end(Paths(tmp_path)) == NOW + timedelta(hours=7)


def test_one_that_cannot_be_read_has_ended(tmp_path: Path) -> None:
    folder = Paths(tmp_path).kubernetes
    (folder / "pki").mkdir(parents=True)
    for broken in (b"", b"-----BEGIN CERTIFICATE-----\n", b"\xff"):
        (folder / "pki/apiserver.crt").write_bytes(broken)
        assert earliest_end(Paths(tmp_path)) == UNREADABLE
