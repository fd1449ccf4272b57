"""The trust policy as a whole, and the Sigstore root that goes with it."""

import json
from collections.abc import Iterator

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet.desired import builders_channel
from kubenode.fleet.layout import TRUSTED_ROOT_PATH
from kubenode.fleet.problems import Problem, did_you_mean, from_error, problem
from kubenode.fleet.reading import Reading
from kubenode.trust.globs import Glob
from kubenode.trust.keys import KeyRefused, PublicKey
from kubenode.trust.policy import POLICY_PATH, PolicyLocksOut
from kubenode.trust.policyfile import parse_policy


def check_policy(reading: Reading) -> Iterator[Problem]:
    """Find every unusable key, pattern and name; then let the code of the nodes have the last word."""
    if POLICY_PATH not in reading.documents:
        return
    found = [*_check_keys(reading), *_check_rules(reading)]
    if not found:
        try:
            parse_policy(reading.files[POLICY_PATH])
        except PolicyLocksOut as error:
            found = [from_error(error, "policy-locks-out", POLICY_PATH)]
        except FleetInvalid as error:
            found = [from_error(error, "bad-policy", POLICY_PATH)]
    yield from found
    yield from _check_builders(reading)


def _check_keys(reading: Reading) -> Iterator[Problem]:
    lists: list[tuple[str | int, ...]] = [
        ("spec", "people", person, "keys") for person in reading.value(POLICY_PATH, "spec", "people")
    ]
    if reading.value(POLICY_PATH, "spec", "freshness") is not None:
        lists.append(("spec", "freshness", "keys"))
    for at in lists:
        for index, line in enumerate(reading.value(POLICY_PATH, *at)):
            try:
                PublicKey.parse(line)
            except KeyRefused as error:
                message = f"this is not a usable SSH public key: {error}"
                where = reading.at(POLICY_PATH, *at, index)
                yield problem(where, "bad-key", message, "Paste the line of the .pub file.")


def _check_rules(reading: Reading) -> Iterator[Problem]:
    people = reading.value(POLICY_PATH, "spec", "people")
    for index, rule in enumerate(reading.value(POLICY_PATH, "spec", "rules")):
        at = ("spec", "rules", index)
        for number, pattern in enumerate(rule["paths"]):
            try:
                Glob.parse(pattern)
            except ValueError as error:
                where = reading.at(POLICY_PATH, *at, "paths", number)
                yield problem(where, "bad-pattern", f"{pattern[:80]!r} cannot be used: {error}")
        for number, person in enumerate(rule["people"]):
            if person not in people:
                hint = did_you_mean(person, people) or f"People: {', '.join(people)}."
                where = reading.at(POLICY_PATH, *at, "people", number)
                yield problem(where, "unknown-person", f"{person!r} is not one of spec.people", hint)


def _check_builders(reading: Reading) -> Iterator[Problem]:
    builders = reading.value(POLICY_PATH, "spec", "builders") or {}
    users: dict[str, list[str]] = {}
    for name, pool in reading.pools_in_use().items():
        channel = builders_channel(pool)
        if channel == pool.channel and channel not in reading.channels:
            continue
        users.setdefault(channel, []).append(name)
    for channel, pools in users.items():
        if channel not in builders:
            message = f"no builders are named for channel {channel!r}, which pool {min(pools)!r} follows"
            hint = did_you_mean(channel, builders) or f"Add spec.builders.{channel}."
            where = reading.at(POLICY_PATH, "spec", "builders")
            yield problem(where, "no-builders", message, f"Nodes would refuse every image. {hint}")


def check_trusted_root(reading: Reading) -> Iterator[Problem]:
    """Find a trusted root that is missing or is not one."""
    where = Location(TRUSTED_ROOT_PATH)
    if TRUSTED_ROOT_PATH not in reading.files:
        hint = "Make one with `kubenode trust local-sigstore`, or copy the one of the Sigstore instance in use."
        yield problem(where, "missing-file", f"the file {TRUSTED_ROOT_PATH} is missing", hint)
        return
    try:
        root = json.loads(reading.files[TRUSTED_ROOT_PATH])
    except json.JSONDecodeError as error:
        where = Location(TRUSTED_ROOT_PATH, error.lineno, error.colno)
        yield problem(where, "bad-trusted-root", f"not valid JSON: {error.msg}")
        return
    except (ValueError, RecursionError) as error:
        yield problem(where, "bad-trusted-root", f"not valid JSON: {str(error).splitlines()[0]}")
        return
    parts = ("certificateAuthorities", "tlogs")
    missing = [part for part in parts if not isinstance(root, dict) or not isinstance(root.get(part), list)]
    if missing:
        message = f"this is not a Sigstore trusted root: {' and '.join(missing)} missing"
        hint = "It is called trusted_root.json by sigstore, cosign and `kubenode trust local-sigstore`."
        yield problem(where, "bad-trusted-root", message, hint)
