"""Whether the commit that a node trusts is still the owners' newest word, or somebody may be withholding commits.

The rules are those of docs/trust.md, section Freshness; the attacks are the freeze and the fast-forward attack of TUF
(TUF 1.0.34, section 1.5.2, and 5.3.11 for what is forgotten when keys are rotated).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubenode.errors import Untrusted
from kubenode.model.state import Stamp
from kubenode.trust.headfile import verify
from kubenode.trust.policy import Freshness
from kubenode.trust.reasons import Reason

TOLERANCE = timedelta(minutes=10)
"""How far ahead of this machine's clock a stamp may be before the clock is said to be behind."""

_HINTS = {
    str(Reason.HEAD_MISSING): "Stamp the newest commit where this machine reads it: kubenode trust stamp.",
    str(Reason.HEAD_STALE): "Does the job that runs kubenode trust stamp still run? Is this machine's clock right?",
    str(Reason.HEAD_EXPIRED): "Does the job that runs kubenode trust stamp still run? Is this machine's clock right?",
    str(Reason.HEAD_WITHHELD): "Compare the branch that this machine is given with the commit that was stamped.",
}

FRESH, CLOCK_BEHIND, NOT_REQUIRED = "Fresh", "ClockBehind", "NotRequired"


@dataclass(frozen=True)
class Verdict:
    """What is known of a node's freshness.

    `fresh` is None when the policy does not ask for it. `reason` is a code, `message` a sentence without its end.
    `kept` is the stamp to remember. `refused` says why the head.json that was offered is not believed.
    """

    fresh: bool | None
    reason: str
    message: str
    kept: Stamp | None
    refused: Untrusted | None = None

    @property
    def stale(self) -> str:
        """Why nothing new may be started; empty when the node is fresh, or need not be."""
        return self.message if self.fresh is False else ""

    @property
    def hint(self) -> str:
        """What a person can do about it."""
        return self.refused.hint if self.refused is not None else _HINTS.get(self.reason, "")


def judge(
    required: Freshness | None,
    fleet_id: str,
    kept: Stamp | None,
    offered: bytes | None,
    now: datetime,
    is_trusted: Callable[[str], bool],
) -> Verdict:
    """Judge the stamp that is remembered (`kept`) and the head.json that the fleet source offers, if any.

    `required` is that of the trusted policy, `now` this machine's clock (aware). `is_trusted` says whether a commit
    lies on the first-parent chain at or below the trusted commit. Raises nothing of its own.

    A refused offer does not make a node stale by itself, or any mirror could: the remembered stamp counts until its
    time is over. Two different heads under one serial do, because only a holder of a stamping key can make these.
    """
    if required is None:
        message = "the trust policy asks for no freshness, so commits that are withheld would not be noticed"
        return Verdict(None, NOT_REQUIRED, message, kept)
    if kept is not None and kept.key not in {key.fingerprint for key in required.keys}:
        # The key was taken out of the policy. If it was stolen, its serials and times may lie far ahead, and nothing
        # that its successor signs could ever reach them.
        kept = None
    refused: Untrusted | None = None
    if offered is not None:
        try:
            kept = _newer(kept, verify(offered, required.keys, fleet_id))
        except Untrusted as error:
            refused = error
    if kept is None:
        if refused is not None:
            return Verdict(False, str(refused.reason), refused.message, None, refused)
        message = "no signed head.json has been seen, so nobody vouches that the trusted commit is the newest"
        return Verdict(False, Reason.HEAD_MISSING, message, None)
    problem = _problem(required, kept, now, is_trusted, refused)
    if problem is not None:
        return Verdict(False, *problem, kept, refused)
    ahead = kept.issued - now
    message = f"stamp {kept.serial}, issued at {_shown(kept.issued)}, vouches for commit {kept.head[:12]}"
    if ahead > TOLERANCE:
        message += f"; this machine's clock is behind: it says {_shown(now)}"
    if refused is not None:
        message += f"; the head.json offered now is refused ({refused.reason}): {refused.message}"
    return Verdict(True, CLOCK_BEHIND if ahead > TOLERANCE else FRESH, message, kept, refused)


def _newer(kept: Stamp | None, stamp: Stamp) -> Stamp:
    """Return the stamp to remember. Raises Untrusted: HeadRewound, HeadEquivocation."""
    if kept is None or stamp.serial > kept.serial:
        # Its time counts even when it is earlier than that of the stamp before: a stamping machine whose clock was
        # once ahead must be able to come back, and nobody else can make a higher serial.
        return stamp
    if stamp.serial < kept.serial:
        raise Untrusted(
            Reason.HEAD_REWOUND,
            f"stamp {stamp.serial} is offered, and this machine has seen {kept.serial} already: an old head.json is "
            "played back",
            subject="head.json",
            hint="Check the mirror or git host that this machine reads; `kubenode trust stamp` never counts backwards.",
        )
    if stamp.head != kept.head:
        raise Untrusted(
            Reason.HEAD_EQUIVOCATION,
            f"stamp {stamp.serial} exists twice: for commit {kept.head[:12]} and for {stamp.head[:12]}",
            subject="head.json",
            hint="Somebody else has the stamping key, or two machines stamp without knowing of each other. Stamp again "
            "from one place; if the key may be stolen, replace it in spec.freshness.keys.",
        )
    return max(kept, stamp, key=lambda it: it.issued)


def _problem(
    required: Freshness,
    kept: Stamp,
    now: datetime,
    is_trusted: Callable[[str], bool],
    refused: Untrusted | None,
) -> tuple[str, str] | None:
    """Return (reason, message) when the remembered stamp does not make this node fresh."""
    if refused is not None and refused.reason == Reason.HEAD_EQUIVOCATION:
        return Reason.HEAD_EQUIVOCATION, refused.message
    if not is_trusted(kept.head):
        message = (
            f"stamp {kept.serial} of {_shown(kept.issued)} is for commit {kept.head[:12]}, which is not in the history "
            "that this machine was given and trusts: newer commits are withheld or refused"
        )
        return Reason.HEAD_WITHHELD, message
    # The clock may be behind, for example at a first boot. It cannot be earlier than the newest stamp.
    moment = max(now, kept.issued)
    what = f"the newest stamp ({kept.serial}) was issued at {_shown(kept.issued)}"
    clock = f"this machine's clock says {_shown(now)}"
    reason = None
    if moment >= kept.expires:
        reason, what = Reason.HEAD_EXPIRED, f"{what} and expired at {_shown(kept.expires)}; {clock}"
    elif moment - kept.issued > timedelta(seconds=required.max_age):
        reason, what = Reason.HEAD_STALE, f"{what}, longer ago than the maxAge of {span(required.max_age)}; {clock}"
    if reason is None:
        return None
    if refused is not None:
        return str(refused.reason), f"{what}; the head.json offered now is refused: {refused.message}"
    return reason, what


def span(seconds: int) -> str:
    """Return a duration as policies write it, for example 7d or 90m."""
    size, unit = next(
        (size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")) if not seconds % size
    )
    return f"{seconds // size}{unit}"


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
