"""The images of a control plane, under the names that kubeadm 1.20 looks for."""

import shutil
import tempfile
from pathlib import Path

from kubenode.host.apt import unpack
from kubenode.host.process import run
from kubenode.lab.kubernetes.archive import ContainerImage, write_archive
from kubenode.lab.kubernetes.toolchain import ETCD, PROXY_TOOLS, Toolchain
from kubenode.model.kubernetes import COMPONENTS

REGISTRY = "k8s.gcr.io"
PAUSE = f"{REGISTRY}/pause:3.2"
COREDNS = f"{REGISTRY}/coredns:1.7.0"
ETCD_TAG = "3.4.23-0"
"""What Debian has. kubeadm 1.20 asks for 3.4.13-0 by itself, so `etcd.local.imageTag` must say this one."""


def pack(toolchain: Toolchain, version: str, binaries: Path, folder: Path) -> tuple[Path, ...]:
    """Write the archives of one version and of what all versions share into `folder`. Raises HostError.

    coredns is a stand-in that only sleeps: kubeadm wants the image to be there even when its addon is skipped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        ContainerImage(f"{REGISTRY}/{name}:{version}", {f"usr/local/bin/{name}": binaries / name})
        for name in COMPONENTS
    ]
    with tempfile.TemporaryDirectory(prefix="kubenode-images-") as temporary:
        work = Path(temporary)
        pause = _pause(toolchain, work)
        wanted += [
            ContainerImage(PAUSE, {"pause": pause}, entrypoint=("/pause",)),
            ContainerImage(COREDNS, {"coredns": pause}, entrypoint=("/coredns",)),
            ContainerImage(f"{REGISTRY}/etcd:{ETCD_TAG}", trees=(_rootfs(toolchain, ETCD, work / "etcd"),)),
            ContainerImage(
                f"{REGISTRY}/kube-proxy:{version}",
                {"usr/local/bin/kube-proxy": binaries / "kube-proxy"},
                trees=(_rootfs(toolchain, PROXY_TOOLS, work / "proxy"),),
            ),
        ]
        archives = []
        for image in wanted:
            target = folder / f"{image.name.rpartition('/')[2].replace(':', '_')}.tar"
            if not target.exists():
                write_archive(image, target)
            archives.append(target)
    return tuple(archives)


def _pause(toolchain: Toolchain, work: Path) -> Path:
    """Compile the process that holds a pod's namespaces, as build/pause/Makefile of Kubernetes does."""
    target = work / "pause"
    source = toolchain.source / "build/pause/linux/pause.c"
    run(["gcc", "-Os", "-Wall", "-static", "-DVERSION=v3.2-kubenode", "-o", target, source], timeout=120)
    run(["strip", target], timeout=60)
    return target


def _rootfs(toolchain: Toolchain, packages: tuple[str, ...], root: Path) -> Path:
    """Unpack packages to one tree with a merged /usr, without what no program opens."""
    for name in packages:
        unpack(toolchain.packages[name], root / "unpacked")
    tree = root / "tree"
    (tree / "usr").mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
        for source in (root / "unpacked/usr" / name, root / "unpacked" / name):
            if source.is_dir():
                shutil.copytree(source, tree / "usr" / name, symlinks=True, dirs_exist_ok=True)
    for leftover in ("gconv", "audit"):
        shutil.rmtree(tree / "usr/lib/x86_64-linux-gnu" / leftover, ignore_errors=True)
    # Debian chooses between implementations by links that its maintainer scripts make.
    if (tree / "usr/sbin/xtables-nft-multi").exists():
        for name in ("iptables", "ip6tables"):
            for command in (name, f"{name}-save", f"{name}-restore"):
                (tree / "usr/sbin" / command).unlink(missing_ok=True)
                (tree / "usr/sbin" / command).symlink_to("xtables-nft-multi")
    return tree
