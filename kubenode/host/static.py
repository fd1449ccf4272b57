"""A static fleet store, on any HTTP servers, as the source of a fleet: one conditional request when nothing is new.

The addresses are mirrors of one another and none is trusted. Each fetch begins at another one, so that a mirror that
stands still delays a node and does not freeze it. Bundles go through a repository of their own, from which they are
fetched as from any remote: with fsck, and only when complete.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kubenode.errors import NoSpace, TryLater, Untrusted
from kubenode.host import process
from kubenode.host.files import make_folder, require_free
from kubenode.host.fleetindex import Bundle, Index
from kubenode.host.fleetsource import KeptHead, StoredFleet
from kubenode.host.git import HEAD_REF, FleetRepository
from kubenode.host.git_run import fetch_error, git_environment
from kubenode.host.mirror import LIMITS, Mirror
from kubenode.host.storefailed import StoreFailed
from kubenode.model.state import TrustState
from kubenode.trust import headfile
from kubenode.trust.headfile import Head

FETCH_SECONDS = 900.0
"""For all bundles of one fetch together; the next one goes on where this one ended."""
MARGIN = 64 << 20


class StaticFleet(StoredFleet):
    """The fleet repo at the addresses of a static store, as `kubenode.ports.FleetSource` asks for it."""

    def __init__(
        self,
        repository: FleetRepository,
        addresses: Sequence[str],
        branch: str = "main",
        *,
        fleet_id: str | None = None,
        limits: tuple[float, float, float, int] = LIMITS,
        choose: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        """`choose` returns which of so many addresses is asked first."""
        super().__init__(repository, fleet_id=fleet_id)
        self._mirrors = tuple(Mirror(address, limits) for address in addresses)
        self._branch = branch
        self._choose = choose

    def fetch(self, known: TrustState | None = None) -> str:
        """Fetch what is new and return the head. Raises TryLater when no address gives anything usable, NoSpace."""
        try:
            return self._fetch(known)
        finally:
            for mirror in self._mirrors:
                mirror.close()

    def _fetch(self, known: TrustState | None) -> str:
        kept = self.kept()
        stored = self.stored_head()
        first = self._choose(len(self._mirrors))
        problems: list[str] = []
        older: list[_Offer] = []
        for mirror in (*self._mirrors[first:], *self._mirrors[:first]):
            mark = kept.marks.get(mirror.address, {}) if stored is not None and kept.data is not None else {}
            try:
                found = mirror.head(mark)
                if found is None and stored is not None:
                    return stored
                assert found is not None, "without a mark there is an answer"
                offer = _Offer(mirror, found[0], found[1], headfile.read(found[0]))
                if known is not None and known.stamp is not None and offer.head.serial < known.stamp.serial:
                    problems.append(f"{mirror}: its head.json is older than one that was seen before")
                    older.append(offer)
                    continue
                return self._adopt(offer, kept, known)
            except (StoreFailed, Untrusted) as error:
                problems.append(f"{mirror}: {error}")
        if older:
            # Every answer is old, which the agent judges; it is as good as any for what this machine may lack.
            try:
                return self._adopt(older[0], kept, known)
            except StoreFailed as error:
                problems.append(f"{older[0].mirror}: {error}")
        raise TryLater(
            f"no address of the fleet repo can be used: {'; '.join(problems)}",
            hint="Check fleetUrl in the seed, and this machine's network, DNS, proxy and CA certificates.",
        )

    def _adopt(self, offer: "_Offer", kept: KeptHead, known: TrustState | None) -> str:
        """Bring the repository to the head that is offered, then keep the offer."""
        head, stored = offer.head.head, self.stored_head()
        if stored is None:
            self._bring(offer, ())
        elif known is not None and self.on_line(head, known.commit):
            # Nothing that is not trusted already: a mirror that lags behind must not look like a rewound branch.
            head = known.commit
            if head != stored:
                self.repository.point(head)
        elif head != stored:
            if self.on_line(head, stored):
                # What another mirror put on top of it was no part of the fleet.
                self.repository.point(head)
            else:
                self._bring(offer, (stored, *((known.commit,) if known is not None else ())))
        self._keep(offer, kept)
        return head

    def _keep(self, offer: "_Offer", kept: KeptHead) -> None:
        # Marks of other addresses are good for the same bytes only: after anything else, all are asked afresh.
        others = kept.marks if kept.data == offer.data else {}
        self.keep(KeptHead(offer.data, {**others, offer.mirror.address: offer.mark} if offer.mark else dict(others)))

    def _bring(self, offer: "_Offer", have: Sequence[str]) -> None:
        """Fetch the bundles that lead to the offered head, from what is there or, if that fails, from nothing.

        Raises StoreFailed, NoSpace, HostError.
        """
        index = offer.mirror.index(offer.head.head)
        deadline = time.monotonic() + FETCH_SECONDS
        ways = [way for way in (index.way(start) for start in (*have, None)) if way]
        problem: StoreFailed | None = None
        # From what is there, and once more from the beginning when that does not lead to the end.
        for way in (ways[0], ways[-1]) if len(ways) > 1 else ways:
            try:
                for bundle in way:
                    self._unbundle(self._download(bundle, offer.mirror, deadline), bundle)
            except StoreFailed as error:
                problem = error
            else:
                self._clear()
                return
        raise problem or _no_way(index)

    def _download(self, bundle: Bundle, named_by: Mirror, deadline: float) -> Path:
        """Return where the bundle is, from the first address that gives it. Raises StoreFailed, NoSpace, HostError."""
        folder = self.free("bundles")
        make_folder(folder)
        path = folder / f"{bundle.sha256}.bundle"
        for left in folder.iterdir():
            if left != path:
                left.unlink(missing_ok=True)
        # The download, the repository that it is taken apart in, and the copy.
        require_free(folder, 3 * bundle.size + MARGIN)
        problem: StoreFailed | None = None
        for mirror in (named_by, *(mirror for mirror in self._mirrors if mirror is not named_by)):
            for _ in range(2):
                began = path.exists()
                try:
                    mirror.download(bundle, path, deadline)
                    return path
                except StoreFailed as error:
                    problem = problem or error
                if not began or path.exists():
                    break  # Else wrong bytes were there before, and this address gets a chance of its own.
        assert problem is not None
        raise problem

    def _unbundle(self, path: Path, bundle: Bundle) -> None:
        """Take a bundle apart in a repository of its own and fetch from there. Raises StoreFailed, NoSpace."""
        stage = self.free("incoming.git")
        shutil.rmtree(stage, ignore_errors=True)
        branch = f"refs/heads/{self._branch}"
        environment = git_environment(stage)
        try:
            init = ("init", "--bare", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=main")
            process.run(["git", *init, str(stage)], timeout=60, env=git_environment())
            stored = self.stored_head()
            if stored is not None:
                # So that what the bundle builds on is found, and connected to a history.
                (stage / "objects" / "info").mkdir(exist_ok=True)
                (stage / "objects" / "info" / "alternates").write_text(f"{self.repository.path / 'objects'}\n")
                process.run(["git", "update-ref", HEAD_REF, stored], timeout=60, env=environment)
            flags = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc", "--quiet")
            words = ("fetch", *flags, "--", str(path), f"+{branch}:{branch}")
            process.run(["git", *words], timeout=300, env=environment)
            end = process.run(["git", "rev-parse", branch], timeout=60, env=environment).text.strip()
            if end != bundle.end:
                raise StoreFailed(f"{bundle.name} leads to {end[:12]}, not to {bundle.end[:12]} as the index says")
            # A copy that is damaged is replaced by what this brings, which then has to be a full bundle.
            self.repository.fetch(f"file://{stage}", self._branch)
        except process.ProcessFailed as error:
            failure = fetch_error(error, str(path), self._branch)
            if isinstance(failure, NoSpace):
                raise failure from error
            raise StoreFailed(f"{bundle.name} cannot be used: {_last_line(error)}") from error
        except Untrusted as error:
            raise StoreFailed(f"{bundle.name} cannot be used: {error.message}") from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _clear(self) -> None:
        shutil.rmtree(self.free("bundles"), ignore_errors=True)


class _Offer:
    """A head.json that an address gives, and what marks this version of it there."""

    def __init__(self, mirror: Mirror, data: bytes, mark: dict[str, str], head: Head) -> None:
        self.mirror = mirror
        self.data = data
        self.mark = mark
        self.head = head


def _no_way(index: Index) -> StoreFailed:
    return StoreFailed(f"no bundle of its index leads to {index.head[:12]} from what is here or from the beginning")


def _last_line(error: process.ProcessFailed) -> str:
    said = error.completed.stderr.decode(errors="replace").split("\n") if error.completed else [error.message]
    lines = [" ".join(line.split()) for line in said if line.strip()]
    return "; ".join(lines[-2:])[:300].encode("ascii", "backslashreplace").decode() or "git gave no reason"
