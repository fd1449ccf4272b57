"""When the certificates of a control plane end: those that `kubeadm certs renew` makes anew, and no others.

Source: kubeadm, "Certificate Management with kubeadm". kubelet.conf is not among them: the kubelet renews its own.
"""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from kubenode.host.paths import Paths

_FILES = (
    "pki/apiserver.crt",
    "pki/apiserver-kubelet-client.crt",
    "pki/apiserver-etcd-client.crt",
    "pki/front-proxy-client.crt",
    "pki/etcd/server.crt",
    "pki/etcd/peer.crt",
    "pki/etcd/healthcheck-client.crt",
)
_KUBECONFIGS = ("admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf")
_DATA = re.compile(rb"client-certificate-data: *([A-Za-z0-9+/=]+)")
UNREADABLE = datetime(1970, 1, 1, tzinfo=UTC)
"""When a certificate that cannot be read is said to have ended: the next renewal replaces it."""


def earliest_end(paths: Paths) -> datetime | None:
    """Return the first instant (UTC) at which one of them ends, None when there are none."""
    found = [_end(paths.kubernetes / name) for name in (*_FILES, *_KUBECONFIGS)]
    return min((it for it in found if it is not None), default=None)


def _end(path: Path) -> datetime | None:
    try:
        data = path.read_bytes()
        if path.suffix == ".conf":
            match = _DATA.search(data)
            if match is None:
                # A kubeconfig with a token or a file of its own: not kubeadm's.
                return None
            data = base64.b64decode(match[1], validate=True)
        return x509.load_pem_x509_certificate(data).not_valid_after_utc
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return UNREADABLE
