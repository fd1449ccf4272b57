"""What a member of a cluster does with kubeadm: real processes and files, kubeadm itself stood in for by a script."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubenode.errors import HostError, TryLater
from kubenode.fleet.kubeadm import KubeadmDocuments
from kubenode.host import member as module
from kubenode.host import memberfile
from kubenode.host.booted import Running
from kubenode.host.kube.etcd import Etcd
from kubenode.host.kubeletconfig import KubeletConfig
from kubenode.host.localkubernetes import local_kubernetes
from kubenode.host.member import Member
from kubenode.host.paths import Paths
from kubenode.model.desired import DesiredCluster, Peer
from kubenode.model.documents import Release, Role, Rollout
from kubenode.model.kubernetes import Entry, EtcdMember, EtcdView, KubernetesVersion
from kubenode.model.version import Version

OLD, NEW = Version("2026.11.1"), Version("2026.11.2")
RELEASE = Release(NEW, "d" * 64, "b" * 64, kubernetes="v1.35.0")
CONFIGURATION = "c" * 64
KUBEADM = """#!/bin/sh
if [ "$1" = version ]; then echo {version}; echo kubeadm >> {root}/asked; exit 0; fi
echo "$@" >> {root}/calls
case "$*" in *"--config "*) cp "{root}/run/kubenode/kubeadm.yaml" "{root}/given" ;; esac
[ -e {root}/fails ] && {{ cat {root}/fails; exit 1; }}
mkdir -p {root}/var/lib/kubelet {root}/etc/kubernetes/manifests
case "$*" in
"init phase"*|"config images"*|"certs "*) exit 0 ;;
esac
echo "rendered by {version}" > {root}/var/lib/kubelet/config.yaml
echo "KUBELET_KUBEADM_ARGS=" > {root}/var/lib/kubelet/kubeadm-flags.env
case "$*" in
*kubelet-config*) exit 0 ;;
esac
touch {root}/etc/kubernetes/kubelet.conf
case "$*" in
join*) exit 0 ;;
esac
for name in kube-apiserver kube-controller-manager kube-scheduler; do
    echo "    image: registry.k8s.io/$name:{version}" > {root}/etc/kubernetes/manifests/$name.yaml
done
"""


@dataclass
class Api:
    """The cluster's documents, as far as a member changes them."""

    marks: list[str] = field(default_factory=list)
    ready: bool = False
    sockets: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    def mark_configuration(self, digest: str) -> None:
        self.marks.append(digest)

    def configuration(self) -> str | None:
        return self.marks[-1] if self.marks else None

    def is_ready(self) -> bool:
        return self.ready

    def withdraw_token(self, token: str) -> None:
        self.withdrawn.append(token)

    def mark_socket(self, socket: str) -> None:
        self.sockets.append(socket)


@dataclass(frozen=True)
class Sealed:
    """The fleet's secrets, opened."""

    ca_cert_hash: str = "sha256:" + "ab" * 32

    def ca_set(self) -> Mapping[str, bytes]:
        return {"ca.crt": b"certificate", "ca.key": b"key", "etcd/ca.crt": b"of etcd"}

    def own_token(self) -> str:
        return "abcdef.0123456789abcdef"


@dataclass
class EtcdStub:
    """etcd with these members."""

    members: list[EtcdMember]
    removed: list[str] = field(default_factory=list)

    def view(self) -> EtcdView:
        return EtcdView(tuple(self.members))

    def remove(self, member: str) -> None:
        self.removed.append(member)


def no_etcd() -> Etcd:
    raise HostError("etcd is not asked here")


