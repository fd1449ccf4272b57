"""What moved without git: each finding names the object, the field, what is there and what git says.

A node that runs what an older commit wanted has not drifted: git has moved on, and the plan is about that. Drift is
what no commit explains, or what a person did to the cluster.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from kubenode.model.desired import DesiredCluster, DesiredState
from kubenode.model.kubernetes import ClusterNode, ClusterView
from kubenode.model.observed import Observed


@dataclass(frozen=True)
class Drift:
    """One finding. `code` is stable; `outcome` says what will come of it."""

    code: str
    object: str
    field: str
    found: str
    wanted: str
    outcome: str


@dataclass(frozen=True)
class Known:
    """What some commit of the fleet repo explains: root hashes of releases, kubeadm digests, names of nodes."""

    releases: Collection[str] = frozenset()
    configurations: Collection[str] = frozenset()
    nodes: Collection[str] = frozenset()


def of_machine(desired: DesiredState, observed: Observed, known: Known) -> Iterator[Drift]:
    """Yield what the machine itself shows."""
    booted, here, cluster = observed.booted, observed.kubernetes, desired.cluster
    wanted = {release.root_hash for release in desired.releases}
    if booted.root_hash not in wanted and booted.root_hash not in known.releases:
        yield Drift(
            "ForeignRelease",
            f"node {desired.node}",
            "booted.rootHash",
            f"{booted.version} ({booted.root_hash[:12]})",
            "a release of the fleet repo",
            f"it is updated to {desired.target.version} if there is a way",
        )
    if here is not None and cluster is not None and here.configuration is not None:
        digest = here.configuration
        if digest != cluster.configuration and digest not in known.configurations:
            yield Drift(
                "ForeignConfiguration",
                f"node {desired.node}",
                "kubernetes.configuration",
                digest[:12],
                cluster.configuration[:12],
                "git's kubeadm documents are applied in turn",
            )


def of_node(node: ClusterNode, view: ClusterView) -> Iterator[Drift]:
    """Yield what a Node object shows that nobody's work explains."""
    name = f"Node {node.name}"
    if node.cordoned and not node.cordoned_by_us:
        outcome = "it stays cordoned, and counts as unavailable: kubectl uncordon"
        yield Drift("Cordoned", name, "spec.unschedulable", "true, by a person", "false", outcome)
    # Who holds a lease is at work and may well be restarting.
    if not node.ready and node.name not in view.by_holder:
        outcome = "it counts as unavailable; see kubelet on the machine"
        yield Drift("NotReady", name, "status.conditions[Ready]", "not True", "True", outcome)


def of_cluster(view: ClusterView, cluster: DesiredCluster, known: Known) -> Iterator[Drift]:
    """Yield what is no declared node's: strangers, and the cluster's own documents."""
    for node in view.nodes:
        if node.name in cluster.by_name or node.name in known.nodes:
            continue
        told = node.report is not None
        outcome = (
            "it is drained and removed by a control plane" if told else "kubenode leaves it alone: it never reported"
        )
        yield Drift("NotInGit", f"Node {node.name}", "metadata.name", node.name, f"nodes/{node.name}.yaml", outcome)
    if view.configuration is not None and view.configuration not in (cluster.configuration, *known.configurations):
        yield Drift(
            "ForeignConfiguration",
            "ConfigMap kube-system/kubeadm-config",
            "metadata.annotations[kubenode.dev/configuration]",
            view.configuration[:12],
            cluster.configuration[:12],
            "a control plane writes git's documents",
        )
