"""A local Sigstore instance in a directory, for builders without access to a Sigstore service.

A certificate authority with embedded SCTs, a transparency log, a timestamp authority and the `trusted_root.json` by
which the usual clients (sigstore-python, sigstore-go, cosign) verify its bundles offline. What it proves and what it
does not: docs/sigstore.md.

    trusted_root.json    public; belongs into the fleet repo as trust/sigstore/trusted_root.json
    instance.json        issuer, host and tree id of the log
    certs/*.pem          public certificates
    keys/*.pem           private keys, mode 0600 (the keys of the two root certificates are thrown away)
    log/                 entries.jsonl, checkpoint, lock
"""

import hashlib
import json
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kubenode.errors import HostError, UsageError
from kubenode.host.files import sync_folder
from kubenode.image import sigstore_local_x509 as certificates
from kubenode.image.sigstore_local_entry import KINDS, RekorVersion, b64, body_of, canonical, der, pae, tlog_entry
from kubenode.image.sigstore_local_files import readable_errors, write_durably
from kubenode.image.sigstore_local_log import Log, key_id, spki
from kubenode.image.sigstore_local_tsa import timestamp
from kubenode.trust.bundle import PAYLOAD_TYPE

LIFETIME = timedelta(days=3652)
_SKEW = timedelta(hours=1)
_KEYS = ("ca", "ct", "log", "tsa")
_CERTS = ("ca", "ca-root", "tsa", "tsa-root")


def create(directory: Path, *, issuer: str, now: datetime, rekor: RekorVersion = 1) -> Path:
    """Create an instance, valid for 10 years, and return the path of its `trusted_root.json`.

    `issuer` is the URL written into certificates as the OIDC issuer, for the policy's builder lists; it need not
    exist. `now` is aware. `rekor` is the version of Rekor whose entries its log has. The directory appears complete or
    not at all. Raise UsageError when it is there already and not empty or the issuer is no URL, HostError when it
    cannot be written.
    """
    host = _log_host(issuer)
    begin = _aware(now) - _SKEW  # A node's clock may be behind the builder's.
    with readable_errors(f"creating the Sigstore instance {directory}"):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{directory} exists already", hint="choose a new directory, or remove this one first")
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            _fill(temporary, issuer=issuer, host=host, begin=begin, rekor=rekor)
            temporary.rename(directory)
            sync_folder(directory.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return directory / "trusted_root.json"


def sign(directory: Path, statement: bytes, identity: str, now: datetime) -> bytes:
    """Sign an in-toto statement as `identity` (an email or a URI) and return a Sigstore bundle v0.3 (JSON).

    The signing key is made for this one signature and thrown away, its certificate lives 10 minutes from `now` (aware).
    Raise UsageError when `directory` holds no instance or the identity cannot stand in a certificate, HostError when
    the instance has expired, is damaged or cannot be written.
    """
    at = _aware(now).replace(microsecond=0)
    with readable_errors(f"signing with the Sigstore instance {directory}"):
        instance = load(directory)
        if not instance.begin <= at <= instance.end:
            raise HostError(
                f"the Sigstore instance {directory} is valid from {instance.begin} to {instance.end}, not at {at}",
                hint="check the clock, or create a new instance and add its trusted root to the fleet repo",
            )
        return instance.bundle(statement, identity, Times(at, at, at))


@dataclass(frozen=True)
class Times:
    """When a bundle's certificate begins, when it is timestamped, when it is logged."""

    issued: datetime
    stamped: datetime
    logged: datetime


@dataclass(frozen=True)
class Instance:
    """An instance with its keys, as `load` returns it; `sign` is all that a builder needs."""

    issuer: str
    keys: dict[str, ec.EllipticCurvePrivateKey]
    certs: dict[str, x509.Certificate]
    log: Log
    rekor: RekorVersion = 1

    @property
    def begin(self) -> datetime:
        """The first instant at which it may sign."""
        return self.certs["ca"].not_valid_before_utc

    @property
    def end(self) -> datetime:
        """The last instant at which it may sign."""
        return self.certs["ca"].not_valid_after_utc

    def certify(self, key: ec.EllipticCurvePublicKey, identity: str, at: datetime) -> x509.Certificate:
        """Issue a signer's certificate. Raise UsageError when the identity cannot stand in one."""
        ca, ca_key, ct_key = self.certs["ca"], self.keys["ca"], self.keys["ct"]
        try:
            return certificates.issue_leaf(key, ca, ca_key, ct_key, identity=identity, issuer=self.issuer, at=at)
        except ValueError as error:
            raise UsageError(
                f"{identity!r} cannot be the identity of a signer: {error}",
                hint="Write an e-mail address or a URI, as spec.builders of trust/policy.yaml does.",
            ) from None

    def timestamp(self, digest: bytes, at: datetime, nonce: int | None = None) -> bytes:
        """Return an RFC 3161 timestamp response (DER) over the sha256 of something, with the requester's nonce."""
        serial = x509.random_serial_number()
        return timestamp(digest, at, self.certs["tsa"], self.keys["tsa"], serial=serial, nonce=nonce)

    def enter(self, body: bytes, at: datetime) -> dict[str, Any]:
        """Append an entry to the log and return it as bundles hold it."""
        return tlog_entry(self.rekor, body, self.log.append(body, at), key_id(self.keys["log"].public_key()))

    def bundle(self, statement: bytes, identity: str, times: Times, payload_type: str = PAYLOAD_TYPE) -> bytes:
        """Return a bundle. With times other than one instant it may not verify; the tests use that."""
        key = certificates.new_key()
        leaf = self.certify(key.public_key(), identity, times.issued)
        signature = key.sign(pae(payload_type, statement), ec.ECDSA(hashes.SHA256()))
        envelope = {
            "payload": b64(statement),
            "payloadType": payload_type,
            "signatures": [{"sig": b64(signature)}],
        }
        stamp = self.timestamp(hashlib.sha256(signature).digest(), times.stamped)
        entry = self.enter(body_of(self.rekor, envelope, statement, signature, leaf), times.logged)
        return canonical(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {
                    "certificate": {"rawBytes": b64(der(leaf))},
                    "tlogEntries": [entry],
                    "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": b64(stamp)}]},
                },
                "dsseEnvelope": envelope,
            }
        )


