import os
import subprocess
from pathlib import Path

import pytest

from kubenode.errors import HostError, NoSpace
from kubenode.host import files
from kubenode.host.paths import Paths
from kubenode.host.staging import MARGIN, Downloads
from kubenode.host.state import StateFolder
from kubenode.model.state import TrustState
from tests.contract.staging_suite import ONE, StagingSuite


class TestDownloads(StagingSuite):
    @pytest.fixture
    def staging(self, tmp_path: Path) -> Downloads:
        return Downloads(tmp_path / "downloads")

    def listing(self, staging):
        return staging.listing()


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return Downloads(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine does not let tmpfs be mounted")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "-x", "a b", "x" * 201, "ä"])
def test_names_that_mean_something_to_a_path_are_refused(downloads: Downloads, name: str):
    for call in (
        lambda: list(downloads.partial(ONE, name)),
        lambda: downloads.append(ONE, name, iter([b"x"])),
        lambda: downloads.discard(ONE, name),
    ):
        with pytest.raises(HostError, match="not the name"):
            call()


@pytest.mark.parametrize("digest", ["", "..", "A" * 64, "1" * 63, "1" * 65, "../" + "1" * 61])
def test_digests_that_are_none_are_refused(downloads: Downloads, digest: str, tmp_path: Path):
    for call in (
        lambda: downloads.put_evidence(digest, b"", b""),
        lambda: downloads.complete(digest),
        lambda: downloads.prune(frozenset({digest})),
        lambda: downloads.require_space(digest, 1),
    ):
        with pytest.raises(HostError, match="not the digest"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_cannot_take_the_place_of_another_file(downloads: Downloads):
    downloads.put_evidence(ONE, b"m", b"b")
    for name in ("manifest.json", "manifest.sigstore.json", "complete", "a", "a.part"):
        downloads.append(ONE, name, iter([name.encode()]))
    assert downloads.evidence(ONE) == (b"m", b"b")
    assert downloads.listing() == (frozenset(), frozenset({ONE}))
    assert b"".join(downloads.partial(ONE, "a.part")) == b"a.part"


def test_what_changes_after_the_mark_is_not_complete(downloads: Downloads):
    downloads.append(ONE, "a", iter([b"x"]))
    for change in (lambda: downloads.append(ONE, "a", iter([b"y"])), lambda: downloads.discard(ONE, "a")):
        downloads.complete(ONE)
        assert downloads.listing()[0] == {ONE}
        change()
        assert downloads.listing() == (frozenset(), frozenset({ONE}))


def test_a_mark_without_download_is_an_error(downloads: Downloads):
    with pytest.raises(HostError, match="no download"):
        downloads.complete(ONE)


def test_strangers_in_the_folder_are_not_downloads(downloads: Downloads, tmp_path: Path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ONE[:-1]).mkdir()
    assert downloads.listing() == (frozenset(), frozenset())


def test_space_is_counted_less_what_is_there(downloads: Downloads, monkeypatch: pytest.MonkeyPatch):
    free = 10_000 + MARGIN
    monkeypatch.setattr("kubenode.host.staging.free_bytes", lambda folder: free)
    downloads.require_space(ONE, 10_000)
    with pytest.raises(NoSpace, match=rf"{10_001 + MARGIN} bytes are needed, {free} bytes are free"):
        downloads.require_space(ONE, 10_001)
    downloads.append(ONE, "a", iter([b"x" * 500]))
    downloads.require_space(ONE, 10_500)
    with pytest.raises(NoSpace):
        downloads.require_space(ONE, 10_501)


def test_a_full_disk_is_named_with_numbers(small_disk: Path):
    downloads = Downloads(small_disk)
    with pytest.raises(NoSpace, match=rf"the file system {small_disk} is too full: \d+ bytes are needed, \d+ bytes"):
        downloads.require_space(ONE, 1)
    with pytest.raises(NoSpace, match=rf"the file system {small_disk} is too full"):
        downloads.append(ONE, "a", iter([bytes(700_000), bytes(700_000)]))
    kept = sum(map(len, downloads.partial(ONE, "a")))
    assert 700_000 <= kept <= 1 << 20
    downloads.prune(frozenset({ONE}))
    downloads.append(ONE, "a", iter([bytes(700_000)]))


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(small_disk: Path):
    path = small_disk / "file"
    files.write_atomically(path, b"old")
    with pytest.raises(NoSpace, match="2000000 bytes are needed"):
        files.write_atomically(path, bytes(2_000_000))
    assert path.read_bytes() == b"old" and [item.name for item in small_disk.iterdir()] == ["file"]


def test_a_full_disk_neither_loses_the_trust_state_nor_fails_for_the_status(small_disk: Path):
    state = StateFolder(Paths(small_disk))
    old = TrustState("fleet", "a" * 40)
    state.save_trust(old)
    with (small_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    with pytest.raises(NoSpace):
        state.save_trust(TrustState("fleet", "b" * 40))
    # One of the two, and valid: perhaps the first copy found room.
    assert state.load_trust() in (old, TrustState("fleet", "b" * 40))
    (small_disk / "filler").unlink()
    state.save_trust(TrustState("fleet", "c" * 40))
    loaded = state.load_trust()
    assert loaded is not None and loaded.commit == "c" * 40


def test_modes_and_leftovers_of_files(tmp_path: Path):
    path = tmp_path / "f"
    (tmp_path / ".f.0123456789abcdef.tmp").write_bytes(b"left over")
    files.write_atomically(path, b"x", 0o640)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [item.name for item in tmp_path.iterdir()] == ["f"]
    with pytest.raises(HostError, match="No such file"):
        files.write_atomically(tmp_path / "no/f", b"x")
