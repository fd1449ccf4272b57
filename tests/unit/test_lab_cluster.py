"""The lab's clusters of several machines: command lines, network files and the fleet's documents."""

import base64
import ipaddress
import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kubenode.errors import HostError
from kubenode.fleet.load import load_fleet
from kubenode.fleet.new import render_new
from kubenode.fleet.promote import promote, release_document
from kubenode.fleet.validate import validate
from kubenode.host.process import Completed, run
from kubenode.host.tree import read_folder
from kubenode.lab import code
from kubenode.lab.kubernetes import workload
from kubenode.lab.kubernetes.cluster import Kubernetes
from kubenode.lab.kubernetes.fleet import documents
from kubenode.lab.kubernetes.network import CNI_FILE, Member, members, network_file, system_credentials
from kubenode.lab.kubernetes.node import NO_TIME_SERVER, ClusterNode
from kubenode.lab.kubernetes.story import CHANNELS, FIRST, RECIPES, THIRD, ClusterStory, free_ports, is_ready
from kubenode.lab.node import LabNode
from kubenode.lab.qemu import MachineConfig, SharedNetwork, command_line, mac_address
from kubenode.model.documents import Role
from kubenode.model.state import Seed
from kubenode.trust.policy import Builder

ENDPOINT = "10.77.0.11:6443"
EXAMPLE = Path(__file__).parents[2] / "fleet-example"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEhVQlcJ+6vsAJSk1V8lJhEAPqpmS8cAyXmnyRy2gxCD lab"


def words(config: MachineConfig) -> list[str]:
    config.work.mkdir(parents=True, exist_ok=True)
    return command_line(config, "tcg", Path("/code.fd"), config.work / "vars.fd", config.work / "qmp.sock")


def test_a_machine_alone_has_one_card(tmp_path: Path) -> None:
    found = words(MachineConfig("cp-1", Path("/image"), tmp_path))
    assert [it.partition(",")[0] for flag, it in itertools.pairwise(found) if flag == "-netdev"] == ["user"]


def test_the_hardware_clock_can_be_another(tmp_path: Path) -> None:
    later = datetime(2027, 10, 29, 12, 30, tzinfo=UTC)
    found = words(MachineConfig("cp-1", Path("/image"), tmp_path, clock=later))
    assert ("-rtc", "base=2027-10-29T12:30:00") in itertools.pairwise(found)
    assert "-rtc" not in words(MachineConfig("cp-1", Path("/image"), tmp_path))


def test_nobody_sets_a_clock_that_is_meant_to_be_another(tmp_path: Path) -> None:
    def given(clock: datetime | None) -> Mapping[str, bytes]:
        seed = Seed("git://10.0.2.2/fleet.git", "fleet", "a" * 40, "w-1")
        machine = ClusterNode(
            members(1, 1)[1], Path("/image"), tmp_path, seed, images=Path("/images"), shared=SharedNetwork.of(tmp_path),
            credentials={}, api_port=None, clock=clock,
        )  # fmt: skip
        return machine.machine.config.credentials

    assert b"Condition" in given(datetime(2027, 10, 29, tzinfo=UTC))[NO_TIME_SERVER]
    assert NO_TIME_SERVER not in given(None)


def test_the_second_card_is_on_the_shared_network(tmp_path: Path) -> None:
    shared = SharedNetwork("230.1.2.3", 20001)
    found = words(MachineConfig("cp-1", Path("/image"), tmp_path, shared=shared))
    cards = [it for flag, it in itertools.pairwise(found) if flag == "-device" and it.startswith("virtio-net")]
    assert "socket,id=shared,mcast=230.1.2.3:20001,localaddr=127.0.0.1" in found
    assert cards[1] == f"virtio-net-pci,netdev=shared,romfile=,host_mtu=9000,mac={mac_address('cp-1')}"


def test_every_name_has_an_address_of_its_own_that_is_local_and_unicast() -> None:
    names = [it.name for it in members(9, 9)]
    found = {mac_address(it) for it in names}
    assert len(found) == len(names)
    assert all(int(it[:2], 16) & 0b11 == 0b10 and len(it) == 17 for it in found)
    assert mac_address("cp-1") == mac_address("cp-1")


def test_labs_in_two_folders_do_not_meet(tmp_path: Path) -> None:
    one, other = SharedNetwork.of(tmp_path / "one"), SharedNetwork.of(tmp_path / "other")
    assert one.group != other.group
    assert SharedNetwork.of(tmp_path / "other/../one") == one, "the folder, not how it is written"
    for it in (one, other):
        assert ipaddress.ip_address(it.group).is_multicast
        assert 20000 <= it.port < 30000