class Node:
    """A machine in a folder, and its member."""

    def __init__(self, root: Path, role: Role = Role.CONTROL_PLANE) -> None:
        self.paths = Paths(root)
        self.api = Api()
        peer = Peer("cp-1", role, "pool", RELEASE, "192.0.2.11")
        cluster = DesiredCluster(
            "192.0.2.11:6443", "cp-1", datetime(2026, 12, 1, tzinfo=UTC), CONFIGURATION, (peer,), ("pool",),
            {"pool": Rollout()},
        )  # fmt: skip
        documents = KubeadmDocuments(
            {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"},
            patches={"etcd.yaml": b"spec: {}"},
            skip_phases=("addon/kube-proxy",),
        )
        for place, version in ((root, "v1.34.2"), (root / "spare", "v1.35.0")):
            binary = place / "usr/bin/kubeadm"
            binary.parent.mkdir(parents=True)
            binary.write_text(KUBEADM.format(version=version, root=root))
            binary.chmod(0o755)
        kubelet = root / "usr/bin/kubelet"
        kubelet.write_text(f"#!/bin/sh\necho Kubernetes v1.34.2; echo kubelet >> {root}/asked\n")
        kubelet.chmod(0o755)

        @contextmanager
        def spare(root_hash: str, paths: Paths) -> Iterator[Path]:
            assert (root_hash, paths) == (RELEASE.root_hash, self.paths)
            yield root / "spare"

        self.member = Member(self.paths, "cp-1", cluster, documents, Sealed(), self.api, no_etcd, spare)

    @property
    def calls(self) -> list[str]:
        file = self.paths.root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def live(self) -> str:
        return (self.paths.kubelet / "config.yaml").read_text()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(module, "running", lambda paths: Running(OLD, "a" * 64))
    return Node(tmp_path / "root")


def test_programs_are_asked_for_their_versions_once(node: Node) -> None:
    """Seen on a busy machine: `kubelet --version` took more than a minute."""
    node.member.init(KubernetesVersion("v1.34.2"))
    for _ in range(3):
        here = local_kubernetes(node.paths)
        assert here is not None and here.kubelet == KubernetesVersion("v1.34.2")
    node.member.init(KubernetesVersion("v1.34.2"))
    asked = (node.paths.root / "asked").read_text().split()
    assert sorted(asked) == ["kubeadm", "kubelet"]


def test_a_version_that_was_kept_damaged_is_asked_for_again(node: Node) -> None:
    node.paths.kubelet_version.parent.mkdir(parents=True, exist_ok=True)
    node.paths.kubelet_version.write_bytes(b"v1.3\xff")
    here = local_kubernetes(node.paths)
    assert here is not None and here.kubelet == KubernetesVersion("v1.34.2")
    assert node.paths.kubelet_version.read_text() == "v1.34.2"


def test_an_init_is_noted_before_it_begins_and_forgotten_when_it_is_done(node: Node) -> None:
    (node.paths.root / "fails").write_text("etcd did not start\n")
    with pytest.raises(HostError, match=r"kubeadm init failed: .*etcd did not start"):
        node.member.init(KubernetesVersion("v1.34.2"))
    here = local_kubernetes(node.paths)
    assert here is not None and (here.joined, here.entering) == (None, Entry.INIT)
    assert node.api.marks == []
    (node.paths.root / "fails").unlink()

    node.member.init(KubernetesVersion("v1.34.2"))
    here = local_kubernetes(node.paths)
    assert here is not None and (here.joined, here.entering) == (Role.CONTROL_PLANE, None)
    assert here.configuration == CONFIGURATION == node.api.configuration()
    assert here.kubelet_sets == {"a" * 64: CONFIGURATION}
    pki = node.paths.kubernetes / "pki"
    assert (pki / "ca.key").read_bytes() == b"key" and (pki / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (node.paths.kubernetes / "patches/etcd.yaml").read_bytes() == b"spec: {}"
    assert "--skip-phases=addon/kube-proxy" in node.calls[-1]
    given = (node.paths.root / "given").read_text()
    assert "abcdef.0123456789abcdef" in given and '"advertiseAddress": "192.0.2.11"' in given
    assert node.api.withdrawn == ["abcdef.0123456789abcdef"], "nobody joins with it"


def test_what_kubeadm_began_and_did_not_end_makes_no_member(node: Node) -> None:
    memberfile.change(node.paths, entering=Entry.JOIN)
    node.paths.kubernetes.mkdir(parents=True)
    (node.paths.kubernetes / "kubelet.conf").touch()
    here = local_kubernetes(node.paths)
    assert here is not None and (here.joined, here.entering) == (None, Entry.JOIN)


def test_the_ca_of_another_cluster_is_not_written_over(node: Node) -> None:
    (node.paths.kubernetes / "pki").mkdir(parents=True)
    (node.paths.kubernetes / "pki/ca.crt").write_bytes(b"another")
    with pytest.raises(HostError, match=r"ca\.crt is of another cluster"):
        node.member.init(KubernetesVersion("v1.34.2"))
    assert node.calls == []


def test_a_worker_joins_with_its_own_token_and_what_the_cluster_was_configured_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "running", lambda paths: Running(OLD, "a" * 64))
    node = Node(tmp_path / "root", Role.WORKER)
    node.api.marks.append("an older configuration")
    node.member.join(Role.WORKER)
    here = local_kubernetes(node.paths)
    assert here is not None and (here.joined, here.configuration) == (Role.WORKER, "an older configuration")
    given = (node.paths.root / "given").read_text()
    assert '"token": "abcdef.0123456789abcdef"' in given and "sha256:abab" in given
    assert not (node.paths.kubernetes / "pki/ca.key").exists(), "a worker never gets the CA"


@pytest.mark.parametrize("role", [Role.CONTROL_PLANE, Role.WORKER])
def test_a_join_that_was_cut_off_begins_anew_with_the_token_while_its_node_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    monkeypatch.setattr(module, "running", lambda paths: Running(OLD, "a" * 64))
    node = Node(tmp_path / "root", role)
    node.paths.kubernetes.mkdir(parents=True)
    (node.paths.kubernetes / "kubelet.conf").touch()
    node.member.join(role)
    assert "FileAvailable--etc-kubernetes-kubelet.conf" in node.calls[-1] and "--skip-phases" not in node.calls[-1]
    assert '"token": "abcdef.0123456789abcdef"' in (node.paths.root / "given").read_text()
    assert node.api.sockets == []


def test_a_control_plane_whose_kubelet_has_joined_goes_on_after_that(node: Node) -> None:
    """kubeadm refuses: `a Node with name "cp-1" and status "Ready" already exists`, and its token is withdrawn."""
    node.paths.kubernetes.mkdir(parents=True)
    (node.paths.kubernetes / "kubelet.conf").touch()
    node.api.ready = True
    node.member.join(Role.CONTROL_PLANE)
    assert node.calls[-1].startswith("join --config") and "--skip-phases=kubelet-start" in node.calls[-1]
    given = json.loads((node.paths.root / "given").read_text())
    assert given["discovery"] == {"file": {"kubeConfigPath": str(node.paths.kubernetes / "admin.conf")}}
    assert given["controlPlane"]["localAPIEndpoint"]["advertiseAddress"] == "192.0.2.11"
    assert node.api.sockets == ["unix:///run/containerd/containerd.sock"], "`kubeadm upgrade` reads it there"
    assert memberfile.read(node.paths).entering is None


def test_a_member_that_a_join_added_and_never_started_is_removed_before_kubeadm_goes_on(node: Node) -> None:
    """kubeadm 1.20 would name it "" in `--initial-cluster`: etcd does not start with that."""
    mine = EtcdMember("", "7", healthy=False, peers=("https://192.0.2.11:2380",))
    etcd = EtcdStub([EtcdMember("cp-2", "2", True, peers=("https://192.0.2.12:2380",)), mine])
    node.member.etcd = lambda: etcd  # type: ignore[assignment, return-value]
    manifest = node.paths.kubernetes / "manifests/etcd.yaml"
    node.member.join(Role.CONTROL_PLANE)
    assert etcd.removed == [], "what a first join meets is not its own"
    memberfile.change(node.paths, entering=Entry.JOIN)
    manifest.write_text("kind: Pod")
    with pytest.raises(TryLater, match="not part of the cluster yet"):
        node.member.join(Role.CONTROL_PLANE)
    manifest.write_text("")
    node.member.join(Role.CONTROL_PLANE)
    assert etcd.removed == ["7"]


def test_a_worker_whose_kubelet_has_joined_needs_no_kubeadm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "running", lambda paths: Running(OLD, "a" * 64))
    node = Node(tmp_path / "root", Role.WORKER)
    for folder in (node.paths.kubernetes, node.paths.kubelet):
        folder.mkdir(parents=True)
    (node.paths.kubernetes / "kubelet.conf").touch()
    for name in ("config.yaml", "kubeadm-flags.env"):
        (node.paths.kubelet / name).write_text("as kubeadm wrote it")
    node.api.ready = True
    node.member.join(Role.WORKER)
    assert node.calls == []
    here = local_kubernetes(node.paths)
    assert here is not None and here.joined is Role.WORKER
    assert node.api.sockets == ["unix:///run/containerd/containerd.sock"]


