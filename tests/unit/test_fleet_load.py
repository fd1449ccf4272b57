"""Reading documents on a node, and the desired state made of them."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta

import pytest
from fleets.mutations import ALONE, EXAMPLE, FLEET, NODE, R1, STABLE, WORKERS, put, remove

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet.desired import desired_state
from kubenode.fleet.load import load_fleet
from kubenode.host.tree import read_folder
from kubenode.model.documents import Cluster, File, Role, Rollout, StorageMount, Window
from kubenode.model.version import Version

COMMIT = "c" * 40


@pytest.fixture
def files() -> dict[str, bytes]:
    return dict(read_folder(EXAMPLE).files)


class Counting(Mapping[str, bytes]):
    """Counts which files are read."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files, self.read = files, set[str]()

    def __getitem__(self, path: str) -> bytes:
        self.read.add(path)
        return self.files[path]

    def __contains__(self, path: object) -> bool:
        return path in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def test_every_document_of_the_example_is_read(files: dict[str, bytes]) -> None:
    documents = load_fleet(files)
    assert documents.fleet.name == "homelab"
    assert documents.fleet.cluster == Cluster("k8s.example.net:6443", "cp-1", datetime(2026, 12, 1, tzinfo=UTC))
    assert documents.fleet.rollout_order == ("control-plane", "workers")
    assert sorted(documents.pools) == ["control-plane", "standalone", "workers"]
    assert len(documents.nodes) == 6
    assert documents.channels["stable"].releases == (Version("2026.11.1"), Version("2026.10.4"))
    release = documents.releases[Version("2026.11.1")]
    assert (release.manifest, release.root_hash) == ("2b" * 32, "20" * 32)
    assert (release.kubernetes, release.floor) == ("v1.34.1", Version("2026.10.4"))
    workers = documents.pools["workers"]
    assert workers.role is Role.WORKER
    assert workers.sysctls == (("vm.max_map_count", "262144"),)
    assert workers.files == (File("/etc/cni/net.d/10-bridge.conflist", "files/bridge.conflist", 0o644),)
    assert workers.rollout == Rollout(
        max_unavailable="10%",
        waves=("1", "25%", "100%"),
        soak=timedelta(minutes=30),
        max_failures=1,
        windows=(Window(frozenset({5, 6}), time(2), timedelta(hours=4)),),
        drain_timeout=timedelta(minutes=10),
    )
    image = documents.images["node"]
    assert image.kernel_command_line == ("console=ttyS0",)
    assert StorageMount("/var/lib/kubenode", "state") in image.storage  # type: ignore[arg-type]


def test_the_desired_state_of_a_node(files: dict[str, bytes]) -> None:
    desired = desired_state(load_fleet(files), COMMIT, "worker-1")
    assert (desired.pool, desired.role, desired.channel) == ("workers", Role.WORKER, "stable")
    assert [release.version.text for release in desired.releases] == ["2026.11.1", "2026.10.4"]
    assert desired.target.version == Version("2026.11.1")
    assert desired.stores == ("https://images.example.net/kubenode",)
    assert len(desired.windows) == 1
    assert not desired.halted
    assert desired.commit == COMMIT


def test_a_node_reads_only_its_own_documents(files: dict[str, bytes]) -> None:
    counting = Counting(files)
    documents = load_fleet(counting, node="edge-1")
    assert counting.read == {FLEET, "nodes/edge-1.yaml", ALONE, STABLE, R1, "releases/2026.10.4.yaml"}
    assert desired_state(documents, COMMIT, "edge-1") == desired_state(load_fleet(files), COMMIT, "edge-1")


def test_a_member_of_the_cluster_reads_the_whole_cluster(files: dict[str, bytes]) -> None:
    for node in ("cp-1", "worker-1"):
        one = desired_state(load_fleet(files, node=node), COMMIT, node)
        assert one == desired_state(load_fleet(files), COMMIT, node)
        cluster = one.cluster
        assert cluster is not None
        assert [peer.name for peer in cluster.peers] == ["cp-1", "cp-2", "cp-3", "worker-1", "worker-2"]
        assert cluster.order == ("control-plane", "workers")
        assert cluster.by_name["worker-2"].target.version == Version("2026.11.1")
        assert [peer.name for peer in cluster.pools["workers"]] == ["worker-1", "worker-2"]
        assert cluster.rollouts["workers"].max_failures == 1
    assert desired_state(load_fleet(files), COMMIT, "edge-1").cluster is None


def test_the_configuration_is_every_file_of_kubeadm(files: dict[str, bytes]) -> None:
    before = load_fleet(files).kubeadm
    files["README.md"] = b"changed"
    assert load_fleet(files, node="cp-1").kubeadm == load_fleet(files).kubeadm == before
    files["kubeadm/patches/etcd.yaml"] = b"a: 1"
    assert load_fleet(files).kubeadm != before


def test_control_planes_come_first_whatever_the_order_says(files: dict[str, bytes]) -> None:
    put(FLEET, "order: [control-plane, workers]", "order: [workers, control-plane]")(files)
    assert desired_state(load_fleet(files), COMMIT, "cp-1").cluster.order == ("control-plane", "workers")


def test_mistakes_of_others_do_not_stop_a_node(files: dict[str, bytes]) -> None:
    files[NODE] = b"\xff"
    files[WORKERS] = b"nonsense: ["
    assert desired_state(load_fleet(files, node="edge-1"), COMMIT, "edge-1").pool == "standalone"
    with pytest.raises(FleetInvalid):
        load_fleet(files)


