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

from kubenode.errors import TryLater, Untrusted
from kubenode.host.files import make_folder, require_free
from kubenode.host.fleetindex import Bundle, Index
from kubenode.host.fleetsource import KeptHead, StoredFleet
from kubenode.host.git import FleetRepository
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
        head, repository = offer.head.head, self.repository
        if known is not None and self.on_line(head, known.commit):
            # Nothing that is not trusted already: a mirror that lags behind must not look like a rewound branch, and
            # what another mirror put on top was no part of the fleet.
            head = known.commit
            if self.stored_head() != head:
                repository.drop()
        elif repository.lacks(head):
            self._bring(offer)
        self._keep(offer, kept)
        return head

    def _keep(self, offer: "_Offer", kept: KeptHead) -> None:
        # Marks of other addresses are good for the same bytes only: after anything else, all are asked afresh.
        others = kept.marks if kept.data == offer.data else {}
        self.keep(KeptHead(offer.data, {**others, offer.mirror.address: offer.mark} if offer.mark else dict(others)))

    def _bring(self, offer: "_Offer") -> None:
        """Fetch the bundles that lead to the offered head, from what is there or, if that fails, from nothing.

        Raises StoreFailed, NoSpace, HostError.
        """
        index = offer.mirror.index(offer.head.head)
        deadline = time.monotonic() + FETCH_SECONDS
        accepted = self.repository.accepted_head()
        starts = (None,) if accepted is None else (accepted, None)
        ways = [way for way in map(index.way, starts) if way]
        problem: StoreFailed | None = None
        for way in ways:
            try:
                self._unbundle(self._download(way, offer.mirror, deadline), way)
            except StoreFailed as error:
                problem = error
            else:
                self._clear()
                return
        raise problem or _no_way(index)

    def _download(self, way: Sequence[Bundle], named_by: Mirror, deadline: float) -> list[Path]:
        """Return where the bundles are, each from the first address that gives it.

        Raises StoreFailed, NoSpace, HostError.
        """
        folder = self.free("bundles")
        make_folder(folder)
        paths = [folder / f"{bundle.sha256}.bundle" for bundle in way]
        for left in folder.iterdir():
            if left not in paths:
                left.unlink(missing_ok=True)
        # The downloads, the candidate that they are taken apart in, and the copy.
        require_free(folder, 3 * sum(bundle.size for bundle in way) + MARGIN)
        for bundle, path in zip(way, paths, strict=True):
            self._one(bundle, path, named_by, deadline)
        return paths

    def _one(self, bundle: Bundle, path: Path, named_by: Mirror, deadline: float) -> None:
        """Complete one download. Raises StoreFailed, NoSpace, HostError."""
        problem: StoreFailed | None = None
        for mirror in (named_by, *(mirror for mirror in self._mirrors if mirror is not named_by)):
            for _ in range(2):
                began = path.exists()
                try:
                    mirror.download(bundle, path, deadline)
                    return
                except StoreFailed as error:
                    problem = problem or error
                if not began or path.exists():
                    break  # Else wrong bytes were there before, and this address gets a chance of its own.
        assert problem is not None
        raise problem

    def _unbundle(self, paths: Sequence[Path], way: Sequence[Bundle]) -> None:
        """Make what the bundles hold the repository's candidate. Raises StoreFailed, NoSpace, HostError."""
        names = way[-1].name if len(way) == 1 else f"the way of {len(way)} bundles"
        try:
            end = self.repository.fetch_bundle(*paths, branch=self._branch)
        except (TryLater, Untrusted) as error:
            # A bundle is known by its place in the store, not by that of its download.
            said = error.message.replace(f"{self.free('bundles')}/", "bundles/")
            raise StoreFailed(f"{names} cannot be used: {said}") from error
        if end != way[-1].end:
            self.repository.drop()
            raise StoreFailed(f"{names} leads to {end[:12]}, not to {way[-1].end[:12]} as the index says")

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