def test_addresses_and_pod_subnets_do_not_overlap() -> None:
    found = members(3, 2)
    assert [(it.name, it.address, it.pod_subnet) for it in found] == [
        ("cp-1", "10.77.0.11", "10.244.11.0/24"),
        ("cp-2", "10.77.0.12", "10.244.12.0/24"),
        ("cp-3", "10.77.0.13", "10.244.13.0/24"),
        ("w-1", "10.77.0.21", "10.244.21.0/24"),
        ("w-2", "10.77.0.22", "10.244.22.0/24"),
    ]
    assert [it.role for it in found] == [Role.CONTROL_PLANE] * 3 + [Role.WORKER] * 2
    for wrong in ((0, 1), (10, 0), (1, 10)):
        with pytest.raises(ValueError, match="control planes and"):
            members(*wrong)


def test_the_network_file_is_for_the_shared_card_and_routes_to_the_others_pods() -> None:
    pair = members(1, 1)
    assert network_file(pair[1], pair).decode() == (
        f"[Match]\nMACAddress={mac_address('w-1')}\n\n"
        "[Network]\nAddress=10.77.0.21/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        "\n[Route]\nDestination=10.244.11.0/24\nGateway=10.77.0.11\n"
    )


def test_each_node_has_a_cni_configuration_of_its_own() -> None:
    for member in members(1, 1):
        (line,) = system_credentials(member)["tmpfiles.extra"].decode().splitlines()
        kind, path, *_, content = line.split(" ")
        assert (kind, path) == ("f+~", CNI_FILE)
        bridge = json.loads(base64.b64decode(content))["plugins"][0]
        assert bridge["ipam"]["ranges"] == [[{"subnet": member.pod_subnet}]]


@pytest.fixture(scope="module")
def new_fleet() -> Mapping[str, bytes]:
    return render_new(
        read_folder(EXAMPLE).files,
        name="lab",
        fleet_id="6f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a12",
        person="lab",
        ssh_key=KEY,
        stores=["http://10.0.2.2:8080"],
        builder=Builder("https://issuer.example.net", "lab@example.net"),
    )


@pytest.mark.parametrize("declared", [members(1), members(1, 1), members(3, 2)])
def test_the_labs_fleet_is_a_valid_cluster(
    declared: tuple[Member, ...], new_fleet: Mapping[str, bytes], tmp_path: Path
) -> None:
    for name in ("kubeadm", "kubelet", "crictl"):
        (tmp_path / name).write_text(name)
    versions = [Kubernetes(it, tmp_path, ()) for it in ("v1.20.2", "v1.21.0")]
    made = documents(
        new_fleet["fleet.yaml"].decode(), new_fleet["images/node.yaml"].decode(), versions, declared, ENDPOINT
    )
    files = {**new_fleet, **{path: text.encode() for path, text in made.items()}}
    for digit, (release, kubernetes) in enumerate(zip((FIRST, THIRD), versions, strict=True)):
        files[f"releases/{release}.yaml"] = release_document(
            release, f"{digit}" * 64, f"{digit + 2}" * 64, kubernetes.version
        )
        for channel in CHANNELS:
            files[f"channels/{channel}.yaml"] = promote(files[f"channels/{channel}.yaml"], release)
    assert [it.message for it in validate(files)] == []
    assert {f"images/{RECIPES[it]}.yaml" for it in RECIPES} - {"images/node-1-20-3.yaml"} <= made.keys()
    assert made["images/node-broken-kubelet.yaml"].count("overlay: overlays/node-broken-kubelet\n") == 1
    loaded = load_fleet(files)
    assert loaded.fleet.cluster is not None
    assert (loaded.fleet.cluster.endpoint, loaded.fleet.cluster.bootstrap_node) == (ENDPOINT, "cp-1")
    assert {name: (loaded.pools[it.pool].role, it.address) for name, it in loaded.nodes.items()} == {
        it.name: (it.role, it.address) for it in declared
    }
    text = made["kubeadm/cluster.yaml"]
    assert f"controlPlaneEndpoint: {ENDPOINT}\n" in text
    assert "certSANs: [127.0.0.1]" in text
    assert "{" not in text.replace("{leader-elect", "")


def node_object(address: str, *, ready: str = "True", version: str = "v1.20.2") -> dict[str, Any]:
    """A Node as the API server gives it, as far as it is looked at."""
    return {
        "metadata": {"name": "w-1"},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": "w-1"}],
            "nodeInfo": {"kubeletVersion": version},
        },
    }


