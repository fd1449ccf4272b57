"""Who built a release: a manifest, its Sigstore bundle and the pinned digest in, a `VerifiedRelease` out, offline.

`sigstore` is imported only when a release is verified: it costs about half a second and 55 MB.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from kubenode.errors import Untrusted
from kubenode.model.version import Version
from kubenode.trust.authorities import check_authorities
from kubenode.trust.bundleerrors import first_line, refusal_of
from kubenode.trust.bundleshape import Shape, check_shape
from kubenode.trust.manifest import Artifact, Manifest, parse
from kubenode.trust.policy import Builder
from kubenode.trust.reasons import Reason
from kubenode.trust.strictjson import short, strict_json

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootMessage

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""DSSE payload type of in-toto statements (in-toto attestation framework, envelope v1)."""

MAX_BUNDLE_BYTES = 4 << 20
MAX_TRUSTED_ROOT_BYTES = 4 << 20


@final
class _Proof:
    """Only this module holds an instance; that is what makes a `VerifiedRelease` proof of verification."""


_PROOF: Final = _Proof()


@final
@dataclass(frozen=True)
class VerifiedRelease:
    """A release whose manifest is pinned in git and signed by an accepted builder; only `verify_release` makes one."""

    manifest: Manifest
    manifest_sha256: str
    builder: Builder
    proof: InitVar[_Proof] = field(kw_only=True)

    def __post_init__(self, proof: _Proof) -> None:
        """Raise TypeError when anything but `verify_release` constructs a release."""
        if proof is not _PROOF:
            raise TypeError("only kubenode.trust.bundle.verify_release makes a VerifiedRelease")


def verify_release(
    manifest_bytes: bytes,
    bundle_bytes: bytes,
    *,
    expected_manifest_sha256: str,
    trusted_root_json: bytes,
    builders: Sequence[Builder],
    version: str | Version,
) -> VerifiedRelease:
    """Verify one release without network, files or questions to anybody.

    `expected_manifest_sha256` (64 hex digits) and `version` come from the trusted commit, `builders` from its policy,
    `trusted_root_json` is the trusted_root.json of the Sigstore instance that the fleet uses. Checked in this order,
    each with its own reason: the pinned digest (ManifestDigestMismatch); the bundle: certificate chain, embedded SCT,
    log inclusion, signed time, signature (a reason for each part) and the signer (BuilderNotAllowed); that it is the
    manifest which was signed (WrongPayloadType, BundlePayloadMismatch); the types of statement and predicate
    (WrongStatementType, WrongPredicateType); the content (ManifestInvalid, SubjectMissing, SubjectExtra,
    ProvenanceInvalid, ProvenanceMismatch); the version (ReleaseMismatch). Raise Untrusted, nothing else.
    """
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    if digest != expected_manifest_sha256:
        raise Untrusted(
            Reason.MANIFEST_DIGEST_MISMATCH,
            f"the manifest's sha256 is {digest}, the fleet repo pins {expected_manifest_sha256}",
            subject=str(version),
            hint="a store serves another manifest than the one that was approved; publish the approved one again",
        )
    payload_type, payload, builder = _verify_bundle(bundle_bytes, trusted_root_json, builders, str(version))
    if payload_type != PAYLOAD_TYPE:
        raise Untrusted(
            Reason.PAYLOAD_TYPE,
            f"the bundle signs a payload of type {short(payload_type)}, not an in-toto statement",
            subject=str(version),
            hint=f"the payload type must be {PAYLOAD_TYPE}",
        )
    if payload != manifest_bytes:
        raise Untrusted(
            Reason.BUNDLE_PAYLOAD_MISMATCH,
            "the bundle is valid, but it signs another manifest",
            subject=str(version),
            hint="manifest and bundle must come from the same build",
        )
    manifest = parse(manifest_bytes)
    if str(manifest.version) != str(version):
        raise Untrusted(
            Reason.RELEASE_MISMATCH,
            f"the manifest is of version {manifest.version}, the fleet repo says {version}",
            subject=str(version),
        )
    return VerifiedRelease(manifest, digest, builder, proof=_PROOF)


