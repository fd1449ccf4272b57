"""Nodes and pools: identities, maintenance windows, waves, rendered files."""

from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.problems import Problem, did_you_mean, problem
from kubenode.fleet.reading import Reading
from kubenode.model.documents import Pool
from kubenode.trust.keys import KeyRefused, PublicKey

LONGEST_WINDOW = timedelta(days=7)
OWNED = (
    "/etc/kubernetes",
    "/etc/kubenode",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/sysctl.d/90-kubenode.conf",
)
"""What a pool's files may not replace: kubeadm's, the image's, and what kubenode renders by itself."""

_Mark = tuple[str, tuple[str, ...], str]


def check_identities(reading: Reading) -> Iterator[Problem]:
    """Find unusable keys, and two nodes that would be taken for one another."""
    owners: dict[tuple[str, str], str] = {}
    for name, node in reading.nodes.items():
        path = path_of(Kind.NODE, name)
        marks: list[_Mark] = [("address", ("spec", "address"), (node.address or "").lower())]
        marks.append(("age recipient", ("spec", "identity", "ageRecipient"), node.age_recipient or ""))
        if node.ssh_key is not None:
            key_at = ("spec", "identity", "sshKey")
            try:
                marks.append(("SSH key", key_at, PublicKey.parse(node.ssh_key).fingerprint))
            except KeyRefused as error:
                hint = "Paste the line of the .pub file."
                yield problem(
                    reading.at(path, *key_at), "bad-key", f"this is not a usable SSH public key: {error}", hint
                )
        for what, at, value in marks:
            other = owners.setdefault((what, value), name) if value else name
            if other != name:
                message = f"the {what} is the one of node {other!r}"
                hint = "Every node has its own: make new keys for one of them."
                yield problem(reading.at(path, *at), "shared-identity", message, hint)


def check_windows(reading: Reading) -> Iterator[Problem]:
    """Find maintenance windows that never open or name an unknown time zone, and waves that shrink."""
    for name, pool in reading.pools.items():
        path = path_of(Kind.POOL, name)
        for index, window in enumerate(pool.rollout.windows):
            at = ("spec", "rollout", "windows", index)
            if not timedelta(0) < window.duration <= LONGEST_WINDOW:
                message = "a maintenance window lasts more than 0s and at most 7d"
                yield problem(reading.at(path, *at, "duration"), "bad-window", message)
            hint = _unknown_zone(window.timezone)
            if hint is not None:
                message = f"there is no time zone {window.timezone!r}"
                yield problem(reading.at(path, *at, "timezone"), "unknown-time-zone", message, hint)
        yield from _check_waves(reading, path, pool)


@cache
def _unknown_zone(name: str) -> str | None:
    """Return a hint when a time zone does not exist, None when it does or when there is no database to ask."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        known = available_timezones()
        if known and name != "UTC":
            return did_you_mean(name, known) or "Use a name such as UTC or Europe/Berlin."
    return None


def _check_waves(reading: Reading, path: str, pool: Pool) -> Iterator[Problem]:
    waves = pool.rollout.waves
    for index, (earlier, later) in enumerate(pairwise(waves)):
        comparable = earlier.endswith("%") == later.endswith("%")
        if comparable and int(later.rstrip("%")) <= int(earlier.rstrip("%")):
            message = f"the wave {later} is not larger than the one before it ({earlier})"
            hint = "Waves grow, and each counts the nodes of those before it: [1, 25%, 100%]."
            yield problem(reading.at(path, "spec", "rollout", "waves", index + 1), "wave-order", message, hint)
            return


def check_files(reading: Reading) -> Iterator[Problem]:
    """Find rendered files without a source, of others, or given twice."""
    for name, pool in reading.pools.items():
        path = path_of(Kind.POOL, name)
        seen: set[str] = set()
        for index, file in enumerate(pool.files):
            at = ("spec", "files", index)
            if file.source not in reading.files:
                hint = did_you_mean(file.source, reading.files) or f"Add {file.source} to the repo."
                where = reading.at(path, *at, "contents", "source")
                yield problem(where, "unknown-source", f"the repo has no file {file.source!r}", hint)
            if any(file.path == owned or file.path.startswith(f"{owned}/") for owned in OWNED):
                message = f"{file.path} is not a pool's to set"
                hint = "Kubernetes settings belong into kubeadm/, sysctls into spec.sysctls, the rest into the image."
                yield problem(reading.at(path, *at, "path"), "owned-path", message, hint)
            if file.path in seen:
                message = f"{file.path} is rendered twice"
                yield problem(reading.at(path, *at, "path"), "duplicate-item", message, "Remove one of them.")
            seen.add(file.path)
