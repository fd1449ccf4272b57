"""TLS to API servers and etcd: the cluster's own CA and nothing else, both sides by certificate (TLS 1.2 or newer)."""

import os
import ssl

from kubenode.errors import HostError


def client_context(ca: bytes, certificate: bytes | None, key: bytes | None, source: str) -> ssl.SSLContext:
    """Return a context that trusts `ca` only and shows `certificate` (all PEM). Raises HostError, naming `source`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise HostError(
            f"{source}: the CA certificate cannot be read: {error}",
            hint="Write the cluster's CA as PEM: it is /etc/kubernetes/pki/ca.crt on every control plane.",
        ) from error
    if certificate is not None and key is not None:
        # OpenSSL takes files only. An anonymous file in memory keeps the key off the disk (memfd_create(2)).
        handle = os.memfd_create("kubenode-client")
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                # kubelet keeps both in one file.
                file.write(key if key == certificate else key.rstrip() + b"\n" + certificate)
            # An encrypted key would make OpenSSL ask at the terminal.
            context.load_cert_chain(f"/proc/self/fd/{handle}", password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise HostError(
                f"{source}: the client certificate and its key are not usable: {error}",
                hint="they may not belong together, or one of them was cut short",
            ) from error
        finally:
            os.close(handle)
    return context
