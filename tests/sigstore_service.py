"""A Sigstore service on loopback that speaks the real wire protocols, backed by a local instance's own code.

OIDC issuer (discovery, keys, tokens), Fulcio v2 `signingCert`, Rekor v1 `log/entries`, Rekor v2 `log/entries`, and an
RFC 3161 timestamp authority. It checks what the real ones check: the token's signature, audience and times against the
issuer's published keys, the CSR's signature, and that what is logged was signed by the certificate that comes with it.
"""

import base64
import hashlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from jwt.algorithms import ECAlgorithm

from kubenode.image.sigstore_local import Instance, create, load
from kubenode.image.sigstore_local_entry import RekorVersion, canonical, dsse_body, hashedrekord_body, pae


class Refused(Exception):
    """A request that the service does not serve: HTTP status and message."""


class Service:
    """The services of one instance; `break_with` maps a path to (status, body) that is answered instead."""

    def __init__(self, directory: Path, url: str) -> None:
        self.instance: Instance = load(directory)
        self.directory = directory
        self.url = url
        self.requests: list[str] = []
        self.break_with: dict[str, tuple[int, bytes]] = {}
        self.silent = threading.Event()
        """While set, requests are received and not answered."""
        self._key = ec.generate_private_key(ec.SECP256R1())

    def token(self, subject: str, *, age: timedelta = timedelta(), **claims: Any) -> str:
        """Return an OIDC identity token, valid for ten minutes from `age` ago."""
        begin = datetime.now(UTC) - age
        end = begin + timedelta(minutes=10)
        content = {"iss": self.instance.issuer, "sub": subject, "aud": "sigstore", "iat": begin, "exp": end}
        return jwt.encode(content | claims, self._key, algorithm="ES256", headers={"kid": "1"})

    def trust_config(self, **changes: Any) -> bytes:
        """Return the ClientTrustConfig that names these services."""

        def service(path: str, version: int) -> dict[str, Any]:
            begin = self.instance.begin.strftime("%Y-%m-%dT%H:%M:%SZ")
            valid = {"start": begin}
            return {"url": self.url + path, "majorApiVersion": version, "validFor": valid, "operator": "test"}

        signing = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service("", 1)],
            "oidcUrls": [service("", 1)],
            "rekorTlogUrls": [service("", self.instance.rekor)],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [service("/api/v1/timestamp", 1)],
            "tsaConfig": {"selector": "ANY"},
        }
        config = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": json.loads((self.directory / "trusted_root.json").read_bytes()),
            "signingConfig": signing | changes,
        }
        return json.dumps(config).encode()

    def answer(self, path: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        """Return (status, content type, body)."""
        self.requests.append(path)
        if path in self.break_with:
            status, content = self.break_with[path]
            return status, "application/json", content
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            match path:
                case "/.well-known/openid-configuration":
                    return _json({"issuer": self.instance.issuer, "jwks_uri": f"{self.url}/keys"})
                case "/keys":
                    key = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
                    return _json({"keys": [key | {"kid": "1", "use": "sig", "alg": "ES256"}]})
                case "/api/v2/signingCert":
                    return self._certificate(json.loads(body), headers.get("Authorization", ""), now)
                case "/api/v1/log/entries" if self.instance.rekor == 1:
                    return self._rekor_v1(json.loads(body), now)
                case "/api/v2/log/entries" if self.instance.rekor == 2:
                    return self._rekor_v2(json.loads(body), now)
                case "/api/v1/timestamp":
                    digest, nonce = _read_timestamp_query(body)
                    stamp = self.instance.timestamp(digest, now, nonce)
                    return 200, "application/timestamp-reply", stamp
            raise Refused(404, f"nothing at {path}")
        except Refused as refusal:
            status, message = refusal.args
            return status, "application/json", json.dumps({"code": 3, "message": message}).encode()

    def _certificate(self, request: dict[str, Any], bearer: str, now: datetime) -> tuple[int, str, bytes]:
        subject = self._authenticated(bearer.removeprefix("Bearer "))
        csr = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        key = csr.public_key()
        if not csr.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise Refused(400, "the certificate signing request does not prove possession of its key")
        leaf = self.instance.certify(key, subject, now)
        chain = [leaf, self.instance.certs["ca"], self.instance.certs["ca-root"]]
        pems = [certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in chain]
        return _json({"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}}, 201)

    def _authenticated(self, token: str) -> str:
        with urllib.request.urlopen(f"{self.url}/.well-known/openid-configuration", timeout=10) as answer:
            keys_url = json.load(answer)["jwks_uri"]
        with urllib.request.urlopen(keys_url, timeout=10) as answer:
            key = ECAlgorithm.from_jwk(json.load(answer)["keys"][0])
        try:
            claims = jwt.decode(token, key, algorithms=["ES256"], audience="sigstore", issuer=self.instance.issuer)
        except jwt.InvalidTokenError as error:
            raise Refused(401, f"There was an error processing the identity token: {error}") from None
        return str(claims["sub"])

    def _rekor_v1(self, request: dict[str, Any], now: datetime) -> tuple[int, str, bytes]:
        if (request["kind"], request["apiVersion"]) != ("dsse", "0.0.1"):
            raise Refused(400, "this log takes dsse 0.0.1")
        proposed = request["spec"]["proposedContent"]
        envelope = json.loads(proposed["envelope"])
        leaf = x509.load_pem_x509_certificate(base64.b64decode(proposed["verifiers"][0]))
        payload, signature = (base64.b64decode(it) for it in (envelope["payload"], envelope["signatures"][0]["sig"]))
        _check(leaf, signature, hashlib.sha256(pae(envelope["payloadType"], payload)).digest())
        envelope_hash = hashlib.sha256(proposed["envelope"].encode()).hexdigest()
        body = dsse_body(envelope_hash, hashlib.sha256(payload).hexdigest(), signature, leaf)
        entry = self.instance.enter(body, now)
        proof = entry["inclusionProof"]
        found = {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry["integratedTime"]),
            "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
            "logIndex": int(entry["logIndex"]),
            "verification": {
                "inclusionProof": {
                    "checkpoint": proof["checkpoint"]["envelope"],
                    "hashes": [base64.b64decode(it).hex() for it in proof["hashes"]],
                    "logIndex": int(proof["logIndex"]),
                    "rootHash": base64.b64decode(proof["rootHash"]).hex(),
                    "treeSize": int(proof["treeSize"]),
                },
                "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            },
        }
        return _json({hashlib.sha256(b"\0" + body).hexdigest(): found}, 201)

    def _rekor_v2(self, request: dict[str, Any], now: datetime) -> tuple[int, str, bytes]:
        record = request["hashedRekordRequestV002"]
        signature = base64.b64decode(record["signature"]["content"])
        verifier = record["signature"]["verifier"]
        leaf = x509.load_der_x509_certificate(base64.b64decode(verifier["x509Certificate"]["rawBytes"]))
        digest = base64.b64decode(record["digest"])
        _check(leaf, signature, digest)
        return _json(self.instance.enter(hashedrekord_body(digest, signature, leaf), now), 201)


def _check(leaf: x509.Certificate, signature: bytes, digest: bytes) -> None:
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        raise Refused(400, "the signature does not verify") from None


def _json(value: object, status: int = 200) -> tuple[int, str, bytes]:
    return status, "application/json", canonical(value)


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content) of the DER values in a string of them."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            width = size & 0x7F
            size, at = int.from_bytes(der[at : at + width], "big"), at + width
        yield tag, der[at : at + size]
        at += size


def _read_timestamp_query(der: bytes) -> tuple[bytes, int | None]:
    """Return the sha256 digest and the nonce of a TimeStampReq (RFC 3161 section 2.4.1)."""
    ((_, request),) = _values(der)
    _version, (_, imprint), *optional = _values(request)
    (_, _algorithm), (_, digest) = _values(imprint)
    nonces = [int.from_bytes(content, "big", signed=True) for tag, content in optional if tag == 0x02]
    return digest, nonces[0] if nonces else None


@contextmanager
def serving(directory: Path, *, rekor: RekorVersion = 1, issuer: str | None = None) -> Iterator[Service]:
    """Make an instance in a new directory and serve it on a port of 127.0.0.1 while the context lasts.

    `issuer` is the name of its OIDC issuer, the service's own address if None; its keys are there in either case.
    """

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if service.silent.is_set():
                stopped.wait()
                return
            status, kind, content = service.answer(self.path, body, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    stopped = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        url = f"http://127.0.0.1:{server.server_port}"
        create(directory, issuer=issuer or url, now=datetime.now(UTC), rekor=rekor)
        service = Service(directory, url)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield service
        finally:
            stopped.set()
            server.shutdown()
