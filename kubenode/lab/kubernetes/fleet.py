"""The fleet of the lab's clusters: two recipes, kubeadm documents as Kubernetes 1.20 reads them, pools and nodes."""

import re
from collections.abc import Sequence
from pathlib import Path

from kubenode.host.apt import Apt, unpack
from kubenode.host.process import run
from kubenode.lab.kubernetes import images
from kubenode.lab.kubernetes.cluster import Kubernetes
from kubenode.lab.kubernetes.network import POD_SUBNET, Member
from kubenode.lab.workshop import Workshop, write_tree
from kubenode.model.documents import Role
from kubenode.model.kubernetes import COMPONENTS

PATIENCE = "{leader-elect-lease-duration: 60s, leader-elect-renew-deadline: 45s, leader-elect-retry-period: 5s}"
CLUSTER = """\
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
clusterName: lab
controlPlaneEndpoint: {endpoint}
networking:
  podSubnet: {pod_subnet}
  serviceSubnet: 10.96.0.0/12
apiServer:
  # The host reaches the API server through a forwarded port.
  certSANs: [127.0.0.1]
  # Software emulation is slow.
  timeoutForControlPlane: 20m0s
  # In 1.20 half of the API server's time goes into this feature's histograms.
  extraArgs:
    enable-priority-and-fairness: "false"
controllerManager:
  extraArgs: {patience}
scheduler:
  extraArgs: {patience}
etcd:
  local:
    # What Debian has; kubeadm 1.20 would take 3.4.13-0.
    imageTag: {etcd_tag}
    extraArgs:
      heartbeat-interval: "1000"
      election-timeout: "10000"
      quota-backend-bytes: "268435456"
"""
INIT = """\
apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
nodeRegistration:
  # Small clusters: pods may run on the control plane.
  taints: []
# The lab has stand-ins for DNS and no use for kube-proxy.
skipPhases: [addon]
"""
KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
runtimeRequestTimeout: 10m0s
# Less to do for a slow machine. Not syncFrequency: a kubelet that could not tell the API server of a static pod's
# change tries again only then, and kubeadm waits 5 minutes for it.
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
STATIC_PODS = ("etcd", *COMPONENTS)
PATIENT_PROBES = """\
# Software emulation is slow, and a restarted API server makes it slower still: the usual two minutes are too few.
spec:
  containers:
    - name: {name}
      livenessProbe: {{failureThreshold: 100, timeoutSeconds: 60}}
      startupProbe: {{failureThreshold: 100, timeoutSeconds: 60}}
"""
PATCHED_FURTHER = {
    "kube-apiserver": """\
      # kubeadm has it asked every second, with a TLS handshake each time.
      readinessProbe: {periodSeconds: 15, timeoutSeconds: 60}
""",
    "etcd": """\
      # A kubelet that has just started knows of no storage yet and rejects, for good, who asks for some. The processor
      # is the API server's more than etcd's otherwise, and members that are late send everything again.
      resources: {requests: {ephemeral-storage: null, cpu: 600m}}
""",
}
POOL = """\
apiVersion: kubenode.dev/v1alpha1
kind: Pool
metadata: {{name: {name}}}
spec:
  role: {role}
  channel: {channel}
  image: node
  rollout:
    # Software emulation is slow: a pod that has to start elsewhere first may take minutes.
    drain: {{timeout: 20m, onTimeout: stop}}
"""
NODE_DOCUMENT = """\
apiVersion: kubenode.dev/v1alpha1
kind: Node
metadata: {{name: {name}}}
spec:
  pool: {pool}
  address: {address}
"""
POOLS = {Role.CONTROL_PLANE: "control-plane", Role.WORKER: "workers"}
POOL_CHANNELS = {Role.CONTROL_PLANE: "stable", Role.WORKER: "beta"}
"""Of each role its own: a story may offer a release to workers alone."""
BROKEN_KUBELET = "node-broken-kubelet"
"""A recipe with the oldest version, whose kubelet exits at once: it is given a flag that it does not know."""
BREAKS_KUBELET = "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet --no-such-flag\n"


def recipe_name(version: str) -> str:
    """Return the name of the recipe with this version of Kubernetes."""
    return "node-" + version.removeprefix("v").replace(".", "-")


def node_document(member: Member) -> str:
    """Return the document that declares a member."""
    return NODE_DOCUMENT.format(name=member.name, pool=POOLS[member.role], address=member.address)


