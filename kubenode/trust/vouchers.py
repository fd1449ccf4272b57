"""Who stands behind a commit: whoever signed it, and whoever approved this very change.

Only keys are known here; whose they are, the policy that is asked says. People are counted, never keys.
"""

from dataclasses import dataclass

from kubenode.errors import Untrusted
from kubenode.trust.approvals import Approval, Flaw, read_approvals
from kubenode.trust.commit import Commit
from kubenode.trust.formats import verify_signature
from kubenode.trust.keys import PublicKey
from kubenode.trust.policy import TrustPolicy
from kubenode.trust.reasons import Reason

_MAX_NOTES = 5


@dataclass(frozen=True)
class Vouchers:
    """The keys behind a commit: `key` signed it, `approvals` are its trailers; `unsigned` says why there is no key."""

    commit: Commit
    key: PublicKey | None
    unsigned: Untrusted | None
    approvals: tuple[Approval, ...]

    def signer(self, policy: TrustPolicy) -> str | None:
        """Return who signed the commit itself, None for a stranger or nobody."""
        return policy.owner(self.key) if self.key is not None else None

    def approvers(self, policy: TrustPolicy) -> frozenset[str]:
        """Return the people who approved this very change."""
        owners = (policy.owner(approval.key) for approval in self.approvals if approval.counts and approval.key)
        return frozenset(owner for owner in owners if owner is not None)

    def people(self, policy: TrustPolicy) -> frozenset[str]:
        """Return everybody who vouches for the change, each once."""
        signer = self.signer(policy)
        return self.approvers(policy) | ({signer} if signer is not None else set())

    def who(self, policy: TrustPolicy) -> str:
        """Say in half a sentence who vouches for the change."""
        signer = self.signer(policy)
        if signer is not None and self.key is not None:
            signed = f"signed by {signer} (key {self.key.fingerprint})"
        elif self.key is not None:
            signed = f"signed with the key {self.key.fingerprint}, which belongs to nobody in that policy"
        elif self.unsigned is not None and self.unsigned.reason == Reason.UNSUPPORTED_SIGNATURE:
            signed = "signed in a way that is not supported"
        else:
            signed = "not signed"
        approvers = sorted(self.approvers(policy))
        return f"it is {signed}" + (f" and approved by {', '.join(approvers)}" if approvers else "")

    def notes(self, policy: TrustPolicy, new: TrustPolicy | None = None) -> tuple[str, ...]:
        """Say of each approval that does not count why it does not, as whole sentences.

        `new` is the policy that the commit brings, if it is another: a key that only it lists counts for its own root
        rule alone.
        """
        notes: list[str] = []
        signer = self.signer(policy)
        seen: dict[str, PublicKey | None] = {signer: self.key} if signer is not None else {}
        approved: set[str] = set()
        for approval in self.approvals:
            owner = policy.owner(approval.key) if approval.key is not None else None
            if not approval.counts or owner is None:
                notes.append(_note(approval, owner, self.commit, policy, new))
                continue
            # Who signs a commit with an approval in it may well be who approved: only another key is worth a word.
            if owner in approved or seen.get(owner, approval.key) != approval.key:
                notes.append(f"{owner} vouches for it more than once, which counts as one person.")
            seen.setdefault(owner, approval.key)
            approved.add(owner)
        unique = tuple(dict.fromkeys(notes))
        if len(unique) > _MAX_NOTES:
            return (*unique[:_MAX_NOTES], f"{len(unique) - _MAX_NOTES} more approvals do not count.")
        return unique


def gather(commit: Commit, fleet_id: str) -> Vouchers:
    """Verify the signature and the approvals of a commit that has a parent.

    A missing signature, or one of a kind that is not read, is kept in `unsigned`: approvals may stand in for it. Raises
    Untrusted for a signature that is wrong (BadSignature), which no honest tool makes, and for too many approvals.
    """
    key, unsigned = None, None
    if commit.signature is None:
        unsigned = Untrusted(
            Reason.UNSIGNED_COMMIT,
            "is not signed",
            hint="Sign it with an SSH key that the policy lists: `git commit --amend --no-edit -S` with "
            "gpg.format=ssh, then push again. A merge by a forge's button is not signed with your key: merge locally.",
        )
    else:
        try:
            key = verify_signature(commit.signature, commit.payload, subject=commit.oid)
        except Untrusted as error:
            if error.reason != Reason.UNSUPPORTED_SIGNATURE:
                raise Untrusted(
                    error.reason,
                    f"{commit}: {error.message}",
                    subject=commit.oid,
                    hint=error.hint or "Sign the commit again and push it instead.",
                ) from error
            unsigned = error
    return Vouchers(commit, key, unsigned, read_approvals(commit, fleet_id))


def _note(approval: Approval, owner: str | None, commit: Commit, policy: TrustPolicy, new: TrustPolicy | None) -> str:
    if approval.flaw is Flaw.NEWER:
        return f"An approval of the format {approval.detail} is for a newer kubenode and was passed over."
    if approval.flaw is Flaw.UNREADABLE:
        detail = f" ({approval.detail})" if approval.detail else ""
        return f"An approval cannot be read{detail}: it was cut or changed."
    if approval.flaw is Flaw.UNSUPPORTED:
        return f"An approval cannot be checked: {approval.detail}."
    if approval.flaw is Flaw.BROKEN:
        named = policy.owner(approval.claimed) if approval.claimed is not None else None
        whose = f" that names the key of {named}" if named else ""
        return f"An approval{whose} is not valid: it was made for another fleet or purpose, damaged, or forged."
    key = approval.key.fingerprint if approval.key is not None else "?"
    who = owner or f"A stranger (key {key})"
    if approval.flaw is Flaw.STALE:
        return f"{who} approved another version of this change: {_version(approval, commit)}."
    later = new.owner(approval.key) if new is not None and approval.key is not None else None
    if later is not None:
        return f"{later} approved it with a key that only the new policy lists: it counts for the new root rule alone."
    return f"The key {key} approved it and belongs to nobody in the policy of its parent."


def _version(approval: Approval, commit: Commit) -> str:
    if approval.tree == commit.tree:
        return f"the same files on top of {approval.parent[:12]}, while this one follows {commit.parents[0][:12]}"
    if approval.parent == commit.parents[0]:
        return f"other files (tree {approval.tree[:12]}, now {commit.tree[:12]}) on top of the same commit"
    return f"other files, on top of {approval.parent[:12]} instead of {commit.parents[0][:12]}"
