"""The error inside the store adapters: one store failed, another may not."""


class StoreFailed(Exception):
    """One store or mirror cannot serve a file; the message says why. Never leaves `kubenode.host`."""
