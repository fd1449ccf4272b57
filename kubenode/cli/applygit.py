"""The branch that nodes follow, at its remote: what it has, what a push would bring, and pushing exactly that."""

from dataclasses import dataclass
from pathlib import Path

from kubenode.cli.clone import authenticated, commit_of, git, repository, where
from kubenode.cli.output import count, say
from kubenode.errors import HostError, KubenodeError, TryLater, Untrusted, UsageError
from kubenode.host.git_run import printable
from kubenode.trust.reasons import Reason

_NETWORK_SECONDS = 300
"""A passphrase, a security key or a slow host may be asked in between."""


@dataclass(frozen=True)
class Remote:
    """A branch of a git remote; `head` is its newest commit (40 hex), None for a branch that is not there yet."""

    fleet: Path
    name: str
    branch: str
    head: str | None

    @property
    def ref(self) -> str:
        """The branch's full name there."""
        return f"refs/heads/{self.branch}"


@dataclass(frozen=True)
class Commit:
    """A commit as people read it."""

    oid: str
    author: str
    subject: str

    @property
    def line(self) -> str:
        """The commit in one line."""
        return f"{self.oid[:12]}  {self.subject} ({self.author})"


def remote_of(fleet: Path, name: str | None, branch: str) -> Remote:
    """Ask the remote for its branch, and bring what it has; `name` None means the branch's own remote, or the only one.

    Raises UsageError when it is not clear which remote, TryLater when it does not answer.
    """
    repository(fleet)
    name = name or _usual_remote(fleet, branch)
    head = _head(fleet, name, f"refs/heads/{branch}")
    if head is not None and git(fleet, "cat-file", "-e", f"{head}^{{commit}}", check=False).returncode != 0:
        try:
            git(fleet, "fetch", "--quiet", "--no-tags", "--", name, f"refs/heads/{branch}", timeout=_NETWORK_SECONDS)
        except KubenodeError as error:
            raise TryLater(f"{name} does not give its branch {branch}: {error.message}") from error
    return Remote(fleet, name, branch, head)


def _usual_remote(fleet: Path, branch: str) -> str:
    names = git(fleet, "remote").text.split()
    own = git(fleet, "config", f"branch.{branch}.remote", check=False).text.strip()
    if own and own != ".":
        return own
    if len(names) == 1 or "origin" in names:
        return "origin" if "origin" in names else names[0]
    if names:
        raise UsageError(
            f"{fleet} has several remotes: {', '.join(names)}", hint="Name the one that nodes read: --remote"
        )
    raise UsageError(
        f"{fleet} has no remote, so there is nothing that nodes could read",
        hint=f"git{where(fleet)} remote add origin URL   (the fleet URL in the seeds of your machines)",
    )


def _head(fleet: Path, name: str, ref: str) -> str | None:
    try:
        listed = git(fleet, "ls-remote", "--", name, ref, timeout=_NETWORK_SECONDS).text.splitlines()
    except KubenodeError as error:
        raise TryLater(
            f"the remote {name} does not answer: {error.message}",
            hint=f"Is it reachable? git{where(fleet)} ls-remote {name}",
        ) from error
    found = {ref: oid for oid, _, ref in (line.partition("\t") for line in listed)}
    return found.get(ref)


def check_branch(fleet: Path, branch: str) -> None:
    """Raise UsageError when another branch is checked out than the one that nodes follow."""
    current = git(fleet, "symbolic-ref", "--quiet", "--short", "HEAD", check=False).text.strip()
    if current != branch:
        at = f"on branch {current}" if current else "on no branch"
        raise UsageError(
            f"{fleet} is {at}, and nodes follow {branch}",
            hint=f"git{where(fleet)} switch {branch}, and merge what is to go live; or name another one: --branch",
        )


def check_builds_on(remote: Remote, commit: str) -> None:
    """Raise UsageError when the remote has commits that `commit` does not build on."""
    if remote.head is None or remote.head == commit or _is_ancestor(remote.fleet, remote.head, commit):
        return
    theirs = new_commits(remote.fleet, commit, remote.head)
    ours = new_commits(remote.fleet, remote.head, commit)
    shown = "".join(f"\n  {it.line}" for it in theirs[-5:])
    option = "--rebase" if ours else "--ff-only"
    lacking = f"{count(len(theirs), 'commit')} that are not here"
    raise UsageError(
        f"this clone is behind {remote.name}/{remote.branch}, which has {lacking}:{shown}",
        hint=f"git{where(remote.fleet)} pull {option}, then look at the plan again.",
    )


