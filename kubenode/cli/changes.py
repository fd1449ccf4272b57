"""A change that waits for people: what it needs, and the same change made again with one more approval."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubenode.cli.clone import commit_of, committed, fleet_id, git, repository, signing_key, where
from kubenode.errors import HostError, KubenodeError, TryLater, UsageError
from kubenode.trust import approvals
from kubenode.trust.trailers import with_trailer, without_trailers

if TYPE_CHECKING:
    from kubenode.host.signing import SshSigner
    from kubenode.trust.assess import Assessment, Demand
    from kubenode.trust.keys import PublicKey


@dataclass(frozen=True)
class Change:
    """The newest commit of `branch` (a full ref name, `HEAD` when detached), measured against its first parent."""

    fleet: Path
    branch: str
    fleet_id: str
    assessment: "Assessment"

    @property
    def name(self) -> str:
        """The branch as people type it."""
        return self.branch.removeprefix("refs/heads/")


def read_change(fleet: Path, revision: str, *, branch_needed: bool = True) -> Change:
    """Measure the commit that a branch, tag or id names.

    Raises UsageError when there is no such commit, when it has no parent, and, with `branch_needed`, when it is not the
    newest of a local branch; Untrusted for a commit that no approval can help; FleetInvalid without a fleet id.
    """
    repository(fleet)
    commit = commit_of(fleet, revision)
    branch = _branch(fleet, revision, commit) if branch_needed else revision
    return Change(fleet, branch, *_measure(fleet, commit))


def _measure(fleet: Path, commit: str) -> "tuple[str, Assessment]":
    from kubenode.host.git import FleetRepository
    from kubenode.trust.chain import assess_next

    parents = git(fleet, "rev-list", "--no-walk", "--parents", commit).text.split()[1:]
    if not parents and (repository(fleet) / "shallow").exists():
        raise UsageError(
            f"the parent of commit {commit[:12]} is not in this clone, which is a shallow one",
            hint=f"git{where(fleet)} fetch --unshallow",
        )
    if not parents:
        raise UsageError(
            f"commit {commit[:12]} has no parent: it starts the history, and nodes are told to trust it by their seed",
            hint="Name a commit that changes something.",
        )
    identity = fleet_id(committed(fleet, parents[0]))
    with FleetRepository(repository(fleet), borrowed=True) as source:
        evidence = next(iter(source.first_parent_chain(parents[0], commit)))
        return identity, assess_next(source.anchor(parents[0]), evidence, fleet_id=identity)


def _branch(fleet: Path, revision: str, commit: str) -> str:
    """Return the local branch that a revision means: only what stands at its end can be made again."""
    found = git(fleet, "rev-parse", "--symbolic-full-name", "--end-of-options", revision, check=False).text.strip()
    found = found.splitlines()[-1] if found else ""  # Older git echoes the option.
    if found == "HEAD" or found.startswith("refs/heads/"):
        return found
    if found.startswith("refs/remotes/"):
        local = found.split("/", 3)[-1]
        raise UsageError(
            f"{revision} is a branch of a remote, which cannot be changed here",
            hint=f"Make a local one: git{where(fleet)} branch {local} {revision}   (then name {local})",
        )
    words = ("for-each-ref", f"--points-at={commit}", "--format=%(refname)", "refs/heads/")
    branches = git(fleet, *words).text.split()
    if len(branches) == 1:
        return branches[0]
    if branches:
        names = ", ".join(name.removeprefix("refs/heads/") for name in branches)
        raise UsageError(f"{revision} is the newest commit of several branches: {names}", hint="Name one of them.")
    raise UsageError(
        f"{revision} is not the newest commit of a local branch, so it cannot be made again with an approval",
        hint="Name the branch; commits below its newest have to be approved before others follow. "
        "`--print` prints the approval alone.",
    )


def signer_of(fleet: Path) -> "SshSigner":
    """Return the clone's own signing key. Raises UsageError when there is none, or one that is no SSH key."""
    from kubenode.host.signing import SshSigner

    key = signing_key(fleet)
    kind = git(fleet, "config", "gpg.format", check=False).text.strip() or "openpgp"
    if kind != "ssh":
        raise UsageError(
            f"{fleet} signs with {kind} keys, and approvals are SSH signatures",
            hint=f"git -C {fleet} config gpg.format ssh, and user.signingKey with a key that trust/policy.yaml lists",
        )
    program = git(fleet, "config", "--type=path", "gpg.ssh.program", check=False).text.strip()
    literal = key.startswith(("key::", "ssh-", "ecdsa-", "sk-")) and (" " in key)
    return SshSigner(key if literal else str((fleet / key).absolute()), program or "ssh-keygen")


