"""kubeadm, 1.20 to 1.37: its command lines and what differs between its versions; `kubeadmdocuments` has its documents.

Nothing else knows.

Only 1.20 was run (and the same source under the stamp 1.21); later versions follow their documentation
(https://kubernetes.io/docs/reference/setup-tools/kubeadm/), see docs/kubernetes.md.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from kubenode.errors import HostError
from kubenode.host.files import host_errors, make_folder, write_atomically
from kubenode.host.paths import Paths
from kubenode.host.process import Completed, ProcessFailed, run
from kubenode.model.texts import redacted

FIRST_MINOR, LAST_MINOR = 20, 37
PATCHES_IN_DOCUMENTS = 22
"""From this minor on documents name the folder of patches; `init` and `join` had a flag before."""
PHASES_OF_APPLY = 32
"""From this minor on phases of `upgrade apply` can be skipped (kubeadm#1318)."""
VERSION_SECONDS = 300.0
"""A large program on a busy machine: more than a minute was seen in software emulation."""
INIT_SECONDS = 1800.0
"""kubeadm waits 4 minutes for a control plane by itself; fleets may allow more in their documents."""
UPGRADE_SECONDS = 3600.0
"""kubeadm waits up to 5 minutes for each of four static pods, twice when it rolls back."""
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,3})")
_PAUSE = (
    (36, "registry.k8s.io/pause:3.10.2"),
    (34, "registry.k8s.io/pause:3.10.1"),
    (31, "registry.k8s.io/pause:3.10"),
    (26, "registry.k8s.io/pause:3.9"),
    (25, "registry.k8s.io/pause:3.8"),
    (24, "k8s.gcr.io/pause:3.7"),
    (23, "k8s.gcr.io/pause:3.6"),
    (22, "k8s.gcr.io/pause:3.5"),
    (21, "k8s.gcr.io/pause:3.4.1"),
    (20, "k8s.gcr.io/pause:3.2"),
)
"""PauseVersion of cmd/kubeadm/app/constants, by the first minor that has it."""
_INTERRUPTED = (
    "DirAvailable--etc-kubernetes-manifests",
    "DirAvailable--var-lib-etcd",
    "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
    "FileAvailable--etc-kubernetes-kubelet.conf",
    "FileAvailable--etc-kubernetes-manifests-etcd.yaml",
    "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml",
    "FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml",
    "FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
    *(f"Port-{port}" for port in (2379, 2380, 6443, 10250, 10257, 10259)),
)
"""Preflight checks that what an interrupted init or join left behind fails. Every phase of kubeadm may run again."""
_HINTS = (
    ("static Pod hash for component", "The kubelet did not start the new pod in 5 minutes; kubeadm put the old one "
     "back. Look at the pod and at the load of this machine, then let it try again (kubeadm#740, #1546, #2927)."),
    ("CreateJob", "A test pod found no node: is the only control plane cordoned (kubeadm#3050, #3282)?"),
    ("ControlPlaneNodesReady", "A control plane node is NotReady (kubeadm#539): repair it first."),
    ("ImagePull", "Is the registry reachable from this node, and does imageRepository hold this version?"),
)  # fmt: skip


def minor(version: str) -> int:
    """Return the minor of a Kubernetes version such as v1.34.2. Raises HostError for one that is not supported."""
    match = _VERSION.fullmatch(version)
    if match is None or not FIRST_MINOR <= int(match[1]) <= LAST_MINOR:
        raise HostError(
            f"kubeadm {version[:40]} is not supported: kubenode knows 1.{FIRST_MINOR} to 1.{LAST_MINOR}",
            hint="A newer kubenode may know it.",
        )
    return int(match[1])


def pause_image(version: str) -> str:
    """Return the sandbox image that kubeadm of this version names. Raises HostError."""
    known = minor(version)
    return next(image for first, image in _PAUSE if known >= first)


def needs_crictl(version: str) -> bool:
    """Say whether kubeadm calls crictl; it speaks CRI itself since 1.31 (kubeadm#3064). Raises HostError."""
    return minor(version) < 31


