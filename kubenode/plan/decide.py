"""The one decision: what a node does next.

`decide` asks the rules below in order; the first that has something to say decides. Their order is the safety
argument, so each rule says why it stands where it stands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from kubenode.model.decision import (
    Act,
    Action,
    ActivateSlot,
    Converged,
    Decision,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    Stuck,
    Wait,
    WriteSlot,
)
from kubenode.model.desired import DesiredState
from kubenode.model.documents import Release, Role
from kubenode.model.journal import Journal
from kubenode.model.observed import Observed
from kubenode.plan import slots, windows
from kubenode.plan.backoff import held_back
from kubenode.plan.hops import is_poisoned, path_to_target


def decide(desired: DesiredState, observed: Observed, journal: Journal, now: datetime) -> Decision:
    """Return the next action of a node, or why there is none. `now` is aware, in UTC. Raises nothing."""
    if not desired.releases:
        return Stuck(
            "NoRelease",
            f"Channel {desired.channel} of pool {desired.pool} lists no release.",
            "Add a release to the channel, or pin one in the pool.",
        )
    node = _Node(desired, observed, journal, now)
    for rule in _RULES:
        decision = rule(node)
        if decision is not None:
            return decision
    return _stage_and_activate(node, node.path[0])


@dataclass(frozen=True)
class _Node:
    """The four inputs of a decision and what follows from them."""

    desired: DesiredState
    observed: Observed
    journal: Journal
    now: datetime

    @property
    def running(self) -> str:
        return f"release {self.observed.booted.version}"

    @property
    def channel(self) -> str:
        """The channel's name, quoted for a message."""
        return f"`{self.desired.channel}`"

    @property
    def target(self) -> Release:
        return self.desired.target

    @property
    def on_target(self) -> bool:
        return self.observed.booted.root_hash == self.target.root_hash

    @property
    def version_reused(self) -> bool:
        return not self.on_target and self.observed.booted.version == self.target.version

    @cached_property
    def path(self) -> tuple[Release, ...]:
        """The releases still to run, the target last; empty when there is nothing to do or no way."""
        if self.on_target or self.version_reused:
            return ()
        # A hop to what runs already would be no hop, whatever version its document claims.
        running = self.observed.booted.root_hash
        releases = tuple(release for release in self.desired.releases if release.root_hash != running)
        return path_to_target(self.observed.booted.version, releases, self.journal.poisoned)

    @property
    def hop(self) -> Release | None:
        return self.path[0] if self.path else None

    @property
    def goes_down(self) -> bool:
        return self.hop is not None and self.hop.version < self.observed.booted.version

    @property
    def member(self) -> Role | None:
        """As what this machine is part of a cluster."""
        return self.observed.kubernetes.joined if self.observed.kubernetes is not None else None

    @property
    def may_disrupt(self) -> bool:
        """Whether this node may be changed and restarted at all (windows only say when)."""
        return not self.desired.halted and not self.member

    def act(self, action: Action, why: str, *then: str) -> Decision:
        """Return the action, or the reason why it may not be tried (again) now."""
        return held_back(action, self.journal, self.now) or Act(action, why, then)

    def onwards(self) -> tuple[str, ...]:
        """Name the steps after the restart, for people."""
        return ("trial boot", *(f"continue to release {release.version}" for release in self.path[1:]))


_Rule = Callable[[_Node], Decision | None]


def _trial(node: _Node) -> Decision | None:
    # First, because until systemd's health gate has spoken it is open which release this machine runs: touching an
    # entry or a slot now could take away what it falls back to.
    if not node.observed.booted.trial:
        return None
    return Wait(
        "TrialBoot",
        f"This is the trial boot of {node.running}; systemd's health gate decides whether it stays.",
    )


def _remember_failed_trial(node: _Node) -> Decision | None:
    # Before any entry is removed: the counter in its name is the only witness of the failure.
    for entry in slots.failed_trials(node.observed, node.journal):
        manifest = next((r.manifest for r in node.desired.releases if r.root_hash == entry.root_hash), None)
        return node.act(
            PoisonRelease(entry.version, entry.root_hash, manifest),
            f"Release {entry.version} was started {entry.tries_done} times on this node and never passed its health "
            f"gate; the machine fell back to {node.running}.",
            "remove its boot entry",
        )
    return None


