"""Protocols: everything the agent asks of the outside world, and nothing more.

`kubenode.host` implements them for real machines, the simulation in memory; one contract suite runs against both.
Every method is bounded in time and safe to be killed at any instant; postconditions show in the next observation.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kubenode.model.documents import Release, Role
from kubenode.model.journal import Journal
from kubenode.model.kubernetes import Answer, ClusterView, EvictablePod, KubernetesVersion, NodeReport
from kubenode.model.observed import BootEntry, Observed, Slot
from kubenode.model.state import NodeStatus, Seed, TrustState
from kubenode.model.version import Version
from kubenode.trust.bundle import VerifiedRelease
from kubenode.trust.chain import TrustedCommit, TrustedTree
from kubenode.trust.evidence import CommitEvidence

Progress = Callable[[str, int, int], None]
"""Called with (what, bytes done, bytes in all) while something long runs."""


class Clock(Protocol):
    """The time of day."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...


class FleetSource(Protocol):
    """The fleet repo, as evidence."""

    def fetch(self, known: TrustState | None = None) -> str:
        """Fetch the branch and the stamp, and return the branch's head. `known` is what is trusted already.

        What is not accepted before the next fetch is dropped. Raise TryLater when no address of the repo can be
        reached; nothing is lost.
        """
        ...

    def accept(self, commit: TrustedCommit) -> None:
        """Keep an authenticated commit for good. Raise NoSpace, HostError; nothing is lost then."""
        ...

    def stored_head(self) -> str | None:
        """Return the head of the last complete fetch without network, or None."""
        ...

    def stamp(self) -> bytes | None:
        """Return the head.json that came with the last complete fetch without network, or None."""
        ...

    def on_line(self, commit: str, head: str) -> bool:
        """Say whether `commit` is `head` or lies below it on its first-parent chain. `head` must be there."""
        ...

    def anchor(self, commit: str) -> CommitEvidence:
        """Return the evidence for the commit that is trusted already. Raise Untrusted(AnchorMissing)."""
        ...

    def chain(self, trusted: str, head: str) -> Iterator[CommitEvidence]:
        """Yield the commits after `trusted` up to `head`, oldest first. Raise Untrusted(NotDescendant)."""
        ...

    def tree(self, commit: TrustedCommit) -> TrustedTree:
        """Return the files of an authenticated commit."""
        ...


class ReleaseStore(Protocol):
    """The image stores of the fleet, tried in order; none is trusted."""

    def manifest(self, version: Version) -> tuple[bytes, bytes]:
        """Return a release's manifest and Sigstore bundle. Raise TryLater when no store has both."""
        ...

    def artifact(self, version: Version, name: str, offset: int) -> Iterator[bytes]:
        """Yield an artifact's bytes from `offset` on. Raise TryLater when no store answers or a transfer breaks."""
        ...

    def refuse(self, version: Version) -> bool:
        """Ask the store that answered last no more for this release: what it gave was refused.

        Return True when another store is left. When none is, forget all refusals of this release and return False.
        """
        ...


class Staging(Protocol):
    """Where downloads live until they are written: one folder per manifest digest."""

    def put_evidence(self, digest: str, manifest: bytes, bundle: bytes) -> None:
        """Keep a manifest and its bundle, durably."""
        ...

    def evidence(self, digest: str) -> tuple[bytes, bytes]:
        """Return (manifest, bundle) as kept. Raise HostError when they are missing."""
        ...

    def require_space(self, digest: str, size: int) -> None:
        """Raise NoSpace unless `size` bytes (less what is there for this digest already) fit, with some margin."""
        ...

    def partial(self, digest: str, name: str) -> Iterator[bytes]:
        """Yield the bytes already kept of an artifact (none when there is no download of it)."""
        ...

    def append(self, digest: str, name: str, chunks: Iterator[bytes]) -> None:
        """Append chunks to an artifact's download and flush it to disk. Raise NoSpace when the disk is full."""
        ...

    def discard(self, digest: str, name: str) -> None:
        """Throw an artifact's download away."""
        ...

    def complete(self, digest: str) -> None:
        """Mark a download as complete and verified; it then shows in `Observed.fetched`."""
        ...

    def prune(self, digests: frozenset[str]) -> None:
        """Delete these downloads."""
        ...


class Slots(Protocol):
    """The disk's two root slots and the ESP."""

    def write(self, release: VerifiedRelease, slot: Slot, progress: Progress) -> None:
        """Write a fetched release to a slot, read it back, then set the partition UUIDs and stage its UKI.

        Refuses the booted slot. Artifacts are verified again before the first byte is written. Raise Untrusted when
        an artifact differs from the manifest, HostError when the slot is too small or what is read back differs.
        """
        ...

    def activate(self, release: VerifiedRelease, supersede: BootEntry | None) -> None:
        """Bring the staged UKI into the ESP with three tries; mark `supersede` as bad (`+0-0`) first when given."""
        ...

    def retire(self, entry: BootEntry) -> None:
        """Remove a UKI from the ESP. Refuses the booted one."""
        ...

    def restore(self, entry: BootEntry) -> None:
        """Take the counter out of the booted UKI's name: it was marked bad by an `activate` that came to nothing."""
        ...

    def prune_staged(self) -> None:
        """Delete the staged UKI."""
        ...


