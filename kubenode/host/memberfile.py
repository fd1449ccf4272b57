"""What this machine did with kubeadm and does not show otherwise: a small file that is true after every crash.

A lost file costs work, never safety: images are pulled and documents rendered again.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from kubenode.host.files import make_folder, write_atomically
from kubenode.host.paths import Paths
from kubenode.model.kubernetes import Entry


@dataclass(frozen=True)
class MemberRecord:
    """`configuration`: digest of the fleet's kubeadm documents last rendered here. `pulled`: a version's images.

    `entering`: an init or join that has begun and not ended. `restarting`: certificates were renewed, and static pods
    may still run with the old ones.
    """

    configuration: str | None = None
    pulled: str | None = None
    entering: Entry | None = None
    restarting: bool = False


def read(paths: Paths) -> MemberRecord:
    """Return what is known; a file that is missing or damaged says nothing."""
    try:
        said: Any = json.loads(paths.member.read_bytes())
        entering = said.get("entering")
        return MemberRecord(
            configuration=_text(said.get("configuration")),
            pulled=_text(said.get("pulled")),
            entering=Entry(entering) if entering is not None else None,
            restarting=said.get("restarting") is True,
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return MemberRecord()


def change(paths: Paths, **fields: Any) -> None:
    """Replace fields of `MemberRecord`, durably. Raises NoSpace, HostError."""
    made = replace(read(paths), **fields)
    make_folder(paths.member.parent)
    write_atomically(paths.member, json.dumps(asdict(made)).encode())


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
