"""Tells people: the status of a node, derived from one tick. Nothing here is ever an input of a decision."""

from dataclasses import replace
from datetime import timedelta

from kubenode.model.decision import (
    Act,
    Action,
    ActivateSlot,
    Converged,
    Cordon,
    Decision,
    Drain,
    FetchRelease,
    KubeadmInit,
    KubeadmJoin,
    KubeadmUpgrade,
    PrepareKubelet,
    PullImages,
    Reboot,
    Reconfigure,
    RenewCertificates,
    SnapshotEtcd,
    Stuck,
    Wait,
    WriteSlot,
)
from kubenode.model.desired import DesiredState
from kubenode.model.journal import Journal
from kubenode.model.kubernetes import NodeReport
from kubenode.model.observed import Observed
from kubenode.model.state import Condition, NodeStatus
from kubenode.plan import observations

TELL_AGAIN = timedelta(minutes=15)
"""After so long a node repeats what it tells in the cluster."""


def conditions(
    decision: Decision, desired: DesiredState | None, observed: Observed | None, journal: Journal
) -> tuple[Condition, ...]:
    """Return the conditions Staged, UpToDate and Stalled; `Trusted` and `Fresh` come from `kubenode.agent.follow`."""
    return (
        _staged(desired, observed),
        _up_to_date(desired, observed),
        _stalled(decision, journal),
    )


def phase(decision: Decision, desired: DesiredState | None, observed: Observed | None) -> str:
    """Return one or two words for a table."""
    match decision:
        case Converged():
            return "Up to date"
        case Stuck():
            return "Stuck"
        case Act(action):
            return _doing(action)
        case Wait("TrialBoot"):
            return "Trial boot"
        case Wait("Restarting"):
            return "Restarting"
        case Wait("Backoff"):
            return "Retrying"
        case Wait("Stale"):
            return "Stale"
        case Wait("Draining"):
            return "Draining"
        case Wait():
            return "Staged" if _staged(desired, observed).status == "True" else "Waiting"


def sentence(decision: Decision) -> tuple[str, str]:
    """Return a decision's message and hint."""
    match decision:
        case Act(_, why):
            return why, ""
        case Stuck(_, message, hint):
            return message, hint
        case Wait(_, message) | Converged(message):
            return message, ""


def news(shown: NodeReport, status: NodeStatus) -> tuple[NodeReport, str] | None:
    """Return the report and the account that a node should show in the cluster, None when it shows them already.

    What others decide by stays as it is shown: the planner's own actions publish that.
    """
    account = observations.account(status)
    told = replace(shown, phase=status.phase, commit=status.commit or "", account=observations.digest(account))
    # Now and then although nothing has changed: a laptop cannot tell a quiet node from a dead one otherwise.
    if told == shown and shown.at is not None and abs(status.at - shown.at) < TELL_AGAIN:
        return None
    return replace(told, at=status.at), account


def _doing(action: Action) -> str:
    match action:
        case FetchRelease():
            return "Fetching"
        case WriteSlot():
            return "Staging"
        case ActivateSlot():
            return "Activating"
        case Reboot():
            return "Restarting"
        case KubeadmInit() | KubeadmJoin():
            return "Joining"
        case PullImages() | PrepareKubelet() | SnapshotEtcd():
            return "Preparing"
        case KubeadmUpgrade() | Reconfigure() | RenewCertificates():
            return "Upgrading"
        case Cordon() | Drain():
            return "Draining"
        case _:
            return "Tidying up"


def _staged(desired: DesiredState | None, observed: Observed | None) -> Condition:
    if observed is None:
        return Condition("Staged", "Unknown", "NotObserved", "The machine could not be observed.")
    staged = observed.staged
    if staged is not None and staged.root_hash == observed.spare:
        message = f"release {staged.version} is in slot {observed.booted.slot.other} and not activated"
        return Condition("Staged", "True", "Staged", message)
    for entry in observed.entries:
        if entry.root_hash == observed.spare and (entry.tries_left or 0) > 0:
            return Condition("Staged", "True", "Activated", f"release {entry.version} is tried at the next start")
    if desired is not None and desired.releases and observed.booted.root_hash == desired.target.root_hash:
        return Condition("Staged", "False", "NotNeeded", "the target runs")
    return Condition("Staged", "False", "NotStaged", "no release waits in the spare slot")


def _up_to_date(desired: DesiredState | None, observed: Observed | None) -> Condition:
    if desired is None or not desired.releases or observed is None:
        return Condition("UpToDate", "Unknown", "NotKnown", "Target or machine are not known.")
    booted, target = observed.booted, desired.target
    if booted.root_hash != target.root_hash:
        message = f"release {booted.version} runs, {target.version} is wanted"
        return Condition("UpToDate", "False", "OtherRelease", message)
    if booted.trial:
        return Condition("UpToDate", "False", "TrialBoot", f"release {target.version} is on trial")
    return Condition("UpToDate", "True", "UpToDate", f"release {target.version} runs")


def _stalled(decision: Decision, journal: Journal) -> Condition:
    if isinstance(decision, Stuck):
        return Condition("Stalled", "True", decision.reason, decision.message)
    failed = max(journal.attempts.values(), key=lambda attempt: attempt.last, default=None)
    if isinstance(decision, Wait) and decision.reason == "Backoff" and failed is not None:
        return Condition("Stalled", "True", failed.reason or "Backoff", failed.error or decision.message)
    return Condition("Stalled", "False", "Proceeding", "nothing keeps this node")
