"""What the commands about releases share: the policy of a fleet repo's files and the digest of a file."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from kubenode.errors import UsageError

if TYPE_CHECKING:
    from kubenode.trust.policy import TrustPolicy


def policy_in(files: dict[str, bytes]) -> "TrustPolicy":
    """Read the trust policy among the files of a fleet repo. Raises UsageError when there is none."""
    from kubenode.trust.policy import POLICY_PATH
    from kubenode.trust.policyfile import parse_policy

    if POLICY_PATH not in files:
        raise UsageError(f"the fleet repo has no {POLICY_PATH}", hint="Is -C the folder of a fleet repo?")
    return parse_policy(files[POLICY_PATH])


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
