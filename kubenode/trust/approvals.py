"""Approvals: people who stand behind a change without having signed the commit, in trailers of its message.

`Kubenode-Approval: v1 PARENT TREE SIGNATURE` on one line. SIGNATURE is the base64 of an SSH signature (PROTOCOL.sshsig)
in the namespace `kubenode-approval` over `payload(...)`. It speaks about one change of one fleet: these files, on top
of this commit. PARENT and TREE repeat what was signed, only so that an approval of another version can be told from
rubbish. An approval can only help: one that does not count is passed over, and a refusal says why.
"""

import re
from dataclasses import dataclass
from enum import Enum

from kubenode.errors import Untrusted
from kubenode.trust import sshsig
from kubenode.trust.commit import Commit
from kubenode.trust.keys import PublicKey
from kubenode.trust.reasons import Reason
from kubenode.trust.trailers import Trailer, trailers

NAMESPACE = "kubenode-approval"
TRAILER = "Kubenode-Approval"
MAX_APPROVALS = 100
"""As many as a rule's threshold may ask for (schemas/trust-policy.json)."""
MAX_VALUE = 8192
"""Bytes of one trailer's value; the largest RSA key that is read needs about 5,800."""

_VALUE = re.compile(rb"v1 ([0-9a-f]{40}) ([0-9a-f]{40}) ([A-Za-z0-9+/]+={0,2})")
_VERSION = re.compile(rb"v[0-9]{1,6} ")


class Flaw(Enum):
    """Why an approval does not count, whatever the policy says."""

    UNREADABLE = "unreadable"
    NEWER = "newer"
    BROKEN = "broken"
    UNSUPPORTED = "unsupported"
    STALE = "stale"


@dataclass(frozen=True)
class Approval:
    """One approval trailer: the key whose signature is good (also for a STALE one), or what is wrong with it.

    `claimed` is the key that a BROKEN one names, which nothing proves; `parent` and `tree` are what it speaks about.
    """

    value: bytes
    key: PublicKey | None
    flaw: Flaw | None = None
    detail: str = ""
    claimed: PublicKey | None = None
    parent: str = ""
    tree: str = ""

    @property
    def counts(self) -> bool:
        """Say whether the signature is one over this very change; whose key it is, the policy says."""
        return self.key is not None and self.flaw is None


def payload(fleet_id: str, parent: str, tree: str) -> bytes:
    """Return the bytes that an approval signs; `parent` and `tree` are object ids of 40 hex digits.

    The fleet's id stands last, so no id, however odd, makes the text of one change that of another.
    """
    return f"kubenode-approval v1\nparent {parent}\ntree {tree}\nfleet {fleet_id}\n".encode("utf-8", "surrogatepass")


def value_of(parent: str, tree: str, armored: bytes) -> str:
    """Return the trailer's value for a signature as ssh-keygen prints it."""
    blob = b"".join(armored.strip().split(b"\n")[1:-1])
    return f"v1 {parent} {tree} {blob.decode('ascii')}"


def read_approvals(commit: Commit, fleet_id: str) -> tuple[Approval, ...]:
    """Check every approval trailer of a commit that has a parent.

    Raises Untrusted(TooMuchEvidence) for more than 100 of them; whatever else is wrong with one is said in it.
    """
    found = [trailer for trailer in trailers(commit.message) if trailer.name.lower() == TRAILER.lower()]
    if len(found) > MAX_APPROVALS:
        raise Untrusted(
            Reason.TOO_MUCH_EVIDENCE,
            f"{commit} carries {len(found)} approvals; at most {MAX_APPROVALS} are read",
            subject=commit.oid,
            hint="Make the commit again with one approval by each person.",
        )
    return tuple(_read(trailer, commit, fleet_id) for trailer in found)


def _read(trailer: Trailer, commit: Commit, fleet_id: str) -> Approval:
    value = trailer.value
    match = _VALUE.fullmatch(value) if len(value) <= MAX_VALUE and not trailer.folded else None
    if match is None:
        version = _VERSION.match(value)
        if version is not None and not value.startswith(b"v1 "):
            return Approval(value, None, Flaw.NEWER, value[:16].split()[0].decode())
        return Approval(value, None, Flaw.UNREADABLE, "folded over several lines" if trailer.folded else "")
    parent, tree = match[1].decode(), match[2].decode()
    armored = b"\n".join((sshsig.BEGIN, match[3], sshsig.END, b""))
    claimed = None
    try:
        claimed = sshsig.parse(armored).key
        key = sshsig.verify(armored, payload(fleet_id, parent, tree), namespace=NAMESPACE)
    except Untrusted as error:
        unsupported = error.reason == Reason.UNSUPPORTED_SIGNATURE
        flaw = Flaw.UNSUPPORTED if unsupported else Flaw.BROKEN
        return Approval(value, None, flaw, error.message, claimed, parent, tree)
    same = (parent, tree) == (commit.parents[0], commit.tree)
    return Approval(value, key, None if same else Flaw.STALE, "", None, parent, tree)
