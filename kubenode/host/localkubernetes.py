"""What this machine's own files say of Kubernetes. Never asks the API: that is `kubenode.ports.Cluster`."""

import re
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host import memberfile, process, staticpods
from kubenode.host.booted import read_text
from kubenode.host.certificates import UNREADABLE, earliest_end
from kubenode.host.files import make_folder, write_atomically
from kubenode.host.kubeadm import VERSION_SECONDS, leftovers
from kubenode.host.kubeletconfig import KubeletConfig
from kubenode.host.paths import Paths
from kubenode.model.documents import Role
from kubenode.model.kubernetes import COMPONENTS, KubernetesVersion, LocalKubernetes

_VERSION = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+")


def local_kubernetes(paths: Paths, root_hash: str = "") -> LocalKubernetes | None:
    """Return what is here, None for an image without kubelet. Raises HostError when the files contradict that.

    `root_hash` is that of the running release: a worker has nothing but its kubelet, which starts with that one's set.
    """
    kubelet = paths.root / "usr/bin/kubelet"
    member = (paths.kubernetes / "kubelet.conf").exists()
    if not kubelet.exists():
        if member:
            raise HostError(
                f"{paths.kubernetes}/kubelet.conf says that this machine is part of a cluster, but its image has no "
                "kubelet",
                hint="Move its pool to a release with Kubernetes, or take it out of the cluster (kubeadm reset).",
            )
        return None
    record = memberfile.read(paths)
    # kubeadm writes kubelet.conf when a machine joins, and the API server's manifest on control planes only.
    plane = _api_server(paths).exists()
    role = Role.CONTROL_PLANE if plane else Role.WORKER
    sets = KubeletConfig(paths).origins()
    return LocalKubernetes(
        kubelet=_kubelet_version(paths, kubelet),
        joined=role if member and record.entering is None else None,
        entering=record.entering,
        manifests=manifests(paths),
        configuration=record.configuration if plane else sets.get(root_hash) or record.configuration,
        kubelet_sets=sets,
        pulled=frozenset({_version(record.pulled, str(paths.member))} if record.pulled else ()),
        snapshots=frozenset(path.stem for path in paths.snapshots.glob("[!.]*.db")),
        # A renewal that was cut off before the static pods ran with it counts as not done.
        certificates_until=(UNREADABLE if record.restarting else earliest_end(paths)) if plane else None,
        leftovers=bool(leftovers(paths)),
        rejected=staticpods.rejected(paths),
    )


def manifests(paths: Paths) -> dict[str, KubernetesVersion]:
    """Return the image versions of a control plane's static pods, empty without an API server. Raises HostError."""
    found: dict[str, KubernetesVersion] = {}
    if not _api_server(paths).exists():
        return found
    for name in COMPONENTS:
        path = paths.kubernetes / f"manifests/{name}.yaml"
        if path.exists():
            images = re.findall(rf"image: *\S*/{name}:(\S+)", read_text(path))
            found[name] = _version(" ".join(images), str(path))
    return found


def _kubelet_version(paths: Paths, kubelet: Path) -> KubernetesVersion:
    """Ask the kubelet once in a boot: its file cannot change, and on a busy machine the answer takes a minute."""
    kept = paths.kubelet_version
    try:
        return KubernetesVersion(kept.read_text())
    except (OSError, ValueError):
        pass
    version = _version(process.run([kubelet, "--version"], timeout=VERSION_SECONDS).text, str(kubelet))
    make_folder(kept.parent)
    write_atomically(kept, str(version).encode())
    return version


def _api_server(paths: Paths) -> Path:
    return paths.kubernetes / "manifests/kube-apiserver.yaml"


def _version(text: str, where: str) -> KubernetesVersion:
    found = _VERSION.search(text)
    if found is None:
        raise HostError(
            f"{where} names no Kubernetes version: {text[:80]!r}",
            hint="Run it by hand and see; the image's kubelet and kubeadm must be those of its recipe.",
        )
    return KubernetesVersion(found[0])