def load(directory: Path) -> Instance:
    """Read an instance. Raise UsageError when there is none, HostError when a file of it is damaged."""
    description = directory / "instance.json"
    if not description.is_file():
        raise UsageError(
            f"{directory} holds no local Sigstore instance", hint="create one with `kubenode trust local-sigstore`"
        )
    try:
        settings = json.loads(description.read_bytes())
        keys = {name: _load_key(directory / "keys" / f"{name}.pem") for name in _KEYS}
        certs = {
            name: x509.load_pem_x509_certificate((directory / "certs" / f"{name}.pem").read_bytes()) for name in _CERTS
        }
        rekor = settings.get("rekor", 1)
        if rekor not in KINDS:
            raise ValueError(f"it has entries of Rekor v{rekor}, of which this version knows nothing")
        tree_id = int(settings["treeId"]) if rekor == 1 else None
        log = Log(directory / "log", host=settings["host"], tree_id=tree_id, key=keys["log"])
        return Instance(settings["issuer"], keys, certs, log, rekor)
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            f"the Sigstore instance {directory} is damaged: {error}",
            hint="Restore it from your backup; a new instance needs its trusted_root.json in the fleet repo.",
        ) from None


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is not an ECDSA key")
    return key


def _fill(directory: Path, *, issuer: str, host: str, begin: datetime, rekor: RekorVersion) -> None:
    end = begin + LIFETIME
    keys = {name: certificates.new_key() for name in _KEYS}
    certs: dict[str, x509.Certificate] = {}
    for name, what, issue in (
        ("ca", "certificate authority", certificates.issue_intermediate),
        ("tsa", "timestamp authority", certificates.issue_timestamper),
    ):
        # The root's key signs this one certificate and is forgotten: nobody can steal it.
        root_key = certificates.new_key()
        root = certificates.issue_root(certificates.name(f"{what} root", host), root_key, begin, end)
        certs[f"{name}-root"] = root
        certs[name] = issue(certificates.name(what, host), keys[name].public_key(), root, root_key)
    for folder in ("keys", "certs", "log"):
        (directory / folder).mkdir(mode=0o700)
    for name, key in keys.items():
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_durably(directory / "keys" / f"{name}.pem", pem, 0o600)
    for name, certificate in certs.items():
        write_durably(directory / "certs" / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))
    settings = {"version": 1, "issuer": issuer, "host": host, "treeId": str(secrets.randbits(62)), "rekor": rekor}
    write_durably(directory / "trusted_root.json", json.dumps(_trusted_root(host, keys, certs), indent=2).encode())
    write_durably(directory / "instance.json", json.dumps(settings, indent=2).encode())
    for folder in ("keys", "certs", "log", "."):
        sync_folder(directory / folder)


def _trusted_root(
    host: str, keys: dict[str, ec.EllipticCurvePrivateKey], certs: dict[str, x509.Certificate]
) -> dict[str, Any]:
    """Return a trusted root v0.1 (https://github.com/sigstore/protobuf-specs, sigstore_trustroot.proto)."""
    url = f"https://{host}"
    valid = {
        "start": certs["ca"].not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end": certs["ca"].not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }

    def log(name: str, base_url: str) -> dict[str, Any]:
        public = keys[name].public_key()
        return {
            "baseUrl": base_url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {"rawBytes": b64(spki(public)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid},
            "logId": {"keyId": b64(key_id(public))},
        }

    def authority(name: str, path: str) -> dict[str, Any]:
        chain = [certs[name], certs[f"{name}-root"]]
        return {
            "subject": {"organization": host, "commonName": path},
            "uri": f"{url}/{path}",
            "certChain": {"certificates": [{"rawBytes": b64(der(certificate))} for certificate in chain]},
            "validFor": valid,
        }

    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        # Verifiers compare this host with the one in the checkpoint.
        "tlogs": [log("log", url)],
        "certificateAuthorities": [authority("ca", "ca")],
        "ctlogs": [log("ct", f"{url}/ct")],
        "timestampAuthorities": [authority("tsa", "tsa")],
    }


def _log_host(issuer: str) -> str:
    try:
        parts = urlsplit(issuer)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not host or not issuer.isascii():
        raise UsageError(f"{issuer!r} is not an issuer", hint="give a URL such as https://issuer.example.net")
    return f"log.{host}"


def _aware(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise ValueError("the time needs a time zone")
    return now.astimezone(UTC)
