"""What an API server can refuse, as errors for people. Unreachable, overloaded or broken servers are `TryLater`.

Source: the `Status` object and the reasons of the Kubernetes API conventions ("Response Status Kind").
"""

from kubenode.errors import HostError, TryLater


class ApiRefused(HostError):
    """The API server answered and said no. `status` is the HTTP status, `reason` that of its Status object."""

    advice = "See the API server's own words above; `kubectl auth can-i --list` shows what an identity may do."

    def __init__(self, message: str, *, status: int, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason


class Unauthorised(ApiRefused):
    """401: the server does not know this identity (an expired certificate, another cluster's CA)."""

    advice = "Is it this cluster's kubeconfig, is the clock right? `kubenode kubeconfig` makes a new one."


class Forbidden(ApiRefused):
    """403: the identity is known and lacks the right."""


class NotFound(ApiRefused):
    """404: there is no such object, or no such API."""

    advice = "Is it still there, and is the kubeconfig of this cluster?"


class Conflict(ApiRefused):
    """409: somebody else changed or created the object in between. What was read is out of date."""

    advice = "Somebody else was faster: look again, then the same once more if it is still wanted."


class Gone(ApiRefused):
    """410: a list took too long; its continuation is no longer served."""

    advice = "Read the list again."


class Invalid(ApiRefused):
    """422 or 400: the server understands the request and refuses its content."""

    advice = "The server's own words above name the field."


class NotOurs(HostError):
    """Whoever answers there shows no certificate of the cluster's CA for that address."""

    advice = "Its certificate must come from the cluster's CA and name this address; check the clock, too."


class Unreachable(TryLater):
    """Nobody answers there: no connection came to be. The request was not sent."""

    advice = "Is the machine on and its API server up? On a control plane: crictl ps --name kube-apiserver; ss -ltn"


class Malformed(HostError):
    """The answer is not what the Kubernetes API promises: no JSON, too large, or a field of another type."""

    advice = "Is it really an API server that answers, or something before it? See `server` in the kubeconfig."


class Throttled(TryLater):
    """429: too many requests, or an eviction that a disruption budget forbids now; `causes` are the server's."""

    def __init__(self, message: str, *, causes: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.causes = causes


class ServerFailed(TryLater):
    """5xx: the server is there and could not do it now."""

    advice = (
        "See the log of the API server: crictl logs, or kubectl get --raw '/readyz?verbose'. The next look may succeed."
    )