def test_a_node_is_ready_only_under_its_own_address() -> None:
    member = members(1, 1)[1]
    assert is_ready(node_object("10.77.0.21"), member, "v1.20.2")
    assert not is_ready(node_object("10.0.2.15"), member, "v1.20.2"), "every machine has it on the user network"
    assert not is_ready(node_object("10.77.0.21", ready="Unknown"), member, "v1.20.2")
    assert not is_ready(node_object("10.77.0.21", version="v1.21.0"), member, "v1.20.2")
    assert not is_ready(node_object("10.77.0.21"), members(1)[0], "v1.20.2"), "another node"


def test_ports_are_not_given_twice() -> None:
    found = [port for port, _ in zip(free_ports(), range(20), strict=False)]
    assert len(set(found)) == 20


def test_the_budget_lets_one_pod_go_at_a_time() -> None:
    deployment, budget = workload.manifests()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["replicas"] - budget["spec"]["minAvailable"] == 1
    assert budget["spec"]["selector"]["matchLabels"] == labels == deployment["spec"]["selector"]["matchLabels"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["containers"][0]["imagePullPolicy"] == "Never"
    # A cordoned node must not get back what was evicted from it.
    assert all("unschedulable" not in it["key"] for it in pod["tolerations"])


def test_the_workload_is_applied_as_one_list(tmp_path: Path) -> None:
    calls: list[tuple[str, ...]] = []

    def kubectl(*words: str) -> str:
        calls.append(words)
        return ""

    workload.apply(kubectl, tmp_path / "new")
    ((verb, flag, file),) = calls
    assert (verb, flag) == ("apply", "--filename")
    assert [it["kind"] for it in json.loads(Path(file).read_text())["items"]] == ["Deployment", "PodDisruptionBudget"]


def pods(*ready: bool, leaving: int = 0) -> str:
    """What kubectl prints for pods of the workload, the last `leaving` of them being deleted."""
    items = [
        {
            "metadata": {"deletionTimestamp": "2026-11-25T06:00:00Z"} if number >= len(ready) - leaving else {},
            "spec": {"nodeName": f"w-{number}"},
            "status": {"conditions": [{"type": "Ready", "status": str(it)}]},
        }
        for number, it in enumerate(ready)
    ]
    return json.dumps({"items": [*items, {"metadata": {}, "spec": {}, "status": {}}]})


def test_ready_are_pods_that_serve_and_stay() -> None:
    assert workload.look(lambda *_: pods(True, False, True)).nodes == ("w-0", "w-2")
    assert workload.look(lambda *_: pods(True, True, leaving=1)).nodes == ("w-0",)
    with pytest.raises(HostError, match="something else than a list of pods: no pods"):
        workload.look(lambda *_: "no pods")


def test_a_pod_of_before_the_power_cut_is_not_ready_again() -> None:
    """Seen: for half a minute after a start the API server told of pods as they had been before."""
    told = json.loads(pods(True, True))
    for item, started in zip(told["items"], ("2026-11-25T06:00:00Z", "2026-11-25T08:00:00Z"), strict=False):
        item["status"]["containerStatuses"] = [{"state": {"running": {"startedAt": started}}}]
    powered_on = datetime(2026, 11, 25, 7, tzinfo=UTC)
    assert workload.look(lambda *_: json.dumps(told)).nodes == ("w-0", "w-1")
    assert workload.look(lambda *_: json.dumps(told), powered_on).nodes == ("w-1",)
    told["items"][1]["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "ContainerCreating"}}}]
    assert workload.look(lambda *_: json.dumps(told), powered_on).nodes == ()


class Script:
    """A kubectl that gives these answers, one for each call, and waits at their end for the watcher to be told."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.watcher = workload.Watcher(self, pause=0)

    def __call__(self, *words: str) -> str:
        if len(self.answers) == 1:
            self.watcher.end()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def watched(*answers: str | Exception) -> workload.Watcher:
    script = Script(*answers)
    with script.watcher as watcher:
        watcher.join()
    return watcher


def test_the_watcher_keeps_the_fewest_it_saw() -> None:
    watcher = watched(pods(True, True), pods(True, False), HostError("refused"), pods(True, True))
    assert (watcher.minimum, watcher.answers, watcher.silent) == (1, 3, 1)


def test_silence_is_no_minimum() -> None:
    watcher = watched(HostError("refused"), HostError("refused"))
    assert (watcher.minimum, watcher.answers, watcher.silent) == (None, 0, 2)


def test_a_watcher_that_broke_off_is_no_witness() -> None:
    with pytest.raises(HostError, match="the watcher of the workload broke off"):
        watched(pods(True, True), RuntimeError("kubectl went wrong in a new way"))


class Restarting:
    """A guest in its trial, silent while it falls back, then in a boot that is no trial."""

    def __init__(self) -> None:
        self.said: list[Completed | Exception] = [
            Completed(0, b"indeterminate\n", b""),
            HostError("the guest did not answer its probe within 30 s"),
            ConnectionResetError(),
            Completed(0, b"clean\n", b""),
        ]

    def run(self, *_words: object, **_options: object) -> Completed:
        answer = self.said.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_end_of_a_trial_is_waited_for_while_the_guest_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    node = LabNode("w-1", Path("/image"), tmp_path, Seed("git://10.0.2.2/fleet.git", "6f1c", "0" * 40, "w-1"))
    guest = Restarting()
    monkeypatch.setattr(node, "probe", guest)
    node.wait_blessed(60)
    assert not guest.said


def kept_lab(folder: Path) -> ClusterStory:
    """Return the story of a kept folder whose fleet is a repo without signatures."""
    story = ClusterStory(folder, folder / "cache", lambda _line: None, members(1, 1))
    fleet = story.workshop.fleet
    files = {f"channels/{it}.yaml": "releases: [2026.11.3, 2026.11.1]\n" for it in CHANNELS}
    files |= {f"nodes/{it}.yaml": "" for it in ("cp-1", "w-1")}
    for name, text in files.items():
        (fleet / name).parent.mkdir(parents=True, exist_ok=True)
        (fleet / name).write_text(text)
    run(["git", "init", "--quiet", "--bare", "--initial-branch=main", story.workshop.bare], timeout=60)
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["config", "user.name", "lab"],
        ["config", "user.email", "lab@example.net"],
        ["remote", "add", "origin", str(story.workshop.bare)],
        ["add", "--all"],
        ["commit", "--quiet", "--no-gpg-sign", "--message", "The fleet"],
    ):
        story.workshop.git(*words)
    story.workshop.push()
    return story


def test_a_reset_takes_away_what_a_run_that_was_killed_has_declared(tmp_path: Path) -> None:
    story = kept_lab(tmp_path)
    fleet = story.workshop.fleet
    (fleet / "nodes/w-2.yaml").write_text("made by a run that is gone")
    story.workshop.git("add", "--all")
    story.workshop.git("commit", "--quiet", "--message", "Add w-2")
    (fleet / "secrets").mkdir()
    (fleet / "secrets/bootstrap-token-w-2.age").write_text("not committed yet")
    story.reset()
    shown = run(["git", "-C", story.workshop.bare, "ls-tree", "-r", "--name-only", "main"], timeout=60).text.split()
    assert [it for it in shown if not it.startswith("channels/")] == ["nodes/cp-1.yaml", "nodes/w-1.yaml"]
    assert (fleet / "channels/beta.yaml").read_text() == f"releases: [{FIRST}]\n"
    before = story.workshop.head
    story.reset()
    assert story.workshop.head == before


def test_a_kept_release_with_another_agent_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    story = ClusterStory(tmp_path, tmp_path / "cache", said.append)
    out = story.workshop.out
    monkeypatch.setattr(story.workshop, "build", lambda release, _recipe: (out / release).mkdir())
    (story.workshop.store / FIRST).mkdir()
    story.need(FIRST)
    story.need(FIRST)
    assert not said, "built from this code"
    (out / f"{FIRST}.code").write_text("what an older agent was")
    story.need(FIRST)
    (out / f"{FIRST}.code").unlink()
    story.need(FIRST)
    assert len(said) == 2 and all(FIRST in it for it in said)


def test_what_an_image_takes_of_the_package_has_a_digest(tmp_path: Path) -> None:
    for name in ("__init__.py", "cli/__init__.py", "cli/agent.py", "lab/node.py", "image/mkosi/tree/unit"):
        (tmp_path / "kubenode" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kubenode" / name).write_text("")
    first = code.digest(tmp_path / "kubenode")
    (tmp_path / "kubenode/lab/node.py").write_text("changed = 1")
    assert code.digest(tmp_path / "kubenode") == first, "no part of the agent"
    for name in ("cli/agent.py", "image/mkosi/tree/unit"):
        (tmp_path / "kubenode" / name).write_text("changed = 1")
        assert code.digest(tmp_path / "kubenode") != first
        first = code.digest(tmp_path / "kubenode")
