"""A machine as a member of its cluster: `kubenode.ports.Kubeadm` over the kubeadm adapter and the machine's files.

Every call may be killed at any instant and made again: what has begun is noted before kubeadm starts, and what is done
is noted only when it is.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from kubenode.errors import HostError, TryLater
from kubenode.fleet.kubeadm import KubeadmDocuments
from kubenode.host import memberfile, podhealth, process, servingcertificate, staticpods
from kubenode.host.booted import running
from kubenode.host.files import host_errors, make_folder, sync_folder, write_atomically
from kubenode.host.kube.etcd import Etcd
from kubenode.host.kubeadm import Kubeadm, Options
from kubenode.host.kubeadmdocuments import CRI_SOCKET, Discovery, Registration, init_documents, join_documents
from kubenode.host.kubeletconfig import KubeletConfig, Origin
from kubenode.host.localkubernetes import manifests
from kubenode.host.paths import Paths
from kubenode.host.spare import attached
from kubenode.model.desired import DesiredCluster
from kubenode.model.documents import Release, Role
from kubenode.model.kubernetes import Entry, KubernetesVersion

SNAPSHOTS_KEPT = 3
"""Copies of etcd's data on this machine, the newest; each is as large as etcd's database."""
_HEALTHY_SECONDS = 10
_ADDONS = "addon"
_KUBELET_JOINS = "kubelet-start"
"""The phase of `kubeadm join` in which the kubelet becomes part of the cluster."""


class Secrets(Protocol):
    """What kubeadm needs that only this node may read; see `kubenode.host.membersecrets`."""

    @property
    def ca_cert_hash(self) -> str:
        """The hash of the CA's public key by which a joining node knows its cluster. Raises HostError."""
        ...

    def ca_set(self) -> Mapping[str, bytes]:
        """Return the cluster's CA set by path below /etc/kubernetes/pki; on control planes only. Raises HostError."""
        ...

    def own_token(self) -> str:
        """Return this node's own bootstrap token. Raises HostError when the fleet has none that this node can open."""
        ...


class Documents(Protocol):
    """The cluster's documents as its API keeps them."""

    def mark_configuration(self, digest: str) -> None:
        """Note at kubeadm's ConfigMap from which documents of the fleet the cluster was configured."""
        ...

    def configuration(self) -> str | None:
        """Return what is noted there, asked as this machine's kubelet. Raises TryLater, HostError."""
        ...

    def withdraw_token(self, token: str) -> None:
        """Remove a bootstrap token ("id.secret"), whoever made it; one that is gone is no error."""
        ...

    def is_ready(self) -> bool:
        """Return whether this machine's Node is Ready, False when its kubelet may not ask. Raises TryLater."""
        ...

    def mark_socket(self, socket: str) -> None:
        """Note the CRI socket at this machine's Node, as kubeadm does. Raises TryLater, HostError."""
        ...


