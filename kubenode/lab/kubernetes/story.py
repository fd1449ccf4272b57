"""Clusters that come up and move on from git alone: every step on a machine is its agent's own."""

import functools
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kubenode.errors import HostError
from kubenode.host.process import run
from kubenode.lab.failed import LabFailed
from kubenode.lab.kubernetes import fleet, workload
from kubenode.lab.kubernetes.cluster import NEW, OLD, Kubernetes, provide
from kubenode.lab.kubernetes.enroll import enroll, seed_credentials
from kubenode.lab.kubernetes.network import Member, members
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.node import Status
from kubenode.lab.qemu import SharedNetwork
from kubenode.lab.workshop import Show, Workshop

CHANNELS = ("nightly", "beta", "stable")
FIRST, SECOND = "2026.11.1", "2026.11.2"
"""Releases with v1.20.2 and with v1.21.0."""


def _unseen(_node: ClusterNode, _status: Status) -> None:
    """Look at no report."""


class ClusterStory:
    """Runs step by step; each step may be called again in a folder where it was done.

    A folder is of one cluster: its members are declared when the fleet is made.
    """

    def __init__(
        self, directory: Path, cache: Path, show: Show, declared: tuple[Member, ...] = members(control_planes=1)
    ) -> None:
        self.directory = directory
        self.cache = cache
        self.show = show
        self.workshop = Workshop(directory, show)
        self.members = {member.name: member for member in declared}
        self.shared = SharedNetwork.of(directory)
        self.versions: tuple[Kubernetes, ...] = ()
        self.api_ports = dict(zip([it.name for it in declared if it.serves_api], free_ports(), strict=False))

    def prepare(self) -> None:
        """Build Kubernetes and both releases, as far as they are not there. Raises KubenodeError."""
        self.versions = provide(self.cache, (OLD, NEW), self.show)
        if not self.workshop.fleet.exists():
            self.workshop.create()
            fleet.add_documents(self.workshop, self.versions, tuple(self.members.values()))
        enroll(self.workshop, tuple(self.members.values()))
        for release, kubernetes in zip((FIRST, SECOND), self.versions, strict=True):
            if not (self.workshop.out / release).exists():
                self.workshop.build(release, fleet.recipe_name(kubernetes))
            if not (self.workshop.store / release).exists():
                self.workshop.publish(release)
        self.workshop.set_channels((FIRST,), CHANNELS)

    def node(self, name: str, folder: str | None = None) -> ClusterNode:
        """Return the machine of a member, not started, with the first release on its disk.

        Its own files are below vm/, in `folder` or else in one with its name.
        """
        return ClusterNode(
            self.members[name],
            self.workshop.out / FIRST / f"kubenode_{FIRST}.disk.raw",
            self.directory / "vm" / (folder or name),
            self.workshop.seed(name, self.workshop.anchor),
            images=fleet.images_disk(self.versions, self.cache),
            shared=self.shared,
            credentials=seed_credentials(self.workshop, name),
            api_port=self.api_ports.get(name),
        )

    def copy(self, of: str, name: str, folder: str) -> ClusterNode:
        """Return a member's machine, not started, with a copy of the disk of another that is switched off.

        `of` and `folder` are folders below vm/; what is in `folder` is deleted.
        """
        node = self.node(name, folder)
        shutil.rmtree(node.machine.config.work, ignore_errors=True)
        node.machine.config.work.mkdir(parents=True)
        for file in ("disk.qcow2", "vars.fd"):
            shutil.copy(self.directory / "vm" / of / file, node.machine.config.work / file)
        return node

    def with_images(self, name: str) -> str:
        """Make a member's machine that runs the first release, blessed and with all images imported.

        Returns its folder below vm/, for `copy`; made once.
        """
        folder = f"images-{name}"
        if not (self.directory / "vm" / folder / "done").exists():
            node = self.node(name, folder)
            shutil.rmtree(node.machine.config.work, ignore_errors=True)
            with self.workshop.serving():
                node.start()
                node.wait_blessed(600)
                self.show(f"importing the images of both versions on {name}")
                node.import_images()
                node.stop()
            (node.machine.config.work / "done").touch()
        return folder

    def move(self, version: str) -> None:
        """Move every channel to a release in signed commits."""
        self.workshop.set_channels((version,) if version == FIRST else (version, FIRST), CHANNELS)

    def settle(
        self,
        nodes: Sequence[ClusterNode],
        release: str,
        timeout: float,
        seen: Callable[[ClusterNode, Status], None] = _unseen,
    ) -> None:
        """Let the agents of these machines tick in turn until each runs the release and has nothing left to do.

        `seen` gets every report. Raises HostError after `timeout` seconds, with each node's last words.
        """
        start = time.monotonic()
        left = {node.name: "no report" for node in nodes}
        while left:
            for node in nodes:
                status = node.tick_through(timeout)
                seen(node, status)
                booted = (status.get("observed") or {}).get("booted") or {}
                words = f"{status.get('phase')}: {status.get('message')}"
                if left.get(node.name, words) != words:
                    self.show(f"  {node.name} | {words}")
                left[node.name] = words
                if status.get("phase") == "Up to date" and booted.get("version") == release:
                    del left[node.name]
            if left and time.monotonic() - start > timeout:
                raise LabFailed(f"not all run {release} within {timeout:.0f} s: {left}")
        self.show(f"{', '.join(node.name for node in nodes)}: release {release} ({time.monotonic() - start:.0f} s)")

    def kubectl(self, node: ClusterNode, *words: str, timeout: float = 120, check: bool = True) -> str:
        """Run kubectl on a control plane as the cluster's administrator, through its forwarded port."""
        config = node.machine.config.work / f"admin-{node.api_port}.conf"
        if not config.exists():
            text = node.probe.read("/etc/kubernetes/admin.conf").decode()
            address = fleet.endpoint(tuple(self.members.values()))
            config.write_text(text.replace(address, f"127.0.0.1:{node.api_port}"))
            config.chmod(0o600)
        binary = self.versions[0].binaries / "kubectl"
        options = [f"--kubeconfig={config}", "--request-timeout=60s"]
        return run([binary, *options, *words], timeout=timeout, check=check).text

    def objects(self, node: ClusterNode, kind: str) -> list[dict[str, Any]]:
        """Return all objects of a kind, in every namespace, as the API server says they are."""
        found: list[dict[str, Any]] = json.loads(self.kubectl(node, "get", kind, "-A", "-o", "json"))["items"]
        return found

    def wait_ready(self, node: ClusterNode, version: str, timeout: float = 900, by: ClusterNode | None = None) -> None:
        """Wait until the node is Ready with this kubelet and its own address, as the API server of `by` says.

        Raises HostError after `timeout` seconds.
        """

        def ready() -> bool:
            try:
                items = self.objects(by or node, "nodes")
            except (HostError, ValueError):
                return False
            return any(is_ready(it, node.member, version) for it in items)

        self._until(ready, timeout, f"{node.name} is Ready with kubelet {version} at {node.member.address}")

    def start_workload(self, by: ClusterNode, timeout: float = 900) -> None:
        """Give the cluster the workload that must stay up and wait until all of it is ready. Raises HostError."""
        kubectl = self.kubectl_of(by)
        workload.apply(kubectl, self.directory / "workload")

        def ready() -> bool:
            try:
                return workload.look(kubectl).ready == workload.REPLICAS
            except HostError:
                return False

        self._until(ready, timeout, f"all {workload.REPLICAS} pods of the workload are ready")

    def kubectl_of(self, node: ClusterNode) -> workload.Kubectl:
        """Return kubectl at this control plane's API server, for `workload.Watcher`."""
        return functools.partial(self.kubectl, node)

    def _until(self, true: Callable[[], bool], timeout: float, what: str) -> None:
        start = time.monotonic()
        while not true():
            if time.monotonic() - start > timeout:
                raise LabFailed(f"it was not so within {timeout:.0f} s that {what}")
            time.sleep(3)
        self.show(f"{what} ({time.monotonic() - start:.0f} s)")


def is_ready(item: Mapping[str, Any], member: Member, version: str) -> bool:
    """Say whether a Node object is this member, Ready, with a kubelet of this version and the member's address."""
    status = item["status"]
    conditions = {it["type"]: it["status"] for it in status.get("conditions", ())}
    addresses = [it["address"] for it in status.get("addresses", ()) if it["type"] == "InternalIP"]
    return (
        item["metadata"]["name"] == member.name
        and conditions.get("Ready") == "True"
        and status["nodeInfo"]["kubeletVersion"] == version
        and addresses == [member.address]
    )


def free_ports() -> Iterator[int]:
    """Return ports of the loopback that nobody uses now, each once."""
    with ExitStack() as held:
        while True:
            free = held.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            yield free.getsockname()[1]
