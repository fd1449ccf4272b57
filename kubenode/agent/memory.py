"""What the agent keeps between ticks: the trust state, which is never rebuilt, and the journal, which may be."""

from dataclasses import replace
from datetime import datetime

from kubenode.errors import KubenodeError, StateLost, Untrusted
from kubenode.model.decision import (
    Action,
    ActivateSlot,
    KubeadmUpgrade,
    PoisonRelease,
    Reboot,
    Reconfigure,
    RestoreEntry,
    RetireEntry,
    WriteSlot,
)
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.observed import Observed
from kubenode.model.state import Stamp, TrustState
from kubenode.plan.backoff import step_key
from kubenode.ports import StateStore

MAX_ATTEMPTS = 64

_COUNTED_FROM_THE_START = (WriteSlot, ActivateSlot, RetireEntry, RestoreEntry, Reboot, KubeadmUpgrade, Reconfigure)
"""These touch partitions or static pods, or restart the machine: a kernel that dies of one can't count it afterwards.

What frees space is not among them, or a full disk could never be cleared: there is no room for the count.
"""

_TO_A_RELEASE = ("fetch", "write", "activate", "reboot", "pull", "prepare", "snapshot", "upgrade")

_UNFINISHED = "it was begun, and the machine or the agent stopped before it was done"
_NOT_ARRIVED = "the machine was told to restart, and the release has not run and been blessed since"


class Memory:
    """The agent's memory; every change is on disk when a method returns, unless it is read-only (a dry run)."""

    def __init__(self, store: StateStore, *, read_only: bool) -> None:
        """Load both. Raise StateLost when the trust state cannot be read."""
        self._store = store
        self._read_only = read_only
        self.trust = store.load_trust()
        self._journal = store.load_journal()

    @property
    def journal(self) -> Journal:
        """The journal as the planner reads it, with the poisoned releases."""
        return replace(self._journal, poisoned=self.trust.poisoned if self.trust else ())

    def trust_commit(self, fleet_id: str, commit: str, stamp: Stamp | None) -> None:
        """Remember a commit as the newest trusted one, and the newest stamp.

        The caller has authenticated both, from those that were remembered before.
        """
        self._keep_trust(TrustState(fleet_id, commit, self.trust.poisoned if self.trust else (), stamp))

    def poison(self, action: PoisonRelease, reason: str) -> None:
        """Remember a failed trial for ever."""
        if self.trust is None:
            raise StateLost(
                "there is no trust state to remember a failed trial in",
                hint="Install the machine again: without trust.json a rollback of the fleet could not be noticed.",
            )
        bad = Poisoned(action.version, action.root_hash, action.manifest, reason)
        self._keep_trust(replace(self.trust, poisoned=(*self.trust.poisoned, bad)))

    def begin(self, action: Action, now: datetime) -> None:
        """Note what must be known if the machine dies during this action."""
        journal = self._journal
        if isinstance(action, ActivateSlot) and action.supersede is not None:
            # Before the entry is marked bad, or it would look like a failed trial.
            journal = replace(journal, superseded=action.supersede.root_hash)
        if isinstance(action, _COUNTED_FROM_THE_START):
            journal = self._counted(
                journal, action, Attempt(0, now, _NOT_ARRIVED if isinstance(action, Reboot) else _UNFINISHED)
            )
        self._keep_journal(journal)

    def fail(self, action: Action, now: datetime, error: KubenodeError) -> None:
        """Note that an action failed, and how."""
        reason = error.reason if isinstance(error, Untrusted) else ""
        attempt = Attempt(0, now, error.message, reason)
        if isinstance(action, _COUNTED_FROM_THE_START):
            counted = self._journal.attempts[step_key(action)]
            attempts = {**self._journal.attempts, step_key(action): replace(attempt, failures=counted.failures)}
            self._keep_journal(replace(self._journal, attempts=attempts))
        else:
            self._keep_journal(self._counted(self._journal, action, attempt))

    def succeed(self, action: Action) -> None:
        """Forget the failures of an action that worked."""
        attempts = {key: value for key, value in self._journal.attempts.items() if key != step_key(action)}
        self._keep_journal(replace(self._journal, attempts=attempts))

    def settle(self, observed: Observed, running: str | None) -> None:
        """Forget what the machine shows to be over; `running` is the manifest digest of the release that runs.

        A release that was blessed and documents that are rendered have no failures any more, and an entry that is not
        bad is not superseded.
        """
        journal = self._journal
        bad = {entry.root_hash for entry in observed.entries if entry.tries_left == 0}
        if journal.superseded is not None and journal.superseded not in bad:
            journal = replace(journal, superseded=None)
        over = set()
        if running is not None and not observed.booted.trial:
            over = {f"{step}:{running}" for step in _TO_A_RELEASE}
        here, cluster = observed.kubernetes, observed.cluster
        # Not while the cluster has others: a control plane writes them there by the same step.
        if (
            here is not None
            and here.configuration
            and cluster is not None
            and cluster.configuration == here.configuration
        ):
            over.add(step_key(Reconfigure(here.configuration, first=False)))
        attempts = {key: value for key, value in journal.attempts.items() if key not in over}
        self._keep_journal(replace(journal, attempts=attempts))

    @staticmethod
    def _counted(journal: Journal, action: Action, attempt: Attempt) -> Journal:
        before = journal.attempts.get(step_key(action))
        counted = replace(attempt, failures=1 + (before.failures if before else 0))
        others = [(key, value) for key, value in journal.attempts.items() if key != step_key(action)]
        # Bounded: the oldest failures of releases that have come and gone are forgotten.
        kept = sorted(others, key=lambda item: item[1].last)[-(MAX_ATTEMPTS - 1) :]
        return replace(journal, attempts={**dict(kept), step_key(action): counted})

    def _keep_journal(self, journal: Journal) -> None:
        if journal != self._journal and not self._read_only:
            self._store.save_journal(journal)
        self._journal = journal

    def _keep_trust(self, trust: TrustState) -> None:
        if trust != self.trust and not self._read_only:
            self._store.save_trust(trust)
        self.trust = trust
