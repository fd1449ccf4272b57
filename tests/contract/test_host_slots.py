"""What the slot writer refuses, and what it notices."""

import dataclasses
import os
from pathlib import Path

import pytest

from kubenode.errors import HostError, NoSpace, Untrusted
from kubenode.host import bootentries, slots, slotwriter
from kubenode.host.disk import NEUTRAL, Disk
from kubenode.model.documents import Role
from kubenode.model.kubernetes import KubernetesVersion, LocalKubernetes
from kubenode.model.observed import Slot
from kubenode.trust.bundle import VerifiedRelease
from tests.contract.host_machine import MIB, SFDISK, FolderMachine, make_release, uki

NEW = make_release("2.0")


def quiet(_what: str, _done: int, _size: int) -> None:
    pass


@pytest.fixture
def machine(tmp_path: Path) -> FolderMachine:
    machine = FolderMachine.installed(tmp_path, "1.0")
    machine.fetch(NEW)
    return machine


def untouched(machine: FolderMachine) -> bool:
    blank = not machine.read("root-b", 4 * MIB).strip(b"\0")
    return blank and not any(uuid.startswith(NEUTRAL.replace("-", "")) for uuid in machine.uuids().values())


@pytest.mark.parametrize("name", list(NEW.files))
@pytest.mark.parametrize("damage", ["flipped", "short", "long", "missing"])
def test_a_damaged_download_is_refused_before_the_first_byte(machine: FolderMachine, name: str, damage: str):
    path = machine.downloads.path(NEW.digest, name)
    data = path.read_bytes()
    match damage:
        case "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "short":
            path.write_bytes(data[:-1])
        case "long":
            path.write_bytes(data + b"x")
        case "missing":
            path.unlink()
    with pytest.raises(HostError if damage == "missing" else Untrusted):
        machine.slots.write(NEW.release, Slot.B, quiet)
    assert untouched(machine)


def test_an_image_that_does_not_fit_is_refused_before_the_first_byte(machine: FolderMachine):
    large = make_release("3.0", root_size=4 * MIB + 4096)
    machine.fetch(large)
    with pytest.raises(HostError, match=r"root_3.0.raw has \d+ bytes, partition root-b has 4194304"):
        machine.slots.write(large.release, Slot.B, quiet)
    assert untouched(machine)


def test_a_uki_of_another_release_is_refused_before_the_first_byte(machine: FolderMachine):
    wrong = make_release("3.0", uki_version="3.1")
    machine.fetch(wrong)
    with pytest.raises(HostError, match=r"boots release 3\.1"):
        machine.slots.write(wrong.release, Slot.B, quiet)
    assert untouched(machine)


def test_a_disk_that_gives_back_other_bytes_is_noticed(machine: FolderMachine, monkeypatch: pytest.MonkeyPatch):
    # The disk writes wrongly: what is read back is the truth, not what was sent.
    whole = os.pwrite

    def lying(handle: int, data: bytes, offset: int) -> int:
        return whole(handle, b"\0" + bytes(data)[1:] if offset == 0 else data, offset)

    monkeypatch.setattr(slotwriter.os, "pwrite", lying)
    with pytest.raises(HostError, match="gives back other bytes"):
        machine.slots.write(NEW.release, Slot.B, quiet)
    monkeypatch.undo()
    seen = machine.machine.observe()
    assert seen.spare is None and seen.staged is None
    machine.slots.write(NEW.release, Slot.B, quiet)
    assert machine.machine.observe().spare == NEW.root_hash


def test_short_writes_are_continued(machine: FolderMachine, monkeypatch: pytest.MonkeyPatch):
    whole = os.pwrite
    monkeypatch.setattr(slotwriter.os, "pwrite", lambda handle, data, offset: whole(handle, data[:40_000], offset))
    machine.slots.write(NEW.release, Slot.B, quiet)
    assert machine.read("root-b", len(NEW.files["root_2.0.raw"])) == NEW.files["root_2.0.raw"]


def test_a_staged_uki_that_was_damaged_is_thrown_away(machine: FolderMachine):
    machine.slots.write(NEW.release, Slot.B, quiet)
    path = machine.paths.staged / "kubenode_2.0.efi"
    path.write_bytes(uki("2.0", NEW.root_hash))
    assert machine.machine.observe().staged is not None
    with pytest.raises(Untrusted):
        machine.slots.activate(NEW.release, None)
    assert machine.machine.observe().staged is None and machine.entry_names() == ["kubenode_1.0.efi"]


def test_a_full_esp_is_noticed_before_anything_is_marked(machine: FolderMachine, monkeypatch: pytest.MonkeyPatch):
    machine.slots.write(NEW.release, Slot.B, quiet)
    booted = machine.machine.observe().entries[0]

    def full(folder: Path, needed: int) -> None:
        raise NoSpace(f"{folder} {needed}")

    monkeypatch.setattr(bootentries, "require_free", full)
    with pytest.raises(NoSpace):
        machine.slots.activate(NEW.release, booted)
    assert machine.entry_names() == ["kubenode_1.0.efi"]


def test_a_full_state_partition_is_noticed_before_the_slot_is_touched(
    machine: FolderMachine, monkeypatch: pytest.MonkeyPatch
):
    def full(folder: Path, needed: int) -> None:
        raise NoSpace(f"{folder} {needed}")

    monkeypatch.setattr(slots, "require_free", full)
    with pytest.raises(NoSpace):
        machine.slots.write(NEW.release, Slot.B, quiet)
    assert untouched(machine)


