"""Who built a release: a manifest, its Sigstore bundle and the pinned digest in, a `VerifiedRelease` out, offline.

`sigstore` is imported only when a release is verified: it costs about half a second and 55 MB.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from kubenode.errors import Untrusted
from kubenode.model.version import Version
from kubenode.trust.manifest import Artifact, Manifest, parse, strict_json
from kubenode.trust.policy import Builder
from kubenode.trust.reasons import Reason

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier

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
    log inclusion, signed time, signature (BundleInvalid, TrustedRootInvalid) and the signer (BuilderNotAllowed); that
    it is the manifest which was signed (BundlePayloadMismatch); the predicate type (WrongPredicateType); the content
    (ManifestInvalid, SubjectMissing, SubjectExtra); the version (ReleaseMismatch). Raise Untrusted, nothing else.
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
            Reason.BUNDLE_PAYLOAD_MISMATCH,
            f"the bundle signs a payload of type {payload_type!r}, not an in-toto statement",
            subject=str(version),
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
            hint="builders are listed per channel in trust/policy.yaml",
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


def _verify_bundle(
    bundle_bytes: bytes, trusted_root_json: bytes, builders: Sequence[Builder], subject: str
) -> tuple[str, bytes, Builder]:
    """Return (payload type, payload, builder) of a bundle that verifies. Raise Untrusted, nothing else."""
    decoded = strict_json(bundle_bytes, MAX_BUNDLE_BYTES, Reason.BUNDLE_INVALID, "the bundle")
    from sigstore.models import Bundle

    policy = _BuilderPolicy(builders)
    verifier, timestamps_demanded = _verifier(trusted_root_json)
    try:
        payload_type, payload = verifier.verify_dsse(Bundle.from_json(bundle_bytes), policy)
        if timestamps_demanded:
            verifier.verify_dsse(Bundle.from_json(_without_promises(decoded)), policy)
    except Untrusted as refusal:
        refusal.subject = subject
        raise
    except BaseException as error:
        # Everything, on purpose: sigstore raises VerificationError and the unrelated InvalidBundle, the libraries below
        # it raise ValueError, KeyError, TypeError and more for hostile bytes, and a panic in their Rust code arrives
        # as a BaseException. Whatever it is, this bundle did not verify.
        raise _refusal(error, subject) from None
    if policy.builder is None:
        raise Untrusted(Reason.BUILDER_NOT_ALLOWED, "the bundle's signer was not checked", subject=subject)
    return payload_type, payload, policy.builder


def _refusal(error: BaseException, subject: str) -> BaseException:
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        return error  # KeyboardInterrupt and the like are not about the bundle.
    from sigstore.errors import CertValidationError, MetadataError

    if isinstance(error, MetadataError):
        return _bad_root(error)
    hint = ""
    if isinstance(error, CertValidationError):
        hint = "was it signed by the Sigstore instance whose trusted_root.json is in trust/sigstore/?"
    return Untrusted(
        Reason.BUNDLE_INVALID, f"the bundle does not verify: {_first_line(error)}", subject=subject, hint=hint
    )


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


def _verifier(trusted_root_json: bytes) -> "tuple[Verifier, bool]":
    """Return a sigstore Verifier for a trusted root in memory (no TUF, no files, no network).

    The second value says whether the root names timestamp authorities.
    """
    strict_json(trusted_root_json, MAX_TRUSTED_ROOT_BYTES, Reason.TRUSTED_ROOT_INVALID, "the trusted root")
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier
    from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootMessage

    try:
        # `TrustedRoot.from_file` does exactly this after reading its file.
        root = TrustedRoot(TrustedRootMessage.from_json(trusted_root_json))
        # Otherwise read late, inside verify_dsse, where a broken root would look like a broken bundle.
        authorities = root.get_timestamp_authorities()
        return Verifier(trusted_root=root), bool(authorities)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _bad_root(error) from None


def _bad_root(error: BaseException) -> Untrusted:
    return Untrusted(
        Reason.TRUSTED_ROOT_INVALID,
        f"the Sigstore trusted root is not usable: {_first_line(error)}",
        hint="trust/sigstore/trusted_root.json of the fleet repo; its validity must have begun by this machine's clock",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    # Messages quote hostile input: keep them short and printable.
    return text[:300].encode("ascii", "backslashreplace").decode()


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
