import subprocess
from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host.kubeletconfig import KubeletConfig, Origin
from kubenode.host.paths import Paths
from kubenode.model.version import Version

OLD, NEW = Origin(Version("1.1"), "a" * 64, "documents"), Origin(Version("1.2"), "b" * 64, "others")
INSTALLER = Path(__file__).parents[2] / "kubenode/image/mkosi/kubernetes/usr/libexec/kubenode-kubelet-config"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.kubelet.mkdir(parents=True)
    write(paths, "old", "--old")
    return paths


def write(paths: Paths, config: str, flags: str) -> None:
    (paths.kubelet / "config.yaml").write_text(config)
    (paths.kubelet / "kubeadm-flags.env").write_text(flags)


def live(paths: Paths) -> dict[str, str]:
    return {path.name: path.read_text() for path in paths.kubelet.iterdir()}


def test_what_kubeadm_renders_for_another_release_does_not_reach_the_running_kubelet(paths: Paths) -> None:
    sets = KubeletConfig(paths)
    with sets.rendering(NEW, OLD):
        write(paths, "new", "--new")
        (paths.kubelet / "instance-config.yaml").write_text("endpoint")
    assert live(paths) == {"config.yaml": "old", "kubeadm-flags.env": "--old"}
    assert sets.has(NEW.release) and sets.has(OLD.release)
    sets.install(NEW.release)
    assert live(paths) == {"config.yaml": "new", "kubeadm-flags.env": "--new", "instance-config.yaml": "endpoint"}


def test_a_set_says_what_it_was_rendered_from(paths: Paths) -> None:
    sets = KubeletConfig(paths)
    assert sets.origins() == {}
    sets.keep(OLD)
    with sets.rendering(NEW, OLD):
        write(paths, "new", "--new")
    assert sets.origins() == {"a" * 64: "documents", "b" * 64: "others"}
    (paths.kubelet_sets / "1.2/origin.json").write_text("{")
    assert sets.origins() == {"a" * 64: "documents"}, "a torn note: rendered again"


def test_a_failing_kubeadm_leaves_no_set(paths: Paths) -> None:
    sets = KubeletConfig(paths)
    with pytest.raises(ValueError, match="kubeadm"), sets.rendering(NEW, OLD):
        write(paths, "half", "")
        raise ValueError("kubeadm")
    assert live(paths) == {"config.yaml": "old", "kubeadm-flags.env": "--old"}
    assert not sets.has(NEW.release)


def test_an_empty_file_is_never_kept(paths: Paths) -> None:
    sets = KubeletConfig(paths)
    sets.keep(OLD)
    write(paths, "new", "")
    with pytest.raises(HostError, match=r"kubeadm-flags\.env is empty"):
        sets.keep(OLD)
    sets.install(OLD.release)
    assert live(paths)["kubeadm-flags.env"] == "--old"


def test_sets_of_other_releases_are_deleted(paths: Paths) -> None:
    sets = KubeletConfig(paths)
    sets.keep(OLD)
    sets.keep(NEW)
    sets.prune(frozenset({NEW.release}))
    assert (sets.has(OLD.release), sets.has(NEW.release)) == (False, True)
    with pytest.raises(HostError, match=r"release 1\.1 has no kubelet configuration"):
        sets.install(OLD.release)


def test_the_image_installs_the_set_of_its_release(paths: Paths, tmp_path: Path) -> None:
    """The script that the kubelet's unit runs, with the folder of the live files replaced."""
    sets = KubeletConfig(paths)
    sets.keep(OLD)
    write(paths, "new", "")
    (paths.kubelet / "instance-config.yaml").write_text("left over")
    text = INSTALLER.read_text()
    assert text.count("/var/lib/kubelet\n") == 1
    script = tmp_path / "script"
    script.write_text(text.replace("/var/lib/kubelet\n", f"{paths.kubelet}\n"))
    subprocess.run(["sh", str(script), str(paths.kubelet_sets / "9.9")], check=True)
    assert live(paths)["config.yaml"] == "new", "a release without a set keeps what is live"
    subprocess.run(["sh", str(script), str(paths.kubelet_sets / "1.1")], check=True)
    assert live(paths) == {"config.yaml": "old", "kubeadm-flags.env": "--old"}


def test_a_manifest_that_a_power_cut_has_emptied_is_the_one_before_it(paths: Paths, tmp_path: Path) -> None:
    """kubeadm moves the old one to its backup and the new one, which it never flushed, into its place."""
    manifests, tmp = paths.kubernetes / "manifests", paths.kubernetes / "tmp"
    for folder, found in {
        manifests: {"etcd": "runs", "kube-apiserver": "", "kube-scheduler": ""},
        tmp / "kubeadm-backup-manifests-2026-11-30-01-00-00": {"kube-apiserver": "older", "kube-scheduler": "old"},
        tmp / "kubeadm-backup-manifests-2026-11-30-02-00-00": {"kube-apiserver": "old", "kube-scheduler": ""},
        tmp / "kubeadm-backup-manifests-2026-11-30-03-00-00": {"etcd": "old", "kube-controller-manager": "old"},
    }.items():
        folder.mkdir(parents=True)
        for name, text in found.items():
            (folder / f"{name}.yaml").write_text(text)
    script = tmp_path / "script"
    script.write_text(INSTALLER.read_text().replace("/etc/kubernetes", str(paths.kubernetes)))
    subprocess.run(["sh", str(script), str(tmp_path / "no set")], check=True)
    assert {it.name: it.read_text() for it in manifests.iterdir()} == {
        "etcd.yaml": "runs",
        "kube-apiserver.yaml": "old",
        "kube-controller-manager.yaml": "old",
        "kube-scheduler.yaml": "old",
    }


def test_a_worker_gets_no_manifests(paths: Paths, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(INSTALLER.read_text().replace("/etc/kubernetes", str(paths.kubernetes)))
    subprocess.run(["sh", str(script), str(tmp_path / "no set")], check=True)
    assert not (paths.kubernetes / "manifests").exists()