class Machine(Protocol):
    """The machine as a whole."""

    def observe(self) -> Observed:
        """Look at the machine. Raise HostError when something needed cannot be read: no guesses."""
        ...

    def reboot(self) -> None:
        """Ask systemd for a reboot and return; the process is then killed soon."""
        ...


class Cluster(Protocol):
    """The Kubernetes API and etcd, as this node may use them.

    Everything raises TryLater when the API does not answer or answers too late, HostError when it refuses.
    """

    def view(self) -> ClusterView | None:
        """Look at the cluster. Return None when the API does not answer or this machine cannot ask; never guess."""
        ...

    def answers(self) -> tuple[Answer, ...]:
        """Ask the endpoint and every declared control plane; return those that show a certificate of the CA."""
        ...

    def invited(self) -> bool | None:
        """Say whether the cluster shows that it knows this node's bootstrap token; None when that cannot be told."""
        ...

    def create_leases(self, names: frozenset[str]) -> None:
        """Create leases without a holder; one that exists stays as it is."""
        ...

    def acquire_lease(self, name: str, why: str, previous: str | None) -> None:
        """Take a lease by resourceVersion compare-and-swap. Raise TryLater when its holder is not `previous`."""
        ...

    def release_lease(self, name: str) -> None:
        """Give a lease back when this node holds it; of another holder's nothing changes."""
        ...

    def cordon(self, node: str) -> None:
        """Mark a node as unschedulable and annotate it as ours."""
        ...

    def uncordon(self, node: str) -> None:
        """Take back `cordon`; a node without our annotation stays as it is."""
        ...

    def evict_some(self, node: str, *, force: bool) -> tuple[EvictablePod, ...]:
        """Ask once for the eviction of every pod a drain concerns and return what is left. Never waits for pods.

        DaemonSet and mirror pods are left alone. `force` deletes what a PodDisruptionBudget keeps.
        """
        ...

    def report(self, report: NodeReport, account: str | None = None) -> None:
        """Write the report to this node's own Node object, and with it the account for laptops when it is given."""
        ...

    def remove_etcd_member(self, member: str) -> None:
        """Remove the member with this id; one that is gone is no error."""
        ...

    def delete_node(self, node: str) -> None:
        """Delete a Node object; one that is gone is no error."""
        ...

    def set_tokens(self, nodes: frozenset[str]) -> None:
        """Publish the bootstrap tokens of exactly these nodes."""
        ...

    def approve(self, requests: frozenset[str]) -> None:
        """Approve pending certificate requests by name; one that is gone is no error."""
        ...


class Kubeadm(Protocol):
    """kubeadm, the booted slot's or (where a release is named) that of the staged slot, attached read-only.

    Every call may be made again after it was killed, and raises HostError with kubeadm's own last words.
    """

    def init(self, version: KubernetesVersion) -> None:
        """Found the cluster."""
        ...

    def join(self, role: Role) -> None:
        """Join the cluster."""
        ...

    def pull(self, release: Release) -> None:
        """Pull the control plane images of a staged release."""
        ...

    def prepare_kubelet(self, release: Release, configuration: str) -> None:
        """Render the staged slot's kubelet set: configuration and flags; the running kubelet's stay as they are."""
        ...

    def snapshot_etcd(self, release: Release) -> None:
        """Save etcd's data, and prune older snapshots as configured."""
        ...

    def upgrade(self, release: Release, *, first: bool) -> None:
        """Move this control plane to the staged release's version."""
        ...

    def reconfigure(self, configuration: str, *, first: bool) -> None:
        """Render static pods and kubelet configuration anew, at the version that runs."""
        ...

    def renew_certificates(self) -> None:
        """Renew every certificate of this control plane and restart its static pods."""
        ...

    def restart_static_pods(self, names: frozenset[str]) -> None:
        """Have the kubelet make these static pods anew, and wait until their containers run."""
        ...

    def prune(self) -> None:
        """Delete the copies that upgrades leave behind."""
        ...


@dataclass(frozen=True)
class CheckResult:
    """One check of the local health gate: its name, whether it passed, and one sentence."""

    name: str
    ok: bool
    message: str


class Health(Protocol):
    """The machine's part of the local health gate."""

    def checks(self) -> tuple[CheckResult, ...]:
        """Run every check; never raises."""
        ...


class StateStore(Protocol):
    """The agent's files below /var/lib/kubenode."""

    def lock(self) -> AbstractContextManager[None]:
        """Hold the tick lock. Raise TryLater when another tick holds it."""
        ...

    def seed(self) -> Seed:
        """Return the seed. Raise HostError saying where it was looked for and what is wrong with it."""
        ...

    def load_trust(self) -> TrustState | None:
        """Return the trust state, None before the first contact. Raise StateLost when both copies are unreadable."""
        ...

    def save_trust(self, state: TrustState) -> None:
        """Keep the trust state, twice, each copy by fsync and rename."""
        ...

    def load_journal(self) -> Journal:
        """Return the journal without the poisoned releases; an unreadable one is set aside and rebuilt empty."""
        ...

    def save_journal(self, journal: Journal) -> None:
        """Keep the journal by fsync and rename."""
        ...

    def save_status(self, status: NodeStatus) -> None:
        """Write status.json; a full disk must not fail the tick."""
        ...
