"""Follows the fleet repo: from the commit that is trusted to its newest trusted descendant.

Whatever is wrong with the new head, the node keeps the last trusted commit and goes on with what that says.
"""

from dataclasses import dataclass
from datetime import datetime

from kubenode.errors import FleetInvalid, KubenodeError, TryLater, Untrusted
from kubenode.fleet.layout import FLEET_PATH
from kubenode.fleet.load import load_fleet
from kubenode.model.state import Condition, Seed, TrustState
from kubenode.ports import FleetSource
from kubenode.trust.chain import TrustedCommit, TrustedTree, authenticate, trust_anchor
from kubenode.trust.freshness import Verdict, judge
from kubenode.trust.reasons import Reason

_NEVER_REACHED = "this machine has not reached its fleet repo yet"
_FIRST_CONTACT = "Check the network, DNS and the fleetUrl of the seed (seed.json); each tick tries again."


@dataclass(frozen=True)
class Followed:
    """The newest trusted commit with its files, and what stood in the way of a newer one."""

    tree: TrustedTree
    freshness: Verdict
    failure: KubenodeError | None = None
    refusal: Untrusted | None = None

    @property
    def refused(self) -> Untrusted | None:
        """The evidence that was refused, a commit or a stamp."""
        return self.refusal or self.freshness.refused

    @property
    def conditions(self) -> tuple[Condition, Condition]:
        """The conditions `Trusted` and `Fresh` of the status."""
        status = {True: "True", False: "False", None: "Unknown"}[self.freshness.fresh]
        return self._trusted, Condition("Fresh", status, str(self.freshness.reason), self.freshness.message)

    @property
    def _trusted(self) -> Condition:
        short = self.tree.oid[:12]
        if self.refusal is not None:
            message = f"{self.refusal.message} (this node stays at commit {short})"
            return Condition("Trusted", "False", str(self.refusal.reason), message)
        message = f"commit {short} is trusted"
        if self.failure is not None:
            message += f"; the fleet repo could not be read now: {self.failure.message}"
        return Condition("Trusted", "True", str(Reason.TRUSTED), message)


def follow(source: FleetSource, seed: Seed, trust: TrustState | None, now: datetime, *, fetch: bool) -> Followed:
    """Return the newest trusted commit; with `fetch`, ask the network for a newer head and a newer stamp first.

    Without trust state the seed's anchor is where trust begins. Raise Untrusted when not even the trusted commit can
    be read as it was, TryLater when this machine has never reached its fleet.
    """
    if trust is not None and trust.fleet_id != seed.fleet_id:
        raise Untrusted(
            Reason.FLEET_ID_MISMATCH,
            f"this machine belongs to the fleet {trust.fleet_id}, its seed names {seed.fleet_id}",
            hint="A machine changes its fleet only by being installed again.",
        )
    start = trust.commit if trust is not None else seed.anchor
    failure = _fetch(source, trust) if fetch else None
    head = source.stored_head()
    if head is None:
        raise failure or TryLater(_NEVER_REACHED, hint=_FIRST_CONTACT)
    anchor = source.anchor(start)
    refusal = failure if isinstance(failure, Untrusted) else None
    if head != start:
        try:
            commit = authenticate(anchor, source.chain(start, head), fleet_id=seed.fleet_id, head=head)
            tree = _tree(source, commit, seed)
            failed = _accept(source, commit)
            if failed is None:
                return Followed(tree, _judge(source, tree, seed, trust, source.stamp(), now), failure, refusal)
            failure = failed
        except Untrusted as error:
            refusal = error
    commit = trust_anchor(anchor)
    tree = _tree(source, commit, seed)
    # At the first contact the anchor itself is new. What is returned is remembered as trusted, so it must be kept.
    if failed := _accept(source, commit):
        raise failed
    return Followed(tree, _judge(source, tree, seed, trust, source.stamp(), now), failure, refusal)


def stored(source: FleetSource, seed: Seed, trust: TrustState | None, now: datetime) -> Followed:
    """Return the commit that is trusted already, authenticated again, without network. Raise Untrusted, TryLater.

    Of stamps only the remembered one counts: what a mirror offers must not fail the health gate of a trial boot.
    """
    if trust is None and source.stored_head() is None:
        raise TryLater(_NEVER_REACHED, hint=_FIRST_CONTACT)
    anchor = source.anchor(trust.commit if trust is not None else seed.anchor)
    tree = _tree(source, trust_anchor(anchor), seed)
    return Followed(tree, _judge(source, tree, seed, trust, None, now))


def _judge(
    source: FleetSource, tree: TrustedTree, seed: Seed, trust: TrustState | None, offered: bytes | None, now: datetime
) -> Verdict:
    """Judge freshness by the policy of the commit that is trusted now."""
    kept = trust.stamp if trust is not None else None
    return judge(
        tree.policy.freshness, seed.fleet_id, kept, offered, now, lambda commit: source.on_line(commit, tree.oid)
    )


def _fetch(source: FleetSource, trust: TrustState | None) -> KubenodeError | None:
    """Ask for a newer head. Return what went wrong: a full disk, a dead network or a repo full of rubbish.

    None of that may keep the node from tidying up, or from finishing what the trusted commit says.
    """
    try:
        source.fetch(trust)
    except KubenodeError as error:
        return error
    return None


def _accept(source: FleetSource, commit: TrustedCommit) -> KubenodeError | None:
    """Have a commit kept for good. Return what went wrong, a full disk for example: then it cannot be followed yet."""
    try:
        source.accept(commit)
    except Untrusted:
        raise
    except KubenodeError as error:
        return error
    return None


def _tree(source: FleetSource, commit: TrustedCommit, seed: Seed) -> TrustedTree:
    tree = source.tree(commit)
    try:
        found = load_fleet({FLEET_PATH: tree[FLEET_PATH]} if FLEET_PATH in tree else {}, node=seed.node).fleet.id
    except FleetInvalid:
        # The commit is trusted and its documents are broken: that is said when they are read, and it is no reason to
        # stay behind. Its history begins at this fleet's anchor.
        return tree
    if found != seed.fleet_id:
        raise Untrusted(
            Reason.FLEET_ID_MISMATCH,
            f"commit {commit.oid[:12]} is of the fleet {found}, this machine belongs to {seed.fleet_id}",
            subject=commit.oid,
            hint="Check the fleet URL in the machine's seed; a fleet's id never changes.",
        )
    return tree
