"""How git is run: its whole environment, and what its failures mean."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from kubenode.errors import KubenodeError, NoSpace, TryLater, Untrusted, UsageError
from kubenode.host import process
from kubenode.trust.reasons import Reason

PROTOCOLS = "https:ssh:file:git:http"

MEMORY = 768 << 20
"""Bytes of address space for each git process that handles objects nobody has vouched for yet."""
CPU = 240
"""Seconds of processor time for each of them."""

# A host or user that begins with a dash would be read as an option by ssh and others.
_URL = re.compile(
    r"(https|ssh|file|git|http)://(?!-)[^\s]+|/[^\s]*|[A-Za-z0-9._][A-Za-z0-9._-]*@(?!-)[A-Za-z0-9.-]+:[^\s]+"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
# What is left out has a safe default in git 2.39 to 2.51; what others rely on is said although it is the default.
_CONFIG = {
    "advice.graftFileDeprecated": "false",
    "core.alternateRefsCommand": "true",
    "core.bigFileThreshold": "16m",
    "core.packedGitLimit": "256m",
    "core.packedGitWindowSize": "16m",
    "core.useReplaceRefs": "false",
    "core.commitGraph": "false",
    "core.multiPackIndex": "false",
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.fsync": "all",
    "core.quotePath": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "fetch.unpackLimit": "1",
    "gc.autoPackLimit": "40",
    "gc.autoDetach": "false",
    "gc.pruneExpire": "never",
    # The first answer may name another address, as forges do after a rename; later ones may not, nor may alternates.
    "http.followRedirects": "initial",
    "http.lowSpeedLimit": "100",
    "http.lowSpeedTime": "30",
    "pack.threads": "1",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
}
# A host key that is not known fails; nothing of this machine is handed on; a server that went silent is noticed.
_SSH = (
    "BatchMode=yes",
    "ConnectTimeout=20",
    "ForwardAgent=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
)
# Of the caller's environment only this reaches git: how to reach the network, never how git behaves.
_KEPT = re.compile(r"PATH|SSH_AUTH_SOCK|TMPDIR|SSL_CERT_(FILE|DIR)|(?i:(https?|no|all)_proxy)")
_FSCK = re.compile(r"fsck error|error: object [0-9a-f]{40}: |index-pack.*corrupt|pack has bad object")
_TOO_MUCH = re.compile(
    "[Oo]ut of memory|size_t overflow|Cannot allocate memory|unable to create thread|died of signal (11|24)"
)
_REMOTE = re.compile(
    "resolve host|unable to access|unable to connect|onnection (refused|reset|closed|timed out)|unreachable"
    "|No route to host|hung up|early EOF|RPC failed|Permission denied|Host key verification|Authentication failed"
    "|Could not read from remote|does not appear to be a git repository|could not read Username"
    "|find remote ref|Operation too slow|unexpected disconnect|dubious ownership|not valid: is this a git repository"
    "|repository '.*' (not found|does not exist)|protocol error|bad line length|bad pack header|invalid server response"
)
# What the other side says is shown, and decides nothing.
_THEIRS = re.compile(r"^(remote: |fatal: remote error:)")
_BOILERPLATE = re.compile(
    "^(Please make sure you have the correct access|and the repository exists|fatal: Could not read from remote)"
)


def git_environment(git_dir: Path | None = None, ssh_options: Sequence[str] = ()) -> dict[str, str]:
    """Return the whole environment git runs in: no system, user or inherited configuration, no replaced objects."""
    environment = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    ssh = ["ssh", *(word for option in _SSH for word in ("-o", option)), *ssh_options]
    environment |= {
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_PARAMETERS": "",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_GRAFT_FILE": "/dev/null",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_SSH_COMMAND": shlex.join(ssh),
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    }
    for number, (key, value) in enumerate(_CONFIG.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    if git_dir is not None:
        # Explicit places: an inherited GIT_DIR or a repo in a parent folder can never be used by mistake.
        environment |= {"GIT_DIR": str(git_dir), "GIT_OBJECT_DIRECTORY": str(git_dir / "objects")}
    return environment


def check_address(url: str) -> None:
    """Raise UsageError for an address that is not fetched from (another transport, an option, a relative path)."""
    if not _URL.fullmatch(url):
        raise UsageError(
            f"`{shown(url)}` is not an address that is fetched from",
            hint="Use https://, ssh://, user@host:path, git://, http://, file:// or an absolute path.",
        )


def shown(url: str) -> str:
    """Return an address without user name and password, for messages."""
    return _CREDENTIALS.sub("", url)[:200]


def fetch_error(error: process.ProcessFailed, url: str, branch: str) -> KubenodeError:
    """Say what a failed `git fetch` means; the error itself when it may be the local copy's fault."""
    if error.timed_out:
        return TryLater(f"fetching {shown(url)} takes too long: {error.message}", hint="It is tried again later.")
    if error.completed is None:
        return error
    text = error.completed.stderr.decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not _BOILERPLATE.search(line)]
    last = printable(_CREDENTIALS.sub("", " / ".join(lines[-4:] or ["no reason given"])))
    if "fatal: remote error:" in text:
        return TryLater(f"{shown(url)} refuses: {last}", hint="Ask whoever runs the server; it is tried again later.")
    said = "\n".join(line for line in text.splitlines() if not _THEIRS.search(line))
    if "No space left" in said or "Disk quota exceeded" in said:
        return NoSpace(f"no space left while fetching {shown(url)}: {last}", hint="Free some space.")
    if "mismatched algorithms" in said:
        return Untrusted(
            Reason.UNSUPPORTED_OBJECT_FORMAT,
            f"{shown(url)} uses git's SHA-256 object format; fleet repos use SHA-1 for now",
            subject=shown(url),
            hint="Create the fleet repo with `git init --object-format=sha1`.",
        )
    if f"find remote ref refs/heads/{branch}" in said:
        return TryLater(f"{shown(url)} has no branch {branch}", hint="Push the branch, or correct its name.")
    if "lacks these prerequisite commits" in said:
        return TryLater(
            f"{shown(url)} builds on commits that this machine does not have",
            hint="Fetch a bundle of the whole history first.",
        )
    if _TOO_MUCH.search(said) or error.completed.returncode in (-11, -24):
        return too_much(url, f"git may use {MEMORY >> 20} MiB of memory and {CPU} s, and gave up ({last})")
    if _FSCK.search(said):
        return Untrusted(
            Reason.COMMIT_MALFORMED,
            f"{shown(url)} sent objects that git's consistency check refuses: {last}",
            subject=shown(url),
            hint="Run `git fsck` in a clone; the commit that brought the object must be made again.",
        )
    if _REMOTE.search(said):
        return TryLater(
            f"{shown(url)} cannot be fetched: {last}",
            hint="Check the address, the network and this machine's access; it is tried again later.",
        )
    return error


def too_much(url: str, what: str) -> Untrusted:
    """Return the refusal of a remote that sends more than a fleet repo can need."""
    return Untrusted(
        Reason.TOO_MUCH_EVIDENCE,
        f"{shown(url)} sends more than is fetched: {what}",
        subject=shown(url),
        hint="A fleet repo holds small text files: is the address right, and has nobody pushed large files?",
    )


def printable(text: str) -> str:
    """Return what somebody else wrote without control characters, so that it cannot play with a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