def new_commits(fleet: Path, old: str | None, new: str) -> tuple[Commit, ...]:
    """Return the commits that `new` has and `old` lacks, oldest first."""
    words = ("log", "--reverse", "--format=%H%x00%an%x00%s", new, *([f"^{old}"] if old else []), "--")
    found = (line.split("\0", 2) for line in git(fleet, *words).text.split("\n") if line)
    return tuple(Commit(oid, printable(author), printable(subject)) for oid, author, subject in found)


def authenticate_push(remote: Remote, commit: str, anchor: str | None = None) -> None:
    """Authenticate a commit as nodes do that follow the remote's head, and from the anchor. Raises Untrusted.

    `anchor` None means the first commit of the history, where a new node begins.
    """
    fleet = remote.fleet
    start = anchor or git(fleet, "rev-list", "--first-parent", "--max-parents=0", commit).text.split()[-1]
    try:
        authenticated(fleet, start, commit)
        if remote.head is not None and remote.head != commit:
            # Nodes stand here: a merge whose first parent is another commit would be a fork to them.
            authenticated(fleet, remote.head, commit)
    except Untrusted as refusal:
        if refusal.reason == Reason.ANCHOR_MISSING and (repository(fleet) / "shallow").exists():
            refusal.hint = f"This clone is shallow, as CI systems make them: git{where(fleet)} fetch --unshallow"
        what = f"nodes would refuse commit {commit[:12]}: {refusal.message}"
        raise Untrusted(refusal.reason, what, subject=refusal.subject, hint=refusal.hint) from refusal


def push(remote: Remote, commit: str) -> None:
    """Push a commit if the remote's branch is still where it was. Never forced: the caller checked what it builds on.

    Raises TryLater when somebody else was faster or the remote cannot be asked, HostError when it refuses.
    """
    fleet = remote.fleet
    lease = f"--force-with-lease={remote.ref}:{remote.head or ''}"
    words = ("push", "--quiet", lease, "--", remote.name, f"{commit}:{remote.ref}")
    try:
        git(fleet, *words, timeout=_NETWORK_SECONDS)
        return
    except KeyboardInterrupt:
        arrived = _head(fleet, remote.name, remote.ref) == commit
        say(f"{'The push had arrived' if arrived else 'Nothing was pushed'}: {remote.name}/{remote.branch} was asked.")
        raise
    except HostError as error:
        now = _head(fleet, remote.name, remote.ref)
        if now == commit:
            return  # It arrived, and the connection broke behind it.
        if now != remote.head:
            raise TryLater(
                f"somebody else pushed to {remote.name}/{remote.branch} meanwhile (it is at {(now or 'nothing')[:12]} "
                f"now), so nothing was pushed",
                hint=f"git{where(fleet)} pull --rebase, look at what changed, and call this again.",
            ) from error
        raise HostError(
            f"{remote.name} did not take the push: {error.message}",
            hint="Protected branches and hooks refuse by rules of that host; its words are above.",
        ) from error


def push_head(fleet: Path, remote_name: str | None, branch: str, made: str | None) -> str:
    """Push HEAD for a command that made one commit (`made`, None: none was needed); say what else goes along.

    Return the end of a closing sentence. Raises as the functions above.
    """
    check_branch(fleet, branch)
    remote, commit = remote_of(fleet, remote_name, branch), commit_of(fleet, "HEAD")
    check_builds_on(remote, commit)
    if remote.head == commit:
        return f"{remote.name}/{branch} has it already"
    authenticate_push(remote, commit)
    others = [it for it in new_commits(fleet, remote.head, commit) if it.oid != made]
    if others:
        say(f"This also pushes {count(len(others), 'commit')}:")
        for it in others:
            say(f"  {it.line}")
    push(remote, commit)
    return f"pushed to {remote.name}/{branch}"


def _is_ancestor(fleet: Path, old: str, new: str) -> bool:
    return git(fleet, "merge-base", "--is-ancestor", old, new, check=False).returncode == 0
