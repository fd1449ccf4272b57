"""Who signs a release: a local Sigstore instance, or a Sigstore service (the public one or a private one)."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kubenode.errors import HostError, KubenodeError, TryLater, UsageError
from kubenode.image import sigstore_local
from kubenode.ports import Clock

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

TOKEN_VARIABLE = "SIGSTORE_ID_TOKEN"
MAX_FILE_BYTES = 4 << 20
SERVICE_TIMEOUT = 180.0
"""Seconds that a service gets for everything: certificate, timestamp and log entry."""


class Signer(Protocol):
    """Something that signs in-toto statements."""

    def check(self) -> None:
        """Raise KubenodeError when signing could not work, before an hour of building shows it."""
        ...

    def sign(self, statement: bytes) -> bytes:
        """Return a Sigstore bundle (JSON) with the statement in a DSSE envelope. Raise KubenodeError."""
        ...


@dataclass(frozen=True)
class LocalSigner:
    """Signs with the local Sigstore instance in `directory`, as `who` (an email or a URI)."""

    directory: Path
    who: str
    clock: Clock

    def check(self) -> None:
        """Read the instance. Raise UsageError or HostError as `sigstore_local.load` does."""
        sigstore_local.load(self.directory)

    def sign(self, statement: bytes) -> bytes:
        """Sign without network. Raise UsageError or HostError as `sigstore_local.sign` does."""
        return sigstore_local.sign(self.directory, statement, self.who, self.clock.now())


@dataclass(frozen=True)
class ServiceSigner:
    """Signs with a Sigstore service over the network.

    `trust_config` is the file of a private instance's client trust config (JSON), None for the public instance.
    `token_file` holds an OIDC identity token; without it the token is that of the variable SIGSTORE_ID_TOKEN, or the
    one that the CI system offers (GitHub, GitLab, Google Cloud and others, see the package `id`). Tokens live for
    minutes and builds take longer, so the token is read anew for each use. There is no interactive login: releases
    are signed by builders.
    """

    trust_config: Path | None = None
    token_file: Path | None = None
    timeout: float = SERVICE_TIMEOUT

    def check(self) -> None:
        """Read token and trust config; whom the certificate will name is the service's decision. Raise UsageError."""
        if self.trust_config is not None:
            self._config()
        self._token()

    def sign(self, statement: bytes) -> bytes:
        """Sign over the network. The public instance publishes identity and digest for everybody, forever.

        Raise UsageError without a usable token or trust config, TryLater when a service does not answer in time,
        HostError when it refuses.
        """
        # The token first: it is what is usually missing, and it needs no download.
        token = self._token()
        return _within(self.timeout, lambda: self._request(token, statement))

    def _request(self, token: "IdentityToken", statement: bytes) -> bytes:
        from requests import ConnectionError as NoConnection
        from requests import HTTPError, RequestException, Timeout
        from sigstore.dsse import Statement
        from sigstore.errors import Error, NetworkError, TUFError
        from sigstore.sign import SigningContext

        try:
            context = SigningContext.from_trust_config(self._config())
            with context.signer(token) as signer:
                return signer.sign_dsse(Statement(statement)).to_json().encode()
        except KubenodeError:
            raise
        except Exception as error:
            # What went wrong is in the chain of causes: its HTTP clients wrap errors in ones that share no base class.
            for cause in _causes(error):
                if isinstance(cause, HTTPError) and cause.response is not None:
                    raise _refused(cause.response.status_code, _detail(cause.response.text)) from error
                if isinstance(cause, NetworkError | TUFError | NoConnection | Timeout):
                    raise TryLater(f"the Sigstore service cannot be reached: {cause}", hint=_SERVICE_HINT) from error
            known = isinstance(error, Error | RequestException)
            said = str(error) if known else f"{type(error).__name__}: {error}"
            raise HostError(f"the Sigstore service did not sign: {said}", hint=_SERVICE_HINT) from error

    def _token(self) -> "IdentityToken":
        from sigstore.oidc import IdentityError, IdentityToken, detect_credential

        if self.token_file is not None:
            where, raw = f"the token in {self.token_file}", _read(self.token_file, "the identity token")
        elif raw := os.environ.get(TOKEN_VARIABLE, ""):
            where = f"the token in {TOKEN_VARIABLE}"
        else:
            try:
                where, raw = "the CI system's token", detect_credential() or ""
            except Exception as error:
                # A CI system that offers tokens and gave none: the package `id` has one error for each of them.
                raise UsageError(f"the CI system gave no identity token: {error}", hint=_TOKEN_HINT) from error
        if not raw.strip():
            raise UsageError("there is no identity token to sign with", hint=_TOKEN_HINT)
        try:
            return IdentityToken(raw.strip())
        except IdentityError as error:
            why = f": {error.__cause__}" if error.__cause__ else ""
            raise UsageError(f"{where} is not usable: {error}{why}", hint=_TOKEN_HINT) from error

    def _config(self) -> "ClientTrustConfig":
        from sigstore.errors import Error
        from sigstore.models import ClientTrustConfig

        if self.trust_config is None:
            return ClientTrustConfig.production()
        text = _read(self.trust_config, "the client trust config")
        try:
            config = ClientTrustConfig.from_json(text)
            # Looks for services that are valid now and speak a version that sigstore-python knows.
            config.signing_config.get_tlogs()
            return config
        except (ValueError, Error) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"the client trust config {self.trust_config} cannot be used: {first}",
                hint="it is the JSON that names the instance's services and holds its trusted root "
                "(ClientTrustConfig v0.1 with a SigningConfig v0.2)",
            ) from error


_TOKEN_HINT = (
    "run in a CI system that offers one (in GitHub: `permissions: id-token: write`), or give one made for the audience "
    f"`sigstore` with --identity-token FILE or in {TOKEN_VARIABLE}; tokens live for minutes"
)
_SERVICE_HINT = "look at the log of the service; the trusted root in the client trust config must be the service's own"


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{what} {path} cannot be read: {why}", hint="name a file that exists") from error


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error, what it was raised from, and the errors among the arguments of all of them."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            todo += [one.__cause__, one.__context__, *one.args]
    return found


def _detail(body: str) -> str:
    """Return what a service's error says, short and printable."""
    return body.strip()[:200].encode("ascii", "backslashreplace").decode()


def _refused(status: int, detail: str) -> KubenodeError:
    said = f"the Sigstore service refused (HTTP {status})" + (f": {detail}" if detail else "")
    if status >= 500 or status == 429:
        return TryLater(said, hint=_SERVICE_HINT)
    if status in (401, 403):
        return UsageError(said, hint=f"the service does not take this identity token; {_TOKEN_HINT}")
    return HostError(said, hint=_SERVICE_HINT)


def _within(seconds: float, work: Callable[[], bytes]) -> bytes:
    """Return what `work` returns. Raise TryLater when that takes longer: its HTTP clients know no time limit."""
    results: list[bytes] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    # A daemon, so that a service which never answers does not keep the command from ending.
    thread = threading.Thread(target=run, name="sigstore", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TryLater(f"the Sigstore service did not answer within {seconds:.0f} seconds", hint=_SERVICE_HINT)
    return results[0]
