"""Source package and compiler from Debian 12, unpacked into a cache; nothing is installed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from kubenode.host.apt import Apt, unpack
from kubenode.host.process import run

SUITE = "bookworm"
SOURCE = "kubernetes"
GO = "usr/lib/go-1.19/bin"
REFLECT = "github.com/modern-go/reflect2"
COMPILER = ("golang-1.19-go", "golang-1.19-src", "golang-github-modern-go-reflect2-dev")
ETCD = ("etcd-server", "libc6")
PROXY_TOOLS = (
    *("iptables", "libxtables12", "libip4tc2", "libip6tc2", "libmnl0", "libnftnl11", "libnfnetlink0"),
    *("libnetfilter-conntrack3", "conntrack", "kmod", "liblzma5", "libzstd1", "libssl3", "libc6"),
)
"""What kube-proxy calls: iptables and conntrack with their libraries."""


@dataclass(frozen=True)
class Toolchain:
    """A Go workspace with the patched source and the compiler for it."""

    go: Path
    workspace: Path
    packages: dict[str, Path]

    @property
    def source(self) -> Path:
        """The source of Kubernetes, where a Go workspace has it."""
        return self.workspace / "src/k8s.io/kubernetes"


def prepare(folder: Path) -> Toolchain:
    """Fetch and unpack everything below `folder`; what is there already is used as it is. Raises HostError."""
    mark, tools, workspace = folder / "prepared", folder / "tools", folder / "workspace"
    binary, archive = Apt(folder / "apt", SUITE), Apt(folder / "apt-source", SUITE, types="deb-src")
    names = sorted({*COMPILER, *ETCD, *PROXY_TOOLS})
    toolchain = Toolchain(tools / GO, workspace, {name: binary.downloads / f"{name}.deb" for name in names})
    if mark.exists():
        return toolchain
    binary.update()
    for name, path in zip(names, binary.download(names), strict=True):
        path.replace(toolchain.packages[name])
    archive.update()
    description = archive.source(SOURCE)
    for leftover in (tools, workspace):
        shutil.rmtree(leftover, ignore_errors=True)
    for name in COMPILER:
        unpack(toolchain.packages[name], tools)
    toolchain.source.parent.mkdir(parents=True)
    # Debian's own patches are applied, and the signature of the archive was checked by apt.
    run(["dpkg-source", "--no-check", "--extract", description, toolchain.source], timeout=300)
    _replace_reflect(tools, toolchain.source)
    mark.touch()
    return toolchain


def etcd(toolchain: Toolchain, work: Path) -> Path:
    """Unpack Debian's etcd below `work` and return the program. Raises HostError."""
    unpack(toolchain.packages["etcd-server"], work)
    return work / "usr/bin/etcd"


def _replace_reflect(tools: Path, source: Path) -> None:
    """The vendored reflect2 panics when it is built with Go 1.18 or newer; Debian's package of it does not."""
    vendored = source / "vendor" / REFLECT
    shutil.rmtree(vendored)
    shutil.copytree(tools / "usr/share/gocode/src" / REFLECT, vendored)
