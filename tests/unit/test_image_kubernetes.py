"""Images with Kubernetes: pinned binaries, and nothing of it in images without."""

import hashlib
import json
from pathlib import Path

import pytest

from kubenode.errors import HostError, UsageError
from kubenode.image import kubernetes
from kubenode.image.build import BuildRequest
from kubenode.image.work_folder import prepare
from kubenode.model.documents import BinarySource, Image, KubernetesRecipe, Partition, StorageMount

SAYS = {"kubeadm": "v1.20.2", "kubelet": "Kubernetes v1.20.2", "crictl": "crictl"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, says in SAYS.items():
        (folder / name).write_text(f"#!/bin/sh\necho {says}\n")
        (folder / name).chmod(0o755)
    return folder


def recipe(source: Path, version: str = "v1.20.2", **changes: str | None) -> KubernetesRecipe:
    digests = {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in SAYS}
    return KubernetesRecipe(version, BinarySource(**{"url": source.as_uri(), **digests, **changes}))


def request(tmp_path: Path, image: Image) -> BuildRequest:
    return BuildRequest("1.2.3", image, tmp_path / "out", tmp_path / "kubenode", 1_700_000_000, lambda line: None)


def test_the_image_has_the_binaries_and_what_they_need(tmp_path: Path, source: Path) -> None:
    work = tmp_path / "work"
    own = (StorageMount("/opt/cni/bin", Partition.STATE),)
    image = Image("node", kubernetes=recipe(source), storage=own)
    prepare(request(tmp_path, image), work, tmp_path / "cache")
    tree = work / "kubernetes"
    assert sorted(it.name for it in (tree / "usr/bin").iterdir()) == ["crictl", "kubeadm", "kubelet"]
    assert (tree / "usr/libexec/kubenode-kubelet-config").stat().st_mode & 0o111
    assert "/var/lib/kubenode/kubelet/1.2.3" in (tree / "usr/lib/systemd/system/kubelet.service").read_text()
    assert 'sandbox_image = "k8s.gcr.io/pause:3.2"' in (tree / "etc/containerd/config.toml").read_text()
    config = (work / "mkosi.conf").read_text()
    assert f"{tree}:/" in config
    assert "        conntrack\n" in config
    table = (work / "tree/etc/fstab").read_text()
    assert "/state/etc/kubernetes /etc/kubernetes" in table
    assert "/state/opt/cni/bin /opt/cni/bin" in table, "the recipe's own choice wins"
    assert "/usr/libexec/kubernetes/kubelet-plugins/volume/exec" in table
    settings = json.loads((work / "scripts/settings.json").read_text())
    assert settings["kubernetes"] is True
    assert "/usr/libexec/kubernetes/kubelet-plugins/volume/exec" in settings["mount_points"]


def test_an_image_without_has_nothing_of_it(tmp_path: Path) -> None:
    work = tmp_path / "work"
    prepare(request(tmp_path, Image("node")), work, tmp_path / "cache")
    assert not (work / "kubernetes").exists()
    assert "kubernetes" not in (work / "mkosi.conf").read_text()
    assert "conntrack" not in (work / "mkosi.conf").read_text()
    assert "cni" not in (work / "tree/etc/fstab").read_text()
    assert json.loads((work / "scripts/settings.json").read_text())["kubernetes"] is False


def test_a_file_with_another_digest_is_refused_and_not_kept(tmp_path: Path, source: Path) -> None:
    wanted = recipe(source)
    (source / "kubelet").write_text("#!/bin/sh\necho something else\n")
    with pytest.raises(HostError, match=r"source/kubelet has the sha256 [0-9a-f]{64}, the recipe says [0-9a-f]{64}"):
        kubernetes.install(wanted, tmp_path / "bin", tmp_path / "cache")
    assert [it.name for it in (tmp_path / "cache").iterdir()] == [wanted.source.kubeadm]


def test_what_is_known_by_its_digest_is_not_fetched_again(tmp_path: Path, source: Path) -> None:
    wanted = recipe(source)
    kubernetes.install(wanted, tmp_path / "bin", tmp_path / "cache")
    for name in SAYS:
        (source / name).unlink()
    kubernetes.install(wanted, tmp_path / "again", tmp_path / "cache")
    assert (tmp_path / "again/kubelet").read_text() == "#!/bin/sh\necho Kubernetes v1.20.2\n"


def test_a_source_that_is_not_there_is_named(tmp_path: Path, source: Path) -> None:
    wanted = recipe(source, url=(tmp_path / "nowhere").as_uri())
    with pytest.raises(HostError, match=r"nowhere/kubeadm cannot be read: .*No such file"):
        kubernetes.install(wanted, tmp_path / "bin", tmp_path / "cache")


def test_binaries_of_another_version_are_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UsageError, match=r"kubeadm of file://\S+ is v1\.20\.2, the recipe says v1\.20\.3"):
        kubernetes.install(recipe(source, "v1.20.3"), tmp_path / "bin", tmp_path / "cache")


@pytest.mark.parametrize(
    ("version", "crictl", "said"), [("v1.20.2", None, "needs crictl"), ("v1.31.0", "ab" * 32, "does not need crictl")]
)
def test_crictl_is_there_exactly_when_kubeadm_calls_it(
    tmp_path: Path, source: Path, version: str, crictl: str | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        kubernetes.install(recipe(source, version, crictl=crictl), tmp_path / "bin", tmp_path / "cache")
