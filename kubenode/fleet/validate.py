"""Finds every problem of a fleet repo, for laptops and CI."""

from collections.abc import Callable, Iterable, Mapping

from kubenode.fleet.checks import cluster, kubeadm, layout, machines, references, releases, secrets, trust
from kubenode.fleet.problems import Problem, Severity, in_order
from kubenode.fleet.reading import Reading, read_all

_CHECKS: tuple[Callable[[Reading], Iterable[Problem]], ...] = (
    layout.check_places,
    layout.check_secrets,
    layout.check_sizes,
    references.check_references,
    releases.check_releases,
    releases.check_channels,
    cluster.check_cluster,
    cluster.check_targets,
    machines.check_identities,
    machines.check_windows,
    machines.check_files,
    secrets.check_recipients,
    secrets.check_sealed,
    secrets.check_places,
    trust.check_policy,
    trust.check_trusted_root,
    kubeadm.check_kubeadm,
)


def validate(files: Mapping[str, bytes]) -> tuple[Problem, ...]:
    """Return every problem of the fleet repo with these files, in the order of their places; none means valid.

    Never raises, whatever the files contain. Warnings are advice: see `is_valid`.
    """
    reading, problems = read_all(files)
    for check in _CHECKS:
        problems.extend(check(reading))
    return in_order(problems)


def is_valid(problems: Iterable[Problem]) -> bool:
    """Say whether there are no errors among the problems."""
    return all(problem.severity is not Severity.ERROR for problem in problems)