def documents(
    fleet_yaml: str, image_yaml: str, versions: Sequence[Kubernetes], members: Sequence[Member], endpoint: str
) -> dict[str, str]:
    """Return what makes a new fleet a cluster of these members, by path; given are its fleet.yaml and images/node.yaml.

    `endpoint` is where its API is (HOST:PORT). The first member is the bootstrap node. The pools and kubeadm documents
    of the new fleet are replaced.
    """
    cluster = (
        f"spec:\n  cluster:\n    endpoint: {endpoint}\n    bootstrapNode: {members[0].name}\n"
        f'    initBefore: "2040-01-01T00:00:00Z"\n'
    )
    kubeadm = CLUSTER.format(endpoint=endpoint, pod_subnet=POD_SUBNET, patience=PATIENCE, etcd_tag=images.ETCD_TAG)
    nodes = {f"nodes/{it.name}.yaml": node_document(it) for it in members}
    return {
        "fleet.yaml": fleet_yaml.replace("spec:\n", cluster, 1),
        "kubeadm/cluster.yaml": kubeadm,
        "kubeadm/init.yaml": INIT,
        "kubeadm/kubelet.yaml": KUBELET,
        **{f"kubeadm/patches/{name}.yaml": patch(name) for name in STATIC_PODS},
        **{
            f"pools/{name}.yaml": POOL.format(name=name, role=role, channel=POOL_CHANNELS[role])
            for role, name in POOLS.items()
        },
        **nodes,
        **{f"images/{recipe_name(it.version)}.yaml": recipe(image_yaml, it) for it in versions},
        f"images/{BROKEN_KUBELET}.yaml": recipe(image_yaml, versions[0], BROKEN_KUBELET),
        f"overlays/{BROKEN_KUBELET}/usr/lib/systemd/system/kubelet.service.d/broken.conf": BREAKS_KUBELET,
    }


def add_documents(workshop: Workshop, versions: Sequence[Kubernetes], members: Sequence[Member], endpoint: str) -> None:
    """Make the workshop's fleet a cluster of these members, in one signed commit."""
    fleet_yaml, image_yaml = ((workshop.fleet / name).read_text() for name in ("fleet.yaml", "images/node.yaml"))
    made = documents(fleet_yaml, image_yaml, versions, members, endpoint)
    write_tree(workshop.fleet, list(made.items()))
    workshop.git("add", "--all")
    workshop.git("commit", "--quiet", "--message", "The lab's cluster")
    workshop.push()


def patch(name: str) -> str:
    """Return the patch of a static pod."""
    return PATIENT_PROBES.format(name=name) + PATCHED_FURTHER.get(name, "")


def recipe(base: str, kubernetes: Kubernetes, overlaid: str | None = None) -> str:
    """Return the fleet's recipe with Kubernetes from a folder of this machine in it.

    `overlaid` is another name for it, and of the overlay that it then has.
    """
    digests = "".join(f"        {name}: sha256:{digest}\n" for name, digest in kubernetes.digests().items())
    block = (
        f"spec:\n  kubernetes:\n    version: {kubernetes.version}\n"
        # The re-stamped kubeadm is 1.20 and wants the pause image of that.
        f"    sandboxImage: {images.PAUSE}\n"
        f"    source:\n      url: {kubernetes.binaries.as_uri()}\n      sha256:\n{digests}"
    )
    if overlaid is not None:
        block = block.replace("spec:\n", f"spec:\n  overlay: overlays/{overlaid}\n", 1)
    renamed = base.replace("name: node", f"name: {overlaid or recipe_name(kubernetes.version)}", 1)
    return re.sub(r"slots: \{.*\}", "slots: {esp: 512, root: 768, verity: 32, state: 2048, data: 4096}",
                  renamed.replace("spec:\n", block, 1))  # fmt: skip


def images_disk(versions: Sequence[Kubernetes], folder: Path) -> Path:
    """Return a file system with every image archive and a `ctr` to import them; made once. Raises HostError."""
    disk = folder / f"images-{'-'.join(it.version for it in versions)}.ext4"
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
    unfinished = folder / f".{disk.name}.new"
    unfinished.unlink(missing_ok=True)
    mebibytes = size // (1 << 20) * 11 // 10 + 64
    run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", content, unfinished, f"{mebibytes}M"], timeout=300)
    unfinished.rename(disk)
    return disk