class _BuilderPolicy:
    """A sigstore verification policy: one of the builders signed, by identity and by both issuer extensions."""

    def __init__(self, builders: Sequence[Builder]) -> None:
        self._builders = builders
        self.builder: Builder | None = None

    def verify(self, cert: "Certificate") -> None:
        """Remember the builder that signed. Raise Untrusted(BuilderNotAllowed) when it is none of the accepted."""
        from sigstore.verify import policy

        for builder in self._builders:
            try:
                # `Identity` compares the issuer of OID .1.1 (raw text), `OIDCIssuerV2` that of .1.8 (DER): readers
                # differ in which they look at, so both must say the same.
                policy.Identity(identity=builder.identity, issuer=builder.issuer).verify(cert)
                policy.OIDCIssuerV2(builder.issuer).verify(cert)
            except Exception:
                # Not this one. Extensions with unexpected content raise many kinds of errors.
                continue
            self.builder = builder
            return
        accepted = ", ".join(f"{b.identity!r} (by {b.issuer!r})" for b in self._builders) or "nobody"
        raise Untrusted(
            Reason.BUILDER_NOT_ALLOWED,
            f"the release was signed by {_signer(cert)}; accepted is {accepted}",
            hint="builders are listed per channel in trust/policy.yaml: add this one if it may build, else do not use "
            "the release",
        )


def _signer(cert: "Certificate") -> str:
    """Return what a certificate says about its owner, for a message only."""
    from cryptography import x509

    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = cert.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")).value
        who = ", ".join(repr(name.value) for name in names)
        by = repr(issuer.value.decode()) if isinstance(issuer, x509.UnrecognizedExtension) else "an unknown issuer"
    except Exception:
        return "somebody without a readable identity"
    return f"{who} (by {by})"


def claimed_signer(bundle_bytes: bytes) -> str:
    """Return who a bundle says has signed it, for people to read: nothing of it is verified. Raise nothing."""
    from cryptography import x509

    try:
        decoded: Any = strict_json(bundle_bytes, MAX_BUNDLE_BYTES, Reason.BUNDLE_INVALID, "the bundle")
        raw = base64.b64decode(decoded["verificationMaterial"]["certificate"]["rawBytes"])
        return _signer(x509.load_der_x509_certificate(raw))
    except Exception:
        return "nobody that can be read"


def _verify_bundle(
    bundle_bytes: bytes, trusted_root_json: bytes, builders: Sequence[Builder], subject: str
) -> tuple[str, bytes, Builder]:
    """Return (payload type, payload, builder) of a bundle that verifies. Raise Untrusted, nothing else."""
    policy = _BuilderPolicy(builders)
    root = _root(trusted_root_json)
    try:
        decoded = strict_json(bundle_bytes, MAX_BUNDLE_BYTES, Reason.BUNDLE_INVALID, "the bundle")
        shape = check_shape(decoded)
        payload_type, payload = _verify_signature(decoded, shape, root, policy)
    except Untrusted as refusal:
        refusal.subject = refusal.subject or subject
        raise
    if policy.builder is None:
        raise Untrusted(Reason.BUILDER_NOT_ALLOWED, "the bundle's signer was not checked", subject=subject)
    return payload_type, payload, policy.builder


def _verify_signature(
    decoded: object, shape: Shape, root: "TrustedRootMessage", policy: _BuilderPolicy
) -> tuple[str, bytes]:
    """Return (payload type, payload). Raise Untrusted, nothing else."""
    from sigstore.errors import MetadataError
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier

    try:
        # Written again from what was checked, so that sigstore's reader of JSON sees nothing that ours did not see.
        bundle = Bundle.from_json(json.dumps(decoded))
        check_authorities(bundle, shape, root)
        verifier = Verifier(trusted_root=TrustedRoot(root))
        signed = verifier.verify_dsse(bundle, policy)
        if root.timestamp_authorities and shape.log_time:
            verifier.verify_dsse(Bundle.from_json(_without_promises(decoded)), policy)
        return signed
    except Untrusted:
        raise
    except MetadataError as error:
        # It looks for authorities whose validity has begun, by this machine's clock, and found none of a kind.
        raise Untrusted(
            Reason.TRUSTED_ROOT_NOT_YET_VALID,
            f"nothing in the Sigstore trusted root is valid yet by this machine's clock: {first_line(error)}",
            hint="correct this machine's clock, or validFor in trust/sigstore/trusted_root.json",
        ) from None
    except BaseException as error:
        # Everything, on purpose: sigstore raises VerificationError and the unrelated InvalidBundle, the libraries below
        # it raise ValueError, KeyError, TypeError and more for hostile bytes, and a panic in their Rust code arrives
        # as a BaseException. Whatever it is, this bundle did not verify.
        if not _is_about_input(error):
            raise
        raise refusal_of(error) from None


