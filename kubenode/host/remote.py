"""A plain git remote (https, ssh, git, http, file) as the source of a fleet: one branch, and one more for the stamp."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kubenode.errors import NoSpace, TryLater
from kubenode.host import process
from kubenode.host.fleetsource import KeptHead, StoredFleet
from kubenode.host.git import FleetRepository
from kubenode.host.git_run import check_address, fetch_error, git_environment, shown
from kubenode.model.state import TrustState
from kubenode.trust.headfile import HEAD_NAME, MAX_BYTES

STAMP_BRANCH = "kubenode-stamp"
"""Where `kubenode trust stamp --push` puts head.json: a branch, because every forge takes one."""
_STAMP_REF = f"refs/heads/{STAMP_BRANCH}"
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
        if head != self.repository.stored_head():
            head = self.repository.fetch(self._url, self._branch)
        self.keep(kept)
        return head


def remote_refs(url: str, refs: Sequence[str], branch: str, *, timeout: float = 60) -> dict[str, str]:
    """Return those of the named refs that a remote has, with their object ids. Raises TryLater and as fetch_error."""
    argv = ["git", "ls-remote", "--quiet", "--", url, *refs]
    try:
        # No repository, so that none that lies around can say how git behaves.
        done = process.run(argv, timeout=timeout, env=git_environment() | {"GIT_DIR": os.devnull})
    except process.ProcessFailed as error:
        raise fetch_error(error, url, branch) from error
    lines = (line.partition("\t") for line in done.text.splitlines())
    return {ref: oid for oid, _, ref in lines if ref in refs}


def _stamp(url: str, folder: Path) -> bytes | None:
    """Return head.json of the remote's stamp branch, None when the branch has no such file of acceptable size.

    Raises TryLater, NoSpace.

    It is fetched into a repository of its own that is thrown away: a stamp shares no history with anything, and
    thousands of them would fill the copy of the fleet repo with objects that nothing refers to.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        init = ("init", "--bare", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=main")
        process.run(["git", *init, str(folder)], timeout=60, env=git_environment())
        flags = ("--depth=1", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc")
        environment = git_environment(folder)
        try:
            words = ("fetch", *flags, "--quiet", "--", url, f"+{_STAMP_REF}:{_FETCHED}")
            process.run(["git", *words], timeout=60, env=environment)
        except process.ProcessFailed as error:
            failure = fetch_error(error, url, STAMP_BRANCH)
            if isinstance(failure, TryLater | NoSpace):
                raise failure from error
            return None  # Rubbish in the stamp's branch must not keep a node from the fleet's own.
        blob = f"{_FETCHED}:{HEAD_NAME}"
        size = process.run(["git", "cat-file", "-s", blob], timeout=30, env=environment, check=False)
        if size.returncode or int(size.text) > MAX_BYTES:
            return None
        done = process.run(["git", "cat-file", "blob", blob], timeout=30, env=environment, check=False)
        return done.stdout if done.returncode == 0 else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
