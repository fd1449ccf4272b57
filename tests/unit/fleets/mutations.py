"""Small edits of the example fleet and the problem each must give."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubenode.fleet.edit import comment_out
from kubenode.fleet.problems import Severity

EXAMPLE = Path(__file__).parents[3] / "fleet-example"
Files = dict[str, bytes]


@dataclass(frozen=True)
class Case:
    """An edit of the example, and the problem that it must give; `at` is text of the problem's line, "" for none."""

    name: str
    edit: Callable[[Files], None]
    rule: str
    path: str
    at: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR


def put(path: str, old: str, new: str) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        text = files[path].decode()
        assert old in text, f"{old!r} is not in {path}"
        files[path] = text.replace(old, new, 1).encode()

    return edit


def write(path: str, data: str | bytes) -> Callable[[Files], None]:
    return lambda files: files.update({path: data if isinstance(data, bytes) else data.encode()})


def remove(*paths: str) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        for path in paths:
            del files[path]

    return edit


def rename(old: str, new: str) -> Callable[[Files], None]:
    return lambda files: files.update({new: files.pop(old)})


def both(*edits: Callable[[Files], None]) -> Callable[[Files], None]:
    def edit(files: Files) -> None:
        for one in edits:
            one(files)

    return edit


def copy_line(path: str, source: str, key: str) -> Callable[[Files], None]:
    """Give `path` the line with `key` of `source`."""

    def edit(files: Files) -> None:
        line = next(line for line in files[source].decode().splitlines() if key in line)
        mine = next(line for line in files[path].decode().splitlines() if key in line)
        put(path, mine, line)(files)

    return edit


def drop_cluster(files: Files) -> None:
    files[FLEET] = comment_out(files[FLEET].decode(), "spec", "cluster").encode()


def copy_file(source: str, target: str) -> Callable[[Files], None]:
    return lambda files: files.update({target: files[source]})


def share_key(files: Files) -> None:
    """Give bob the key of alice, under another comment."""
    lines = files[POLICY].decode().splitlines()
    alice, bob = (next(line for line in lines if f"{name}@laptop" in line) for name in ("alice", "bob"))
    put(POLICY, bob, alice.replace("alice@laptop", "bob@token"))(files)


FLEET, POLICY, ROOT = "fleet.yaml", "trust/policy.yaml", "trust/sigstore/trusted_root.json"
STABLE, BETA = "channels/stable.yaml", "channels/beta.yaml"
WORKERS, PLANES, ALONE = "pools/workers.yaml", "pools/control-plane.yaml", "pools/standalone.yaml"
NODE, KUBEADM = "nodes/worker-1.yaml", "kubeadm/cluster.yaml"
R1, R4 = "releases/2026.11.1.yaml", "releases/2026.10.4.yaml"
V1BETA4, V1BETA3 = "kubeadm.k8s.io/v1beta4", "kubeadm.k8s.io/v1beta3"
LIST = '    - name: profiling\n      value: "false"\n'
ETCD_LIST = '      - name: quota-backend-bytes\n        value: "2147483648"\n'
ETCD_MAP = '      quota-backend-bytes: "2147483648"\n'
GIT_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n"
