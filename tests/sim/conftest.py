"""One fleet for the whole simulation, and pure functions of trust remembered: the same evidence, the same verdict."""

from collections.abc import Callable
from typing import Any

import pytest

from kubenode.agent import execute, follow, tick
from kubenode.errors import KubenodeError
from tests.sim.fleet import Fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.create(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session", autouse=True)
def remembered_verdicts():
    """Verify every distinct evidence once, for real; the crash schedules ask for the same thousands of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "verify_release", _remember(execute.verify_release))
        patch.setattr(follow, "authenticate", _remember(follow.authenticate))
        patch.setattr(follow, "trust_anchor", _remember(follow.trust_anchor))
        loaded = _remember(tick.load_fleet)
        patch.setattr(tick, "load_fleet", loaded)
        patch.setattr(follow, "load_fleet", loaded)
        yield


def _remember(function: Callable[..., Any]) -> Callable[..., Any]:
    verdicts: dict[object, Any] = {}

    def ask(*words: Any, **options: Any) -> Any:
        words = tuple(tuple(word) if hasattr(word, "__next__") else word for word in words)
        key = (tuple(map(_hashable, words)), tuple(sorted((name, _hashable(it)) for name, it in options.items())))
        if key not in verdicts:
            try:
                verdicts[key] = function(*words, **options)
            except KubenodeError as error:
                verdicts[key] = error
        if isinstance(verdicts[key], KubenodeError):
            raise verdicts[key]
        return verdicts[key]

    return ask


def _hashable(value: Any) -> Any:
    return frozenset(value.items()) if hasattr(value, "items") else value
