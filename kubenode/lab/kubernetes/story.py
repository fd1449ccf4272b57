"""Clusters that come up and move on from git alone: every step on a machine is its agent's own."""

import functools
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from kubenode.errors import HostError
from kubenode.fleet.tokens import secret_name
from kubenode.host.clock import SystemClock
from kubenode.host.kube.cluster import API_PORT
from kubenode.host.process import run
from kubenode.lab import code
from kubenode.lab.failed import LabFailed
from kubenode.lab.kubernetes import balancer, fleet, workload
from kubenode.lab.kubernetes.cluster import NEW, OLD, PATCHED, VERSIONS, Kubernetes, provide
from kubenode.lab.kubernetes.enroll import enroll, seed_credentials
from kubenode.lab.kubernetes.network import Member, members
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.node import Status
from kubenode.lab.qemu import SharedNetwork
from kubenode.lab.workshop import Show, Workshop, write_tree

CHANNELS = ("nightly", "beta", "stable")
FIRST, BROKEN, SECOND, THIRD = "2026.11.1", "2026.11.2", "2026.11.3", "2026.11.4"
HEALED = "2026.11.5"
RECIPES = {
    FIRST: fleet.recipe_name(OLD),
    BROKEN: fleet.BROKEN_KUBELET,
    SECOND: fleet.recipe_name(PATCHED),
    THIRD: fleet.recipe_name(NEW),
    HEALED: fleet.recipe_name(OLD),
}
"""The releases that a story may want.

The oldest Kubernetes, the same with a broken kubelet, a patch, a minor, and the oldest once more, where only the
operating system changes.
"""


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
        self.declared = declared
        self.members = {member.name: member for member in declared}
        self.shared = SharedNetwork.of(directory)
        self.versions: tuple[Kubernetes, ...] = ()
        self.offered: tuple[str, ...] = ()
        """The releases that channels list, the newest first."""
        self.started: datetime | None = None
        """When machines were last powered on by `start` (aware, UTC)."""
        self.api_ports = dict(zip([it.name for it in declared if it.serves_api], free_ports(), strict=False))
        alone = len(self.api_ports) == 1
        self.endpoint = f"{declared[0].address}:{API_PORT}" if alone else balancer.endpoint(directory)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve what machines need as long as the context lives: fleet repo, store, and the API of several servers."""
        with ExitStack() as stack:
            stack.enter_context(self.workshop.serving())
            if len(self.api_ports) > 1:
                stack.enter_context(balancer.balancer(self.directory, self.api_ports))
            yield

    def prepare(self, *releases: str) -> None:
        """Build Kubernetes, the first release and these, as far as they are not there. Raises KubenodeError.

        What is not named is built when a story moves to it, which takes long beside running machines.
        """
        self.versions = provide(self.cache, VERSIONS, self.show)
        if not self.workshop.fleet.exists():
            self.workshop.create()
            fleet.add_documents(self.workshop, self.versions, self.declared, self.endpoint)
        enroll(self.workshop, tuple(self.members.values()))
        for release in (FIRST, *releases):
            self.need(release)
        self.reset()

    def need(self, release: str) -> None:
        """Build and publish a release if that was not done yet; say so when the one that is kept has another agent."""
        note = self.workshop.out / f"{release}.code"
        if not (self.workshop.out / release).exists():
            note.write_text(code.digest())
            self.workshop.build(release, RECIPES[release])
        elif not note.exists() or note.read_text() != code.digest():
            self.show(f"NOTE: {release} was built from other code, and so is its agent; for this code: a new folder")
        if not (self.workshop.store / release).exists():
            self.workshop.publish(release)

    def reset(self) -> None:
        """Make the fleet what it was when its cluster came up: the first release only, and no further member."""
        # As git says, not this object: a kept folder may be from a run that ended in the middle of a story.
        there = {path.stem for path in (self.workshop.fleet / "nodes").glob("*.yaml")}
        self.members = {it.name: it for it in self.declared}
        for name in sorted(there - self.members.keys()):
            files = (f"nodes/{name}.yaml", f"secrets/{secret_name(name)}.*")
            self.workshop.git("add", "--all")
            self.workshop.git("rm", "--quiet", "--force", "--ignore-unmatch", "--", *files)
            self.workshop.commit(f"{name} is not needed any more")
        self.offered = (FIRST,)
        self.workshop.set_channels(self.offered, CHANNELS)

    def declare(self, member: Member) -> str:
        """Make a machine a further member of the cluster, with its identity and its token, in signed commits.

        Returns its name.
        """
        self.members[member.name] = member
        write_tree(self.workshop.fleet, [(f"nodes/{member.name}.yaml", fleet.node_document(member))])
        self.workshop.git("add", "--all")
        self.workshop.git("commit", "--quiet", "--message", f"Add {member.name}")
        enroll(self.workshop, tuple(self.members.values()))
        return member.name

    def node(
        self, name: str, folder: str | None = None, *, release: str = FIRST, clock: datetime | None = None
    ) -> ClusterNode:
        """Return the machine of a member, not started, with this release on its disk if it is new.

        Its own files are below vm/, in `folder` or else in one with its name. `clock`: see `MachineConfig`.
        """
        return ClusterNode(
            self.members[name],
            self.workshop.out / release / f"kubenode_{release}.disk.raw",
            self.directory / "vm" / (folder or name),
            self.workshop.seed(name, self.workshop.anchor),
            images=fleet.images_disk(self.versions, self.cache),
            shared=self.shared,
            credentials=seed_credentials(self.workshop, name),
            api_port=self.api_ports.get(name),
            clock=clock,
        )

    def copy(self, of: str, name: str, folder: str, *, clock: datetime | None = None) -> ClusterNode:
        """Return a member's machine, not started, with a copy of the disk of another that is switched off.

        `of` and `folder` are folders below vm/; what is in `folder` is deleted.
        """
        node = self.node(name, folder, clock=clock)
        shutil.rmtree(node.machine.config.work, ignore_errors=True)
        self._copy_disk(of, node.machine.config.work)
        return node

    def with_images(self, name: str) -> str:
        """Make a member's machine that runs the first release, blessed and with all images imported.

        Returns its folder below vm/, for `copy`; made once.
        """
        folder = f"images-{name}"
        if not self._is_kept(folder):
            node = self.node(name, folder)
            shutil.rmtree(node.machine.config.work, ignore_errors=True)
            node.start()
            node.wait_blessed(600)
            self.show(f"importing images on {name}")
            node.import_images()
            node.stop()
            (node.machine.config.work / "done").touch()
        return folder

    def keep(self, nodes: Sequence[ClusterNode], stage: str) -> None:
        """Switch machines off and keep copies of their disks, for `resume`."""
        for node in nodes:
            node.stop()
        for node in nodes:
            kept = self.directory / "vm" / f"{stage}-{node.name}"
            shutil.rmtree(kept, ignore_errors=True)
            self._copy_disk(node.machine.config.work.name, kept)
        for node in nodes:
            (self.directory / "vm" / f"{stage}-{node.name}" / "done").touch()

    def is_kept(self, stage: str, *names: str) -> bool:
        """Say whether `keep` was done for a stage of these members."""
        return all(self._is_kept(f"{stage}-{name}") for name in names)

    def resume(self, stage: str, folder: str, *names: str, clock: datetime | None = None) -> list[ClusterNode]:
        """Return these members' machines, not started, as they were kept; their files are in `folder`-NAME."""
        return [self.copy(f"{stage}-{name}", name, f"{folder}-{name}", clock=clock) for name in names]

    def start(self, nodes: Sequence[ClusterNode], timeout: float = 900) -> None:
        """Power machines on at once and wait until each is up. Raises HostError after `timeout` seconds."""
        # Kubernetes says times in whole seconds.
        self.started = SystemClock().now().replace(microsecond=0)
        for node in nodes:
            node.machine.start()
        for node in nodes:
            node.probe.wait(timeout)
            node.wait_up(timeout)

    def _is_kept(self, folder: str) -> bool:
        return (self.directory / "vm" / folder / "done").exists()

    def _copy_disk(self, of: str, target: Path) -> None:
        target.mkdir(parents=True)
        for file in ("disk.qcow2", "vars.fd"):
            shutil.copy(self.directory / "vm" / of / file, target / file)

    def move(self, release: str, *channels: str) -> None:
        """Make a release the newest of these channels, or of all, in one signed commit; it is built if need be.

        By hand and not by `kubenode promote`, which goes from channel to channel: between two of its commits the
        workers' channel would be ahead of the control plane's, and `validate` refuses that.
        """
        self.need(release)
        self.offered = (release, *(it for it in self.offered if it != release))
        self.workshop.set_channels(self.offered, channels or CHANNELS)

    def settle(
        self,
        nodes: Sequence[ClusterNode],
        release: str,
        timeout: float,
        seen: Callable[[ClusterNode, Status], None] = _unseen,
    ) -> None:
        """Let the agents of these machines tick in turn until in one round each runs the release and is up to date.

        `seen` gets every report. Raises HostError after `timeout` seconds, with each node's last words.
        """
        start = time.monotonic()
        said: dict[str, str] = {}
        settled = False
        while not settled:
            settled = True
            for node in nodes:
                status = node.tick_through(timeout)
                seen(node, status)
                words = f"{status.get('phase')}: {status.get('message')}"
                if said.get(node.name) != words:
                    self.show(f"  {node.name} | {words}")
                said[node.name] = words
                observed = status.get("observed") or {}
                # A node that cannot ask its cluster does not know of what is left to do there.
                settled &= status.get("phase") == "Up to date" and observed.get("cluster") is not None
                settled &= observed["booted"]["version"] == release if observed else False
            if not settled and time.monotonic() - start > timeout:
                raise LabFailed(f"not all run {release} within {timeout:.0f} s: {said}")
        self.show(f"{', '.join(said)}: release {release} ({time.monotonic() - start:.0f} s)")

    def kubectl(self, node: ClusterNode, *words: str, timeout: float = 120, check: bool = True) -> str:
        """Run kubectl on a control plane as the cluster's administrator, through its forwarded port."""
        config = node.machine.config.work / f"admin-{node.api_port}.conf"
        if not config.exists():
            text = node.probe.read("/etc/kubernetes/admin.conf").decode()
            config.write_text(text.replace(self.endpoint, f"127.0.0.1:{node.api_port}"))
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
        workload.apply(self.kubectl_of(by), self.directory / "workload")
        self.wait_workload(by, timeout)

    def wait_workload(self, by: ClusterNode, timeout: float = 900) -> None:
        """Wait until every pod of the workload is ready, as it is after this story's machines were started."""
        kubectl = self.kubectl_of(by)

        def ready() -> bool:
            try:
                return workload.look(kubectl, self.started).ready == workload.REPLICAS
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
