"""A real Kubernetes without downloads from upstream: Debian's source package, built here, for tests and the lab.

In: Debian's archive. Out: binaries of two versions and the images of a control plane, as files. The second version is
the same source with another stamp: it gives kubeadm two versions to upgrade between, not two states of its code.
"""
