"""The trust policy: globs, first match, lock-out, and mistakes with their places."""

import pytest

from kubenode.errors import FleetInvalid
from kubenode.trust.globs import Glob
from kubenode.trust.keys import PublicKey
from kubenode.trust.policy import Builder, PolicyLocksOut
from kubenode.trust.policyfile import parse_policy
from tests.gitrepo import policy_yaml, throw_away_key

ALICE, BOB, CI = throw_away_key(), throw_away_key(), throw_away_key()


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**", "a", True),
        ("**", "a/b", True),
        ("trust/**", "trust/a", True),
        ("trust/**", "trust/a/b", True),
        ("trust/**", "trust", False),
        ("trust/**", "trusty/a", False),
        ("trust/**", "Trust/a", False),
        ("trust/**", "a/trust/b", False),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "a/xx", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/c/d/b", True),
        ("a/**/b", "a/b/b", True),
        ("a/**/b", "ab", False),
        ("a/**/b/**", "a/b", False),
        ("a/**/b/**", "a/x/b/c", True),
        ("*.yaml", "x.yaml", True),
        ("*.yaml", "d/x.yaml", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a/*-*.y", "a/x-1-2.y", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a.c", "abc", False),
        ("fleet.yaml", "sub/fleet.yaml", False),
    ],
)
def test_globs(pattern: str, path: str, expected: bool) -> None:
    assert Glob.parse(pattern).matches(path) is expected


@pytest.mark.parametrize(
    "pattern", ["", "/a", "a/", "!a", "a[b]", "a{b}", "a\\*", "a**", "a/**b", "a//b", "./a", "a/..", "**/**", "x" * 300]
)
def test_globs_that_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Glob.parse(pattern)


def test_matching_is_quick_for_nasty_patterns() -> None:
    assert not Glob.parse("**/a/" * 40 + "b").matches("a/" * 200 + "c")
    assert not Glob.parse("*a" * 100 + "b").matches("a" * 250)


def example(rules: str = "", spec: str = "") -> bytes:
    rules = rules or "    - {paths: ['**'], people: [alice], threshold: 1}\n"
    return (
        "apiVersion: kubenode.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: homelab}\nspec:\n  people:\n"
        f'    alice: {{keys: ["{ALICE} alice@laptop"]}}\n    bob: {{keys: ["{BOB}"]}}\n  rules:\n{rules}{spec}'
    ).encode()


def test_a_full_policy() -> None:
    policy = parse_policy(
        example(
            "    - {paths: ['trust/**'], people: [alice, bob], threshold: 2}\n"
            "    - {paths: ['nodes/**', 'pools/*'], people: [bob], threshold: 1}\n",
            '  builders:\n    stable: [{issuer: "https://issuer.example.net", identity: ci@example.net}]\n'
            f'  freshness: {{maxAge: 7d, keys: ["{CI}"]}}\n',
        )
    )
    assert policy.name == "homelab"
    assert policy.owner(PublicKey.parse(BOB)) == "bob"
    assert policy.owner(PublicKey.parse(CI)) is None
    assert policy.root_rule.number == 1
    assert policy.rule_for("pools/a") is policy.rules[1]
    assert policy.rule_for("pools/a/b") is None
    assert policy.builders_of("stable") == (Builder("https://issuer.example.net", "ci@example.net"),)
    assert policy.builders_of("beta") == ()
    assert policy.freshness is not None
    assert policy.freshness.max_age == 7 * 86400
    assert not policy.root_rule.met_by({"alice"})
    assert policy.root_rule.met_by({"alice", "bob", "ci"})


def test_the_first_matching_rule_decides() -> None:
    policy = parse_policy(
        policy_yaml({"alice": [ALICE], "bob": [BOB]}, [(["a/**"], ["bob"], 1), (["**"], ["alice"], 1)]).encode()
    )
    assert policy.rule_for("a/b") is policy.rules[0]
    assert policy.rule_for("b") is policy.rules[1]


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"", "", "expected a mapping"),
        (b"[]", "1", "expected a mapping"),
        (example().replace(b"TrustPolicy", b"Policy"), "2", "kind is not"),
        (example().replace(b"v1alpha1", b"v1"), "1", "apiVersion is not"),
        (example(spec="  extra: 1\n"), "10", "unknown field `extra`"),
        (example().replace(b"threshold: 1", b"threshold: 1, unless: x"), "9", "unknown field `unless`"),
        (example().replace(b"threshold: 1", b"threshold: 0"), "9", "at least 1"),
        (example().replace(b"threshold: 1", b"threshold: true"), "9", "at least 1"),
        (example().replace(b", threshold: 1", b""), "9", "`threshold` is missing"),
        (example().replace(b"people: [alice]", b"people: [mallory]"), "9", "not one of spec.people"),
        (example().replace(b"people: [alice]", b"people: [alice, alice]"), "9", "named twice"),
        (example().replace(b"people: [alice]", b"people: []"), "9", "the list is empty"),
        (example().replace(b"'**'", b"'/a'"), "9", "remove the leading"),
        (example().replace(BOB.encode(), ALICE.encode()), "7", "belongs to alice and to bob"),
        (example().replace(b'"]}\n  rules', f'", "{BOB}"]}}\n  rules'.encode()), "7", "listed twice"),
        (example().replace(BOB.encode(), b"ssh-dss AAAA"), "7", "not a usable SSH public key"),
        (example().replace(BOB.encode(), BOB[:-8].encode()), "7", "not a usable SSH public key"),
        (example().replace(b"bob:", b"Bob:"), "7", "is not a name"),
        (example("    - {paths: ['trust/x'], people: [alice], threshold: 1}\n"), "9", "no rule matches trust/policy"),
        (example("    - {paths: ['**'], people: [alice], threshold: 2}\n"), "9", "asks for 2 people but names 1"),
        (
            example(
                "    - {paths: [a], people: [bob], threshold: 2}\n    - {paths: ['**'], people: [bob], threshold: 1}\n"
            ),
            "9",
            "can never be met",
        ),
        (example(spec='  freshness: {maxAge: 7, keys: ["x"]}\n'), "10", "expected text"),
        (example(spec='  freshness: {maxAge: 7w, keys: ["x"]}\n'), "10", "not a duration"),
        (example(spec="  freshness: {maxAge: 7d, keys: []}\n"), "10", "the list is empty"),
        (example(spec='  builders: {stable: [{issuer: "http://x", identity: y}]}\n'), "10", "https://"),
        (example(spec="  builders: {stable: []}\n"), "10", "the list is empty"),
        (example(spec="  builders: []\n"), "10", "expected a mapping"),
    ],
)
def test_mistakes_name_the_line(data: bytes, place: str, words: str) -> None:
    with pytest.raises(FleetInvalid) as caught:
        parse_policy(data)
    assert words in caught.value.message
    assert caught.value.location is not None
    assert (caught.value.location.path, str(caught.value.location.line or "")) == ("trust/policy.yaml", place)


def test_lock_out_is_told_apart() -> None:
    with pytest.raises(PolicyLocksOut):
        parse_policy(example("    - {paths: ['**'], people: [alice], threshold: 2}\n"))
