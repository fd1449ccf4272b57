"""One look at a real machine: `kubenode.ports.Machine`."""

from kubenode.host import process
from kubenode.host.booted import DmTable, dmsetup_table, is_trial, read_text, running
from kubenode.host.bootentries import BootEntries
from kubenode.host.disk import Disk
from kubenode.host.localkubernetes import local_kubernetes
from kubenode.host.paths import Paths
from kubenode.host.slots import staged_image
from kubenode.host.staging import Downloads
from kubenode.model.observed import BootedSlot, Observed


class HostMachine:
    """Implements `kubenode.ports.Machine`."""

    def __init__(self, paths: Paths = Paths(), dm_table: DmTable = dmsetup_table) -> None:  # noqa: B008 - frozen
        self._paths = paths
        self._dm_table = dm_table

    def observe(self) -> Observed:
        """Look at the machine. Raises HostError when something needed cannot be read, or contradicts itself."""
        paths = self._paths
        now, disk = running(paths, self._dm_table), Disk(paths)
        files = BootEntries(paths.entries).files()
        own = tuple(file for file in files if file.entry.root_hash == now.root_hash)
        spare = disk.slot(disk.booted.other).root_hash()
        fetched, partial = Downloads(paths.downloads).listing()
        return Observed(
            boot_id=read_text(paths.boot_id),
            booted=BootedSlot(disk.booted, now.version, now.root_hash, is_trial(paths, own)),
            entries=tuple(file.entry for file in files),
            spare=spare,
            staged=staged_image(paths, spare),
            fetched=fetched,
            partial=partial,
            kubernetes=local_kubernetes(paths, now.root_hash),
        )

    def reboot(self) -> None:
        """Ask systemd for a reboot and return. Raises ProcessFailed."""
        process.run(["systemctl", "--no-block", "reboot"], timeout=60)
