"""Whole rollouts through a cluster, driven by the planner: bootstrap, patch, minor, three minors, failures, crashes."""

import pytest

from kubenode.model.decision import KubeadmUpgrade, Reboot
from tests.sim.rollouts import Fleet, converged, release

R31 = release("1.0", "v1.31.4")
R31P = release("1.1", "v1.31.9")
R31OS = release("1.2", "v1.31.9")
R32 = release("2.0", "v1.32.3")
R33 = release("3.0", "v1.33.1")
R34 = release("4.0", "v1.34.2")


def founded(planes: int = 3, workers: int = 3, start=R31, **settings) -> Fleet:
    fleet = Fleet.create(planes, workers, (start,), start, **settings)
    fleet.run()
    assert converged(fleet), fleet.summary()
    for number in range(4):
        fleet.cluster.pods[f"web/{number}"] = f"worker-{number % workers + 1:04}"
    fleet.log.clear()
    fleet.trace.clear()
    return fleet


def test_a_cluster_founds_itself():
    fleet = founded()
    assert fleet.cluster.inits == 1
    assert sorted(fleet.cluster.members) == ["cp-1", "cp-2", "cp-3"]
    assert len(fleet.cluster.objects) == 6
    assert fleet.cluster.tokens == frozenset()


@pytest.mark.parametrize("size", [(1, 1), (3, 3)], ids=str)
@pytest.mark.parametrize(
    "channel",
    [(R31P, R31), (R32, R31), (R34, R33, R32, R31P, R31)],
    ids=["patch", "minor", "three minors"],
)
def test_a_rollout(size, channel):
    fleet = founded(*size)
    fleet.releases = channel
    fleet.run()
    assert converged(fleet), fleet.summary()
    assert {str(it.booted.version) for it in fleet.machines.values()} == {str(channel[0].version)}
    assert str(fleet.cluster.version) == channel[0].kubernetes
    assert all(lease.holder is None for lease in fleet.cluster.leases.values())
    assert not any(it.cordoned for it in fleet.cluster.objects.values())
    firsts = [action.first for _, action in fleet.log if isinstance(action, KubeadmUpgrade)]
    assert firsts.count(True) == (3 if len(channel) == 5 else 1)
    reboots = [name for name, action in fleet.log if isinstance(action, Reboot)]
    assert reboots.index("cp-1") < reboots.index("worker-0001")
