"""The agent's own client certificate: asked for as the kubelet, approved by a control plane, kept below the state.

The key is made here and never leaves this machine. Each step may be killed anywhere: a request is named after its key,
so it is found again, and the certificate replaces the old one in one file together with its key.
"""

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubenode.errors import HostError
from kubenode.host.files import make_folder, write_atomically
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, NotFound
from kubenode.host.kube.names import REQUESTS
from kubenode.host.kube.reading import Object, items, text
from kubenode.plan.kubernetes.requests import AGENTS, CLIENT_SIGNER, agent_user, pool_group

_LIFETIME = 30 * 24 * 3600
"""Seconds; API servers before 1.22 ignore it and give what their controller manager is set to (a year)."""
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Identity:
    """A certificate and its key (PEM), in force until `until` (UTC)."""

    certificate: bytes
    key: bytes
    until: datetime
    renew: datetime


class AgentIdentity:
    """Files `agent.pem` (in force) and `agent.pending.key` (asked for) below `folder`."""

    def __init__(self, folder: Path, node: str, pool: str) -> None:
        self._current = folder / "agent.pem"
        self._pending = folder / "agent.pending.key"
        self._node = node
        self._pool = pool

    def current(self, now: datetime) -> Identity | None:
        """Return the certificate when it is this node's, its pool's, in force, and fits its key."""
        try:
            return _read(self._current.read_bytes(), self._subject(), now)
        except (OSError, ValueError):
            return None

    def advance(self, kubelet: Api, now: datetime) -> str | None:
        """Do the next step towards a certificate that stays in force; return what is waited for, None when it is there.

        `kubelet` is the API as this node's kubelet. Raises TryLater, HostError.
        """
        mine = self.current(now)
        if mine is not None and now < mine.renew:
            return None
        key = self._pending_key()
        name = self._request_name(key)
        try:
            request = kubelet.get(path_of(REQUESTS, name))
        except NotFound:
            # A conflict: it was made by a tick of ours that was cut off before it saw the answer.
            with suppress(Conflict):
                kubelet.create(REQUESTS, self._request(name, key))
            return f"the certificate request {name} was made; a control plane has to approve it"
        for condition in items(request, "status", "conditions"):
            if text(condition, "type", default="") in ("Denied", "Failed"):
                self._pending.unlink(missing_ok=True)
                return f"the certificate request {name} was refused: {text(condition, 'message', default='')[:200]}"
        if not (encoded := text(request, "status", "certificate", default="")):
            return f"the certificate request {name} waits for a control plane"
        return self._install(key, encoded, now)

    def _install(self, key: ec.EllipticCurvePrivateKey, encoded: str, now: datetime) -> str | None:
        secret = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        try:
            pem = secret + base64.b64decode(encoded, validate=True)
            _read(pem, self._subject(), now)
        except ValueError as error:
            self._pending.unlink(missing_ok=True)
            raise HostError(
                f"the certificate that the cluster gave to the agent of {self._node} is not usable: {error}",
                hint="a new one is asked for; check the clocks of this node and of the control planes",
            ) from error
        write_atomically(self._current, pem)
        self._pending.unlink(missing_ok=True)
        return None

    def _pending_key(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self._pending.read_bytes(), None)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
        except (OSError, ValueError, TypeError):
            # Missing or torn: a new one is as good.
            pass
        fresh = ec.generate_private_key(ec.SECP256R1())
        make_folder(self._pending.parent)
        write_atomically(
            self._pending, fresh.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return fresh

    def _request_name(self, key: ec.EllipticCurvePrivateKey) -> str:
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return f"kubenode-agent-{self._node}-{hashlib.sha256(public + self._pool.encode()).hexdigest()[:16]}"

    def _request(self, name: str, key: ec.EllipticCurvePrivateKey) -> Object:
        csr = x509.CertificateSigningRequestBuilder().subject_name(self._subject()).sign(key, hashes.SHA256())
        return {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(csr.public_bytes(_PEM)).decode(),
                "signerName": CLIENT_SIGNER,
                "usages": ["digital signature", "client auth"],
                "expirationSeconds": _LIFETIME,
            },
        }

    def _subject(self) -> x509.Name:
        groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, it) for it in (AGENTS, pool_group(self._pool))]
        return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, agent_user(self._node))])


def _read(pem: bytes, subject: x509.Name, now: datetime) -> Identity:
    """Read key and certificate; raise ValueError unless they fit each other, the subject and the time."""
    key = serialization.load_pem_private_key(pem, None)
    begin = pem.find(b"-----BEGIN CERTIFICATE-----")
    certificate = x509.load_pem_x509_certificate(pem[max(begin, 0) :])
    if certificate.public_key() != key.public_key():
        raise ValueError("the certificate belongs to another key")
    if set(certificate.subject) != set(subject):
        raise ValueError(f"it is for {certificate.subject.rfc4514_string()[:200]}")
    start, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now < until:
        raise ValueError(f"it is in force from {start:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC")
    return Identity(pem[begin:], pem[:begin], until, start + (until - start) * 2 / 3)
