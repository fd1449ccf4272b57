"""The operator's clone of the fleet repo: finding it, asking git about it, and committing to it, signed."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kubenode.cli.output import say
from kubenode.errors import FleetInvalid, HostError, KubenodeError, Untrusted, UsageError
from kubenode.host.process import Completed, run
from kubenode.trust.reasons import Reason

if TYPE_CHECKING:
    from kubenode.trust.chain import TrustedTree

_REDIRECTIONS = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}
)
"""Set by git when it runs a hook; they would win over -C, and a pre-push hook may well call kubenode."""


def git(
    fleet: Path,
    *words: str,
    timeout: float = 60,
    check: bool = True,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run git in the clone with the operator's own configuration, and more `environment`. Raises HostError."""
    inherited = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    everything = inherited | dict(environment or {})
    if words[0] == "log":
        # Signatures that the operator likes to see would stand between the lines that are asked for.
        words = ("log", "--no-show-signature", *words[1:])
    return run(["git", "-C", fleet, *words], timeout=timeout, check=check, env=everything, stdin=stdin)


def repository(fleet: Path) -> Path:
    """Return the git folder of a working clone, a linked work tree or a bare clone. Raises UsageError for others."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # git itself is looked for when it is used.
    from git import InvalidGitRepositoryError, NoSuchPathError, Repo

    try:
        with Repo(fleet) as found:
            return Path(found.common_dir).resolve()
    except (InvalidGitRepositoryError, NoSuchPathError, OSError, ValueError):
        raise UsageError(
            f"{fleet} is not a git repository", hint="Name the fleet repo with -C, or make one with `kubenode new DIR`."
        ) from None


def commit_of(fleet: Path, revision: str) -> str:
    """Return the id of the commit that a branch, tag or abbreviated id names. Raises UsageError when none is."""
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    found = git(fleet, *words, check=False)
    if found.returncode != 0:
        said = found.stderr.decode(errors="replace")
        if "dubious ownership" in said:
            raise UsageError(
                f"{fleet} belongs to another user, and git refuses to read it",
                hint=f"Run as its owner, or: git config --global --add safe.directory {fleet.resolve()}",
            )
        raise UsageError(
            f"{fleet} has no commit {revision!r}" if revision else "the revision is empty",
            hint="Name a branch, a tag or a commit id of this clone; `git fetch` brings new ones.",
        )
    return found.text.strip()


def full_id(fleet: Path, anchor: str) -> str:
    """Return the anchor as 40 lower-case hex digits. Raises UsageError for anything shorter, or a name.

    A name or an abbreviation could be made to mean another commit by whoever can write to the clone.
    """
    if re.fullmatch(r"[0-9a-f]{40}", anchor.lower()):
        return anchor.lower()
    hint = "Write all 40 hex digits of a commit that you trust; a node has its own in /var/lib/kubenode/trust.json."
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{anchor}^{{commit}}")
    found = git(fleet, *words, check=False).text.strip() if anchor else ""
    if found:
        hint = f"If you trust what {anchor!r} means in this clone now: --anchor {found}"
    raise UsageError(f"{anchor!r} is not a full commit id, which an anchor must be", hint=hint)


def committed(fleet: Path, commit: str) -> Mapping[str, bytes]:
    """Return the files of a commit of the operator's own clone, which needs no proof: it is its own anchor."""
    from kubenode.host.git import FleetRepository
    from kubenode.trust.chain import trust_anchor
    from kubenode.trust.tree import trusted_tree

    with FleetRepository(repository(fleet), borrowed=True) as source:
        return trusted_tree(trust_anchor(source.anchor(commit)), source.read_tree(commit)).files


def authenticated(fleet: Path, anchor: str, commit: str) -> "TrustedTree":
    """Authenticate every commit after the anchor up to `commit`, as a node does, and return the files of the last.

    The fleet's id, which approvals are bound to, is that in the anchor's own tree. Raises Untrusted.
    """
    from kubenode.host.git import FleetRepository
    from kubenode.trust.chain import authenticate
    from kubenode.trust.tree import trusted_tree

    identity = fleet_id(committed(fleet, anchor))
    with FleetRepository(repository(fleet), borrowed=True) as source:
        chain = source.first_parent_chain(anchor, commit)
        trusted = authenticate(source.anchor(anchor), chain, fleet_id=identity, head=commit)
        tree = trusted_tree(trusted, source.read_tree(commit))
    _check_fleet(commit, tree.files, identity)
    return tree


