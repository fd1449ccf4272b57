"""One control plane from nothing to the next minor: init, staged upgrade under the old kubelet, restart."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubenode.errors import HostError
from kubenode.host.process import run
from kubenode.lab.kubernetes import fleet
from kubenode.lab.kubernetes.cluster import NEW, OLD, Kubernetes, provide
from kubenode.lab.kubernetes.node import ClusterNode
from kubenode.lab.workshop import Show, Workshop
from kubenode.trust.manifest import MANIFEST_NAME, parse

CHANNELS = ("nightly", "beta", "stable")
FIRST, SECOND = "2026.11.1", "2026.11.2"
"""Releases with v1.20.2 and with v1.21.0."""

INIT = """
from pathlib import Path
from kubenode.host.booted import running
from kubenode.host.kubeadm import Kubeadm, Options, Registration, init_documents
from kubenode.host.kubeletconfig import KubeletConfig
from kubenode.host.paths import Paths
from kubenode.trust.strictyaml import load

kubeadm = Kubeadm()
read = lambda name, text: load(text.encode(), name).value
documents = init_documents(
    kubeadm.version(), read("kubeadm/cluster.yaml", cluster), Registration(node, address, taints=()),
    read("kubeadm/kubelet.yaml", kubelet),
)
for name, text in files.items():
    path = Path(patches) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
kubeadm.init(documents, Options(skip_phases=("addon",), patches=Path(patches)))
KubeletConfig().keep(running(Paths()).version)
"""
UPGRADE = """
from pathlib import Path
from kubenode.host.booted import running
from kubenode.host.kubeadm import Kubeadm, Options
from kubenode.host.kubeletconfig import KubeletConfig
from kubenode.host.paths import Paths
from kubenode.host.spare import attached
from kubenode.model.version import Version

with attached(root_hash) as root:
    staged = Kubeadm(root / "usr/bin/kubeadm")
    print("the staged kubeadm is", staged.version(), flush=True)
    with KubeletConfig().rendering(Version(release), running(Paths()).version):
        staged.upgrade_apply(Options(patches=Path(patches)))
"""
ACTIVATE = """
from kubenode.agent.execute import Hands, execute
from kubenode.agent.follow import stored
from kubenode.agent.memory import Memory
from kubenode.cli.wire import node_ports
from kubenode.fleet.desired import desired_state
from kubenode.fleet.load import load_fleet
from kubenode.model.decision import ActivateSlot