@dataclass
class Member:
    """Implements `kubenode.ports.Kubeadm` for the node `name` of `cluster`."""

    paths: Paths
    name: str
    cluster: DesiredCluster
    documents: KubeadmDocuments
    secrets: Secrets
    api: Documents
    etcd: Callable[[], Etcd]
    spare: Callable[[str, Paths], AbstractContextManager[Path]] = attached

    # Becoming a member.

    def init(self, version: KubernetesVersion) -> None:
        """Found the cluster. Raises HostError."""
        memberfile.change(self.paths, entering=Entry.INIT)
        self._install_ca_set()
        self._install_patches()
        # kubeadm's own token of a day is not wanted: every node joins with its own.
        token = self.secrets.own_token()
        self._booted.init(self._documents(version, token=token), self._options(skip=self.documents.skip_phases))
        # kubeadm always leaves one in the cluster, and as it is, the other control planes could not publish it again.
        self.api.withdraw_token(token)
        self._rendered(self.cluster.configuration)
        self.api.mark_configuration(self.cluster.configuration)
        memberfile.change(self.paths, entering=None)

    def join(self, role: Role) -> None:
        """Join the cluster. Raises TryLater, HostError."""
        resumed = memberfile.read(self.paths).entering is Entry.JOIN
        memberfile.change(self.paths, entering=Entry.JOIN)
        plane = role is Role.CONTROL_PLANE
        if plane:
            self._install_ca_set()
            if resumed:
                self._forget_unstarted_member()
        self._install_patches()
        if (self.paths.kubernetes / "kubelet.conf").exists() and self.api.is_ready():
            # A join that was cut off after the kubelet had joined. kubeadm would refuse to do that again, and nobody
            # publishes the token of a node that is Ready.
            self.api.mark_socket(CRI_SOCKET)
            if plane:
                self._join(self.paths.kubernetes / "admin.conf", plane=True, skip=(_KUBELET_JOINS,))
        else:
            found = Discovery(self.cluster.endpoint, self.secrets.own_token(), self.secrets.ca_cert_hash)
            self._join(found, plane=plane)
        self._rendered(self.api.configuration())
        memberfile.change(self.paths, entering=None)

    def _forget_unstarted_member(self) -> None:
        """Remove the etcd member that a join has added and not started: kubeadm would go on with it without its name.

        Raises TryLater while it may still start by itself, HostError when etcd would lose its quorum.
        """
        address = self.cluster.by_name[self.name].address
        manifest = self.paths.kubernetes / "manifests/etcd.yaml"
        etcd = self.etcd()
        for member in etcd.view().members:
            if not member.never_started_at(address):
                continue
            if manifest.exists() and manifest.stat().st_size:
                raise TryLater(
                    "etcd was begun on this machine and is not part of the cluster yet",
                    hint="It starts by itself; crictl logs, or /var/log/pods, say why if it does not.",
                )
            etcd.remove(member.id)

    def _join(self, found: Discovery | Path, *, plane: bool, skip: tuple[str, ...] = ()) -> None:
        booted = self._booted
        given = join_documents(
            booted.version,
            self.documents.api_version,
            self._registration,
            found,
            control_plane=plane,
            base=self.documents.join,
        )
        booted.join(given, self._options(skip=skip))

    # Upgrades, with the staged release's kubeadm.

    def pull(self, release: Release) -> None:
        """Pull the control plane images of a staged release. Raises HostError."""
        with self.spare(release.root_hash, self.paths) as root:
            staged = self._at(root)
            version = KubernetesVersion(staged.version)
            staged.pull_images(self._documents(version))
        memberfile.change(self.paths, pulled=str(version))

    def prepare_kubelet(self, release: Release, configuration: str) -> None:
        """Render the staged slot's kubelet set from the cluster's documents. Raises HostError."""
        with self._rendering(release, configuration) as staged:
            staged.kubelet_config()

    def snapshot_etcd(self, release: Release) -> None:
        """Save etcd's data, and delete all but the newest copies. Raises NoSpace, TryLater, HostError."""
        folder = self.paths.snapshots
        make_folder(folder)
        target = folder / f"{release.manifest}.db"
        self.etcd().snapshot(target)
        with host_errors(f"{folder} cannot be tidied", folder):
            copies = sorted(folder.glob("[!.]*.db"), key=lambda path: path.stat().st_mtime_ns)
            for old in copies[:-SNAPSHOTS_KEPT]:
                old.unlink()

    def upgrade(self, release: Release, *, first: bool) -> None:
        """Move this control plane to the staged release's version. Raises HostError."""
        self._install_patches()
        with self._rendering(release, self.cluster.configuration) as staged:
            # First, for kubeadm renews it with the names that it has, and restarts the API server anyway.
            self._certify(staged)
            if first:
                # git's documents, at the version that the cluster has: `apply` takes them from there.
                staged.upload_config(self._documents(self._running_version()))
                staged.upgrade_apply(self._options(skip=self._addons(staged), ignore=self._not_checked))
                self.api.mark_configuration(self.cluster.configuration)
            else:
                staged.upgrade_node(self._options())
        memberfile.change(self.paths, configuration=self.cluster.configuration)

    # Upkeep, with the running release's kubeadm.

    def reconfigure(self, configuration: str, *, first: bool) -> None:
        """Render static pods and kubelet configuration anew, at the version that runs. Raises HostError."""
        self._install_patches()
        if first:
            self._booted.upload_config(self._documents(self._running_version()))
            self.api.mark_configuration(configuration)
        renamed = bool(manifests(self.paths)) and self._certify(self._booted, restarting=True)
        self._booted.upgrade_node(self._options())
        if renamed:
            staticpods.restart(self.paths)
            memberfile.change(self.paths, restarting=False)
        self._rendered(configuration)
        process.run(["systemctl", "restart", "kubelet.service"], timeout=300)

    def renew_certificates(self) -> None:
        """Renew every certificate of this control plane and restart its static pods. Raises HostError."""
        memberfile.change(self.paths, restarting=True)
        self._booted.renew_certificates()
        staticpods.restart(self.paths)
        memberfile.change(self.paths, restarting=False)

    def restart_static_pods(self, names: frozenset[str]) -> None:
        """Have the kubelet make these static pods anew. Raises HostError when it is not healthy, or makes them not."""
        podhealth.kubelet(_HEALTHY_SECONDS)
        staticpods.revive(self.paths, names)

    def prune(self) -> None:
        """Delete the copies that upgrades leave behind. Raises HostError."""
        self._booted.prune()

    # What the calls share.

    @cached_property
    def _booted(self) -> Kubeadm:
        return self._at(self.paths.root)

    def _at(self, root: Path) -> Kubeadm:
        return Kubeadm(root / "usr/bin/kubeadm", self.paths)

    @property
    def _registration(self) -> Registration:
        return Registration(self.name, self.cluster.by_name[self.name].address, patches=self._patches)

    @property
    def _patches(self) -> Path | None:
        return self.paths.kubernetes / "patches" if self.documents.patches else None

    def _options(self, skip: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> Options:
        return Options(skip_phases=skip, ignore=ignore, patches=self._patches)

    @property
    def _not_checked(self) -> tuple[str, ...]:
        """Return the checks of `upgrade apply` that fail where kubeadm did not install its DNS addon."""
        skipped = {_ADDONS, f"{_ADDONS}/coredns"} & set(self.documents.skip_phases)
        return ("CoreDNSMigration", "CoreDNSUnsupportedPlugins") if skipped else ()

    def _addons(self, staged: Kubeadm) -> tuple[str, ...]:
        """Return which addons an upgrade must not bring back; below 1.32 it cannot be told (kubeadm#1318)."""
        skipped = tuple(it for it in self.documents.skip_phases if it.split("/")[0] == _ADDONS)
        return skipped if skipped and staged.can_skip_phases_of_apply() else ()

    def _documents(self, version: KubernetesVersion, token: str | None = None, pki: Path | None = None) -> bytes:
        """Return the fleet's documents, filled in; `pki` is another place for certificates than the cluster's."""
        documents = self.documents
        cluster = documents.cluster if pki is None else {**documents.cluster, "certificatesDir": str(pki)}
        return init_documents(
            str(version), cluster, self._registration, *documents.others, base=documents.init, token=token
        )

    def _certify(self, kubeadm: Kubeadm, *, restarting: bool = False) -> bool:
        """Give the API server a certificate for the names in git, if it has others; say whether that was so.

        It runs with the old one until it is restarted; `restarting` notes that nothing else will do so.
        """
        with servingcertificate.making(self.paths) as pair:
            kubeadm.certify_api_server(self._documents(KubernetesVersion(kubeadm.version), pki=pair.folder))
            if not pair.is_other:
                return False
            if restarting:
                memberfile.change(self.paths, restarting=True)
            pair.install()
        return True

    def _running_version(self) -> KubernetesVersion:
        found = manifests(self.paths)
        if not found:
            raise HostError(f"{self.paths.kubernetes}/manifests has no control plane", hint="kubeadm writes it.")
        return min(found.values())

    @contextmanager
    def _rendering(self, release: Release, configuration: str) -> Iterator[Kubeadm]:
        """Attach the staged release and yield its kubeadm; what it writes for the kubelet is that release's set."""
        sets = KubeletConfig(self.paths)
        staged = Origin(release.version, release.root_hash, configuration)
        mine = self._origin(memberfile.read(self.paths).configuration or "")
        with self.spare(release.root_hash, self.paths) as root, sets.rendering(staged, mine):
            yield self._at(root)
        sets.prune(frozenset({staged.release, mine.release}))

    def _origin(self, configuration: str) -> Origin:
        now = running(self.paths)
        return Origin(now.version, now.root_hash, configuration)

    def _rendered(self, configuration: str | None) -> None:
        """Keep the kubelet's live files as the running release's set, and note what they are from, if known."""
        KubeletConfig(self.paths).keep(self._origin(configuration or ""))
        memberfile.change(self.paths, configuration=configuration)

    def _install_ca_set(self) -> None:
        """Put the cluster's CA set where kubeadm looks for it; a file that is there stays, and must be the same."""
        folder = self.paths.kubernetes / "pki"
        for name, data in self.secrets.ca_set().items():
            path = folder / name
            with host_errors(f"{path} cannot be written", self.paths.kubernetes):
                if path.exists() and path.read_bytes() != data:
                    raise HostError(
                        f"{path} is of another cluster than the fleet's sealed CA set",
                        hint="This machine was part of another cluster: wipe it, or seal the CA set that it has.",
                    )
                make_folder(path.parent)
                if not path.exists():
                    write_atomically(path, data, 0o600 if path.suffix == ".key" else 0o644)

    def _install_patches(self) -> None:
        """Make the folder of kubeadm's patches what git says: a patch that left git must not stay in force."""
        folder = self.paths.kubernetes / "patches"
        with host_errors(f"{folder} cannot be written", self.paths.kubernetes):
            for old in folder.iterdir() if folder.is_dir() else ():
                if old.name not in self.documents.patches:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            if self.documents.patches:
                make_folder(folder)
            for name, data in self.documents.patches.items():
                write_atomically(folder / name, data, 0o644)
            if folder.is_dir():
                sync_folder(folder)