@dataclass(frozen=True)
class Options:
    """What a call adds to kubeadm's defaults: phases to leave out, preflight errors to ignore, a patches folder."""

    skip_phases: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    patches: Path | None = None


def init_command(version: str, config: Path, options: Options = Options()) -> list[str]:
    """Return the arguments of `kubeadm init`. Patches are given by flag below 1.22; later documents name them."""
    words = ["init", "--config", str(config), *_skip(options), *_ignore(options)]
    return words + (_patches(version, options) if minor(version) < PATCHES_IN_DOCUMENTS else [])


def join_command(version: str, config: Path, options: Options = Options()) -> list[str]:
    """Return the arguments of `kubeadm join`."""
    words = ["join", "--config", str(config), *_skip(options), *_ignore(options)]
    return words + (_patches(version, options) if minor(version) < PATCHES_IN_DOCUMENTS else [])


def apply_command(version: str, options: Options = Options()) -> list[str]:
    """Return the arguments of `kubeadm upgrade apply` to `version`; its phases can be skipped from 1.32 on."""
    words = ["upgrade", "apply", version, "--yes", *_ignore(options), *_patches(version, options)]
    if options.skip_phases and minor(version) < PHASES_OF_APPLY:
        raise HostError(
            f"kubeadm {version} cannot skip phases of `upgrade apply`: that came with 1.32 (kubeadm#1318)",
            hint="Remove skipPhases.",
        )
    return words + _skip(options)


def node_command(version: str, options: Options = Options()) -> list[str]:
    """Return the arguments of `kubeadm upgrade node`: every further control plane, and workers."""
    words = ["upgrade", "node", *_skip(options), *_patches(version, options)]
    # A check to ignore can be named from 1.20 on for `node` too: it has a preflight phase since 1.18.
    return words + _ignore(options)


def renew_command(version: str) -> list[str]:
    """Return the arguments that renew every certificate of a control plane."""
    minor(version)
    return ["certs", "renew", "all"]


def pull_command(version: str, config: Path) -> list[str]:
    """Return the arguments that pull the images which the documents in `config` name, before they are needed."""
    minor(version)
    return ["config", "images", "pull", "--config", str(config)]


def upload_command(version: str, config: Path) -> list[str]:
    """Return the arguments that write the documents in `config` into the cluster (ConfigMaps), and nothing else."""
    minor(version)
    return ["init", "phase", "upload-config", "all", "--config", str(config)]


def certify_command(version: str, config: Path) -> list[str]:
    """Return the arguments that make the API server's certificate for the names that the documents in `config` want."""
    minor(version)
    return ["init", "phase", "certs", "apiserver", "--config", str(config)]


def kubelet_command(version: str) -> list[str]:
    """Return the arguments that render the kubelet's files from the cluster's documents."""
    minor(version)
    return ["upgrade", "node", "phase", "kubelet-config"]


def _skip(options: Options) -> list[str]:
    return [f"--skip-phases={','.join(options.skip_phases)}"] if options.skip_phases else []


def _ignore(options: Options) -> list[str]:
    return [f"--ignore-preflight-errors={','.join(options.ignore)}"] if options.ignore else []


def _patches(version: str, options: Options) -> list[str]:
    if options.patches is None:
        return []
    flag = "--experimental-patches" if minor(version) < 22 else "--patches"
    return [flag, str(options.patches)]


def leftovers(paths: Paths) -> list[Path]:
    """Return the folders that upgrades have left behind."""
    return sorted((paths.kubernetes / "tmp").glob("kubeadm-*"))


