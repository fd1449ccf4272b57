"""The fleet of the lab's clusters: two recipes, kubeadm documents as Kubernetes 1.20 reads them, one control plane."""

import re
from collections.abc import Sequence
from pathlib import Path

from kubenode.host.apt import Apt, unpack
from kubenode.host.process import run
from kubenode.lab.kubernetes import images
from kubenode.lab.kubernetes.cluster import Kubernetes
from kubenode.lab.workshop import Workshop, write_tree

NODE = "cp-1"
ADDRESS = "10.0.2.15"
"""What QEMU's user network gives the first machine."""
ENDPOINT = f"{ADDRESS}:6443"

PATIENCE = "{leader-elect-lease-duration: 60s, leader-elect-renew-deadline: 45s, leader-elect-retry-period: 5s}"
CLUSTER = f"""\
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
clusterName: lab
controlPlaneEndpoint: {ENDPOINT}
networking:
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/12
apiServer:
  # The host reaches the API server through a forwarded port.
  certSANs: [127.0.0.1]
  # Software emulation is slow.
  timeoutForControlPlane: 20m0s
controllerManager:
  extraArgs: {PATIENCE}
scheduler:
  extraArgs: {PATIENCE}
etcd:
  local:
    # What Debian has; kubeadm 1.20 would take 3.4.13-0.
    imageTag: {images.ETCD_TAG}
    extraArgs:
      heartbeat-interval: "500"
      election-timeout: "5000"
      quota-backend-bytes: "268435456"
"""
KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
runtimeRequestTimeout: 10m0s
# Less to do for a slow machine.
syncFrequency: 5m0s
nodeStatusUpdateFrequency: 30s
volumeStatsAggPeriod: 10m0s
eventRecordQPS: 1
# The disk of a test machine is small, and its images cannot be pulled again.
imageGCHighThresholdPercent: 100
evictionHard:
  memory.available: 50Mi
"""
PATCHES = "/etc/kubernetes/patches"
"""Where the fleet's kubeadm/patches are on the node."""
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PATIENT_PROBES = """\
# Software emulation is slow, and a restarted API server makes it slower still: the usual two minutes are too few.
spec:
  containers:
    - name: {name}
      livenessProbe: {{failureThreshold: 100, timeoutSeconds: 60}}
      startupProbe: {{failureThreshold: 100, timeoutSeconds: 60}}
"""
POOL = """\
apiVersion: kubenode.dev/v1alpha1
kind: Pool
metadata: {name: control-plane}
spec:
  role: control-plane
  channel: stable
  image: node
"""
NODE_DOCUMENT = f"""\
apiVersion: kubenode.dev/v1alpha1
kind: Node
metadata: {{name: {NODE}}}
spec:
  pool: control-plane
  address: {ADDRESS}
"""
CONFLIST = """\
{
  "cniVersion": "0.4.0",
  "name": "bridge",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"""
OVERLAY = {
    "usr/share/kubenode-lab/10-bridge.conflist": CONFLIST,
    "usr/lib/tmpfiles.d/50-kubenode-lab.conf": (
        "C+ /etc/cni/net.d/10-bridge.conflist 0644 root root - /usr/share/kubenode-lab/10-bridge.conflist\n"
    ),
}


def recipe_name(kubernetes: Kubernetes) -> str:
    """Return the name of the recipe with this version."""
    return "node-" + kubernetes.version.removeprefix("v").rpartition(".")[0].replace(".", "-")


def add_documents(workshop: Workshop, versions: Sequence[Kubernetes]) -> None:
    """Make the workshop's fleet a cluster with one control plane, in one signed commit."""
    fleet = workshop.fleet
    text = (fleet / "fleet.yaml").read_text()
    cluster = (
        f"spec:\n  cluster:\n    endpoint: {ENDPOINT}\n    bootstrapNode: {NODE}\n"
        f'    initBefore: "2040-01-01T00:00:00Z"\n'
    )
    (fleet / "fleet.yaml").write_text(text.replace("spec:\n", cluster, 1))
    base = (fleet / "images/node.yaml").read_text()
    files = [
        ("kubeadm/cluster.yaml", CLUSTER),
        ("kubeadm/kubelet.yaml", KUBELET),
        *((f"kubeadm/patches/{name}.yaml", PATIENT_PROBES.format(name=name)) for name in COMPONENTS),
        ("pools/control-plane.yaml", POOL),
        (f"nodes/{NODE}.yaml", NODE_DOCUMENT),
        *((f"overlays/lab/{path}", text) for path, text in OVERLAY.items()),
        *((f"images/{recipe_name(it)}.yaml", recipe(base, it)) for it in versions),
    ]
    write_tree(fleet, files)
    workshop.git("add", "--all")
    workshop.git("commit", "--quiet", "--message", "The lab's cluster")
    workshop.push()


def recipe(base: str, kubernetes: Kubernetes) -> str:
    """Return the fleet's recipe with Kubernetes from a folder of this machine in it."""
    digests = "".join(f"        {name}: sha256:{digest}\n" for name, digest in kubernetes.digests().items())
    block = (
        f"spec:\n  overlay: overlays/lab\n  kubernetes:\n    version: {kubernetes.version}\n"
        # The re-stamped kubeadm is 1.20 and wants the pause image of that.
        f"    sandboxImage: {images.PAUSE}\n"
        f"    source:\n      url: {kubernetes.binaries.as_uri()}\n      sha256:\n{digests}"
    )
    renamed = base.replace("name: node", f"name: {recipe_name(kubernetes)}", 1)
    return re.sub(r"slots: \{.*\}", "slots: {esp: 512, root: 768, verity: 32, state: 2048, data: 4096}",
                  renamed.replace("spec:\n", block, 1))  # fmt: skip


def images_disk(versions: Sequence[Kubernetes], folder: Path) -> Path:
    """Return a file system with every image archive and a `ctr` to import them; made once. Raises HostError."""
    disk = folder / "images.ext4"
    if disk.exists():
        return disk
    content = folder / "disk"
    content.mkdir(parents=True, exist_ok=True)
    apt = Apt(folder / "apt-trixie", "trixie")
    apt.update()
    (package,) = apt.download(["containerd"])
    unpack(package, folder / "containerd")
    (folder / "containerd/usr/bin/ctr").replace(content / "ctr")
    for kubernetes in versions:
        for archive in kubernetes.archives:
            target = content / archive.name
            if not target.exists():
                target.hardlink_to(archive)
    size = sum(file.stat().st_size for file in content.iterdir())
    unfinished = folder / ".images.ext4.new"
    unfinished.unlink(missing_ok=True)
    mebibytes = size // (1 << 20) * 11 // 10 + 64
    run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", content, unfinished, f"{mebibytes}M"], timeout=300)
    unfinished.rename(disk)
    return disk
