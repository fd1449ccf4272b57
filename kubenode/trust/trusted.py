"""The values that stand for finished checks: whoever holds one holds proof that `chain` or `tree` accepted it."""

from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass

from kubenode.trust.policy import TrustPolicy


class _Proof:
    """What only kubenode.trust hands out, so that nothing else can make trusted values."""


PROOF = _Proof()
"""For `chain` and `tree` alone."""


def _demand(proof: _Proof, what: str) -> None:
    if proof is not PROOF:
        raise TypeError(f"only kubenode.trust makes a {what}, from checked evidence")


@dataclass(frozen=True)
class TrustedCommit:
    """A commit that the policies since the anchor allow; `chain.authenticate` makes it and nothing else can.

    `tree` is the id of its tree, `policy` the one that decides about the next commit (`policy_blob`: the id of its
    file), `signer` the person who signed it (None for the anchor, and where approvals stand in for a signature),
    `approvers` who approved it, `verified` how many commits after the anchor were checked.
    """

    oid: str
    tree: str
    policy: TrustPolicy
    policy_blob: str
    signer: str | None
    approvers: frozenset[str]
    verified: int
    proof: InitVar[_Proof]

    def __post_init__(self, proof: _Proof) -> None:
        _demand(proof, "TrustedCommit")


@dataclass(frozen=True)
class TrustedTree:
    """The files of a trusted commit, path -> content; `tree.trusted_tree` makes it and nothing else can."""

    commit: TrustedCommit
    files: Mapping[str, bytes]
    proof: InitVar[_Proof]

    def __post_init__(self, proof: _Proof) -> None:
        _demand(proof, "TrustedTree")

    @property
    def oid(self) -> str:
        """The id of the commit."""
        return self.commit.oid

    @property
    def policy(self) -> TrustPolicy:
        """The trust policy in this tree."""
        return self.commit.policy

    def __getitem__(self, path: str) -> bytes:
        return self.files[path]

    def __contains__(self, path: object) -> bool:
        return path in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