def _check_fleet(commit: str, files: Mapping[str, bytes], expected: str) -> None:
    """Refuse another fleet's id as nodes do; documents that cannot be read are no matter of trust."""
    try:
        found = fleet_id(files)
    except FleetInvalid:
        return
    if found != expected:
        raise Untrusted(
            Reason.FLEET_ID_MISMATCH,
            f"commit {commit[:12]} is of the fleet {found}, the anchor of {expected}",
            subject=commit,
            hint="Put spec.id back in fleet.yaml: a fleet's id never changes, and machines refuse another one.",
        )


def fleet_id(files: Mapping[str, bytes]) -> str:
    """Return the id in fleet.yaml, which never changes: approvals name it. Raises FleetInvalid when it has none."""
    from kubenode.fleet.layout import FLEET_PATH
    from kubenode.fleet.load import load_fleet

    return load_fleet({FLEET_PATH: files[FLEET_PATH]} if FLEET_PATH in files else {}, node="").fleet.id


def uncommitted(fleet: Path, paths: Sequence[str] = ()) -> str:
    """Return the first path with changes that no commit has, an empty string when there is none.

    With `paths` only these are looked at, and files that git ignores count too.
    """
    ignored = ("--ignored",) if paths else ()
    # Not quoted (-z), and not grouped into folders: the path is for people.
    words = ("status", "--porcelain", "-z", "--untracked-files=all", *ignored, "--", *paths)
    first = git(fleet, *words).text.partition("\0")[0]
    return first[3:]


def signing_key(fleet: Path) -> str:
    """Return the clone's signing key as git knows it. Raises UsageError when none is set up."""
    key = git(fleet, "config", "--type=path", "user.signingKey", check=False).text.strip()
    if not key:
        raise UsageError(
            f"{fleet} has no signing key set up",
            hint=f"git -C {fleet} config user.signingKey ~/.ssh/id_ed25519   (a key that trust/policy.yaml lists)",
        )
    return key


def commit_signed(fleet: Path, message: str, path: str) -> str:
    """Commit one file of the clone, signed with the clone's own key, and return the commit id.

    The new commit is authenticated as a node would; when it is refused it is taken back, the file stays changed. One
    that only lacks more people is kept, and what it waits for is said. Raises UsageError without a signing key,
    HostError when git fails, Untrusted when nodes would refuse the commit.
    """
    signing_key(fleet)
    parent = commit_of(fleet, "HEAD")
    commit = None
    git(fleet, "add", "--", path)
    try:
        make_commit(fleet, message, "--only", "--", path)
        commit = commit_of(fleet, "HEAD")
        authenticated(fleet, parent, commit)
    except KubenodeError as error:
        if commit is not None and isinstance(error, Untrusted) and error.reason == Reason.THRESHOLD_NOT_MET:
            say(f"Nodes will not take this commit yet: {error.message}")
            say(f"Next: kubenode trust request{where(fleet)}")
            return commit
        if commit is not None:
            git(fleet, "reset", "--quiet", "--soft", parent)
        git(fleet, "reset", "--quiet", "--", path)
        if isinstance(error, Untrusted):
            raise taken_back(error) from error
        raise
    return commit


def make_commit(fleet: Path, message: str, *words: str) -> None:
    """Commit, signed with the clone's own key; `words` say which paths. Raises HostError when git fails."""
    signed = ("-c", "gpg.format=ssh", "commit", "--quiet", "--gpg-sign", "--message", message)
    # A security key waits for a touch, a passphrase for its owner.
    git(fleet, *signed, *words, timeout=300)


def taken_back(refusal: Untrusted) -> Untrusted:
    """Return the refusal of a commit that is gone again, because nodes would not have taken it."""
    what = f"nodes would refuse this commit, so it was taken back: {refusal.message}"
    return Untrusted(refusal.reason, what, subject=refusal.subject, hint=refusal.hint)


def where(fleet: Path) -> str:
    """Return the option that names the clone in a command to copy, nothing when it is the current folder."""
    return f" -C {shlex.quote(str(fleet))}" if fleet != Path() else ""


def remember_signer(fleet: Path, key: Path, email: str) -> None:
    """Set up the clone so that plain `git commit` signs with the operator's key too."""
    settings = {
        "user.name": "operator",
        "user.email": email,
        "gpg.format": "ssh",
        "user.signingKey": str(key.absolute()),
        "commit.gpgSign": "true",
    }
    for name, value in settings.items():
        git(fleet, "config", name, value)


def write_file(path: Path, content: bytes) -> None:
    """Write a document of the clone. Raises HostError saying which and why not."""
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise HostError(
            f"{path} cannot be written: {error.strerror}",
            hint="Check the rights of the folder and the free space, then the same command again.",
        ) from error
