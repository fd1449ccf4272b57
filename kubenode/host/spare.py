"""The spare slot's file system, read through dm-verity while something of it runs before it is booted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.disk import Disk
from kubenode.host.paths import Paths
from kubenode.host.process import run

MAPPED = "kubenode-spare"
_VERITYSETUP = "/usr/lib/systemd/systemd-veritysetup"
_SECONDS = 60.0


@contextmanager
def attached(root_hash: str, paths: Paths = Paths()) -> Iterator[Path]:  # noqa: B008 - frozen
    """Mount the spare slot read-only, checked against `root_hash` (64 hex digits), and yield where it is.

    The hash must come from a verified manifest: what the partition table says is not authenticated. What a killed
    process left attached is let go first. Raises HostError when the slot holds something else or cannot be mounted.
    """
    disk = Disk(paths)
    slot = disk.slot(disk.booted.other)
    if slot.root_hash() != root_hash:
        raise HostError(
            f"slot {disk.booted.other} does not hold the release with the root hash {root_hash[:16]}...",
            hint="Nothing to do: the next tick looks at the slots again and stages the release anew.",
        )
    release(paths)
    run([_VERITYSETUP, "attach", MAPPED, slot.root.node, slot.verity.node, root_hash], timeout=_SECONDS)
    try:
        paths.spare.mkdir(parents=True, exist_ok=True)
        device = paths.dev / "mapper" / MAPPED
        run(["mount", "-t", "erofs", "-o", "ro,nodev", device, paths.spare], timeout=_SECONDS)
        yield paths.spare
    finally:
        release(paths)


def release(paths: Paths = Paths()) -> None:  # noqa: B008 - frozen
    """Let go of the spare slot; nothing happens when it is not attached. Raises ProcessFailed when it is in use."""
    if paths.spare.is_mount():
        run(["umount", paths.spare], timeout=_SECONDS)
    if (paths.dev / "mapper" / MAPPED).exists():
        run([_VERITYSETUP, "detach", MAPPED], timeout=_SECONDS)