def voices(change: "Assessment", key: "PublicKey") -> "tuple[Demand, ...]":
    """Return the demands in which the owner of a key has a say."""
    from kubenode.trust.assess import Why

    found = []
    for demand in change.demands:
        owner = (change.new if demand.why is Why.NEW_ROOT else change.old).owner(key)
        if owner is not None and owner in demand.rule.people:
            found.append(demand)
    return tuple(found)


def owner_of(change: "Assessment", key: "PublicKey") -> str | None:
    """Return whose key it is, by the policy of the parent or else by the one that the change brings."""
    return change.old.owner(key) or change.new.owner(key)


def has_approved(change: "Assessment", key: "PublicKey") -> bool:
    """Say whether the owner of a key has approved in a trailer, which outlives the commit's own signature."""
    name = owner_of(change, key)
    return name is not None and name in change.vouchers.approvers(change.old) | change.vouchers.approvers(change.new)


def approval_of(change: Change, signer: "SshSigner") -> str:
    """Return the value of the approval trailer of the signer's for a change. Raises HostError when signing fails."""
    commit = change.assessment.commit
    text = approvals.payload(change.fleet_id, commit.parents[0], commit.tree)
    return approvals.value_of(commit.parents[0], commit.tree, signer.sign(text, approvals.NAMESPACE))


def approve(change: Change, signer: "SshSigner") -> Change:
    """Make the commit again with the signer's approval and signature, and move the branch to it, or nothing at all.

    Files, parents, author and message stay, apart from approvals that cannot count. Neither index nor work tree are
    touched, since no file changes. Raises TryLater when the branch was moved meanwhile, HostError when signing fails.
    """
    from kubenode.host.git_remake import remade
    from kubenode.trust.chain import NAMESPACE
    from kubenode.trust.commit import object_id

    commit = change.assessment.commit
    useless = frozenset(it.value for it in change.assessment.vouchers.approvals if useless_for_good(it))
    message = without_trailers(commit.message, approvals.TRAILER, useless)
    message = with_trailer(message, approvals.TRAILER, approval_of(change, signer))
    committer = git(change.fleet, "var", "GIT_COMMITTER_IDENT").text.strip()
    raw = remade(commit, message, committer, lambda text: signer.sign(text, NAMESPACE))
    oid = git(change.fleet, "hash-object", "-t", "commit", "-w", "--stdin", stdin=raw).text.strip()
    if oid != object_id("commit", raw):
        raise HostError(
            f"git stored the new commit as {oid[:12]}, which is not its id", hint="`git fsck` may say more."
        )
    # Judged before the branch moves: what would not count must not replace what is there.
    _, assessment = _measure(change.fleet, oid)
    if not has_approved(assessment, signer.public()):
        raise HostError(
            f"the approval in the new commit {oid[:12]} does not count; the branch was left alone",
            hint="Is the signing key one that trust/policy.yaml lists for you? `kubenode trust show` prints them.",
        )
    move = ("update-ref", "-m", "kubenode trust: approval added", change.branch, oid, commit.oid)
    try:
        git(change.fleet, *move)
    except KubenodeError as error:
        now = git(change.fleet, "rev-parse", "--verify", "--quiet", change.branch, check=False).text.strip()
        if now == commit.oid:
            raise
        raise TryLater(
            f"{change.name} was moved to {now[:12] or 'nothing'} meanwhile, so the approval was not put there",
            hint="Look at what changed, and call this again.",
        ) from error
    return Change(change.fleet, change.branch, change.fleet_id, assessment)


def useless_for_good(approval: approvals.Approval) -> bool:
    """Say whether an approval can never count for this change; one of a newer format might, for newer nodes."""
    return not approval.counts and approval.flaw is not approvals.Flaw.NEWER
