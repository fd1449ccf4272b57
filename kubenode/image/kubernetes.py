"""What an image with Kubernetes has besides: kubelet and kubeadm from a pinned source, their packages and folders."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from kubenode.errors import HostError, UsageError
from kubenode.host import kubeadm
from kubenode.host.process import run
from kubenode.model.documents import KubernetesRecipe, Partition, StorageMount

PACKAGES = ("conntrack", "containernetworking-plugins", "iptables")
"""What kubeadm's preflight checks insist on (iproute2, mount and util-linux are in every image), and CNI plugins."""
STORAGE = (
    StorageMount("/etc/kubernetes", Partition.STATE),
    StorageMount("/var/lib/etcd", Partition.STATE),
    StorageMount("/var/lib/kubelet/pki", Partition.STATE),
    StorageMount("/etc/cni/net.d", Partition.DATA),
    StorageMount("/opt/cni/bin", Partition.DATA),
    # kubeadm mounts it into the controller manager and has the kubelet create it: kubeadm#2212, #3318.
    StorageMount("/usr/libexec/kubernetes/kubelet-plugins/volume/exec", Partition.DATA),
)
"""Writable folders; a recipe may put each of them on another partition."""
_CHUNK = 1 << 20
_TIMEOUT = httpx.Timeout(30.0, read=60.0)


def storage(own: tuple[StorageMount, ...]) -> tuple[StorageMount, ...]:
    """Return the recipe's own writable folders with those that Kubernetes needs besides."""
    named = {mount.path for mount in own}
    return (*own, *(mount for mount in STORAGE if mount.path not in named))


def sandbox_image(recipe: KubernetesRecipe) -> str:
    """Return the image that containerd starts every pod with."""
    return recipe.sandbox_image or kubeadm.pause_image(recipe.version)


def install(recipe: KubernetesRecipe, folder: Path, cache: Path) -> None:
    """Put the binaries into `folder` (the image's /usr/bin), from the cache when their digests are known there.

    Raises UsageError when the recipe has too few or too many of them or they are of another version, HostError when
    one cannot be fetched or has another digest.
    """
    source = recipe.source
    wanted = {"kubeadm": source.kubeadm, "kubelet": source.kubelet}
    if kubeadm.needs_crictl(recipe.version) != (source.crictl is not None):
        does = "needs" if source.crictl is None else "does not need"
        raise UsageError(
            f"kubeadm {recipe.version} {does} crictl, the recipe says otherwise",
            hint="spec.kubernetes.source.sha256.crictl belongs to kubeadm below 1.31 only.",
        )
    if source.crictl is not None:
        wanted["crictl"] = source.crictl
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in wanted.items():
        shutil.copyfile(fetch(source.url, name, digest, cache), folder / name)
        (folder / name).chmod(0o755)
    said = {
        "kubeadm": run([folder / "kubeadm", "version", "-o", "short"], timeout=60).text.strip(),
        "kubelet": run([folder / "kubelet", "--version"], timeout=60).text.strip().removeprefix("Kubernetes "),
    }
    for name, version in said.items():
        if version != recipe.version:
            raise UsageError(
                f"{name} of {source.url} is {version}, the recipe says {recipe.version}",
                hint="Correct spec.kubernetes.version, or the source and its digests.",
            )


def fetch(url: str, name: str, digest: str, cache: Path) -> Path:
    """Return the file `name` of a folder's URL, checked against its sha256 (64 hex digits); kept by digest in `cache`.

    Raises HostError when it cannot be read or is something else.
    """
    kept = cache / digest
    if kept.exists():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    address = f"{url.rstrip('/')}/{name}"
    unfinished = cache / f".{digest}.{os.getpid()}"
    found = hashlib.sha256()
    try:
        with unfinished.open("wb") as out:
            for chunk in _read(address):
                found.update(chunk)
                out.write(chunk)
        if found.hexdigest() != digest:
            raise HostError(
                f"{address} has the sha256 {found.hexdigest()}, the recipe says {digest}",
                hint="Compare with the digest that upstream publishes before you correct the recipe.",
            )
        unfinished.rename(kept)
    except (httpx.HTTPError, OSError) as error:
        raise HostError(f"{address} cannot be read: {error}", hint="Is spec.kubernetes.source.url right?") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return kept


def _read(address: str) -> Iterator[bytes]:
    parts = urlsplit(address)
    if parts.scheme == "file":
        with Path(unquote(parts.path)).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        return
    with httpx.stream("GET", address, timeout=_TIMEOUT, follow_redirects=True) as answer:
        answer.raise_for_status()
        yield from answer.iter_bytes(_CHUNK)
