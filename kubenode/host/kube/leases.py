"""Slots: Leases in kubenode-system that are taken by compare-and-swap and never stolen because time went by.

A lease is free when `spec.holderIdentity` is absent (newer API servers refuse an empty one). Whoever replaces it with
the resourceVersion that it read wins; everybody else gets a conflict. `leaseDurationSeconds` is never set: nothing
expires. Source: Kubernetes API concepts, "Resource versions"; coordination.k8s.io/v1.
"""

from datetime import datetime

from kubenode.errors import HostError, TryLater
from kubenode.host.kube.client import Api, path_of
from kubenode.host.kube.errors import Conflict, NotFound
from kubenode.host.kube.names import BROKEN_ANNOTATION, LEASES, NAMESPACE, NODES, WHY_ANNOTATION
from kubenode.host.kube.reading import Object, moment, name_of, shown, stamp, text, texts
from kubenode.model.kubernetes import Lease

_WHY_SIZE = 500


class Leases:
    """The slots of a cluster, as one identity."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def all(self) -> tuple[Lease, ...]:
        """Return every slot, by name."""
        try:
            found = [lease_of(it) for it in self._api.list(LEASES)]
        except NotFound:
            return ()
        return tuple(sorted(found, key=lambda lease: lease.name))

    def ensure(self, names: frozenset[str]) -> int:
        """Create the slots that are missing; return how many. Others are left: somebody may hold one."""
        there = {lease.name for lease in self.all()}
        made = 0
        for name in sorted(names - there):
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}}
            try:
                self._api.create(LEASES, body)
            except Conflict:
                continue
            made += 1
        return made

    def acquire(self, name: str, holder: str, why: str, previous: str | None, now: datetime) -> None:
        """Take a slot that is free, or from `previous`; nothing happens when `holder` has it already.

        A slot is taken over only from a node whose Node object is gone: nobody is left to give it back. Raises TryLater
        when another one has it, was faster, or is still a node of the cluster; HostError when there is no such slot.
        """
        lease = self._get(name)
        holding = _holder(lease)
        if holding == holder:
            return
        if holding != previous:
            raise TryLater(
                f"the lease {name} is {f'held by {holding}' if holding else 'free'} by now",
                hint="See who has it now: `kubenode lease list`.",
            )
        if holding is not None and self._is_there(holding):
            raise TryLater(
                f"the lease {name} is held by {holding}, which is still a node of the cluster",
                hint=f"it never expires; a person who knows what {holding} does can run `kubenode lease break {name}`",
            )
        lease["spec"] = {"holderIdentity": holder, "acquireTime": stamp(now)}
        lease["metadata"]["annotations"] = {**texts(lease, "metadata", "annotations"), WHY_ANNOTATION: why[:_WHY_SIZE]}
        if not self._swap(lease):
            raise TryLater(
                f"another one was faster to take the lease {name}",
                hint="Nothing to do: the next tick asks again. `kubenode lease list` shows who has it.",
            )

    def release(self, name: str, holder: str) -> None:
        """Give a slot back; nothing happens when `holder` does not have it."""
        lease = self._get(name)
        if _holder(lease) == holder and not self._swap(_freed(lease)):
            raise TryLater(
                f"the lease {name} was changed while it was given back; the next look tells by whom",
                hint="Nothing to do: the next tick looks again.",
            )

    def break_(self, name: str, holder: str, note: str, now: datetime) -> None:
        """Free a slot that `holder` has, for a person who knows that its holder does nothing any more.

        `note` (who and why) stays at the lease, in the annotation kubenode.dev/broken, until the next one. Raises
        HostError when somebody else has the slot by now.
        """
        lease = self._get(name)
        freed = _freed(lease)
        freed["metadata"]["annotations"][BROKEN_ANNOTATION] = f"{stamp(now)} from {holder} by {note}"[:_WHY_SIZE]
        if _holder(lease) != holder or not self._swap(freed):
            raise HostError(
                f"the lease {name} is not held by {holder} any more; nothing was changed",
                hint="Look again before you break it: `kubenode lease list`.",
            )

    def _get(self, name: str) -> Object:
        try:
            return self._api.get(path_of(LEASES, name))
        except NotFound as error:
            raise HostError(
                f"there is no lease {name} in {NAMESPACE}",
                hint="control planes make the leases of every pool; is one of them up and its agent running?",
            ) from error

    def _swap(self, lease: Object) -> bool:
        text(lease, "metadata", "resourceVersion")
        try:
            self._api.replace(path_of(LEASES, name_of(lease)), lease)
        except Conflict:
            return False
        return True

    def _is_there(self, node: str) -> bool:
        try:
            self._api.get(path_of(NODES, node))
        except NotFound:
            return False
        return True


def lease_of(it: Object) -> Lease:
    """Return a Lease object as a slot."""
    why = texts(it, "metadata", "annotations").get(WHY_ANNOTATION, "")
    return Lease(name_of(it), _holder(it), moment(it, "spec", "acquireTime"), shown(why))


def _holder(lease: Object) -> str | None:
    return text(lease, "spec", "holderIdentity", default="") or None


def _freed(lease: Object) -> Object:
    annotations = {key: it for key, it in texts(lease, "metadata", "annotations").items() if key != WHY_ANNOTATION}
    return {**lease, "spec": {}, "metadata": {**lease["metadata"], "annotations": annotations}}