def _boot_entry_missing(node: _Node) -> Decision | None:
    # Before entries are removed or slots written: with no entry to come back to, every further step makes it worse.
    if slots.booted_entry(node.observed) is not None:
        return None
    return Stuck(
        "BootEntryMissing",
        f"The ESP has no boot entry for {node.running}, which is running: after a restart the machine may not come "
        "back, and an update would have nothing to fall back to.",
        "Do not restart the machine. Put this release's UKI back into EFI/Linux of the ESP, or install the machine "
        "again.",
    )


def _restore_superseded(node: _Node) -> Decision | None:
    # A downgrade marks the running entry bad before it adds the older one. If the channel moves on in between, the
    # mark would stay and a newer release that fails would be started for ever, as the newest of nothing but bad ones.
    entry = slots.booted_entry(node.observed)
    if entry is None or node.goes_down or not slots.is_superseded(entry, node.journal):
        return None
    return node.act(
        RestoreEntry(entry),
        f"The boot entry of {node.running} was marked bad for a downgrade that is no longer wanted.",
    )


def _remove_stray_entries(node: _Node) -> Decision | None:
    # Allowed at any time, halted or not: this prevents a change that the next power cut would make.
    wanted = node.hop if node.may_disrupt else None
    for entry in slots.stray_entries(node.observed, node.journal, wanted):
        return node.act(
            RetireEntry(entry),
            f"The boot entry of release {entry.version} must not be started: {_stray_because(node, entry.root_hash)}.",
        )
    return None


def _stray_because(node: _Node, root_hash: str) -> str:
    if root_hash != node.observed.spare:
        return "its slot holds something else"
    if any(bad.root_hash == root_hash for bad in node.journal.poisoned):
        return "the release failed its trial here"
    if node.hop is None or node.hop.root_hash != root_hash:
        return "it is not the next release of this node"
    if node.desired.halted:
        return "the fleet is halted"
    if node.member is not None:
        return "this machine is part of a cluster"
    return "it has to be tried with a counter, so that the machine can fall back"


def _prune(node: _Node) -> Decision | None:
    # Before the next download, so that the leftovers of a channel that moved on can't fill the disk for good.
    hop = node.hop
    downloads = (node.observed.fetched | node.observed.partial) - ({hop.manifest} if hop else frozenset())
    staged = node.observed.staged
    stale = staged is not None and (hop is None or staged.root_hash != hop.root_hash)
    if not downloads and not stale:
        return None
    return node.act(
        PruneStaging(downloads, stale), "Downloads of releases that are not next on this node take up space."
    )


def _converged(node: _Node) -> Decision | None:
    # After the tidying rules, so that "converged" also means that nothing is left over. What runs and was blessed is
    # good even if it is listed as poisoned: it has passed its gate since.
    if not node.on_target:
        return None
    return Converged(f"This node runs {node.running}, as commit {node.desired.commit[:12]} says.")


def _no_way(node: _Node) -> Decision | None:
    if node.path:
        return None
    target = node.target
    if node.version_reused:
        return Stuck(
            "VersionReused",
            f"The fleet repo's release {target.version} is another image than the {node.running} that runs here.",
            "Releases never change: publish the new image under a new version and move the channel to it.",
        )
    if is_poisoned(target, node.journal.poisoned):
        return Stuck(
            "ReleasePoisoned",
            f"Release {target.version} failed its trial on this node, so it is not tried again; {node.running} keeps "
            "running.",
            f"Look for the failed boots in the journal (journalctl --list-boots). Then move channel {node.channel}"
            " to a repaired release.",
        )
    floor = "" if target.floor is None else f"; it can be reached from {target.floor} or newer"
    return Stuck(
        "NoUpgradePath",
        f"No releases of channel {node.channel} lead from {node.running} to release {target.version}{floor}.",
        "Add a release in between to the channel, or install the machine again with a newer image.",
    )


