"""The slot writer on a real block device, where the kernel lends one (a loop device)."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from kubenode.errors import HostError
from kubenode.host.disk import Partition
from kubenode.host.gpt import read_gpt, set_partition_uuid
from kubenode.host.slotwriter import check_fits, write_and_verify
from kubenode.trust.manifest import Artifact
from tests.contract.host_machine import MIB, SFDISK


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    done = subprocess.run(["losetup", "--find", "--show", image], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, Artifact]:
    data = os.urandom(5 * MIB + 12_345)
    path = tmp_path / "root.raw"
    path.write_bytes(data)
    return path, Artifact("root.raw", "root", hashlib.sha256(data).hexdigest(), len(data))


def partition(loop: Path) -> Partition:
    subprocess.run([*SFDISK, loop], input=b"label: gpt\nname=root-b\n", check=True, capture_output=True)
    (entry,) = read_gpt(loop)
    return Partition(entry, loop)


def quiet(_what: str, _done: int, _size: int) -> None:
    pass


def test_a_device_is_written_and_read_back(loop: Path, source: tuple[Path, Artifact]):
    target = partition(loop)
    check_fits(target, source[1])
    write_and_verify(*_words(source, target))
    assert loop.open("rb").read(source[1].size) == source[0].read_bytes()


def test_a_device_in_use_is_refused(loop: Path, source: tuple[Path, Artifact]):
    target = partition(loop)
    handle = os.open(loop, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(HostError, match="busy"):
            write_and_verify(*_words(source, target))
    finally:
        os.close(handle)


def test_a_uuid_is_set_on_a_device_in_use(loop: Path):
    partition(loop)
    handle = os.open(loop, os.O_RDONLY | os.O_EXCL)
    try:
        uuid = uuid4()
        set_partition_uuid(loop, 1, uuid)
        assert read_gpt(loop)[0].uuid == uuid
    finally:
        os.close(handle)


def test_larger_sectors_are_read(tmp_path: Path):
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    done = subprocess.run(
        ["losetup", "--find", "--show", "--sector-size", "4096", image], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no loop device with large sectors: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        subprocess.run([*SFDISK, device], input=b"label: gpt\nname=root-b,size=2MiB\n", check=True, capture_output=True)
        (entry,) = read_gpt(device, 4096)
        assert (entry.number, entry.label, entry.size) == (1, "root-b", 2 * MIB)
        with pytest.raises(HostError):
            read_gpt(device, 512)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def _words(source: tuple[Path, Artifact], target: Partition):
    return source[0], target, source[1], quiet