def test_documents_of_a_newer_format_can_be_read(files: dict[str, bytes]) -> None:
    for path in (FLEET, "nodes/edge-1.yaml", ALONE, STABLE, R1):
        put(path, "kubenode.dev/v1alpha1", "kubenode.dev/v2")(files)
    put(ALONE, "  image: node", "  image: node\n  invented: {later: true}")(files)
    assert desired_state(load_fleet(files, node="edge-1"), COMMIT, "edge-1").pool == "standalone"


def test_a_pinned_pool_has_one_release_and_the_builders_of_its_channel(files: dict[str, bytes]) -> None:
    put(ALONE, "  # release: ", "  release: ")(files)
    put(ALONE, "channel: stable", "channel: beta")(files)
    for documents in (load_fleet(files), load_fleet(files, node="edge-1")):
        desired = desired_state(documents, COMMIT, "edge-1")
        assert [release.version.text for release in desired.releases] == ["2026.10.4"]
        assert desired.channel == "beta"
    put(ALONE, "  channel: beta\n", "")(files)
    assert desired_state(load_fleet(files), COMMIT, "edge-1").channel == "stable"


def test_the_halt_switch(files: dict[str, bytes]) -> None:
    put(FLEET, "halted: false", "halted: true")(files)
    assert desired_state(load_fleet(files), COMMIT, "cp-1").halted


@pytest.mark.parametrize("only", [True, False], ids=["one node", "whole fleet"])
@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        (NODE, "this node needs nodes/worker-1.yaml", "worker-2"),
        (WORKERS, "node 'worker-1' needs pools/workers.yaml", "Known: control-plane, standalone."),
        (STABLE, "pool 'workers' needs channels/stable.yaml", "Known: beta, nightly."),
        (R1, "channel 'stable' needs releases/2026.11.1.yaml", "2026."),
    ],
)
def test_what_is_missing_is_said(files: dict[str, bytes], path: str, message: str, hint: str, only: bool) -> None:
    remove(path)(files)
    documents = load_fleet(files, node="worker-1" if only else None)
    with pytest.raises(FleetInvalid) as caught:
        desired_state(documents, COMMIT, "worker-1")
    assert message in caught.value.message
    assert caught.value.location == Location(path)
    assert caught.value.hint
    if not only:
        assert hint in caught.value.hint


def test_an_empty_channel_is_no_target(files: dict[str, bytes]) -> None:
    put(STABLE, "[2026.11.1, 2026.10.4]", "[]")(files)
    with pytest.raises(FleetInvalid, match="no release yet"):
        desired_state(load_fleet(files), COMMIT, "cp-1")


def test_a_pool_needs_a_channel_or_a_release(files: dict[str, bytes]) -> None:
    put(ALONE, "  channel: stable\n", "")(files)
    with pytest.raises(FleetInvalid, match="neither a channel nor a release"):
        desired_state(load_fleet(files), COMMIT, "edge-1")


def test_a_folder_that_is_no_fleet() -> None:
    with pytest.raises(FleetInvalid, match=r"fleet\.yaml is missing"):
        load_fleet({})


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (FLEET, "kind: Fleet", "kind: Pool", "a Fleet belongs here"),
        (FLEET, "kubenode.dev/", "example.net/", "not one of kubenode.dev/"),
        (FLEET, "stores: [https://images.example.net/kubenode]", "stores: []", "stores is empty"),
        (FLEET, "stores: [https://images.example.net/kubenode]", "stores: x", "spec.stores must be a list"),
        (FLEET, "halted: false", "halted: 0", "must be true or false"),
        (FLEET, "2026-12-01", "2026-12-32", "not a time in UTC"),
        (NODE, "name: worker-1", "name: worker-2", "but the file is called 'worker-1'"),
        (NODE, "pool: workers", "pool: 7", "spec.pool must be text"),
        (NODE, "  pool: workers\n", "", "spec.pool is missing"),
        (R1, "version: 2026.11.1", "version: 2026.11.2", "spec.version is '2026.11.2'"),
        (R1, "sha256:2b", "md5:2b", "not a sha256"),
        (R1, "v1.34.1", "v1.34", "not a Kubernetes version"),
        (STABLE, "[2026.11.1", "[2026.11", "spec.releases[0]"),
        (STABLE, "[2026.11.1", "[newest", "is not a version"),
        (WORKERS, "role: worker", "role: boss", "spec.role"),
        (WORKERS, "maxUnavailable: 10%", "maxUnavailable: some", "not an amount"),
        (WORKERS, "maxFailures: 1", "maxFailures: -1", "must be a whole number"),
        (WORKERS, "soak: 30m", "soak: 1h30m", "not a duration"),
        (WORKERS, '"02:00"', '"24:00"', "not a time of day"),
        (WORKERS, "[Sat, Sun]", "[Sat, Son]", "not a day"),
        (WORKERS, '"0644"', '"u+r"', "not an octal mode"),
        (WORKERS, "vm.max_map_count: 262144", "vm.max_map_count: [1]", "sysctls.vm.max_map_count"),
        (WORKERS, "  sysctls:\n    vm.max_map_count: 262144", "  sysctls: 5", "spec.sysctls must be a mapping"),
    ],
)
def test_a_value_that_is_needed_and_wrong(files: dict[str, bytes], path: str, old: str, new: str, message: str) -> None:
    put(path, old, new)(files)
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(files, node="worker-1")
    assert message in caught.value.message
    assert caught.value.location is not None and caught.value.location.path == path and caught.value.location.line


def test_a_node_name_cannot_lead_to_another_folder(files: dict[str, bytes]) -> None:
    assert not load_fleet(files, node="../pools/workers").nodes


def test_a_node_never_imports_the_schema_library() -> None:
    code = "import sys, kubenode.fleet.load, kubenode.fleet.desired; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert "'kubenode.fleet.load'" in modules
    assert "'jsonschema'" not in modules
