import os
from pathlib import Path

import pytest

from kubenode.errors import HostError, NoSpace, UsageError
from kubenode.host import files
from kubenode.host.apt import MIRROR, SECURITY_MIRROR, Mirrors, parse_mirrors, sources
from kubenode.image import build as image_build
from kubenode.image.agent_tree import Pin, cache_key, dependencies, make_tree
from kubenode.image.build import BUILD_SPACE, BuildRequest, build, check_fit, uki_root_hash
from kubenode.image.mkosi_tool import version_of
from kubenode.image.work_folder import fill, fill_values, fstab, prepare
from kubenode.model.documents import Image, Partition, StorageMount


def request(tmp_path: Path, **changes: object) -> BuildRequest:
    values: dict[str, object] = {
        "version": "1.2.3",
        "recipe": Image("node", packages=("ethtool",), kernel_command_line=("mitigations=auto",)),
        "output": tmp_path / "out",
        "agent_source": tmp_path / "kubenode",
        "source_date_epoch": 1_700_000_000,
        "progress": lambda line: None,
        "cache": tmp_path / "cache",
    }
    return BuildRequest(**{**values, **changes})  # type: ignore[arg-type]


def test_mirrors_are_read_from_both_formats_of_apt():
    deb822 = "Types: deb\nURIs: http://a.example/debian/\nSuites: x\n\nURIs: http://a.example/debian-security\n"
    assert parse_mirrors([deb822]) == Mirrors("http://a.example/debian", "http://a.example/debian-security")
    one_line = "# deb http://no.example/debian x main\ndeb [signed-by=/k] https://b.example/debian x main\n"
    assert parse_mirrors([one_line]) == Mirrors("https://b.example/debian", SECURITY_MIRROR)
    assert parse_mirrors([]) == Mirrors(MIRROR, SECURITY_MIRROR)


def test_sources_name_updates_and_security_but_no_debug_suite():
    text = sources(Mirrors(), "trixie")
    assert "Suites: trixie trixie-updates\n" in text
    assert "Suites: trixie-security\n" in text
    assert "debug" not in text


@pytest.mark.parametrize(("output", "version"), [("mkosi 25.3\n", 25), ("mkosi v26~devel", 26), ("", 0)])
def test_version_of(output: str, version: int):
    assert version_of(output) == version


def test_an_artifact_may_fill_four_fifths_of_its_slot():
    check_fit("root", 80 * 1024 * 1024, 100)
    with pytest.raises(HostError, match="more than 80 %"):
        check_fit("root", 80 * 1024 * 1024 + 1, 100)


def test_root_hash_comes_from_the_uki(tmp_path: Path):
    uki = tmp_path / "a.efi"
    uki.write_bytes(b"MZ\0roothash=" + b"ab" * 32 + b" ro\0")
    assert uki_root_hash(uki) == "ab" * 32
    uki.write_bytes(b"MZ")
    with pytest.raises(HostError, match="names no root hash"):
        uki_root_hash(uki)


def test_a_release_is_built_once(tmp_path: Path):
    (tmp_path / "out/1.2.3").mkdir(parents=True)
    with pytest.raises(UsageError, match="exists already"):
        build(request(tmp_path))


@pytest.mark.parametrize("changes", [{"version": "1 2"}, {"version": "1/2"}, {"version": "1_2"}, {"version": "1+3"}])
def test_names_that_would_break_file_names_are_refused(tmp_path: Path, changes: dict[str, object]):
    with pytest.raises(UsageError, match="cannot be the"):
        build(request(tmp_path, **changes))


def test_fstab_binds_state_folders_and_other_data_folders():
    text = fstab(
        (
            StorageMount("/etc/kubernetes", Partition.STATE),
            StorageMount("/opt/cni/bin", Partition.DATA),
            StorageMount("/var/lib/x", Partition.DATA),
        )
    )
    assert "/state/etc/kubernetes /etc/kubernetes none bind 0 0" in text
    assert "/var/lib/kubenode-storage/opt/cni/bin /opt/cni/bin none bind 0 0" in text
    assert "/var/lib/x" not in text, "everything below /var is on the data partition anyway"
    with pytest.raises(UsageError):
        fstab((StorageMount("relative", Partition.STATE),))


