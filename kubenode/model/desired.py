"""What one node should be, as the trusted commit says."""

from dataclasses import dataclass

from kubenode.model.documents import Release, Role, Window


@dataclass(frozen=True)
class DesiredState:
    """The desired state of one node.

    `releases` are those of the node's channel, newest first; the first is the target. A pinned pool has exactly one.
    `channel` names the builder list of the trust policy that applies.
    """

    fleet_id: str
    commit: str
    node: str
    pool: str
    role: Role
    channel: str
    releases: tuple[Release, ...]
    stores: tuple[str, ...]
    windows: tuple[Window, ...] = ()
    halted: bool = False

    @property
    def target(self) -> Release:
        """The release the node should end on."""
        return self.releases[0]