def test_activation_needs_the_slot_and_the_staged_uki(machine: FolderMachine):
    with pytest.raises(HostError, match="does not hold"):
        machine.slots.activate(NEW.release, None)
    machine.slots.write(NEW.release, Slot.B, quiet)
    machine.slots.prune_staged()
    with pytest.raises(HostError, match="not staged"):
        machine.slots.activate(NEW.release, None)


def test_a_staged_uki_counts_only_with_its_slot(machine: FolderMachine):
    machine.slots.write(NEW.release, Slot.B, quiet)
    machine.set_uuid("root-b", "12345678123456781234567812345678")
    seen = machine.machine.observe()
    assert seen.staged is None and seen.spare != NEW.root_hash


def test_the_backup_table_counts_when_the_primary_one_is_torn(machine: FolderMachine):
    machine.slots.write(NEW.release, Slot.B, quiet)
    with machine.disk.open("r+b") as file:
        file.seek(1024)
        file.write(b"torn" * 32)
    assert machine.machine.observe().spare == NEW.root_hash
    with machine.disk.open("r+b") as file:
        file.seek(-512, 2)
        file.write(bytes(512))
    with pytest.raises(HostError, match="neither the primary one nor the backup"):
        machine.machine.observe()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("label", "0 partitions with the label root-b"),
        ("moved", "other borders"),
        ("unmapped", "no mapped device `root`"),
        ("mixed", "which are not a slot"),
        ("cmdline", "its command line says none"),
        ("table", "not protected by dm-verity"),
        ("version", "not a version"),
        ("esp", "is the ESP mounted"),
        ("variable", "not a counted entry"),
        ("no variables", "not known whether this boot is a trial"),
    ],
)
def test_contradictions_are_errors_and_no_guesses(machine: FolderMachine, change: str, message: str):
    sys = machine.paths.sys / "class/block"
    look = machine.machine
    match change:
        case "label":
            import subprocess

            subprocess.run([*SFDISK, "--part-label", machine.disk, "4", "other"], check=True, capture_output=True)
        case "moved":
            (sys / "vda4/start").write_text("2048\n")
        case "unmapped":
            (sys / "dm-0/dm/name").write_text("home\n")
        case "mixed":
            (sys / "dm-0/slaves/vda3").unlink()
            (sys / "dm-0/slaves/vda5").symlink_to(sys / "vda5")
        case "cmdline":
            machine.paths.cmdline.write_text("quiet\n")
        case "table":
            look = type(look)(machine.paths, lambda: "0 8192 linear 254:2 0")
        case "version":
            machine.paths.os_release.write_text("ID=debian\n")
        case "esp":
            machine.paths.entries.rename(machine.paths.entries.with_name("elsewhere"))
        case "no variables":
            machine.paths.loader_info.unlink()
        case "variable":
            machine.paths.boot_count.write_bytes(b"\x06\0\0\0" + "\\EFI\\x.efi\0".encode("utf-16-le"))
    with pytest.raises(HostError, match=message):
        look.observe()


def test_a_partition_on_another_disk_with_the_same_label_is_not_ours(machine: FolderMachine):
    other = machine.paths.sys / "devices/pci0000:00/virtio1/block/vdb/vdb4"
    other.mkdir(parents=True)
    for name, text in (("uevent", "PARTNAME=root-b\n"), ("partition", "4\n"), ("start", "1\n"), ("size", "1\n")):
        (other / name).write_text(text)
    (machine.paths.sys / "class/block/vdb4").symlink_to(other)
    assert Disk(machine.paths).slot(Slot.B).root.node == machine.node("root-b")


def test_kubernetes_is_seen(machine: FolderMachine):
    look = machine.machine
    assert look.observe().kubernetes is None
    manifests = machine.paths.kubernetes / "manifests"
    manifests.mkdir(parents=True)
    (machine.paths.kubernetes / "kubelet.conf").touch()
    with pytest.raises(HostError, match="its image has no kubelet"):
        look.observe()
    kubelet = machine.paths.root / "usr/bin/kubelet"
    kubelet.parent.mkdir(parents=True, exist_ok=True)
    kubelet.write_text("#!/bin/sh\necho Kubernetes v1.34.2\n")
    kubelet.chmod(0o755)
    assert look.observe().kubernetes == LocalKubernetes(KubernetesVersion("v1.34.2"), Role.WORKER)
    text = "spec:\n  containers:\n  - image: registry.example.net:5000/kube-apiserver:v1.34.1\n"
    (manifests / "kube-apiserver.yaml").write_text(text)
    assert look.observe().kubernetes == LocalKubernetes(
        KubernetesVersion("v1.34.2"), Role.CONTROL_PLANE, manifests={"kube-apiserver": KubernetesVersion("v1.34.1")}
    )
    (manifests / "kube-apiserver.yaml").write_text("nothing")
    with pytest.raises(HostError, match="names no Kubernetes version"):
        look.observe()
    (machine.paths.kubernetes / "kubelet.conf").unlink()
    (manifests / "kube-apiserver.yaml").unlink()
    assert look.observe().kubernetes == LocalKubernetes(KubernetesVersion("v1.34.2"))


def test_only_verified_releases_can_be_written():
    with pytest.raises(TypeError):
        VerifiedRelease(NEW.release.manifest, "", NEW.release.builder, proof=object())  # type: ignore[arg-type]
    assert dataclasses.is_dataclass(NEW.release)