def _reboot(node: _Node) -> Decision | None:
    hop = node.hop
    if hop is None or not slots.is_activated(hop, node.observed):
        return None
    # Halted fleets and cluster members never get here: their activated entry was a stray one.
    return _outside_window(node, f"restart into release {hop.version}") or node.act(
        Reboot(hop),
        f"Release {hop.version} is activated in slot {node.observed.booted.slot.other}; {node.running} in slot "
        f"{node.observed.booted.slot} is its fallback.",
        *node.onwards(),
    )


_RULES: tuple[_Rule, ...] = (
    _trial,
    _remember_failed_trial,
    _boot_entry_missing,
    _restore_superseded,
    _remove_stray_entries,
    _prune,
    _converged,
    _no_way,
    _reboot,
)


def _stage_and_activate(node: _Node, hop: Release) -> Decision:
    """Bring the next release into the spare slot, at any time, and make it start, when that is allowed."""
    observed = node.observed
    slot = observed.booted.slot.other
    write, activate, reboot = f"write slot {slot}", f"activate release {hop.version}", "restart"
    if hop.manifest not in observed.fetched:
        then = (activate, reboot) if slots.is_staged(hop, observed) else (write, activate, reboot)
        return node.act(
            FetchRelease(hop), f"Release {hop.version} is {_place(node)}; {node.running} runs.", *then, *node.onwards()
        )
    # The spare slot is about to change or has changed: until the release is activated, the ESP may name only what runs.
    for entry in slots.other_entries(observed):
        return node.act(
            RetireEntry(entry),
            f"Slot {slot} is needed for release {hop.version}, and the boot entry of release {entry.version} must not "
            "point at a slot that is being written.",
            write,
            activate,
            reboot,
            *node.onwards(),
        )
    if not slots.is_staged(hop, observed):
        return node.act(
            WriteSlot(hop, slot),
            f"Release {hop.version} is downloaded and verified; slot {slot} is free.",
            activate,
            reboot,
            *node.onwards(),
        )
    return (
        _forbidden(node, hop)
        or _no_fallback(node)
        or _outside_window(node, f"activate release {hop.version}")
        or node.act(
            ActivateSlot(hop, slots.booted_entry(observed) if node.goes_down else None),
            f"Release {hop.version} is staged in slot {slot} and is {_place(node)}.",
            reboot,
            *node.onwards(),
        )
    )


def _place(node: _Node) -> str:
    """Say what the next release is on the way to the target."""
    if node.goes_down:
        return f"where channel {node.channel} was moved back to"
    if len(node.path) == 1:
        return f"the target of channel {node.channel}"
    return f"the next hop to release {node.target.version}"


def _forbidden(node: _Node, hop: Release) -> Decision | None:
    if node.desired.halted:
        return Wait("Halted", f"The fleet is halted; release {hop.version} is staged and waits.")
    if node.member is not None:
        return Stuck(
            "KubernetesUpdatesNotSupported",
            f"This machine is a {node.member} of a cluster, and kubenode cannot update cluster members "
            f"yet (no leases, no drain); release {hop.version} is staged and not started.",
            f"Keep the pool on {node.running}, or take the machine out of the cluster (drain, kubeadm reset) first.",
        )
    return None


def _no_fallback(node: _Node) -> Decision | None:
    # A trial is only safe when the loader comes back to what runs. A bad entry sorts behind every newer one, even one
    # that failed: the machine would start the failed release for ever.
    entry = slots.booted_entry(node.observed)
    if node.goes_down or (entry is not None and entry.tries_left is None):
        return None
    return Stuck(
        "NoFallback",
        f"The boot entry of {node.running} is not marked good, so the machine could not fall back to it.",
        "Restart the machine once: its health gate then marks the running release good.",
    )


def _outside_window(node: _Node, what: str) -> Decision | None:
    if windows.is_open(node.desired.windows, node.now):
        return None
    opening = windows.next_opening(node.desired.windows, node.now)
    if opening is None:
        return Stuck(
            "NoWindow",
            f"To {what} a maintenance window is needed, and none of pool {node.desired.pool} ever opens.",
            "Check days, duration and time zone of the pool's windows (an image without tzdata knows only UTC).",
        )
    return Wait(
        "OutsideWindow",
        f"Waiting to {what} until the maintenance window opens at {opening:%Y-%m-%d %H:%M} UTC.",
        opening,
    )
