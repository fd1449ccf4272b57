"""The trust policy (`trust/policy.yaml`): who may change which paths, and who may have built a channel's images."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

from kubenode.errors import FleetInvalid
from kubenode.trust.globs import Glob
from kubenode.trust.keys import PublicKey

POLICY_PATH = "trust/policy.yaml"
TRUST_PREFIX = "trust/"


class PolicyLocksOut(FleetInvalid):
    """Nobody could change the policy again: no rule matches it, or its threshold cannot be reached."""


@dataclass(frozen=True)
class Rule:
    """Who decides about the paths that its globs match: `threshold` different people out of `people`."""

    number: int
    globs: tuple[Glob, ...]
    people: frozenset[str]
    threshold: int

    def matches(self, path: str) -> bool:
        """Say whether this rule speaks about a path."""
        return any(glob.matches(path) for glob in self.globs)

    def met_by(self, signers: Set[str]) -> bool:
        """Say whether enough of the people who signed are people of this rule (people count, not keys)."""
        return len(self.people & signers) >= self.threshold

    def __str__(self) -> str:
        return f"rule {self.number} ({', '.join(str(glob) for glob in self.globs)})"


@dataclass(frozen=True)
class Builder:
    """Who may have built images: the OIDC issuer and the identity in the signing certificate."""

    issuer: str
    identity: str


@dataclass(frozen=True)
class Freshness:
    """How old `head.json` may be (`max_age`, seconds) and which keys may sign it."""

    max_age: int
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True)
class TrustPolicy:
    """A valid policy; `parse_policy` reads one from bytes."""

    name: str
    people: Mapping[str, tuple[PublicKey, ...]]
    rules: tuple[Rule, ...]
    builders: Mapping[str, tuple[Builder, ...]]
    freshness: Freshness | None
    _owners: Mapping[bytes, str]

    @classmethod
    def build(
        cls,
        name: str,
        people: Mapping[str, tuple[PublicKey, ...]],
        rules: tuple[Rule, ...],
        builders: Mapping[str, tuple[Builder, ...]],
        freshness: Freshness | None,
    ) -> "TrustPolicy":
        """Put checked parts together.

        Raises PolicyLocksOut when nobody could change the policy again, FleetInvalid when another rule cannot be met.
        """
        owners = {key.blob: person for person, keys in people.items() for key in keys}
        frozen = MappingProxyType
        policy = cls(name, frozen(dict(people)), rules, frozen(dict(builders)), freshness, frozen(owners))
        root = policy.rule_for(POLICY_PATH)
        if root is None:
            raise PolicyLocksOut(
                f"no rule matches {POLICY_PATH}, so nobody could ever change the policy again",
                hint='Add a rule with the path "trust/**".',
            )
        if len(root.people) < root.threshold:
            raise PolicyLocksOut(
                f"{root} decides about {POLICY_PATH} and asks for {root.threshold} people but names "
                f"{len(root.people)}, so nobody could ever change the policy again",
                hint="Lower the threshold or name more people.",
            )
        for rule in rules:
            if len(rule.people) < rule.threshold:
                raise FleetInvalid(
                    f"{rule} asks for {rule.threshold} people but names {len(rule.people)}, so it can never be met",
                    hint="Lower the threshold or name more people.",
                )
        return policy

    def rule_for(self, path: str) -> Rule | None:
        """Return the first rule that matches a path; None means that nobody may change it."""
        return next((rule for rule in self.rules if rule.matches(path)), None)

    @property
    def root_rule(self) -> Rule:
        """The rule that decides about the policy itself."""
        rule = self.rule_for(POLICY_PATH)
        assert rule is not None, "build() refuses such a policy"
        return rule

    def owner(self, key: PublicKey) -> str | None:
        """Return whose key this is, or None for a stranger's."""
        return self._owners.get(key.blob)

    def builders_of(self, channel: str) -> tuple[Builder, ...]:
        """Return who may have built the images of a channel; nobody when the policy does not name the channel."""
        return self.builders.get(channel, ())