def test_placeholders_are_all_filled(tmp_path: Path):
    work = tmp_path / "work"
    prepare(request(tmp_path), work, tmp_path / "cache")
    config = (work / "mkosi.conf").read_text()
    assert "UnifiedKernelImageFormat=kubenode_1.2.3+3" in config
    assert "        ethtool\n" in config
    assert "mitigations=auto" in config
    assert "linux-image-cloud-amd64" in config
    assert (work / "tree/usr/bin/kubenode").stat().st_mode & 0o111
    assert "SizeMinBytes=640M" in (work / "tree/usr/lib/repart.d/30-root-b.conf").read_text()
    with pytest.raises(KeyError):
        fill("@UNKNOWN@", fill_values(request(tmp_path), work, tmp_path))


def test_dependencies_are_pinned_and_name_no_development_tool():
    pins = {pin.name: pin for pin in dependencies()}
    assert "cryptography" in pins
    assert "pydantic-core" in pins, "dependencies of dependencies count"
    assert not {"jsonschema", "rpds-py", "uv", "packaging"} & set(pins), "only laptops and builders import these"
    assert "pytest" not in pins
    assert str(pins["httpx"]).startswith("httpx==")


def test_agent_tree_holds_what_the_agent_imports_and_wheels(tmp_path: Path):
    pins = (Pin("thing", "1"),)
    wheels = tmp_path / "cache/python" / cache_key(pins) / "thing"
    wheels.mkdir(parents=True)
    (wheels / "__init__.py").touch()
    (wheels / "tests").mkdir()
    source = tmp_path / "checkout/kubenode"
    files = {
        "__init__.py": "",
        "cli/__init__.py": "",
        "cli/agent.py": "from kubenode.plan import decide\n",
        "cli/main.py": "import kubenode.lab\n",
        "plan/__init__.py": "",
        "plan/decide.py": "def late():\n    import kubenode.errors, thing\n",
        "plan/status.py": "",
        "errors.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from kubenode import lab\n",
        "lab.py": "",
        "__pycache__/errors.pyc": "",
    }
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    make_tree(source, pins, tmp_path / "cache", tmp_path / "target")
    library = tmp_path / "target/usr/lib/kubenode"
    found = sorted(str(p.relative_to(library)) for p in library.rglob("*") if p.is_file())
    assert found == [
        "kubenode/__init__.py",
        "kubenode/cli/__init__.py",
        "kubenode/cli/agent.py",
        "kubenode/errors.py",
        "kubenode/plan/__init__.py",
        "kubenode/plan/decide.py",
        "thing/__init__.py",
    ]
    assert not (library / "thing/tests").exists()
    with pytest.raises(HostError, match=r"has no kubenode\.cli\.agent"):
        make_tree(source / "plan", pins, tmp_path / "cache", tmp_path / "other")


def test_a_full_disk_is_found_before_the_build_and_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1 << 20)
    with pytest.raises(NoSpace, match=f"{BUILD_SPACE} bytes are needed, 1048576 bytes are free"):
        build(request(tmp_path))
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()

    tool = tmp_path / "bin/mkosi"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo mkosi 25.3 && exit\necho 'x: No space left on device'\nexit 1\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(image_build.agent_tree, "make_tree", lambda *_: None)
    monkeypatch.setattr(image_build.work_folder, "prepare", lambda *_: None)
    with pytest.raises(NoSpace, match=r"became full; the whole log is in .*/out/\.1\.2\.3\.log") as raised:
        build(request(tmp_path))
    assert "XDG_CACHE_HOME" in raised.value.hint
    assert list((tmp_path / "cache/work").iterdir()) == []
