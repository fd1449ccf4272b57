"""The Kubernetes API and etcd as kubenode uses them: a small, strict client over plain httpx, and the `Cluster` port.

Read `client.py` (one identity at one API server), then `cluster.py`. docs/cluster.md says what is kept in a cluster.
"""
