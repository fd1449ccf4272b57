"""Writes one partition's content and proves it by reading the disk."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.disk import Partition
from kubenode.host.files import host_errors
from kubenode.ports import Progress
from kubenode.trust.manifest import Artifact

_CHUNK = 4 << 20


def check_fits(partition: Partition, artifact: Artifact) -> None:
    """Raise HostError when an artifact is larger than its partition, as the table or the device says."""
    with _opened(partition.node, os.O_RDONLY) as handle:
        size = min(partition.entry.size, os.lseek(handle, 0, os.SEEK_END))
    if artifact.size > size:
        raise HostError(
            f"{artifact.name} has {artifact.size} bytes, partition {partition.entry.label} has {size}",
            hint="slots cannot grow: publish a smaller image, or install the node again with larger slots",
        )


def write_and_verify(source: Path, partition: Partition, artifact: Artifact, progress: Progress) -> None:
    """Copy an artifact onto a partition, flush it, and compare what the disk then gives with the manifest.

    Progress counts bytes of writing and reading together. Raises HostError when the partition is in use, cannot be
    written, or gives back something else.
    """
    label, total = partition.entry.label, 2 * artifact.size
    with _opened(partition.node, os.O_RDWR) as handle:
        done = 0
        with source.open("rb") as file:
            while chunk := file.read(min(_CHUNK, artifact.size - done)):
                _write_all(handle, chunk, done)
                done += len(chunk)
                progress(f"write {label}", done, total)
        os.fsync(handle)
        # Clean pages are dropped, so that the bytes below come from the disk and not from memory.
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        digest, read = hashlib.sha256(), 0
        while chunk := os.pread(handle, min(_CHUNK, artifact.size - read), read):
            digest.update(chunk)
            read += len(chunk)
            progress(f"verify {label}", artifact.size + read, total)
    if read != artifact.size or digest.hexdigest() != artifact.sha256:
        raise HostError(
            f"partition {label} gives back other bytes than were written ({read} bytes, sha256 {digest.hexdigest()})",
            hint="the disk may be failing: look at its SMART data and the kernel's messages",
        )


def _write_all(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


@contextmanager
def _opened(node: Path, flags: int) -> Iterator[int]:
    with host_errors(f"{node} cannot be opened, read or written", node.parent):
        # On a block device O_EXCL asks the kernel for exclusive use: it fails when the partition is mounted or mapped.
        exclusive = os.O_EXCL if flags != os.O_RDONLY and stat.S_ISBLK(node.stat().st_mode) else 0
        handle = os.open(node, flags | exclusive | os.O_CLOEXEC)
        try:
            yield handle
        finally:
            os.close(handle)