def test_a_cluster_that_says_nothing_of_its_documents_leaves_the_configuration_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node may join before the first control plane has marked them: it must not claim that it runs git's."""
    monkeypatch.setattr(module, "running", lambda paths: Running(OLD, "a" * 64))
    node = Node(tmp_path / "root", Role.WORKER)
    node.member.join(Role.WORKER)
    here = local_kubernetes(node.paths)
    assert here is not None and (here.joined, here.configuration) == (Role.WORKER, None)


def test_the_first_control_plane_moves_with_gits_documents_under_the_old_kubelet(node: Node) -> None:
    node.member.init(KubernetesVersion("v1.34.2"))
    before = node.live
    node.member.documents = replace(node.member.documents, patches={})
    node.member.upgrade(RELEASE, first=True)
    upload, apply = node.calls[-2:]
    assert upload.startswith("init phase upload-config all")
    assert apply == "upgrade apply v1.35.0 --yes --skip-phases=addon/kube-proxy"
    assert '"kubernetesVersion": "v1.34.2"' in (node.paths.root / "given").read_text(), "apply raises it itself"
    here = local_kubernetes(node.paths)
    assert here is not None and set(here.manifests.values()) == {KubernetesVersion("v1.35.0")}
    assert here.kubelet_sets == {"a" * 64: CONFIGURATION, RELEASE.root_hash: CONFIGURATION}
    assert node.live == before, "the running kubelet keeps what it understands"
    assert (node.paths.kubelet_sets / f"{NEW}/config.yaml").read_text() == "rendered by v1.35.0\n"
    assert not list((node.paths.kubernetes / "patches").iterdir()), "a patch that left git is not in force"