@dataclass
class Kubeadm:
    """A kubeadm to call: the image's own, or the staged release's while the spare slot is attached.

    Every call may be killed at any instant and made again. Each raises HostError with kubeadm's last words and what
    to do about them; the whole output is in `log`.
    """

    binary: Path = Path("/usr/bin/kubeadm")
    paths: Paths = field(default_factory=Paths)

    @property
    def log(self) -> Path:
        """The output of every call, oldest first."""
        return self.paths.state / "kubeadm.log"

    @cached_property
    def version(self) -> str:
        """What this kubeadm is, such as v1.34.2; asked once. Raises HostError for one that is not supported."""
        said = run([self.binary, "version", "-o", "short"], timeout=VERSION_SECONDS).text.strip()
        minor(said)
        return said

    def init(self, documents: bytes, options: Options = Options()) -> None:
        """Start the first control plane of a cluster, or go on where an interrupted call ended."""
        with self._config(documents) as config:
            self._call(init_command(self.version, config, self._resumed(options)), INIT_SECONDS)

    def join(self, documents: bytes, options: Options = Options()) -> None:
        """Join a cluster, or go on where an interrupted call ended."""
        with self._config(documents) as config:
            self._call(join_command(self.version, config, self._resumed(options)), INIT_SECONDS)

    def upgrade_apply(self, options: Options = Options()) -> None:
        """Move the first control plane to this kubeadm's own version, and the cluster's documents with it."""
        self._call(apply_command(self.version, options), UPGRADE_SECONDS)
        self.prune()

    def upgrade_node(self, options: Options = Options()) -> None:
        """Move another control plane, or a worker's kubelet configuration, to this kubeadm's own version."""
        self._call(node_command(self.version, options), UPGRADE_SECONDS)
        self.prune()

    def can_skip_phases_of_apply(self) -> bool:
        """Say whether `upgrade apply` knows phases."""
        return minor(self.version) >= PHASES_OF_APPLY

    def renew_certificates(self) -> None:
        """Renew the certificates of this control plane; its static pods must then be started again."""
        self._call(renew_command(self.version), 600)

    def pull_images(self, documents: bytes) -> None:
        """Pull the images that the documents name, as far as they are not there."""
        with self._config(documents) as config:
            self._call(pull_command(self.version, config), UPGRADE_SECONDS)

    def upload_config(self, documents: bytes) -> None:
        """Write the documents into the cluster; what runs does not change."""
        with self._config(documents) as config:
            self._call(upload_command(self.version, config), 600)

    def certify_api_server(self, documents: bytes) -> None:
        """Make the API server's certificate in the documents' certificatesDir, where the CA is and it is not yet."""
        with self._config(documents) as config:
            self._call(certify_command(self.version, config), 600)

    def kubelet_config(self) -> None:
        """Render the kubelet's live files from the cluster's documents."""
        self._call(kubelet_command(self.version), 600)

    def prune(self) -> None:
        """Delete what upgrades leave behind: copies of etcd's data and of manifests (kubernetes#125357)."""
        with host_errors("what kubeadm left behind cannot be deleted", self.paths.kubernetes):
            for leftover in leftovers(self.paths):
                shutil.rmtree(leftover)

    def _resumed(self, options: Options) -> Options:
        folder = self.paths.kubernetes
        begun = any(folder.glob("*.conf")) or any(folder.glob("manifests/*.yaml"))
        if not begun:
            return options
        return replace(options, ignore=tuple(dict.fromkeys((*options.ignore, *_INTERRUPTED))))

    @contextmanager
    def _config(self, documents: bytes) -> Iterator[Path]:
        """Keep documents where only root reads them: they hold a token."""
        path = self.paths.root / "run/kubenode/kubeadm.yaml"
        make_folder(path.parent)
        write_atomically(path, documents)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _call(self, arguments: list[str], seconds: float) -> Completed:
        env = {**os.environ, "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        make_folder(self.log.parent)
        # `init` prints a bootstrap token.
        self.log.touch(mode=0o600)
        try:
            return run([self.binary, *arguments], timeout=seconds, env=env, log=self.log)
        except ProcessFailed as error:
            said = error.completed.stdout.decode(errors="replace") if error.completed else ""
            said += error.completed.stderr.decode(errors="replace") if error.completed else ""
            hint = next((hint for words, hint in _HINTS if words in said), error.hint)
            words = takewhile(lambda word: not word.startswith("-"), arguments)
            # Journal, status and the node's Node repeat this; the log, for root only, has it whole.
            raise HostError(
                f"kubeadm {' '.join(words)} failed: {redacted(error.message)}", hint=hint or f"See {self.log}."
            ) from error
