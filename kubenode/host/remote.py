"""A plain git remote (https, ssh, git, http, file) as the source of a fleet: one branch, and one more for the stamp."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from kubenode.errors import TryLater, Untrusted
from kubenode.host import git_fetch, process
from kubenode.host.fleetsource import KeptHead, StoredFleet
from kubenode.host.git import FleetRepository
from kubenode.host.git_objects import GitObjects
from kubenode.host.git_run import CPU, MEMORY, check_address, fetch_error, git_environment, shown, too_much
from kubenode.model.state import TrustState
from kubenode.trust.headfile import HEAD_NAME, MAX_BYTES

STAMP_BRANCH = "kubenode-stamp"
"""Where `kubenode trust stamp --push` puts head.json: a branch, because every forge takes one."""
_STAMP_REF = f"refs/heads/{STAMP_BRANCH}"
MAX_LISTED = 64 << 10
"""Bytes of the list of refs; the two that are asked for take about 150."""
_FETCHED = "refs/kubenode/stamp"


class RemoteFleet(StoredFleet):
    """The fleet repo at one address, as `kubenode.ports.FleetSource` asks for it."""

    def __init__(
        self, repository: FleetRepository, url: str, branch: str = "main", *, fleet_id: str | None = None
    ) -> None:
        super().__init__(repository, fleet_id=fleet_id)
        self._url = url
        self._branch = branch

    def fetch(self, known: TrustState | None = None) -> str:
        """Fetch the branch and the stamp, if they have changed; see FleetRepository.fetch for what is raised.

        Asking first (`git ls-remote`) costs as many requests as a fetch that finds nothing new, and no work here.
        """
        del known
        check_address(self._url)
        branch = f"refs/heads/{self._branch}"
        refs = remote_refs(self._url, (branch, _STAMP_REF), self._branch)
        if branch not in refs:
            raise TryLater(
                f"{shown(self._url)} has no branch {self._branch}", hint="Push the branch, or correct its name."
            )
        kept = self.kept()
        stamp = refs.get(_STAMP_REF)
        if stamp is None:
            kept = KeptHead()
        elif kept.marks.get(self._url, {}).get("commit") != stamp:
            # The stamp before the branch: so the branch is at least as new as the stamp says.
            kept = KeptHead(_stamp(self._url, self.free("stamp.git")), {self._url: {"commit": stamp}})
        head = refs[branch]
        if self.repository.lacks(head):
            head = self.repository.fetch(self._url, self._branch)
        self.keep(kept)
        return head


def remote_refs(url: str, refs: Sequence[str], branch: str, *, timeout: float = 60) -> dict[str, str]:
    """Return those of the named refs that a remote has, with their object ids.

    Raises TryLater and as fetch_error; Untrusted(TooMuchEvidence) for a remote that lists everything it can think of.
    """
    limits = process.Limits(memory=MEMORY, file=1 << 20, cpu=CPU)
    argv = limits.around(["git", "ls-remote", "--quiet", "--", url, *refs])

    def watch(printed: int) -> None:
        if printed > MAX_LISTED:
            raise too_much(url, f"it lists more than the {len(refs)} refs that it was asked for")

    try:
        # No repository, so that none that lies around can say how git behaves.
        environment = git_environment() | {"GIT_DIR": os.devnull}
        done = process.run_watched(argv, timeout=timeout, watch=watch, env=environment)
    except process.ProcessFailed as error:
        raise fetch_error(error, url, branch) from error
    listed = done.stderr.decode(errors="replace").splitlines()
    lines = (line.partition("\t") for line in listed)
    return {ref: oid for oid, _, ref in lines if ref in refs and re.fullmatch("[0-9a-f]{40}", oid)}


def _stamp(url: str, folder: Path) -> bytes | None:
    """Return head.json of the remote's stamp branch, None when the branch has no such file of acceptable size.

    It is fetched into a repository of its own that is thrown away: a stamp shares no history with anything, and
    thousands of them would fill the copy of the fleet repo with objects that nothing refers to.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        try:
            commit = git_fetch.download(folder, (url,), STAMP_BRANCH, base=None, timeout=60)
        except Untrusted:
            return None  # Whoever may push a stamp must not be able to keep the fleet's branch from nodes.
        except TryLater as error:
            if error.__cause__ is None:  # git did what it was told: the branch names no commit.
                return None
            raise
        except process.ProcessFailed as error:
            raise fetch_error(error, url, STAMP_BRANCH) from error
        objects = GitObjects(folder)
        blob = f"{commit}:{HEAD_NAME}"
        size = objects.git("cat-file", "-s", blob, check=False, timeout=30)
        if size.returncode or int(size.text) > MAX_BYTES:
            return None
        done = objects.git("cat-file", "blob", blob, check=False, timeout=30)
        return done.stdout if done.returncode == 0 else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