def test_no_dns_addon_is_no_reason_to_refuse_an_upgrade(node: Node) -> None:
    """kubeadm 1.20: "CoreDNS will not be upgraded: start version '' not supported"."""
    for skipped in ("addon", "addon/coredns"):
        node.member.documents = replace(node.member.documents, skip_phases=(skipped,))
        node.member.init(KubernetesVersion("v1.34.2"))
        node.member.upgrade(RELEASE, first=True)
        assert "--ignore-preflight-errors=CoreDNSMigration,CoreDNSUnsupportedPlugins" in node.calls[-1]


def test_a_failed_upgrade_leaves_no_set_and_no_mark(node: Node) -> None:
    node.member.init(KubernetesVersion("v1.34.2"))
    node.api.marks.clear()
    (node.paths.root / "fails").write_text("static Pod hash for component kube-apiserver did not change after 5m0s\n")
    with pytest.raises(HostError, match="did not change"):
        node.member.upgrade(RELEASE, first=True)
    assert node.api.marks == [] and not KubeletConfig(node.paths).has(NEW)


def test_other_control_planes_follow(node: Node) -> None:
    node.member.init(KubernetesVersion("v1.34.2"))
    node.member.upgrade(RELEASE, first=False)
    assert node.calls[-1] == f"upgrade node --patches {node.paths.kubernetes}/patches"


