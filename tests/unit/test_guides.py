"""The guides' own commands, run as they are printed: blocks after a line `<!-- test: NAME -->`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cliworld import OLD, World, build_release

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "first-cluster.md"
_TESTED = re.compile(r"<!-- test: (\w+) -->\n```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def script(guide: Path, name: str) -> str:
    """Return the tested blocks of one name as one script."""
    return "\n".join(text for found, text in _TESTED.findall(guide.read_text()) if found == name)


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """Return a folder with a `kubenode` for PATH, that of this tree."""
    command = tmp_path / "bin" / "kubenode"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m kubenode "$@"\n')
    command.chmod(0o755)
    return command.parent


def run(text: str, folder: Path, shell: Path, **variables: str) -> str:
    """Run a script as a person would paste it, stopping at the first failure, and return what it printed."""
    env = {**os.environ, "PATH": f"{shell}:{os.environ['PATH']}", "HOME": str(folder), **variables}
    argv = ["bash", "-eu", "-o", "pipefail", "-c", text]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_cluster_becomes_what_the_guide_says(tmp_path: Path, shell: Path) -> None:
    world = World(tmp_path / "me")
    world.top.mkdir()
    from_url = "https://dl.k8s.io/release/v1.34.2/bin/linux/amd64"
    digests = {"kubeadm": "a" * 64, "kubelet": "b" * 64}
    run(script(GUIDE, "fleet"), world.top, shell, version="v1.34.2", **{"from": from_url}, **digests)
    assert world.dirty == ""
    assert {path.name for path in (world.fleet / "secrets").glob("*.yaml")} == {
        "bootstrap-token-cp-1.yaml",
        "bootstrap-token-w-1.yaml",
        "cluster-ca.yaml",
    }
    assert (world.top / "cp-1.qemu").read_text().startswith("-smbios ")
    seed = json.loads((world.top / "w-1.seed" / "seed.json").read_text())
    assert seed["fleetUrl"] == "static+http://192.168.122.1:8080/fleet"

    # What the build would make: signed, small, and with a version of Kubernetes.
    build_release(world, OLD, kubernetes="1.34.2")
    run(script(GUIDE, "release"), world.top, shell)
    assert (world.top / "srv" / "fleet" / "head.json").exists()
    assert (world.top / "srv" / "images" / OLD / "manifest.json").exists()

    # An operator's way to the CA, and QEMU's arguments as a shell reads them.
    text = GUIDE.read_text().partition("mkdir -m 700 ca\n")[2].partition("kubenode kubeconfig")[0]
    words = run(f"""mkdir -m 700 ca\n{text}eval printf "'%s\\n'" "$(cat cp-1.qemu)" """, world.top, shell).splitlines()
    assert (world.top / "ca" / "ca.crt").read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert "PRIVATE KEY" in (world.top / "ca" / "ca.key").read_text()
    assert words[::2] == ["-smbios"] * 3
    assert all(Path(word.removeprefix("type=11,path=")).is_file() for word in words[1::2])
