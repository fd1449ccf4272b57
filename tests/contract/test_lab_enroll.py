"""The lab's cluster as an operator makes it: the real command, git, keys and age, without any machine."""

import pytest

from kubenode.errors import HostError
from kubenode.fleet.cluster_ca import CA_FILES, CLUSTER_CA, decode_ca_set
from kubenode.fleet.load import load_fleet
from kubenode.fleet.secrets import load_secrets
from kubenode.fleet.validate import validate
from kubenode.host.age import parse_identities, read_identity, recipient_of, unseal
from kubenode.host.seed import IDENTITY, SEED
from kubenode.host.statefiles import decode_seed
from kubenode.host.tree import read_folder
from kubenode.lab.kubernetes import fleet
from kubenode.lab.kubernetes.cluster import Kubernetes
from kubenode.lab.kubernetes.enroll import enroll, seed_credentials
from kubenode.lab.kubernetes.network import members, network_file
from kubenode.lab.workshop import Workshop

PAIR = members(1, 1)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("lab")
    for name in ("kubeadm", "kubelet", "crictl"):
        (folder / name).write_text(name)
    made = Workshop(folder / "cluster", lambda _: None)
    made.create()
    fleet.add_documents(made, [Kubernetes("v1.20.2", folder, ())], PAIR, "10.77.0.11:6443")
    enroll(made, PAIR)
    return made


def test_the_fleet_is_committed_pushed_and_lacks_only_releases(workshop: Workshop) -> None:
    assert workshop.git("status", "--porcelain") == ""
    assert workshop.git("rev-parse", "main", cwd=workshop.bare) == workshop.head
    problems = validate(read_folder(workshop.fleet).files)
    # Nothing is published yet, and that is all.
    lacking = {f"the pool has nodes, but channel {name!r} has no release" for name in fleet.POOL_CHANNELS.values()}
    assert {it.message for it in problems} == lacking


def test_each_machine_has_an_identity_of_its_own_and_its_network(workshop: Workshop) -> None:
    nodes = load_fleet(read_folder(workshop.fleet).files).nodes
    for member in PAIR:
        given = seed_credentials(workshop, member.name)
        assert set(given) == {SEED, IDENTITY, "network.network.50-lab"}
        assert given["network.network.50-lab"] == network_file(member, PAIR)
        assert recipient_of(given[IDENTITY], "the seed") == nodes[member.name].age_recipient
        assert decode_seed(given[SEED]) == workshop.seed(member.name, workshop.anchor)
    assert len({it.age_recipient for it in nodes.values()}) == len(PAIR)
    with pytest.raises(HostError, match="w-9 has no seed in"):
        seed_credentials(workshop, "w-9")


def test_control_planes_and_the_operator_open_the_cluster_ca(workshop: Workshop) -> None:
    files = read_folder(workshop.fleet).files
    secret = load_secrets(files)[CLUSTER_CA]
    sealed = files[f"secrets/{CLUSTER_CA}.age"]
    identities = {it.name: seed_credentials(workshop, it.name)[IDENTITY] for it in PAIR}
    own = parse_identities(identities["cp-1"], "cp-1")
    assert set(decode_ca_set(unseal(sealed, own, CLUSTER_CA))) == set(CA_FILES)
    operator = read_identity(workshop.keys / "operator", None)
    assert set(decode_ca_set(unseal(sealed, operator, CLUSTER_CA))) == set(CA_FILES)
    assert [name for name, _ in secret.sealed.nodes] == ["cp-1"]
    with pytest.raises(HostError):
        unseal(sealed, parse_identities(identities["w-1"], "w-1"), CLUSTER_CA)


def test_enrolling_again_changes_nothing(workshop: Workshop) -> None:
    head, before = workshop.head, {it.name: seed_credentials(workshop, it.name) for it in PAIR}
    enroll(workshop, PAIR)
    assert workshop.head == head
    assert {it.name: seed_credentials(workshop, it.name) for it in PAIR} == before
