"""What the Kubernetes cluster needs from the fleet: its bootstrap node, control planes and versions that fit."""

from collections.abc import Iterator

from kubenode.fleet.layout import FLEET_PATH, Kind, path_of
from kubenode.fleet.problems import Problem, Severity, choices, problem
from kubenode.fleet.reading import Reading
from kubenode.fleet.scalars import kubernetes_minor
from kubenode.model.documents import Pool, Role

_CLUSTER = ("spec", "cluster")


def check_cluster(reading: Reading) -> Iterator[Problem]:
    """Find a cluster without its parts, and parts without a cluster."""
    if reading.fleet is None:
        return
    kubernetes = {name: pool for name, pool in reading.pools_in_use().items() if pool.role is not Role.STANDALONE}
    if reading.fleet.cluster is None:
        if kubernetes:
            message = f"the pools {choices(kubernetes)} have Kubernetes nodes, but the fleet has no cluster"
            hint = "Add spec.cluster with endpoint, bootstrapNode and initBefore."
            yield problem(reading.at(FLEET_PATH, "spec"), "cluster-missing", message, hint)
        return
    yield from _check_bootstrap_node(reading, reading.fleet.cluster.bootstrap_node)
    yield from _check_order(reading)
    yield from _check_control_planes(reading)


def _role_of(reading: Reading, node: str) -> Role | None:
    found = reading.nodes.get(node)
    pool = reading.pools.get(found.pool) if found else None
    return pool.role if pool else None


def _check_bootstrap_node(reading: Reading, node: str) -> Iterator[Problem]:
    role = _role_of(reading, node)
    if role is not None and role is not Role.CONTROL_PLANE:
        where = reading.at(FLEET_PATH, *_CLUSTER, "bootstrapNode")
        planes = [name for name in reading.nodes if _role_of(reading, name) is Role.CONTROL_PLANE]
        hint = f"Control planes: {choices(planes)}." if planes else "Put it in a pool with the role control-plane."
        message = f"the bootstrap node {node!r} is in a pool with the role {role}, not control-plane"
        yield problem(where, "bootstrap-node-role", message, hint)


def _check_order(reading: Reading) -> Iterator[Problem]:
    assert reading.fleet is not None
    worker = ""
    for index, name in enumerate(reading.fleet.rollout_order):
        pool = reading.pools.get(name)
        if pool is None:
            continue
        if pool.role is Role.WORKER:
            worker = worker or name
        elif pool.role is Role.CONTROL_PLANE and worker:
            where = reading.at(FLEET_PATH, "spec", "rollout", "order", index)
            message = f"the control planes of {name!r} come after the workers of {worker!r}"
            hint = "A kubelet must never be newer than an API server: put control planes first."
            yield problem(where, "rollout-order", message, hint)
            return


def _check_control_planes(reading: Reading) -> Iterator[Problem]:
    if not (reading.complete(Kind.NODE) and reading.complete(Kind.POOL)):
        return
    count = sum(_role_of(reading, name) is Role.CONTROL_PLANE for name in reading.nodes)
    if count and count % 2 == 0:
        message = f"there are {count} control-plane nodes; etcd is no safer than with {count - 1}"
        hint = "Use an odd number."
        yield problem(
            reading.at(FLEET_PATH, *_CLUSTER), "even-control-planes", message, hint, severity=Severity.WARNING
        )


def check_targets(reading: Reading) -> Iterator[Problem]:
    """Find pools in use whose release is missing, has no Kubernetes, or has one that does not fit the others'."""
    planes: list[tuple[Pool, str]] = []
    workers: list[tuple[Pool, str]] = []
    for name, pool in reading.pools_in_use().items():
        at = reading.at(path_of(Kind.POOL, name), "spec", "release" if pool.release else "channel")
        channel = reading.channels.get(pool.channel or "")
        if pool.release is None and channel is not None and not channel.releases:
            hint = f"Publish a release and run `kubenode promote VERSION {channel.name}`."
            yield problem(at, "channel-empty", f"the pool has nodes, but channel {channel.name!r} has no release", hint)
        target = reading.target(pool)
        if target is None or pool.role is Role.STANDALONE:
            continue
        if target.kubernetes is None:
            message = f"the role {pool.role} needs Kubernetes, but release {target.version} has none"
            yield problem(at, "release-without-kubernetes", message)
            continue
        (planes if pool.role is Role.CONTROL_PLANE else workers).append((pool, target.kubernetes))
    if planes:
        oldest = min(planes, key=lambda one: kubernetes_minor(one[1]))
        for worker, version in workers:
            yield from _check_skew(reading, worker, version, *oldest)


def _check_skew(reading: Reading, worker: Pool, version: str, plane: Pool, plane_version: str) -> Iterator[Problem]:
    """Compare minors as https://kubernetes.io/releases/version-skew-policy/ does."""
    kubelet, apiserver = kubernetes_minor(version), kubernetes_minor(plane_version)
    allowed = 3 if kubelet >= (1, 25) else 2
    message = ""
    if kubelet > apiserver:
        message = f"kubelets would be at {version}, newer than the API servers of pool {plane.name!r} ({plane_version})"
    elif apiserver[1] - kubelet[1] > allowed:
        message = (
            f"kubelets would be at {version}, too old for the API servers of pool {plane.name!r} ({plane_version})"
        )
    if message:
        where = reading.at(path_of(Kind.POOL, worker.name), "spec", "release" if worker.release else "channel")
        hint = f"A kubelet is never newer than an API server and at most {allowed} minors older."
        yield problem(where, "kubernetes-skew", message, hint)
