"""One changed document of the fleet repo in one signed commit, as promote, halt and rollback make it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kubenode.cli.clone import (
    commit_of,
    commit_signed,
    committed,
    git,
    repository,
    signing_key,
    uncommitted,
    write_file,
)
from kubenode.errors import FleetInvalid, UsageError

if TYPE_CHECKING:
    from kubenode.fleet.problems import Problem


def files_to_change(fleet: Path, *paths: str) -> Mapping[str, bytes]:
    """Return the files of the newest commit. Raises UsageError when one of `paths` has changes that are in no commit.

    What is judged is what nodes will get: the newest commit and one change, whatever else lies in the clone.
    """
    repository(fleet)
    files = committed(fleet, commit_of(fleet, "HEAD"))
    changed = uncommitted(fleet, tuple(f":(literal){path}" for path in paths))
    if changed:
        raise UsageError(
            f"{fleet / changed} has changes that are not committed",
            hint="Commit it first, or take it back: this changes one document, and nothing else may go with it.",
        )
    return files


def commit_document(fleet: Path, files: Mapping[str, bytes], path: str, new: bytes, message: str) -> str:
    """Write a document and commit it, signed; return the commit. `files` are those of the newest commit.

    Nothing is changed when the commit cannot be made. Raises FleetInvalid for a mistake that the change brings,
    UsageError without a signing key, HostError when git fails, Untrusted when nodes would refuse the commit.
    """
    signing_key(fleet)
    _refuse_new_mistakes(files, {**files, path: new})
    before = commit_of(fleet, "HEAD")
    write_file(fleet / path, new)
    try:
        return commit_signed(fleet, message, path)
    except BaseException:  # Also when somebody interrupts ssh-keygen, which asks for a passphrase.
        if commit_of(fleet, "HEAD") == before:
            write_file(fleet / path, files[path])
            git(fleet, "reset", "--quiet", "--", path)
        raise


def message_of(subject: str, reason: str) -> str:
    """Return a commit message with a reason below its subject. Raises UsageError for one that says nothing."""
    if not reason.strip():
        raise UsageError("the reason is empty", hint="Say why: it stands in the commit, and others will read it.")
    return f"{subject}\n\n{reason.strip()}\n"


def _refuse_new_mistakes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """Raise FleetInvalid for the first mistake that a change brings; those that are there already do not matter."""
    from kubenode.fleet.problems import Severity
    from kubenode.fleet.validate import validate as find_problems

    def key(it: "Problem") -> tuple[str, str, str]:
        return it.path, it.rule, it.message

    known = {key(it) for it in find_problems(before)}
    for it in find_problems(after):
        if it.severity is Severity.ERROR and key(it) not in known:
            raise FleetInvalid(it.message, location=it.location, hint=it.hint)
