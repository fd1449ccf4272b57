import contextlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from kubenode.errors import HostError
from kubenode.host.bootentries import BootEntries, EntryName, parse_name
from kubenode.host.uki import os_release, read_uki
from kubenode.model.observed import BootEntry, StagedImage
from kubenode.model.version import Version
from tests.contract.host_machine import pe, root_hash_of, uki

HASH = root_hash_of("1.0")
WHOLE = StagedImage(Version("1.0"), HASH)
OSREL = (".osrel", b"IMAGE_VERSION=1.0\n")
CMDLINE = (".cmdline", f"roothash={HASH}\0".encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.efi"


def test_a_uki_names_its_version_and_root_hash(path: Path):
    path.write_bytes(uki("1.0", HASH))
    assert read_uki(path) == WHOLE


def test_a_uki_of_a_foreign_writer_is_read(tmp_path: Path):
    if not shutil.which("objcopy"):
        pytest.skip("needs objcopy (binutils)")
    (tmp_path / "x").write_bytes(b"code")
    (tmp_path / "c").write_bytes(b"quiet roothash=" + HASH.encode() + b" panic=10")
    (tmp_path / "o").write_bytes(b"IMAGE_VERSION=1.0\n")
    words = []
    for name, source, address in ((".cmdline", "c", "0x30000"), (".osrel", "o", "0x20000")):
        words += ["--add-section", f"{name}={source}", "--set-section-flags", f"{name}=data,readonly,contents"]
        words += ["--change-section-vma", f"{name}={address}"]
    for command in (
        ["objcopy", "-I", "binary", "-O", "elf64-x86-64", "x", "x.o"],
        ["objcopy", "-O", "pei-x86-64", *words, "x.o", "x.efi"],
    ):
        if subprocess.run(command, check=False, cwd=tmp_path, capture_output=True).returncode:
            pytest.skip("this objcopy cannot write PE files")
    assert read_uki(tmp_path / "x.efi") == WHOLE


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([OSREL], "exactly one root hash"),
        ([CMDLINE], "exactly one root hash"),
        ([OSREL, CMDLINE, (".cmdline", b"roothash=" + b"0" * 64)], "exactly one root hash"),
        ([OSREL, (".cmdline", f"roothash={HASH} roothash={'0' * 64}".encode())], "exactly one root hash"),
        ([OSREL, CMDLINE, (".osrel", b"IMAGE_VERSION=1.1")], "exactly one root hash"),
        ([OSREL, (".cmdline", b"roothash=" + HASH.upper().encode())], "64 hex digits"),
        ([OSREL, (".cmdline", b"roothash=12")], "64 hex digits"),
        ([CMDLINE, (".osrel", b"IMAGE_VERSION=../../x\n")], "not a version"),
        ([CMDLINE, (".osrel", b"VERSION_ID=1.0\n")], "not a version"),
        ([OSREL, (".cmdline", b"x" * 70_000)], "too large"),
    ],
)
def test_a_uki_that_does_not_say_one_thing_is_refused(path: Path, sections: list[tuple[str, bytes]], message: str):
    path.write_bytes(pe(sections))
    with pytest.raises(HostError, match=message):
        read_uki(path)


def test_profiles_may_repeat_the_root_hash(path: Path):
    debug = (".cmdline", f"roothash={HASH} systemd.volatile=overlay".encode())
    path.write_bytes(pe([OSREL, CMDLINE, (".profile", b"ID=debug"), debug]))
    assert read_uki(path) == WHOLE


def test_no_truncated_uki_is_read(path: Path):
    data = uki("1.0", HASH, padding=5000)
    for size in [*range(0, 1200, 19), *range(1200, len(data), 197), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(HostError):
            read_uki(path)


def test_hostile_bytes_raise_host_errors_only(path: Path):
    draw = random.Random(7)
    data = uki("1.0", HASH)
    for _ in range(400):
        hostile = bytearray(data)
        for _ in range(draw.randrange(1, 12)):
            hostile[draw.randrange(0, 0x340)] = draw.choice([0, 0xFF, 0x7F, draw.randrange(256)])
        path.write_bytes(hostile)
        with contextlib.suppress(HostError):
            read_uki(path)


def test_a_missing_file_is_a_host_error(path: Path):
    with pytest.raises(HostError, match="No such file"):
        read_uki(path)


def test_os_release_is_read_as_shell_would():
    assert os_release('# c\nA=1\nB="2 3"\nC=\'4\'\nD=\nnonsense\nE="open\n') == {
        "A": "1",
        "B": "2 3",
        "C": "4",
        "D": "",
    }


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("kubenode_1.0.efi", EntryName(Version("1.0"))),
        ("kubenode_1.0+3.efi", EntryName(Version("1.0"), 3)),
        ("kubenode_2026.11.2+2-1.efi", EntryName(Version("2026.11.2"), 2, 1)),
        ("kubenode_1.0+0-0.efi", EntryName(Version("1.0"), 0, 0)),
        ("KUBENODE_1.0+00002-00001.EFI", EntryName(Version("1.0"), 2, 1)),
        ("kubenode_1.0+3.efi.new", None),
        ("kubenode_1.0+.efi", None),
        ("kubenode_1.0+-1.efi", None),
        ("kubenode_1.0-1.efi", None),
        ("kubenode_1.efi", None),
        ("kubenode_01.0.efi", None),
        ("kubenode_1.0\u0663.efi", None),
        ("other_1.0.efi", None),
        ("kubenode_1.0+9999999999.efi", None),
    ],
)
def test_names_in_the_esp(name: str, parts: EntryName | None):
    assert parse_name(name) == parts


def test_the_version_inside_counts_because_the_loader_sorts_by_it(tmp_path: Path):
    (tmp_path / "kubenode_2.0+1-2.efi").write_bytes(uki("1.0", HASH))
    assert [file.entry for file in BootEntries(tmp_path).files()] == [BootEntry(Version("1.0"), HASH, 1, 2)]
