"""What a local instance writes into bundles about its log: entry bodies of Rekor v1 and v2, and the entry itself.

Formats: Rekor v1 `dsse` 0.0.1 (https://github.com/sigstore/rekor, pkg/types/dsse), Rekor v2 `hashedrekord` 0.0.2 over
the DSSE pre-authentication encoding (https://github.com/sigstore/rekor-tiles, hashedrekord.proto).
"""

import base64
import hashlib
import json
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from kubenode.image.sigstore_local_log import LoggedEntry

RekorVersion = Literal[1, 2]
KINDS: dict[RekorVersion, dict[str, str]] = {
    1: {"kind": "dsse", "version": "0.0.1"},
    2: {"kind": "hashedrekord", "version": "0.0.2"},
}


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature covers (https://github.com/secure-systems-lab/dsse, protocol.md)."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def dsse_body(envelope_hash: str, payload_hash: str, signature: bytes, leaf: x509.Certificate) -> bytes:
    """Return the canonical body of a Rekor v1 `dsse` 0.0.1 entry; the hashes are sha256, 64 hex digits."""
    verifier = leaf.public_bytes(serialization.Encoding.PEM)
    return canonical(
        {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": envelope_hash},
                "payloadHash": {"algorithm": "sha256", "value": payload_hash},
                "signatures": [{"signature": b64(signature), "verifier": b64(verifier)}],
            },
        }
    )


def hashedrekord_body(digest: bytes, signature: bytes, leaf: x509.Certificate) -> bytes:
    """Return the canonical body of a Rekor v2 `hashedrekord` 0.0.2 entry; `digest` is the sha256 of what was signed."""
    verifier = {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": b64(der(leaf))}}
    record = {
        "data": {"algorithm": "SHA2_256", "digest": b64(digest)},
        "signature": {"content": b64(signature), "verifier": verifier},
    }
    return canonical({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": record}})


def body_of(
    version: RekorVersion, envelope: dict[str, Any], payload: bytes, signature: bytes, leaf: x509.Certificate
) -> bytes:
    """Return the entry body for a DSSE envelope with one signature over `payload`."""
    if version == 2:
        return hashedrekord_body(hashlib.sha256(pae(envelope["payloadType"], payload)).digest(), signature, leaf)
    envelope_hash = hashlib.sha256(canonical(envelope)).hexdigest()
    return dsse_body(envelope_hash, hashlib.sha256(payload).hexdigest(), signature, leaf)


def tlog_entry(version: RekorVersion, body: bytes, entry: LoggedEntry, log_id: bytes) -> dict[str, Any]:
    """Return a bundle's TransparencyLogEntry; those of Rekor v2 carry no time, and no promise that would vouch for it.

    https://github.com/sigstore/protobuf-specs, sigstore_rekor.proto.
    """
    found: dict[str, Any] = {
        "logIndex": str(entry.index),
        "logId": {"keyId": b64(log_id)},
        "kindVersion": KINDS[version],
        "inclusionProof": {
            "logIndex": str(entry.index),
            "rootHash": b64(entry.root_hash),
            "treeSize": str(entry.tree_size),
            "hashes": [b64(node) for node in entry.path],
            "checkpoint": {"envelope": entry.checkpoint},
        },
        "canonicalizedBody": b64(body),
    }
    if version == 1:
        found["integratedTime"] = str(entry.integrated_time)
        found["inclusionPromise"] = {"signedEntryTimestamp": b64(entry.signed_entry_timestamp)}
    return found


def canonical(value: object) -> bytes:
    """Return JSON with sorted keys and no white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def b64(data: bytes) -> str:
    """Return base64 (RFC 4648 section 4)."""
    return base64.b64encode(data).decode()


def der(certificate: x509.Certificate) -> bytes:
    """Return the DER encoding of a certificate."""
    return certificate.public_bytes(serialization.Encoding.DER)
