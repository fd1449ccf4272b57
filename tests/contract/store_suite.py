"""What every `kubenode.ports.ReleaseStore` must do: run against http and file stores here.

A test class derives from `StoreSuite` and gives a `store` fixture: one store that holds release 1.0 with `FILES`.
"""

import pytest

from kubenode.errors import TryLater
from kubenode.model.version import Version
from kubenode.ports import ReleaseStore

V = Version("1.0")
ARTIFACT = bytes(range(256)) * 4096
FILES = {
    "manifest.json": b'{"manifest": 1}',
    "manifest.sigstore.json": b'{"bundle": 1}',
    "root+a~1.raw": ARTIFACT,
}
NAME = "root+a~1.raw"


class StoreSuite:
    def test_the_evidence_comes_from_one_store(self, store: ReleaseStore):
        assert store.manifest(V) == (FILES["manifest.json"], FILES["manifest.sigstore.json"])

    @pytest.mark.parametrize("offset", [0, 1, 65_536, len(ARTIFACT) - 1, len(ARTIFACT)])
    def test_an_artifact_comes_from_any_offset(self, store: ReleaseStore, offset: int):
        assert b"".join(store.artifact(V, NAME, offset)) == ARTIFACT[offset:]

    def test_what_is_not_there_may_come_later(self, store: ReleaseStore):
        with pytest.raises(TryLater):
            store.manifest(Version("1.1"))
        with pytest.raises(TryLater):
            list(store.artifact(V, "other.raw", 0))

    def test_more_than_there_is_cannot_be_skipped(self, store: ReleaseStore):
        with pytest.raises(TryLater):
            list(store.artifact(V, NAME, len(ARTIFACT) + 1))

    def test_the_only_store_is_asked_again_after_a_refusal(self, store: ReleaseStore):
        assert not store.refuse(V)
        store.manifest(V)
        assert not store.refuse(V)
        store.manifest(V)

    def test_a_reader_may_stop_early(self, store: ReleaseStore):
        chunks = store.artifact(V, NAME, 0)
        assert ARTIFACT.startswith(next(chunks))
        close = getattr(chunks, "close", None)
        if close:
            close()
        assert b"".join(store.artifact(V, NAME, 7)) == ARTIFACT[7:]
