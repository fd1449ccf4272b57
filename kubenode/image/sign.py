"""Who signs a release: a local Sigstore instance, or a Sigstore service (the public one or a private one)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kubenode.errors import HostError, KubenodeError, TryLater, UsageError
from kubenode.image import sigstore_local
from kubenode.ports import Clock

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig


class Signer(Protocol):
    """Something that signs in-toto statements."""

    def sign(self, statement: bytes) -> bytes:
        """Return a Sigstore bundle (JSON) with the statement in a DSSE envelope. Raise KubenodeError."""
        ...


@dataclass(frozen=True)
class LocalSigner:
    """Signs with the local Sigstore instance in `directory`, as `identity` (an email or a URI)."""

    directory: Path
    identity: str
    clock: Clock

    def sign(self, statement: bytes) -> bytes:
        """Sign without network. Raise UsageError or HostError as `sigstore_local.sign` does."""
        return sigstore_local.sign(self.directory, statement, self.identity, self.clock.now())


@dataclass(frozen=True)
class PublicSigner:
    """Signs with a Sigstore service over the network.

    `trust_config` is the file of a private instance's client trust config (JSON), None for the public instance.
    `token` is an OIDC identity token, None for the one that the CI system offers (GitHub, GitLab, Google Cloud and
    others, see the package `id`). There is no interactive login: releases are signed by builders.

    Everything up to the first request is tested. The requests themselves are sigstore-python's and were never made by
    this project's tests, which have neither a service nor a token.
    """

    trust_config: Path | None = None
    token: str | None = None

    def sign(self, statement: bytes) -> bytes:
        """Sign over the network. The public instance publishes identity and digest for everybody, forever.

        Raise UsageError without a usable token or trust config, TryLater when a service does not answer, HostError
        when it refuses.
        """
        from requests import RequestException
        from sigstore.dsse import Statement
        from sigstore.errors import Error, NetworkError, TUFError
        from sigstore.oidc import IdentityError, IdentityToken
        from sigstore.sign import SigningContext

        try:
            # The token first: it is what is usually missing, and it needs no download.
            token = IdentityToken(self._token())
            context = SigningContext.from_trust_config(self._config())
            with context.signer(token) as signer:
                return signer.sign_dsse(Statement(statement)).to_json().encode()
        except KubenodeError:
            raise
        except IdentityError as error:
            raise UsageError(f"the identity token is not usable: {error}", hint=_TOKEN_HINT) from error
        except (NetworkError, TUFError, RequestException) as error:
            raise TryLater(f"the Sigstore service cannot be reached: {error}") from error
        except Error as error:
            raise HostError(f"the Sigstore service did not sign: {error}") from error
        except Exception as error:
            # Its HTTP clients raise errors of their own that share no base class.
            raise HostError(f"the Sigstore service did not sign: {type(error).__name__}: {error}") from error

    def _token(self) -> str:
        from sigstore.oidc import detect_credential

        token = self.token or detect_credential()
        if not token:
            raise UsageError("there is no identity token to sign with", hint=_TOKEN_HINT)
        return token

    def _config(self) -> "ClientTrustConfig":
        from sigstore.models import ClientTrustConfig

        if self.trust_config is None:
            return ClientTrustConfig.production()
        try:
            return ClientTrustConfig.from_json(self.trust_config.read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"the client trust config {self.trust_config} cannot be used: {error}") from error


_TOKEN_HINT = "run in a CI system that offers one (in GitHub: `permissions: id-token: write`), or pass a token"
