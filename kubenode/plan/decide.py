"""The one decision: what a node does next.

`decide` asks the rules below in order; the first that has something to say decides. Their order is the safety
argument, so each rule says why it stands where it stands.
"""

from collections.abc import Callable
from datetime import datetime

from kubenode.model.decision import (
    Act,
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
from kubenode.model.documents import Release
from kubenode.model.journal import Journal
from kubenode.model.observed import Observed
from kubenode.plan import slots
from kubenode.plan.hops import is_poisoned
from kubenode.plan.kubernetes import control_plane, gates, joining, leases, restart, upkeep
from kubenode.plan.node import Node, kubernetes_of


def decide(desired: DesiredState, observed: Observed, journal: Journal, now: datetime, *, stale: str = "") -> Decision:
    """Return the next action of a node, or why there is none. `now` is aware, in UTC. Raises nothing.

    `stale` says why nobody vouches that `desired` is the owners' newest word; it is empty when somebody does.
    """
    if not desired.releases:
        return Stuck(
            "NoRelease",
            f"Channel {desired.channel} of pool {desired.pool} lists no release.",
            "Add a release to the channel, or pin one in the pool.",
        )
    node = Node(desired, observed, journal, now, stale)
    decision = _next(node)
    if desired.cluster is None:
        return decision
    if not isinstance(decision, Act):
        decision = upkeep.chores(node, decision)
    return leases.let_go(node, decision, begun=control_plane.begun(node))


def _next(node: Node) -> Decision:
    """Return what brings the machine to its release, and into its cluster."""
    for rule in _RULES:
        decision = rule(node)
        if decision is not None:
            return decision
    return _stage_and_activate(node, node.path[0])


_Rule = Callable[[Node], Decision | None]


def _trial(node: Node) -> Decision | None:
    # First, because until systemd's health gate has spoken it is open which release this machine runs: touching an
    # entry or a slot now could take away what it falls back to.
    if not node.observed.booted.trial:
        return None
    return Wait(
        "TrialBoot",
        f"This is the trial boot of {node.running}; systemd's health gate decides whether it stays.",
    )


def _remember_failed_trial(node: Node) -> Decision | None:
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


def _boot_entry_missing(node: Node) -> Decision | None:
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


def _restore_superseded(node: Node) -> Decision | None:
    # A downgrade marks the running entry bad before it adds the older one. If the channel moves on in between, the
    # mark would stay and a newer release that fails would be started for ever, as the newest of nothing but bad ones.
    entry = slots.booted_entry(node.observed)
    if entry is None or node.goes_down or not slots.is_superseded(entry, node.journal):
        return None
    return node.act(
        RestoreEntry(entry),
        f"The boot entry of {node.running} was marked bad for a downgrade that is no longer wanted.",
    )


def _remove_stray_entries(node: Node) -> Decision | None:
    # Allowed at any time, halted or not: this prevents a change that the next power cut would make.
    wanted = node.hop if slots.other_entries(node.observed) and _may_start(node) else None
    for entry in slots.stray_entries(node.observed, node.journal, wanted):
        return node.act(
            RetireEntry(entry),
            f"The boot entry of release {entry.version} must not be started: {_stray_because(node, entry.root_hash)}.",
        )
    return None


def _may_start(node: Node) -> bool:
    """Say whether the next release may be what the next boot starts, should it be activated already."""
    if node.desired.halted or node.stale or gates.local_role(node) is not None:
        return False
    if node.cluster is None or node.member is None or node.hop is None:
        return True
    # When the API is away, what was allowed before still stands: the node was emptied and its lease is never stolen.
    return node.view is None or restart.permitted(node, node.hop)


def _stray_because(node: Node, root_hash: str) -> str:
    if root_hash != node.observed.spare:
        return "its slot holds something else"
    if any(bad.root_hash == root_hash for bad in node.journal.poisoned):
        return "the release failed its trial here"
    if node.hop is None or node.hop.root_hash != root_hash:
        return "it is not the next release of this node"
    if node.desired.halted:
        return "the fleet is halted"
    if node.stale:
        return "this node does not know whether that is still wanted"
    if node.member is not None and not _may_start(node):
        return "this member of the cluster may not restart now"
    return "it has to be tried with a counter, so that the machine can fall back"


def _prune(node: Node) -> Decision | None:
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


def _converged(node: Node) -> Decision | None:
    # After the tidying rules, so that "converged" also means that nothing is left over. What runs and was blessed is
    # good even if it is listed as poisoned: it has passed its gate since.
    if not node.on_target:
        return None
    role = gates.local_role(node)
    if role is not None:
        return role
    message = f"This node runs {node.running}, as commit {node.desired.commit[:12]} says"
    if node.member is not None and node.view is None:
        message += "; its cluster could not be asked, so nothing is known of what is left to do there"
    return Converged(f"{message}.")


def _no_way(node: Node) -> Decision | None:
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
    kubelet, new = node.here.kubelet if node.here is not None else None, kubernetes_of(target)
    member = node.member is not None and node.cluster is not None
    if member and (new is None or (kubelet is not None and new.minor < kubelet.minor)):
        return Stuck(
            "KubernetesDowngrade",
            f"Release {target.version} has {new or 'no Kubernetes'}, and this member of the cluster runs {kubelet}: "
            "Kubernetes never goes back by a minor.",
            f"Move channel {node.channel} to a release with the same minor or a newer one.",
        )
    floor = "" if target.floor is None else f"; it can be reached from {target.floor} or newer"
    if member:
        floor += f"; Kubernetes {kubelet} goes to {new} minor by minor"
    return Stuck(
        "NoUpgradePath",
        f"No releases of channel {node.channel} lead from {node.running} to release {target.version}{floor}.",
        "Add a release in between to the channel, or install the machine again with a newer image.",
    )


def _stale(node: Node) -> Decision | None:
    # After everything that keeps the machine as it is, before everything that begins a change. Downloads are held back
    # too: writing the slot would destroy the release before this one for one that may have been withdrawn since.
    # A control plane between two versions goes on: as it is, it is worse.
    if not node.stale or control_plane.begun(node) or (node.hop is None and not node.newcomer):
        return None
    what = f"Release {node.hop.version} is {_place(node)} and nothing new" if node.hop is not None else "Nothing new"
    return Wait("Stale", f"{what} is started while this node is stale: {node.stale}.")


def _reboot(node: Node) -> Decision | None:
    hop = node.hop
    if hop is None or not slots.is_activated(hop, node.observed):
        return None
    # Halted fleets, stale nodes and members that may not leave never get here: their activated entry was a stray one.
    if node.member is not None and node.view is None:
        return gates.begin(node, f"restart into release {hop.version}")
    return node.outside_window(f"restart into release {hop.version}") or node.act(
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
    upkeep.revive,
    _stale,
    joining.enter,
    _converged,
    _no_way,
    _reboot,
)


def _stage_and_activate(node: Node, hop: Release) -> Decision:
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
        _half_done(node, hop)
        or _forbidden(node, hop)
        or _no_fallback(node)
        or (control_plane.pass_one(node, hop) or restart.prepare(node, hop) if node.member is not None else None)
        or node.outside_window(f"activate release {hop.version}")
        or node.act(
            ActivateSlot(hop, slots.booted_entry(observed) if node.goes_down else None),
            f"Release {hop.version} is staged in slot {slot} and is {_place(node)}.",
            reboot,
            *node.onwards(),
        )
    )


def _place(node: Node) -> str:
    """Say what the next release is on the way to the target."""
    if node.goes_down:
        return f"where channel {node.channel} was moved back to"
    if len(node.path) == 1:
        return f"the target of channel {node.channel}"
    return f"the next hop to release {node.target.version}"


def _half_done(node: Node, hop: Release) -> Decision | None:
    # Halted or not: a control plane between two versions is worse than one that finishes.
    return control_plane.pass_one(node, hop) if control_plane.begun(node) else None


def _forbidden(node: Node, hop: Release) -> Decision | None:
    if node.desired.halted:
        return Wait("Halted", f"The fleet is halted; release {hop.version} is staged and waits.")
    return gates.local_role(node)


def _no_fallback(node: Node) -> Decision | None:
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
