"""What an action changes on the machine that does it, as the next look would show it. Everything succeeds."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kubenode.model.decision import (
    Action,
    ActivateSlot,
    FetchRelease,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PoisonRelease,
    PrepareKubelet,
    PruneKubeadm,
    PruneStaging,
    PullImages,
    Reboot,
    Reconfigure,
    RenewCertificates,
    RestartStaticPods,
    RestoreEntry,
    RetireEntry,
    SnapshotEtcd,
    WriteSlot,
)
from kubenode.model.desired import DesiredState
from kubenode.model.documents import Release, Role
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.kubernetes import COMPONENTS, KubernetesVersion, LocalKubernetes
from kubenode.model.observed import BootedSlot, BootEntry, Observed, StagedImage
from kubenode.plan.backoff import step_key
from kubenode.plan.node import kubernetes_of

CERTIFICATES_LAST = timedelta(days=365)


@dataclass
class Machine:
    """A machine that was observed. `observed` never has the cluster: that is one for all, and handed in to decide.

    `sees_api`: False for a member that could not see its cluster; why is not known, so it is not assumed to end.
    """

    desired: DesiredState
    observed: Observed
    journal: Journal
    stale: str
    sees_api: bool
    boots: int = 0

    def fail(self, action: Action, now: datetime, error: str) -> None:
        """Count a failure, as the agent does."""
        key = step_key(action)
        before = self.journal.attempts.get(key)
        attempt = Attempt(1 + (before.failures if before else 0), now, error)
        self.journal = replace(self.journal, attempts={**self.journal.attempts, key: attempt})

    def apply(self, action: Action, now: datetime, plane: KubernetesVersion | None, configuration: str) -> None:
        """Show the result of an action. `plane`: the cluster's version; `configuration`: that of its documents."""
        self.observed = self._slots(action)
        if self.observed.kubernetes is not None:
            here = _kubernetes(action, self.observed.kubernetes, self.observed.booted.root_hash, now, configuration)
            if isinstance(action, KubeadmJoin) and action.role is Role.CONTROL_PLANE:
                here = replace(here, manifests=dict.fromkeys(COMPONENTS, plane or here.kubelet))
            self.observed = replace(self.observed, kubernetes=here)
        self.journal = self._remembered(action)

    def bless(self) -> None:
        """Let a trial boot that runs now pass its health gate."""
        booted = self.observed.booted
        entries = tuple(_good(it) if it.root_hash == booted.root_hash else it for it in self.observed.entries)
        self.observed = replace(self.observed, booted=replace(booted, trial=False), entries=entries)

    def _slots(self, action: Action) -> Observed:
        see = self.observed
        match action:
            case FetchRelease(release):
                return replace(see, fetched=see.fetched | {release.manifest}, partial=see.partial - {release.manifest})
            case WriteSlot(release):
                return replace(see, spare=release.root_hash, staged=StagedImage(release.version, release.root_hash))
            case RetireEntry(gone):
                return replace(see, entries=tuple(it for it in see.entries if it.root_hash != gone.root_hash))
            case RestoreEntry(back):
                entries = tuple(_good(it) if it.root_hash == back.root_hash else it for it in see.entries)
                return replace(see, entries=entries)
            case PruneStaging(downloads, staged):
                fetched, partial = see.fetched - downloads, see.partial - downloads
                return replace(see, fetched=fetched, partial=partial, staged=None if staged else see.staged)
            case ActivateSlot(release, supersede):
                kept = tuple(
                    replace(it, tries_left=0, tries_done=0) if supersede and it.root_hash == supersede.root_hash else it
                    for it in see.entries
                    if it.root_hash != release.root_hash
                )
                return replace(see, entries=(*kept, BootEntry(release.version, release.root_hash, 3)))
            case Reboot(release):
                self.boots += 1
                return _restarted(see, release, f"simulated-{self.boots}")
        return see

    def _remembered(self, action: Action) -> Journal:
        # What worked is forgotten, and a mark of a downgrade as soon as no bad entry shows it.
        journal = self.journal
        key = step_key(action)
        if key in journal.attempts:
            journal = replace(journal, attempts={name: it for name, it in journal.attempts.items() if name != key})
        match action:
            case PoisonRelease(version, root_hash, manifest):
                bad = Poisoned(version, root_hash, manifest, "its trial failed")
                return replace(journal, poisoned=(*journal.poisoned, bad))
            case ActivateSlot(_, supersede) if supersede is not None:
                return replace(journal, superseded=supersede.root_hash)
        marked = {it.root_hash for it in self.observed.entries if it.tries_left == 0}
        return journal if journal.superseded in (None, *marked) else replace(journal, superseded=None)


def _good(entry: BootEntry) -> BootEntry:
    return replace(entry, tries_left=None, tries_done=0)


def _restarted(see: Observed, release: Release, boot_id: str) -> Observed:
    """Return what the machine shows when the release runs and was blessed."""
    here, version = see.kubernetes, kubernetes_of(release)
    if here is not None and version is not None:
        configuration = here.kubelet_sets.get(release.root_hash, here.configuration)
        here = replace(here, kubelet=version, configuration=configuration)
    elif version is not None:
        here = LocalKubernetes(version)
    elif here is not None and here.joined is None:
        here = None
    return replace(
        see,
        boot_id=boot_id,
        booted=BootedSlot(see.booted.slot.other, release.version, release.root_hash),
        entries=tuple(_good(it) if it.root_hash == release.root_hash else it for it in see.entries),
        spare=see.booted.root_hash,
        staged=None,
        kubernetes=here,
    )


def _kubernetes(
    action: Action, here: LocalKubernetes, booted: str, now: datetime, configuration: str
) -> LocalKubernetes:
    match action:
        case PullImages(_, version):
            return replace(here, pulled=here.pulled | {version})
        case PrepareKubelet(release, rendered):
            return replace(here, kubelet_sets={**here.kubelet_sets, release.root_hash: rendered})
        case SnapshotEtcd(release):
            return replace(here, snapshots=here.snapshots | {release.manifest})
        case KubeadmUpgrade(_, version):
            manifests = dict.fromkeys(here.manifests, version)
            new = replace(here, manifests=manifests, configuration=configuration, leftovers=True)
            return replace(new, certificates_until=now + CERTIFICATES_LAST)
        case Reconfigure(rendered):
            return replace(here, configuration=rendered, kubelet_sets={**here.kubelet_sets, booted: rendered})
        case RenewCertificates():
            return replace(here, certificates_until=now + CERTIFICATES_LAST)
        case RestartStaticPods(names):
            return replace(here, rejected=here.rejected - names)
        case PruneKubeadm():
            return replace(here, leftovers=False)
        case KubeadmInit():
            new = _entered(here, Role.CONTROL_PLANE, booted, now, configuration)
            return replace(new, manifests=dict.fromkeys(COMPONENTS, here.kubelet))
        case KubeadmJoin(role):
            return _entered(here, role, booted, now, configuration)
    return here


def _entered(here: LocalKubernetes, role: Role, booted: str, now: datetime, configuration: str) -> LocalKubernetes:
    return replace(
        here,
        joined=role,
        entering=None,
        configuration=configuration,
        kubelet_sets={**here.kubelet_sets, booted: configuration},
        certificates_until=now + CERTIFICATES_LAST if role is Role.CONTROL_PLANE else None,
    )
