"""etcd as its own HTTP gateway shows it (`/v3/...`, JSON), by the client certificates of a control plane.

Source: etcd, "gRPC-gateway" and "Monitoring" (`/health`); member ids are 64 bit and travel as decimal text. A snapshot
file ends with the sha256 of what stands before it.
"""

import hashlib
import json
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kubenode.errors import HostError, KubenodeError, TryLater
from kubenode.host.files import replacing
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Malformed
from kubenode.host.kube.kubeconfig import Access
from kubenode.host.kube.reading import Object, find, flag, items, text
from kubenode.model.kubernetes import EtcdMember, EtcdView
from kubenode.model.version import Version

_HEALTH_SECONDS = 10
_SNAPSHOT_SECONDS = 600
_SUM = hashlib.sha256().digest_size
# Decoded blobs are 32 kB; a line is one of them in base64.
_MAX_LINE = 1 << 20


class Etcd:
    """The etcd cluster, seen through the first of these members that can be reached; there is at least one."""

    def __init__(self, members: Sequence[Access]) -> None:
        self._access = members[0]
        self._others = members[1:]

    def view(self) -> EtcdView:
        """Return all members, whether each of them answers as healthy, and the alarms.

        Raises TryLater when this member does not answer, HostError when it refuses.
        """
        members = sorted(self._members(), key=lambda member: member.name)
        with Api(self._access) as api:
            alarms = items(api.send("POST", "/v3/maintenance/alarm", {"action": "GET"}), "alarms")
        names = {member.id: member.name for member in members}
        raised = {f"{text(it, 'alarm')} on {_named(names, text(it, 'memberID'))}" for it in alarms}
        return EtcdView(tuple(members), tuple(sorted(raised)))

    def remove(self, member: str) -> None:
        """Remove the member with this id; one that is gone is no error.

        Refuses (HostError) unless a majority of the members, and of those that would be left, is healthy: the removal
        itself needs the first, everything after it the second.
        """
        members = self._members()
        gone = [it for it in members if it.id == member]
        if not gone:
            return
        name = gone[0].name or f"member {member}"
        voters = [it for it in members if not it.learner]
        left = [it for it in voters if it not in gone]
        if not left:
            raise HostError(
                f"the etcd member {name} is not removed: it is the only one",
                hint="A cluster keeps its last member: to give the cluster up, wipe its machines.",
            )
        for group in (voters, left):
            healthy = sum(it.healthy for it in group)
            if healthy < len(group) // 2 + 1:
                raise HostError(
                    f"the etcd member {name} is not removed: {healthy} of {len(group)} members would be healthy",
                    hint="bring another control plane back first, or restore etcd from a snapshot",
                )
        with Api(self._access) as api:
            api.send("POST", "/v3/cluster/member/remove", {"ID": member})

    def snapshot(self, target: Path) -> int:
        """Write a snapshot of the whole store; return its size in bytes. Raises NoSpace, TryLater, HostError.

        The file appears when it is complete and its own checksum is right, and is flushed to the disk.
        """
        total, tail, digest = 0, b"", hashlib.sha256()
        with Api(self._access, seconds=_SNAPSHOT_SECONDS) as api, replacing(target, 0o600) as file:

            def use(line: Object) -> None:
                nonlocal total, tail
                blob = _blob(line)
                file.write(blob)
                total += len(blob)
                tail += blob
                digest.update(tail[:-_SUM])
                tail = tail[-_SUM:]

            api.each_line("/v3/maintenance/snapshot", {}, _MAX_LINE, use)
            if total <= _SUM or tail != digest.digest():
                raise Malformed(f"the snapshot of {self._access.server} is not whole: its checksum differs")
        return total

    def _members(self) -> list[EtcdMember]:
        """Return the members, and stay with the first server that tells."""
        while True:
            try:
                with Api(self._access) as api:
                    found = items(api.send("POST", "/v3/cluster/member/list", {}), "members")
                return [self._member(it) for it in found]
            except TryLater:
                if not self._others:
                    raise
                self._access, self._others = self._others[0], self._others[1:]

    def _member(self, it: object) -> EtcdMember:
        """Return a member; one that was added and never started has no name and no addresses."""
        healthy, version = False, None
        for url in items(it, "clientURLs"):
            healthy, version = self._ask(str(url))
            if healthy:
                break
        peers = tuple(str(url) for url in items(it, "peerURLs"))
        return EtcdMember(text(it, "name", default=""), text(it, "ID"), healthy, flag(it, "isLearner"), version, peers)

    def _ask(self, url: str) -> tuple[bool, Version | None]:
        """Ask a member itself whether it is healthy and what it runs."""
        if not url.startswith("https://"):
            return False, None
        try:
            access = replace(self._access, server=url.rstrip("/"))
            with Api(access, connect_seconds=_HEALTH_SECONDS, seconds=_HEALTH_SECONDS) as api:
                # Text in every version that kubeadm runs; a bool would be as good.
                healthy = find(api.get("/health"), "health") in ("true", True)
                return healthy, Version(text(api.get("/version"), "etcdserver"))
        except (KubenodeError, ValueError):
            return False, None


def _named(names: dict[str, str], member: str) -> str:
    return names.get(member) or f"member {member[:20]}"


def _blob(line: Object) -> bytes:
    if (error := find(line, "error")) is not None:
        raise Malformed(f"etcd broke the snapshot off: {json.dumps(error)[:200]}")
    try:
        return b64decode(text(line, "result", "blob", default=""), validate=True)
    except ValueError as error:
        raise Malformed("etcd sent a part of a snapshot that is not base64") from error
