"""Where things are on a node. `root` is `/`, or a folder that stands for a machine in tests."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The fixed places of the image, below `root`."""

    root: Path = Path("/")

    @property
    def sys(self) -> Path:
        """The sysfs mount."""
        return self.root / "sys"

    @property
    def dev(self) -> Path:
        """The folder of device nodes."""
        return self.root / "dev"

    @property
    def cmdline(self) -> Path:
        """The kernel command line."""
        return self.root / "proc/cmdline"

    @property
    def boot_id(self) -> Path:
        """The random id of this boot."""
        return self.root / "proc/sys/kernel/random/boot_id"

    @property
    def boot_count(self) -> Path:
        """EFI variable of systemd-boot: the path of the counted entry that was booted (boot loader interface)."""
        return self.sys / "firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

    @property
    def loader_info(self) -> Path:
        """EFI variable that systemd-boot always sets: who does not see it sees no EFI variables at all."""
        return self.boot_count.with_name(self.boot_count.name.replace("LoaderBootCountPath", "LoaderInfo"))

    @property
    def os_release(self) -> Path:
        """The image's own description; not below /etc, which is an overlay."""
        return self.root / "usr/lib/os-release"

    @property
    def clock_epoch(self) -> Path:
        """A file whose modification time is the earliest time that can be right (systemd(1))."""
        return self.root / "usr/lib/clock-epoch"

    @property
    def entries(self) -> Path:
        """The folder of UKIs in the ESP (boot loader specification, type 2)."""
        return self.root / "efi/EFI/Linux"

    @property
    def kubernetes(self) -> Path:
        """Kubeadm's folder."""
        return self.root / "etc/kubernetes"

    @property
    def kubelet(self) -> Path:
        """The kubelet's folder, on the data partition."""
        return self.root / "var/lib/kubelet"

    @property
    def kubelet_sets(self) -> Path:
        """The kubelet's configuration for each release, see `kubenode.host.kubeletconfig`."""
        return self.state / "kubelet"

    @property
    def member(self) -> Path:
        """What was done with kubeadm and does not show otherwise, see `kubenode.host.memberfile`."""
        return self.state / "member.json"

    @property
    def snapshots(self) -> Path:
        """Copies of etcd's data, by the manifest digest of the release before which each was made."""
        return self.state / "etcd-snapshots"

    @property
    def containers(self) -> Path:
        """The bundles of running containers and sandboxes of the kubelet (containerd, runtime v2)."""
        return self.root / "run/containerd/io.containerd.runtime.v2.task/k8s.io"

    @property
    def kubelet_version(self) -> Path:
        """What the booted kubelet said of its version; gone with this boot."""
        return self.root / "run/kubenode/kubelet-version"

    @property
    def spare(self) -> Path:
        """Where the spare slot is mounted while something of it runs."""
        return self.root / "run/kubenode/spare"

    @property
    def data(self) -> Path:
        """Where the data partition is mounted."""
        return self.root / "var"

    @property
    def state(self) -> Path:
        """The agent's folder on the state partition."""
        return self.root / "var/lib/kubenode"

    @property
    def downloads(self) -> Path:
        """Where `kubenode.host.staging` keeps downloads."""
        return self.state / "downloads"

    @property
    def staged(self) -> Path:
        """Where the UKI of the spare slot waits for its activation."""
        return self.state / "staged"
