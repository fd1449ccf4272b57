"""The suite against the fake API server, and against a real one where its binary is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import kube_real
from tests.contract.kube_suite import KubeSuite, world
from tests.fakes.kubeapi.pki import Authority
from tests.fakes.kubeapi.server import FakeApiServer

__all__ = ["world"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kube_real.RealApiServer]:
    server = kube_real.RealApiServer(tmp_path_factory.mktemp("kube"), "v1.20.2")
    yield server
    server.close()


class TestFakeApiServer(KubeSuite):
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[FakeApiServer]:
        fake = FakeApiServer(Authority(), tmp_path)
        yield fake
        fake.close()


@pytest.mark.skipif(bool(kube_real.missing()), reason=kube_real.missing() or "-")
class TestRealApiServer(KubeSuite):
    @pytest.fixture
    def server(self, real: kube_real.RealApiServer) -> kube_real.RealApiServer:
        return real
