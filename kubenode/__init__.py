"""kubenode: Kubernetes nodes kept by a signed git repository."""

__version__ = "0.1.0"
