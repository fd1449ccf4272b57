"""Whatever is in the files: `validate` returns problems, `load_fleet` raises FleetInvalid, nothing else happens."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubenode.errors import FleetInvalid
from kubenode.fleet.desired import desired_state
from kubenode.fleet.edit import quoted
from kubenode.fleet.load import load_fleet
from kubenode.fleet.problems import Problem
from kubenode.fleet.promote import promote
from kubenode.fleet.validate import is_valid, validate
from kubenode.host.tree import read_folder
from kubenode.trust.strictyaml import load

EXAMPLE = read_folder(Path(__file__).parents[2] / "fleet-example").files
PATHS = st.sampled_from([*sorted(EXAMPLE), "nodes/x.yaml", "kubeadm/patches/x", "secrets/x.age", "x"])
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SMALL = st.text("ab-.:/%1é", max_size=8)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(0, 9, allow_nan=False), SMALL)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SMALL, inner, max_size=3), max_leaves=6
)


def check(files: dict[str, bytes]) -> tuple[Problem, ...]:
    """Run everything that reads documents and return the problems."""
    problems = validate(files)
    assert all(isinstance(problem, Problem) and problem.message and problem.rule for problem in problems)
    for node in (None, "worker-1", "edge-1"):
        name = node or "cp-1"
        if f"nodes/{name}.yaml" not in files:
            continue
        try:
            desired_state(load_fleet(files, node=node), "0" * 40, name)
        except FleetInvalid as error:
            # What a node cannot read, a laptop must have refused.
            assert not is_valid(problems), error
    return problems


@SLOW
@given(path=PATHS, data=st.binary(max_size=200))
def test_any_bytes_in_any_file(path: str, data: bytes) -> None:
    check({**EXAMPLE, path: data})


@SLOW
@given(path=PATHS, start=st.integers(0, 4000), length=st.integers(0, 60), new=st.binary(max_size=20))
def test_any_change_of_any_file(path: str, start: int, length: int, new: bytes) -> None:
    old = EXAMPLE.get(path, b"")
    check({**EXAMPLE, path: old[:start] + new + old[start + length :]})


def to_yaml(value: Any) -> str:
    """Write a value in braces and brackets."""
    match value:
        case dict():
            return "{" + ", ".join(f"{quoted(str(key))}: {to_yaml(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(to_yaml(one) for one in value) + "]"
        case str():
            return quoted(value)
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
    return format(value, "f") if isinstance(value, float) else str(value)


@SLOW
@given(data=st.data())
def test_any_value_at_any_place_of_a_document(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(path for path in EXAMPLE if path.endswith(".yaml"))))
    document: Any = load(EXAMPLE[path], path).value
    part = document
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else list(range(len(part)))))
        if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.integers(0, 3)) == 0:
            break
        part = part[key]
    if data.draw(st.booleans()):
        part[key] = data.draw(VALUES)
    elif isinstance(part, dict):
        part[data.draw(SMALL)] = part.pop(key)
    else:
        del part[key]
    check({**EXAMPLE, path: to_yaml(document).encode()})


@SLOW
@given(dropped=st.sets(PATHS, max_size=4))
def test_any_files_missing(dropped: set[str]) -> None:
    check({path: data for path, data in EXAMPLE.items() if path not in dropped})


VERSIONS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=6, unique=True)


@SLOW
@given(versions=VERSIONS, style=st.sampled_from(["flow", "block", "quoted"]), comment=st.booleans())
def test_a_promotion_puts_the_release_first_and_keeps_the_rest(
    versions: list[tuple[int, int]], style: str, comment: bool
) -> None:
    newest, *older = (f"{major}.{minor}.0" for major, minor in sorted(versions, reverse=True))
    note = " # note" if comment else ""
    items = [f'"{one}"' if style == "quoted" else one for one in older]
    body = f" [{', '.join(items)}]{note}\n"
    if style == "block" and items:
        body = "\n" + "".join(f"    - {one}{note}\n" for one in items)
    head = "apiVersion: kubenode.dev/v1alpha1\nkind: Channel\nmetadata: {name: c}\nspec:\n  releases:"
    after = promote((head + body).encode(), newest)
    value: Any = load(after, "c").value
    assert value["spec"]["releases"] == [newest, *older]
    assert after.count(b"# note") == (head + body).count("# note")
