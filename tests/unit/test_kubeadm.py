"""The kubeadm adapter. The goldens of 1.32 to 1.37 were never run: they say what kubenode would call."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubenode.errors import HostError
from kubenode.host.kubeadm import (
    Kubeadm,
    Options,
    apply_command,
    init_command,
    join_command,
    kubelet_command,
    minor,
    needs_crictl,
    node_command,
    pause_image,
    pull_command,
    renew_command,
    upload_command,
)
from kubenode.host.kubeadmdocuments import Discovery, Registration, init_documents, join_documents
from kubenode.host.paths import Paths

GOLDEN = Path(__file__).parent / "golden/kubeadm"
RUN = {"v1.20.2": "run", "v1.21.0": "run, as a second stamp on the source of 1.20.2"}
VERSIONS = (*RUN, *(f"v1.{number}.0" for number in range(32, 38)))
NODE = Registration("cp-1", "192.0.2.11", taints=(), patches=Path("/etc/kubernetes/patches"))
DISCOVERY = Discovery("k8s.example.net:6443", "abcdef.0123456789abcdef", "sha256:" + "ab" * 32)


def api_version(version: str) -> str:
    return "kubeadm.k8s.io/" + ("v1beta2" if minor(version) < 22 else "v1beta4")


def calls(version: str) -> dict[str, object]:
    """Everything that kubenode would call or write for a kubeadm of this version."""
    patches = Options(patches=Path("/etc/kubernetes/patches"))
    cluster = {"apiVersion": api_version(version), "kind": "ClusterConfiguration", "clusterName": "homelab"}
    kubelet = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
    init = init_documents(version, cluster, NODE, kubelet, token=DISCOVERY.token)
    join = join_documents(version, api_version(version), NODE, DISCOVERY, control_plane=True)
    return {
        "state": RUN.get(version, "not run"),
        "pause": pause_image(version),
        "crictl": needs_crictl(version),
        "init": init_command(version, Path("FILE"), Options(skip_phases=("addon/coredns",))),
        "join": join_command(version, Path("FILE")),
        "upgrade apply": apply_command(version, patches),
        "upgrade node": node_command(version, patches),
        "renew": renew_command(version),
        "pull": pull_command(version, Path("FILE")),
        "upload": upload_command(version, Path("FILE")),
        "kubelet": kubelet_command(version),
        "init documents": [json.loads(it) for it in init.decode().split("---\n")],
        "join documents": [json.loads(it) for it in join.decode().split("---\n")],
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_is_the_golden(version: str) -> None:
    path = GOLDEN / f"{version}.json"
    now = json.dumps(calls(version), indent=1) + "\n"
    if os.environ.get("KUBENODE_WRITE_GOLDEN"):
        path.write_text(now)
    assert now == path.read_text()


def registered(node: Registration, api: str) -> dict[str, Any]:
    """What the join document of a control plane says of the node itself."""
    document = json.loads(join_documents("v1.34.0", f"kubeadm.k8s.io/{api}", node, DISCOVERY, control_plane=True))
    return {"kubelet": document["nodeRegistration"].get("kubeletExtraArgs"), **document["controlPlane"]}


@pytest.mark.parametrize(
    ("api", "written"),
    [
        ("v1beta2", {"node-ip": "2001:db8::b"}),
        ("v1beta3", {"node-ip": "2001:db8::b"}),
        ("v1beta4", [{"name": "node-ip", "value": "2001:db8::b"}]),
    ],
)
def test_the_kubelet_registers_the_declared_address(api: str, written: object) -> None:
    found = registered(Registration("cp-2", "2001:DB8:0::b"), api)
    assert found == {"kubelet": written, "localAPIEndpoint": {"advertiseAddress": "2001:db8::b", "bindPort": 6443}}


def test_a_kubeconfig_takes_the_place_of_the_token() -> None:
    base = {"discovery": {"bootstrapToken": {"unsafeSkipCAVerification": False}, "timeout": "9m"}}
    admin = Path("/etc/kubernetes/admin.conf")
    given = join_documents("v1.34.0", "kubeadm.k8s.io/v1beta4", NODE, admin, control_plane=True, base=base)
    assert json.loads(given)["discovery"] == {"file": {"kubeConfigPath": str(admin)}, "timeout": "9m"}


@pytest.mark.parametrize("address", [None, "cp-2.example.net"])
def test_a_name_is_nothing_that_can_be_bound_to(address: str | None) -> None:
    """kubeadm and the kubelet take an IP address only, and both find one by themselves."""
    assert registered(Registration("cp-2", address), "v1beta4") == {"kubelet": None}
    cluster = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"}
    own, _ = init_documents("v1.34.0", cluster, Registration("cp-2", address)).decode().split("---\n")
    assert "localAPIEndpoint" not in json.loads(own)


def test_unknown_versions_are_refused() -> None:
    for version in ("v1.19.9", "v1.38.0", "1.34.0", "v1.34", "v2.0.0", ""):
        with pytest.raises(HostError, match=r"is not supported: kubenode knows 1\.20 to 1\.37"):
            minor(version)


def test_phases_of_an_upgrade_can_be_skipped_since_1_32() -> None:
    options = Options(skip_phases=("addon",))
    assert "--skip-phases=addon" in apply_command("v1.32.0", options)
    with pytest.raises(HostError, match=r"came with 1\.32"):
        apply_command("v1.31.4", options)


SAYS = """#!/bin/sh
if [ "$1" = version ]; then echo v1.34.2; exit 0; fi
echo "$@" >> "$(dirname "$0")/calls"
[ "$2" = --config ] && cat "$3" > "$(dirname "$0")/config" && stat -c %a "$3" > "$(dirname "$0")/mode"
cat "$(dirname "$0")/says" 2>/dev/null
exit "$(cat "$(dirname "$0")/code" 2>/dev/null || echo 0)"
"""


@pytest.fixture
def kubeadm(tmp_path: Path) -> Kubeadm:
    """A kubeadm that notes how it was called: a real process, not the real program."""
    binary = tmp_path / "bin/kubeadm"
    binary.parent.mkdir()
    binary.write_text(SAYS)
    binary.chmod(0o755)
    return Kubeadm(binary, Paths(tmp_path / "root"))


def test_documents_are_for_root_only_and_gone_afterwards(kubeadm: Kubeadm) -> None:
    kubeadm.init(b"secret")
    folder = kubeadm.binary.parent
    assert (folder / "config").read_bytes() == b"secret"
    assert (folder / "mode").read_text() == "600\n"
    assert not (kubeadm.paths.root / "run/kubenode/kubeadm.yaml").exists()
    assert "--ignore-preflight-errors" not in (folder / "calls").read_text()


def test_an_interrupted_init_goes_on(kubeadm: Kubeadm) -> None:
    manifest = kubeadm.paths.kubernetes / "manifests/etcd.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    kubeadm.init(b"x", Options(ignore=("Mem",)))
    said = (kubeadm.binary.parent / "calls").read_text()
    assert "--ignore-preflight-errors=Mem,DirAvailable--etc-kubernetes-manifests," in said
    assert "Port-6443" in said
    assert "NumCPU" not in said, "only what an interrupted call leaves behind is let pass"


def test_a_failure_says_what_kubeadm_said_and_what_to_do(kubeadm: Kubeadm) -> None:
    folder = kubeadm.binary.parent
    (folder / "says").write_text("static Pod hash for component kube-apiserver did not change after 5m0s\n")
    (folder / "code").write_text("1")
    with pytest.raises(HostError, match=r"kubeadm upgrade apply v1.34.2 failed: .*did not change after 5m0s") as caught:
        kubeadm.upgrade_apply()
    assert "kubeadm#740" in caught.value.hint
    assert "did not change" in kubeadm.log.read_text()
    assert kubeadm.log.stat().st_mode & 0o777 == 0o600, "init prints a bootstrap token"


def test_a_failure_quotes_no_secrets(kubeadm: Kubeadm) -> None:
    """What it says goes into the journal, status.json and the node's account, which every node may read."""
    folder = kubeadm.binary.parent
    said = ("kubeadm join --token abcdef.0123456789abcdef", "Using certificate key:", "a1" * 32, "timed out")
    (folder / "says").write_text("\n".join(said))
    (folder / "code").write_text("1")
    with pytest.raises(HostError, match="timed out") as caught:
        kubeadm.init(b"secret")
    assert "0123456789abcdef" not in caught.value.message and "a1a1" not in caught.value.message


def test_copies_of_etcd_are_deleted_after_an_upgrade(kubeadm: Kubeadm) -> None:
    tmp = kubeadm.paths.kubernetes / "tmp"
    (tmp / "kubeadm-backup-etcd-2026-11-25-01-02-03/etcd/member").mkdir(parents=True)
    (tmp / "mine").mkdir()
    kubeadm.upgrade_apply()
    assert [it.name for it in tmp.iterdir()] == ["mine"]
