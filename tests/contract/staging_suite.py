"""What every `kubenode.ports.Staging` must do: run against the real one here, and against its fake by the simulation.

A test class derives from `StagingSuite` and gives a `staging` fixture, and `listing` for what an observation shows.
"""

import pytest

from kubenode.errors import HostError, TryLater
from kubenode.ports import Staging

ONE, TWO = "1" * 64, "2" * 64


class StagingSuite:
    def listing(self, staging: Staging) -> tuple[frozenset[str], frozenset[str]]:
        """Return (fetched, partial) as `Machine.observe` shows them."""
        raise NotImplementedError

    def test_evidence_is_kept(self, staging: Staging):
        with pytest.raises(HostError):
            staging.evidence(ONE)
        staging.put_evidence(ONE, b"manifest", b"bundle")
        staging.put_evidence(ONE, b"manifest 2", b"bundle 2")
        assert staging.evidence(ONE) == (b"manifest 2", b"bundle 2")

    def test_a_download_grows_and_can_be_thrown_away(self, staging: Staging):
        assert b"".join(staging.partial(ONE, "a.raw")) == b""
        staging.append(ONE, "a.raw", iter([b"ab", b"c"]))
        staging.append(ONE, "a.raw", iter([]))
        staging.append(ONE, "a.raw", iter([b"d"]))
        assert b"".join(staging.partial(ONE, "a.raw")) == b"abcd"
        assert b"".join(staging.partial(ONE, "b.raw")) == b""
        assert b"".join(staging.partial(TWO, "a.raw")) == b""
        staging.discard(ONE, "a.raw")
        staging.discard(ONE, "a.raw")
        assert b"".join(staging.partial(ONE, "a.raw")) == b""

    def test_a_broken_transfer_keeps_what_came(self, staging: Staging):
        def broken():
            yield b"ab"
            raise TryLater("the store went away")

        with pytest.raises(TryLater):
            staging.append(ONE, "a.raw", broken())
        staging.append(ONE, "a.raw", iter([b"cd"]))
        assert b"".join(staging.partial(ONE, "a.raw")) == b"abcd"

    def test_only_what_is_marked_is_complete(self, staging: Staging):
        assert self.listing(staging) == (frozenset(), frozenset())
        staging.put_evidence(ONE, b"m", b"b")
        staging.append(ONE, "a.raw", iter([b"ab"]))
        staging.put_evidence(TWO, b"m", b"b")
        assert self.listing(staging) == (frozenset(), frozenset({ONE, TWO}))
        staging.complete(ONE)
        assert self.listing(staging) == (frozenset({ONE}), frozenset({TWO}))

    def test_what_is_pruned_is_gone(self, staging: Staging):
        for digest in (ONE, TWO):
            staging.put_evidence(digest, b"m", b"b")
            staging.append(digest, "a.raw", iter([b"ab"]))
            staging.complete(digest)
        staging.prune(frozenset({ONE, "3" * 64}))
        assert self.listing(staging) == (frozenset({TWO}), frozenset())
        assert b"".join(staging.partial(ONE, "a.raw")) == b""
        with pytest.raises(HostError):
            staging.evidence(ONE)
