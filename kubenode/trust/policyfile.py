"""Reads `trust/policy.yaml` into a `TrustPolicy`; every refusal names file, line and column."""

import re
from typing import Any, NoReturn

from kubenode.errors import FleetInvalid
from kubenode.trust.globs import Glob
from kubenode.trust.keys import KeyRefused, PublicKey
from kubenode.trust.policy import POLICY_PATH, Builder, Freshness, Rule, TrustPolicy
from kubenode.trust.strictyaml import Document, load

API_VERSION = "kubenode.dev/v1alpha1"

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_At = tuple[str | int, ...]


def parse_policy(data: bytes, path: str = POLICY_PATH) -> TrustPolicy:
    """Read a trust policy; `path` is only for messages.

    Raises FleetInvalid with the place of the first mistake, and its subclass PolicyLocksOut for a policy that nobody
    could change again. Unknown fields are mistakes: a rule that this version does not know must not be ignored.
    """
    document = load(data, path)
    reader = _PolicyReader(document)
    try:
        return reader.policy()
    except FleetInvalid as error:
        if error.location is None:
            error.location = document.locate("spec", "rules")
        raise


class _PolicyReader:
    def __init__(self, document: Document) -> None:
        self._document = document

    def policy(self) -> TrustPolicy:
        top = self._mapping((), self._document.value, required=("apiVersion", "kind", "metadata", "spec"))
        for key, expected in (("apiVersion", API_VERSION), ("kind", "TrustPolicy")):
            if top[key] != expected:
                self._refuse((key,), f"{key} is not `{expected}`")
        metadata = self._mapping(("metadata",), top["metadata"], required=("name",))
        spec = self._mapping(("spec",), top["spec"], required=("people", "rules"), optional=("builders", "freshness"))
        people = self._people(spec["people"])
        return TrustPolicy.build(
            self._name(("metadata", "name"), metadata["name"]),
            people,
            self._rules(spec["rules"], people),
            self._builders(spec.get("builders", {})),
            self._freshness(spec["freshness"]) if "freshness" in spec else None,
        )

    def _people(self, value: Any) -> dict[str, tuple[PublicKey, ...]]:
        at: _At = ("spec", "people")
        people: dict[str, tuple[PublicKey, ...]] = {}
        owners: dict[bytes, str] = {}
        for person, entry in self._filled_mapping(at, value, "person").items():
            if not _NAME.fullmatch(person):
                self._refuse_key((*at, person), f"`{person[:80]}` is not a name of lower-case letters, digits and .-_")
            keys = self._mapping((*at, person), entry, required=("keys",), optional=("ageRecipients",))["keys"]
            people[person] = self._keys((*at, person, "keys"), keys)
            for index, key in enumerate(people[person]):
                other = owners.setdefault(key.blob, person)
                if other != person:
                    self._refuse(
                        (*at, person, "keys", index),
                        f"the key {key.fingerprint} belongs to {other} and to {person}",
                        "Give each person keys of their own: the threshold counts people.",
                    )
        return people

    def _keys(self, at: _At, value: Any) -> tuple[PublicKey, ...]:
        keys: list[PublicKey] = []
        for index, line in enumerate(self._filled_list(at, value, "key")):
            where = (*at, index)
            try:
                key = PublicKey.parse(self._string(where, line))
            except KeyRefused as error:
                self._refuse(where, f"this is not a usable SSH public key: {error}", "Paste the line of the .pub file.")
            if key in keys:
                self._refuse(where, f"the key {key.fingerprint} is listed twice", "Remove one of the two.")
            keys.append(key)
        return tuple(keys)

    def _rules(self, value: Any, people: dict[str, tuple[PublicKey, ...]]) -> tuple[Rule, ...]:
        at: _At = ("spec", "rules")
        rules: list[Rule] = []
        for index, entry in enumerate(self._filled_list(at, value, "rule")):
            where = (*at, index)
            fields = self._mapping(where, entry, required=("paths", "people", "threshold"))
            globs: list[Glob] = []
            for number, pattern in enumerate(self._filled_list((*where, "paths"), fields["paths"], "path")):
                place = (*where, "paths", number)
                try:
                    globs.append(Glob.parse(self._string(place, pattern)))
                except ValueError as error:
                    self._refuse(place, str(error))
            named: list[str] = []
            for number, person in enumerate(self._filled_list((*where, "people"), fields["people"], "person")):
                place = (*where, "people", number)
                if self._string(place, person) not in people:
                    self._refuse(place, f"`{person[:80]}` is not one of spec.people", f"Known: {', '.join(people)}.")
                if person in named:
                    self._refuse(place, f"{person} is named twice", "The threshold counts people: name each once.")
                named.append(person)
            threshold = fields["threshold"]
            if not isinstance(threshold, int) or isinstance(threshold, bool) or threshold < 1:
                self._refuse((*where, "threshold"), "the threshold is not a whole number of at least 1")
            rules.append(Rule(index + 1, tuple(globs), frozenset(named), threshold))
        return tuple(rules)

    def _builders(self, value: Any) -> dict[str, tuple[Builder, ...]]:
        at: _At = ("spec", "builders")
        builders: dict[str, tuple[Builder, ...]] = {}
        for channel, entries in self._any_mapping(at, value).items():
            if not _NAME.fullmatch(channel):
                self._refuse_key((*at, channel), f"`{channel[:80]}` is not a channel name")
            found: list[Builder] = []
            for index, entry in enumerate(self._filled_list((*at, channel), entries, "builder")):
                where = (*at, channel, index)
                fields = self._mapping(where, entry, required=("issuer", "identity"))
                issuer, identity = (self._string((*where, name), fields[name]) for name in ("issuer", "identity"))
                if not issuer.startswith("https://"):
                    self._refuse((*where, "issuer"), "an issuer is an https:// address")
                found.append(Builder(issuer, identity))
            builders[channel] = tuple(found)
        return builders

    def _freshness(self, value: Any) -> Freshness:
        at: _At = ("spec", "freshness")
        fields = self._mapping(at, value, required=("maxAge", "keys"))
        match = _DURATION.fullmatch(self._string((*at, "maxAge"), fields["maxAge"]))
        if match is None:
            self._refuse((*at, "maxAge"), "this is not a duration such as 7d, 12h, 30m or 45s")
        return Freshness(int(match[1]) * _SECONDS[match[2]], self._keys((*at, "keys"), fields["keys"]))

    def _name(self, at: _At, value: Any) -> str:
        name = self._string(at, value)
        if not _NAME.fullmatch(name):
            self._refuse(at, "this is not a name of lower-case letters, digits and .-_")
        return name

    def _string(self, at: _At, value: Any) -> str:
        if not isinstance(value, str) or not value:
            self._refuse(at, "expected text here", "Put numbers and dates in quotes to make them text.")
        return value

    def _filled_list(self, at: _At, value: Any, what: str) -> list[Any]:
        if not isinstance(value, list):
            self._refuse(at, "expected a list here")
        if not value:
            self._refuse(at, f"the list is empty; it needs at least one {what}")
        return value

    def _any_mapping(self, at: _At, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._refuse(at, "expected a mapping (`key: value`) here")
        return value

    def _filled_mapping(self, at: _At, value: Any, what: str) -> dict[str, Any]:
        mapping = self._any_mapping(at, value)
        if not mapping:
            self._refuse(at, f"the mapping is empty; it needs at least one {what}")
        return mapping

    def _mapping(
        self, at: _At, value: Any, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        mapping = self._any_mapping(at, value)
        for key in mapping:
            if key not in required + optional:
                known = ", ".join(required + optional)
                self._refuse_key((*at, key), f"unknown field `{key[:80]}`", f"Known here: {known}.")
        for key in required:
            if key not in mapping:
                self._refuse(at, f"the field `{key}` is missing")
        return mapping

    def _refuse(self, at: _At, message: str, hint: str = "") -> NoReturn:
        raise FleetInvalid(message, location=self._document.locate(*at), hint=hint)

    def _refuse_key(self, at: _At, message: str, hint: str = "") -> NoReturn:
        raise FleetInvalid(message, location=self._document.locate_key(*at), hint=hint)