def test_a_worker_prepares_only_its_kubelet(node: Node) -> None:
    node.member.init(KubernetesVersion("v1.34.2"))
    node.member.prepare_kubelet(RELEASE, "e" * 64)
    assert node.calls[-1] == "upgrade node phase kubelet-config"
    here = local_kubernetes(node.paths)
    assert here is not None and here.kubelet_sets[RELEASE.root_hash] == "e" * 64
    assert here.configuration == CONFIGURATION, "of what runs, not of what waits"


def test_a_worker_runs_the_configuration_that_its_release_was_prepared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every worker would do again, under a lease, what its restart has brought along."""
    monkeypatch.setattr(module, "running", lambda paths: Running(OLD, "a" * 64))
    node = Node(tmp_path / "root", Role.WORKER)
    node.api.marks.append("d" * 64)
    node.member.join(Role.WORKER)
    node.member.prepare_kubelet(RELEASE, "e" * 64)
    for booted, configuration in (("a" * 64, "d" * 64), (RELEASE.root_hash, "e" * 64), ("f" * 64, "d" * 64)):
        here = local_kubernetes(node.paths, booted)
        assert here is not None and here.configuration == configuration, booted


def test_a_control_plane_runs_the_configuration_that_its_static_pods_were_rendered_from(node: Node) -> None:
    node.member.init(KubernetesVersion("v1.34.2"))
    node.member.prepare_kubelet(RELEASE, "e" * 64)
    here = local_kubernetes(node.paths, RELEASE.root_hash)
    assert here is not None and here.configuration == CONFIGURATION


def test_images_are_pulled_by_the_staged_kubeadm(node: Node) -> None:
    node.member.pull(RELEASE)
    assert node.calls == [f"config images pull --config {node.paths.root}/run/kubenode/kubeadm.yaml"]
    here = local_kubernetes(node.paths)
    assert here is not None and here.pulled == {KubernetesVersion("v1.35.0")}


def test_a_renewal_that_was_cut_off_counts_as_not_done(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.member.init(KubernetesVersion("v1.34.2"))

    def stops(paths: Paths) -> None:
        raise HostError("the static pod etcd was not started anew")

    monkeypatch.setattr(module.staticpods, "restart", stops)
    with pytest.raises(HostError, match="not started anew"):
        node.member.renew_certificates()
    here = local_kubernetes(node.paths)
    assert here is not None and here.certificates_until == datetime(1970, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(module.staticpods, "restart", lambda paths: None)
    node.member.renew_certificates()
    here = local_kubernetes(node.paths)
    assert here is not None and here.certificates_until is None, "this folder has no certificates"


def test_static_pods_are_made_anew_by_a_healthy_kubelet_only(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    restarted: list[object] = []
    monkeypatch.setattr(module.staticpods, "revive", lambda paths, names: restarted.append(names))
    monkeypatch.setattr(module.podhealth, "kubelet", lambda seconds: "the kubelet answers /healthz")
    node.member.restart_static_pods(frozenset({"etcd"}))
    assert restarted == [frozenset({"etcd"})]

    def sick(seconds: float) -> str:
        raise HostError("the kubelet does not answer on port 10248")

    monkeypatch.setattr(module.podhealth, "kubelet", sick)
    with pytest.raises(HostError, match="does not answer"):
        node.member.restart_static_pods(frozenset({"etcd"}))
    assert len(restarted) == 1


def test_a_damaged_record_says_nothing(node: Node) -> None:
    node.paths.member.parent.mkdir(parents=True)
    for damaged in ("", "{", "[]", '{"entering": "sleep"}', "[" * 5000, '{"configuration": 7}'):
        node.paths.member.write_text(damaged)
        assert memberfile.read(node.paths) == memberfile.MemberRecord()