ports = node_ports(print)
seed = ports.state.seed()
followed = stored(ports.open_fleet(seed), seed, Memory(ports.state, read_only=True).trust, ports.clock.now())
desired = desired_state(load_fleet(followed.tree.files, node=seed.node), followed.tree.oid, seed.node)
hands = Hands(
    ports.machine, ports.slots, ports.staging, ports.open_stores(desired.stores), followed.tree, desired.channel,
    ports.progress,
)
execute(ActivateSlot(desired.target, None), hands)
ports.machine.reboot()
"""
"""What the agent does once it may: activate the staged release, verified again, and restart."""


class ClusterStory:
    """Runs step by step; each step may be called again in a folder where it was done."""

    def __init__(self, directory: Path, cache: Path, show: Show) -> None:
        self.directory = directory
        self.cache = cache
        self.show = show
        self.workshop = Workshop(directory, show)
        self.versions: tuple[Kubernetes, ...] = ()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.api_port: int = free.getsockname()[1]

    def prepare(self) -> None:
        """Build Kubernetes and both releases, as far as they are not there. Raises KubenodeError."""
        self.versions = provide(self.cache, (OLD, NEW), self.show)
        if not self.workshop.fleet.exists():
            self.workshop.create()
            fleet.add_documents(self.workshop, self.versions)
        for release, kubernetes in zip((FIRST, SECOND), self.versions, strict=True):
            if not (self.workshop.out / release).exists():
                self.workshop.build(release, fleet.recipe_name(kubernetes))
            if not (self.workshop.store / release).exists():
                self.workshop.publish(release)
        self.workshop.set_channels((FIRST,), CHANNELS)

    def node(self, name: str) -> ClusterNode:
        """Return a machine, not started, with the first release on its disk; its folder below vm/ is `name`."""
        disk = self.workshop.out / FIRST / f"kubenode_{FIRST}.disk.raw"
        seed = self.workshop.seed(fleet.NODE, self.workshop.anchor)
        images = fleet.images_disk(self.versions, self.cache)
        return ClusterNode(disk, self.directory / "vm" / name, seed, images, self.api_port)

    def copy(self, of: str, name: str) -> ClusterNode:
        """Return a machine, not started, with a copy of the disk of another that is switched off."""
        node = self.node(name)
        shutil.rmtree(node.machine.config.work, ignore_errors=True)
        node.machine.config.work.mkdir(parents=True)
        for file in ("disk.qcow2", "vars.fd"):
            shutil.copy(self.directory / "vm" / of / file, node.machine.config.work / file)
        return node

    def with_images(self) -> str:
        """Make a machine that runs the first release, blessed and with all images imported; return its name."""
        name = "with-images"
        if not (self.directory / "vm" / name / "done").exists():
            node = self.node(name)
            shutil.rmtree(node.machine.config.work, ignore_errors=True)
            with self.workshop.serving():
                node.start()
                node.wait_blessed(600)
                self.show("importing the images of both control planes")
                node.import_images()
                node.stop()
            (node.machine.config.work / "done").touch()
        return name

    def init(self, node: ClusterNode) -> None:
        """Run kubeadm init with the fleet's documents and wait until the node is Ready."""
        documents = {
            name: (self.workshop.fleet / f"kubeadm/{name}.yaml").read_text() for name in ("cluster", "kubelet")
        }
        files = {path.name: path.read_text() for path in (self.workshop.fleet / "kubeadm/patches").glob("*.yaml")}
        given = {"node": fleet.NODE, "address": fleet.ADDRESS, "patches": fleet.PATCHES, "files": files}
        node.script("init", INIT, 2400, **given, **documents)
        self.wait_ready(node, OLD)

    def stage(self, node: ClusterNode) -> None:
        """Move the channel to the second release in a signed commit and let the agent write the spare slot."""
        self.workshop.set_channels((SECOND, FIRST), CHANNELS)

        def staged() -> bool:
            observed = node.tick(1500).get("observed") or {}
            return bool((observed.get("staged") or {}).get("version") == SECOND)

        # The agent does not activate on its own what it staged on a member of a cluster.
        self._until(staged, 1800, f"release {SECOND} is staged")

    def upgrade(self, node: ClusterNode) -> str:
        """Run the staged kubeadm's `upgrade apply` under the old kubelet; returns what the script said."""
        manifest = parse((self.workshop.out / SECOND / MANIFEST_NAME).read_bytes())
        given = {"root_hash": manifest.root_hash, "release": SECOND, "patches": fleet.PATCHES}
        return node.script("upgrade", UPGRADE, 4000, **given)

    def switch(self, node: ClusterNode) -> None:
        """Activate the staged release, restart and wait until the boot is blessed and the node Ready."""
        before = node.probe.boot_id()
        node.script("activate", ACTIVATE, 600)
        node.probe.wait_reboot(before, 900)
        node.wait_blessed(900)
        self.wait_ready(node, NEW)

    def kubectl(self, node: ClusterNode, *words: str, timeout: float = 120, check: bool = True) -> str:
        """Run kubectl on this machine as the cluster's administrator, through the forwarded port."""
        config = node.machine.config.work / "admin.conf"
        if not config.exists():
            text = node.probe.read("/etc/kubernetes/admin.conf").decode()
            config.write_text(text.replace(fleet.ENDPOINT, f"127.0.0.1:{self.api_port}"))
            config.chmod(0o600)
        binary = self.versions[0].binaries / "kubectl"
        options = [f"--kubeconfig={config}", "--request-timeout=60s"]
        return run([binary, *options, *words], timeout=timeout, check=check).text

    def objects(self, node: ClusterNode, kind: str) -> list[dict[str, Any]]:
        """Return all objects of a kind, in every namespace, as the API server says they are."""
        found: list[dict[str, Any]] = json.loads(self.kubectl(node, "get", kind, "-A", "-o", "json"))["items"]
        return found

    def wait_ready(self, node: ClusterNode, version: str, timeout: float = 900) -> None:
        """Wait until the node is Ready with this kubelet. Raises HostError after `timeout` seconds."""

        def ready() -> bool:
            try:
                (item,) = self.objects(node, "nodes")
            except (HostError, ValueError):
                return False
            conditions = {it["type"]: it["status"] for it in item["status"]["conditions"]}
            return conditions.get("Ready") == "True" and item["status"]["nodeInfo"]["kubeletVersion"] == version

        self._until(ready, timeout, f"the node is Ready with kubelet {version}")

    def _until(self, true: Callable[[], bool], timeout: float, what: str) -> None:
        start = time.monotonic()
        while not true():
            if time.monotonic() - start > timeout:
                raise HostError(f"it was not so within {timeout:.0f} s that {what}")
            time.sleep(3)
        self.show(f"{what} ({time.monotonic() - start:.0f} s)")
