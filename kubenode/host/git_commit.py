"""Makes commits on a laptop: signed with an SSH key, by the user's git but not with the user's configuration."""

from pathlib import Path

from kubenode.errors import HostError, UsageError
from kubenode.host import process
from kubenode.host.git_run import git_environment
from kubenode.trust import sshsig
from kubenode.trust.chain import NAMESPACE
from kubenode.trust.commit import parse_commit


def init_repository(path: Path, branch: str = "main") -> None:
    """Make an empty git repository (SHA-1 object format, no template, no hooks) in an existing or new folder."""
    path.mkdir(parents=True, exist_ok=True)
    words = ("init", "--quiet", "--template=", "--object-format=sha1", f"--initial-branch={branch}")
    process.run(["git", *words], cwd=path, timeout=60, env=git_environment())


def commit_all(path: Path, message: str, signing_key: Path, name: str, email: str) -> str:
    """Commit everything below `path` (respecting .gitignore), signed, and return the commit's id.

    `path` is the top folder of a repository. `signing_key` is an SSH private key, or a public key whose private part
    an agent or a security key holds. Hooks do not run. The signature is checked before this returns.
    Raises UsageError when there is nothing to commit or no such key, HostError when git or ssh-keygen fails.
    """
    if not signing_key.is_file():
        raise UsageError(f"there is no signing key at {signing_key}", hint="Make one: ssh-keygen -t ed25519")
    environment = git_environment() | {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }
    options = {
        "commit.gpgSign": "true",
        "core.autocrlf": "false",
        "gpg.format": "ssh",
        "gpg.ssh.program": "ssh-keygen",
        "i18n.commitEncoding": "utf-8",
        "user.signingKey": str(signing_key.absolute()),
    }
    git: list[str] = ["git", "-C", str(path), "--no-pager"]
    for key, value in options.items():
        git += ["-c", f"{key}={value}"]
    top = process.run([*git, "rev-parse", "--show-toplevel"], timeout=30, env=environment).text.strip()
    if Path(top).resolve() != path.resolve():
        raise UsageError(f"{path} is not the top folder of a git repository ({top} is)", hint="Name the top folder.")
    process.run([*git, "add", "--all"], timeout=120, env=environment)
    staged = process.run([*git, "diff", "--cached", "--quiet"], timeout=120, env=environment, check=False)
    if staged.returncode == 0:
        raise UsageError(
            f"nothing has changed in {path}, so there is nothing to commit",
            hint="Save your changes first; `git status` shows what git sees.",
        )
    words = ("commit", "--quiet", "--no-verify", "--cleanup=strip", "--gpg-sign", "--file=-")
    process.run([*git, *words], timeout=300, env=environment, stdin=message.encode())
    oid = process.run([*git, "rev-parse", "--verify", "HEAD"], timeout=30, env=environment).text.strip()
    raw = process.run([*git, "cat-file", "commit", oid], timeout=30, env=environment).stdout
    commit = parse_commit(oid, raw)
    if commit.signature is None:
        raise HostError(
            f"git made the commit {commit.short} without a signature",
            hint="Check gpg.format, user.signingKey and gpg.ssh.program of the clone: git config --list --show-origin",
        )
    sshsig.verify(commit.signature, commit.payload, namespace=NAMESPACE, subject=oid)
    return oid
