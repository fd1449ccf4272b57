"""The inputs of one decision and what follows from them."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from kubenode.model.decision import Act, Action, Decision, Stuck, Wait
from kubenode.model.desired import DesiredCluster, DesiredState
from kubenode.model.documents import Release, Role
from kubenode.model.journal import Journal
from kubenode.model.kubernetes import ClusterNode, ClusterView, KubernetesVersion, LocalKubernetes
from kubenode.model.observed import Observed
from kubenode.plan import windows
from kubenode.plan.backoff import held_back
from kubenode.plan.hops import Hop, is_poisoned, path_to_target
from kubenode.plan.kubernetes import skew


@dataclass(frozen=True)
class Node:
    """The inputs of a decision and what follows from them."""

    desired: DesiredState
    observed: Observed
    journal: Journal
    now: datetime
    stale: str = ""

    @property
    def name(self) -> str:
        """The node's own name."""
        return self.desired.node

    @property
    def running(self) -> str:
        """What runs, for a message."""
        return f"release {self.observed.booted.version}"

    @property
    def channel(self) -> str:
        """The channel's name, quoted for a message."""
        return f"`{self.desired.channel}`"

    # The way to the target.

    @cached_property
    def target(self) -> Release:
        """The release to end on; for a machine that is to join a cluster first: the newest that may join it."""
        if not self.newcomer:
            return self.desired.target
        return next((it for it in self.desired.releases if self._joins(it)), self.desired.target)

    def _joins(self, release: Release) -> bool:
        return not is_poisoned(release, self.journal.poisoned) and skew.may_join(
            self.desired.role, kubernetes_of(release), self.observed.answers
        )

    @property
    def on_target(self) -> bool:
        """Whether the target runs."""
        return self.observed.booted.root_hash == self.target.root_hash

    @property
    def version_reused(self) -> bool:
        """Whether the target is another image of the version that runs."""
        return not self.on_target and self.observed.booted.version == self.target.version

    @cached_property
    def path(self) -> tuple[Release, ...]:
        """The releases still to run, the target last; empty when there is nothing to do or no way."""
        if self.on_target or self.version_reused:
            return ()
        # A hop to what runs already would be no hop, whatever version its document claims.
        running = self.observed.booted.root_hash
        releases = tuple(
            release
            for release in self.desired.releases
            if release.root_hash != running and release.version <= self.target.version
        )
        ways = (
            path_to_target(self.observed.booted.version, releases, self.journal.poisoned, allowed)
            for allowed in (self._hop_by_kubelet, self._hop_by_plane)
        )
        return next((way for way in ways if way), ())

    @property
    def hop(self) -> Release | None:
        """The next release, None when there is none."""
        return self.path[0] if self.path else None

    def _hop_by_kubelet(self, hop: Hop) -> bool:
        # A control plane runs each minor before it goes on to the next.
        return self._kubernetes_hop(hop, None)

    def _hop_by_plane(self, hop: Hop) -> bool:
        # One that fell back has static pods of a newer minor than its kubelet, and goes on from there if it must.
        return self._kubernetes_hop(hop, min(self.here.manifests.values(), default=None) if self.here else None)

    def _kubernetes_hop(self, hop: Hop, plane: KubernetesVersion | None) -> bool:
        if self.cluster is None or self.member is None or self.here is None:
            return True
        kubelet = self.here.kubelet if hop.before is None else kubernetes_of(hop.before)
        if hop.before is not None or plane is None:
            plane = kubelet
        return skew.may_follow(self.member, kubelet, plane, kubernetes_of(hop.release))

    @property
    def goes_down(self) -> bool:
        """Whether the next release is older than what runs."""
        return self.hop is not None and self.hop.version < self.observed.booted.version

    # The cluster.

    @property
    def here(self) -> LocalKubernetes | None:
        """What this machine's own files say of Kubernetes."""
        return self.observed.kubernetes

    @property
    def cluster(self) -> DesiredCluster | None:
        """The cluster that git declares this machine a part of."""
        return self.desired.cluster

    @property
    def view(self) -> ClusterView | None:
        """The cluster as its API shows it."""
        return self.observed.cluster

    @property
    def member(self) -> Role | None:
        """As what this machine is part of a cluster."""
        return self.here.joined if self.here is not None else None

    @property
    def newcomer(self) -> bool:
        """Whether this machine is to become part of the cluster and is not yet."""
        return self.cluster is not None and self.member is None

    @property
    def me(self) -> ClusterNode | None:
        """The Node object of this machine."""
        return self.view.by_name.get(self.name) if self.view is not None else None

    @property
    def back(self) -> bool:
        """Whether the kubelet of this boot and of the running release has reported this node as Ready."""
        me, here = self.me, self.here
        return (
            me is not None
            and here is not None
            and me.ready
            and me.kubelet == here.kubelet
            and me.boot_id == self.observed.boot_id
        )

    # Ends of a rule.

    def act(self, action: Action, why: str, *then: str) -> Decision:
        """Return the action, or the reason why it may not be tried (again) now."""
        return held_back(action, self.journal, self.now) or Act(action, why, then)

    def onwards(self) -> tuple[str, ...]:
        """Name the steps after the restart, for people."""
        return ("trial boot", *(f"continue to release {release.version}" for release in self.path[1:]))

    def outside_window(self, what: str) -> Decision | None:
        """Return the wait for a maintenance window. A machine outside a cluster that it is to join disturbs nobody."""
        if self.newcomer or windows.is_open(self.desired.windows, self.now):
            return None
        opening = windows.next_opening(self.desired.windows, self.now)
        if opening is None:
            return Stuck(
                "NoWindow",
                f"To {what} a maintenance window is needed, and none of pool {self.desired.pool} ever opens.",
                "Check days, duration and time zone of the pool's windows (an image without tzdata knows only UTC).",
            )
        return Wait(
            "OutsideWindow",
            f"Waiting to {what} until the maintenance window opens at {opening:%Y-%m-%d %H:%M} UTC.",
            opening,
        )


def kubernetes_of(release: Release) -> KubernetesVersion | None:
    """Return the Kubernetes version in a release, None when it has none."""
    return KubernetesVersion(release.kubernetes) if release.kubernetes is not None else None