def _is_about_input(error: BaseException) -> bool:
    """Say whether an error speaks about what was read; KeyboardInterrupt and the like do not."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _without_promises(bundle: object) -> str:
    """Return a bundle without its log's signed entry timestamps, so that only an RFC 3161 timestamp can prove the time.

    sigstore takes either proof of time and silently passes over a timestamp that does not verify when the log vouches
    for the time as well: whoever holds the log's key could backdate alone, and a damaged timestamp would go unnoticed.
    Where the trusted root names timestamp authorities, a bundle must verify with and without the log's word.
    """
    copy: Any = json.loads(json.dumps(bundle))
    for entry in copy["verificationMaterial"]["tlogEntries"]:
        entry.pop("inclusionPromise", None)
    return json.dumps(copy)


def _root(trusted_root_json: bytes) -> "TrustedRootMessage":
    """Return a trusted root from memory (no TUF, no files, no network). Raise Untrusted(TrustedRootInvalid)."""
    strict_json(trusted_root_json, MAX_TRUSTED_ROOT_BYTES, Reason.TRUSTED_ROOT_INVALID, "the trusted root")
    from sigstore.errors import MetadataError
    from sigstore.models import TrustedRoot
    from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootMessage

    try:
        # `TrustedRoot.from_file` does exactly this after reading its file.
        message = TrustedRootMessage.from_json(trusted_root_json)
        # Otherwise read late, inside verify_dsse, where a broken root would look like a broken bundle.
        TrustedRoot(message).get_timestamp_authorities()
        TrustedRoot(message).get_fulcio_certs()
    except MetadataError:
        pass  # There is none, which is looked at below, or none is valid yet by this clock: `_verify_signature`.
    except BaseException as error:
        if not _is_about_input(error):
            raise
        raise _bad_root(first_line(error)) from None
    for kind in ("tlogs", "ctlogs", "certificate_authorities"):
        if not getattr(message, kind):
            raise _bad_root(f"it names no {kind.replace('_', ' ')}")
    ranges = [log.public_key.valid_for for log in (*message.tlogs, *message.ctlogs)]
    ranges += [it.valid_for for it in (*message.certificate_authorities, *message.timestamp_authorities)]
    if any(at is not None and at.tzinfo is None for it in ranges if it is not None for at in (it.start, it.end)):
        raise _bad_root("a validFor has no time zone")
    return message


def _bad_root(what: str) -> Untrusted:
    return Untrusted(
        Reason.TRUSTED_ROOT_INVALID,
        f"the Sigstore trusted root is not usable: {what}",
        hint="put the trusted_root.json of your Sigstore instance into the fleet repo as "
        "trust/sigstore/trusted_root.json",
    )


class ArtifactVerifier:
    """Checks an artifact while it streams by: feed every byte to `update`, in order, then call `finish`."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes seen so far."""
        return self._size

    def update(self, chunk: bytes) -> None:
        """Take the next bytes. Raise Untrusted(ArtifactSizeMismatch) as soon as there are more than were signed."""
        self._size += len(chunk)
        if self._size > self._artifact.size:
            raise self._wrong_size(f"more than {self._artifact.size}")
        self._hash.update(chunk)

    def finish(self) -> None:
        """Raise Untrusted with ArtifactSizeMismatch when bytes are missing, ArtifactDigestMismatch when they differ."""
        if self._size != self._artifact.size:
            raise self._wrong_size(str(self._size))
        digest = self._hash.hexdigest()
        if digest != self._artifact.sha256:
            raise Untrusted(
                Reason.ARTIFACT_DIGEST,
                f"{self._artifact.name} has the sha256 {digest}, signed is {self._artifact.sha256}",
                subject=self._artifact.name,
            )

    def _wrong_size(self, found: str) -> Untrusted:
        return Untrusted(
            Reason.ARTIFACT_SIZE,
            f"{self._artifact.name} has {found} bytes, signed are {self._artifact.size}",
            subject=self._artifact.name,
        )
