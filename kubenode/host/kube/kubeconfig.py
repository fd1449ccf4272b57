"""Reads kubeconfig files: where an API server is, how it is recognised, and who asks. Source: `v1.Config` of client-go.

Only what proves both sides is taken: https with a CA, and a client certificate or a token. Programs that fetch
credentials (`exec`), proxies and servers that are not verified are refused with a reason.
"""

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubenode.errors import FleetInvalid, HostError
from kubenode.host.kube.errors import Malformed
from kubenode.host.kube.reading import flag, items, text
from kubenode.trust import strictyaml

MAX_BYTES = 1 << 20
"""Of a kubeconfig and of each file it names."""


@dataclass(frozen=True)
class Access:
    """An API server and an identity: `ca`, `certificate` and `key` in PEM, `source` for messages.

    `name` is checked in the server's certificate instead of the host in `server` when it is given.
    """

    server: str
    ca: bytes = field(repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    name: str | None = None
    source: str = "kubeconfig"


def load_kubeconfig(path: Path, context: str | None = None) -> Access:
    """Return the access that a kubeconfig's current (or the named) context describes.

    Raises HostError when a file is missing, when it is no kubeconfig, or when it asks for what is not done here.
    """
    try:
        document = strictyaml.load(_bytes(path), str(path)).value
    except FleetInvalid as error:
        raise HostError(f"{error}", hint=f"{path} should be a kubeconfig, as kubeadm writes them") from error
    try:
        wanted = context or text(document, "current-context")
        chosen = _named(document, "contexts", "context", wanted)
        cluster = _named(document, "clusters", "cluster", text(chosen, "cluster"))
        user = _named(document, "users", "user", text(chosen, "user"))
        return _access(path, cluster, user)
    except Malformed as error:
        said = error.message.replace("the server sent", "there is")
        raise HostError(f"{path}: {said}", hint=f"{path} should be a kubeconfig, as kubeadm writes them") from error


def kubeconfig_text(access: Access, user: str) -> str:
    """Return a kubeconfig with everything in it, as admin.conf has. JSON is YAML without quoting rules."""
    assert access.certificate is not None and access.key is not None
    data = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "kubernetes",
                "cluster": {"server": access.server, "certificate-authority-data": _encoded(access.ca)},
            }
        ],
        "contexts": [{"name": f"{user}@kubernetes", "context": {"cluster": "kubernetes", "user": user}}],
        "current-context": f"{user}@kubernetes",
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _encoded(access.certificate),
                    "client-key-data": _encoded(access.key),
                },
            }
        ],
    }
    return json.dumps(data, indent=2) + "\n"


def _encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def _access(path: Path, cluster: Any, user: Any) -> Access:
    server = text(cluster, "server").rstrip("/")
    _require_https(path, server)
    if flag(cluster, "insecure-skip-tls-verify"):
        raise HostError(f"{path}: insecure-skip-tls-verify is set", hint="give the cluster's CA certificate instead")
    for block, keys in ((cluster, ("proxy-url",)), (user, ("exec", "auth-provider", "username", "as"))):
        for word in keys:
            if isinstance(block, dict) and block.get(word):
                raise HostError(
                    f"{path}: {word!r} is not supported",
                    hint="use a kubeconfig with a client certificate or a token, for example admin.conf",
                )
    ca = _data_or_file(path, cluster, "certificate-authority")
    if ca is None:
        raise HostError(f"{path}: the cluster has no certificate-authority", hint="kubenode trusts no other CA")
    certificate, key = (_data_or_file(path, user, name) for name in ("client-certificate", "client-key"))
    if (certificate is None) != (key is None):
        raise HostError(
            f"{path}: client-certificate and client-key go together, one of them is missing",
            hint="Write both into the user's entry, or copy the file again from where it was made.",
        )
    token = text(user, "token", default="") or None
    if token is None and (token_file := text(user, "tokenFile", default="")):
        token = _bytes(path.parent / token_file).decode(errors="replace").strip() or None
    if certificate is None and token is None:
        raise HostError(
            f"{path}: the user has neither a client certificate nor a token",
            hint="Make one that has: `kubenode kubeconfig` on a control plane.",
        )
    return Access(server, ca, certificate, key, token, text(cluster, "tls-server-name", default="") or None, str(path))


def _require_https(path: Path, server: str) -> None:
    try:
        parts = urlsplit(server)
        usable = parts.scheme == "https" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise HostError(
            f"{path}: the server {server[:80]!r} is no https address",
            hint="Correct the `server` there: https://HOST:PORT.",
        )


def _named(document: Any, group: str, kind: str, name: str) -> Any:
    for entry in items(document, group):
        if text(entry, "name") == name:
            return entry.get(kind) or {}
    raise Malformed(f"no {kind} is called {name[:80]!r}")


def _data_or_file(path: Path, block: Any, name: str) -> bytes | None:
    """Return embedded data, which counts first, or a file's content; relative names start at the kubeconfig."""
    if data := text(block, f"{name}-data", default=""):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise HostError(
                f"{path}: {name}-data is not base64", hint="Copy the file again: it was damaged on the way."
            ) from error
    file = text(block, name, default="")
    return _bytes(path.parent / file) if file else None


def _bytes(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise HostError(
            f"{path} cannot be read: {error.strerror}",
            hint="Name another kubeconfig with --kubeconfig, or run this as root on a control plane.",
        ) from error
    if len(data or b"") > MAX_BYTES:
        raise HostError(
            f"{path} is larger than {MAX_BYTES} bytes", hint="Is this a kubeconfig? Name another one with --kubeconfig."
        )
    return data or b""
