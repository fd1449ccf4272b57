"""head.json for tests, signed in this process."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from kubenode.trust import headfile
from tests.gitrepo import SigningKey, sign_in_process

FLEET = "6f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11"
ISSUED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def stamp(
    head: str,
    serial: int,
    *keys: SigningKey,
    issued: datetime = ISSUED,
    holds: timedelta = timedelta(days=30),
    fleet_id: str = FLEET,
    namespace: str = headfile.NAMESPACE,
) -> bytes:
    """Return a head.json, unsigned without keys."""
    return envelope(headfile.payload(fleet_id, head, serial, issued, issued + holds), keys, namespace)


def envelope(payload: bytes, keys: Sequence[SigningKey], namespace: str = headfile.NAMESPACE) -> bytes:
    """Sign any payload as a head.json."""
    message = headfile.signed_bytes(payload)
    signed = [(key.key.fingerprint, sign_in_process(key, message, namespace=namespace)) for key in keys]
    return headfile.envelope(payload, signed)
