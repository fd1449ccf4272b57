"""The work tree before an apply: nothing in it may be left behind by accident, or go along by accident."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kubenode.cli.clone import authenticated, commit_of, git, make_commit, signing_key, taken_back, where
from kubenode.cli.output import count, say
from kubenode.errors import FleetInvalid, Untrusted, UsageError
from kubenode.host.git_run import printable
from kubenode.trust.reasons import Reason

_MOST = 12


def changed_files(fleet: Path) -> tuple[str, ...]:
    """Return the paths with changes that no commit has, untracked files too."""
    words = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    return tuple(printable(entry[3:]) for entry in git(fleet, *words).text.split("\0") if entry)


def refuse_changes(fleet: Path, changed: Sequence[str]) -> None:
    """Raise UsageError naming what is not committed."""
    if changed:
        raise UsageError(
            f"{fleet} has changes that are not committed, and nodes only get commits:{_shown(changed)}",
            hint=f"Commit them signed with --commit MESSAGE, or put them away: git{where(fleet)} stash -u",
        )


def commit_everything(fleet: Path, changed: Sequence[str], message: str) -> str:
    """Commit all changes of the work tree, signed, and return the commit.

    The index is put back when nothing comes of it, and no file is touched. Raises UsageError without a signing key,
    HostError when git fails, Untrusted when nodes would refuse the commit.
    """
    if not message.strip():
        raise UsageError("the commit message is empty", hint="Say what changes and why: others will read it.")
    signing_key(fleet)
    parent, index = commit_of(fleet, "HEAD"), git(fleet, "write-tree").text.strip()
    try:
        git(fleet, "add", "--all")
        make_commit(fleet, message)
        commit = commit_of(fleet, "HEAD")
        authenticated(fleet, parent, commit)
    except BaseException as error:
        if isinstance(error, Untrusted) and error.reason == Reason.THRESHOLD_NOT_MET:
            error.hint = f"It is committed and not pushed. Next: kubenode trust request{where(fleet)}"
            raise
        if commit_of(fleet, "HEAD") != parent:
            git(fleet, "reset", "--quiet", "--soft", parent)
        git(fleet, "read-tree", index)
        if isinstance(error, Untrusted):
            raise taken_back(error) from error
        raise
    say(f"Committed {count(len(changed), 'file')} as {commit[:12]}:{_shown(changed)}")
    return commit


def refuse_mistakes(files: Mapping[str, bytes], commit: str) -> None:
    """Raise FleetInvalid for the first mistake in the documents of a commit, saying how many there are."""
    from kubenode.fleet.problems import Severity
    from kubenode.fleet.validate import validate

    errors = [it for it in validate(files) if it.severity is Severity.ERROR]
    if errors:
        more = f" ({len(errors) - 1} more: kubenode validate)" if len(errors) > 1 else ""
        raise FleetInvalid(
            f"{errors[0].message} [{errors[0].rule}], so commit {commit[:12]} is not pushed{more}",
            location=errors[0].location,
            hint=errors[0].hint,
        )


def _shown(changed: Sequence[str]) -> str:
    more = f"\n  and {len(changed) - _MOST} more" if len(changed) > _MOST else ""
    return "".join(f"\n  {path}" for path in changed[:_MOST]) + more
