"""What kubenode asks of the Kubernetes API: one suite for the fake and for a real kube-apiserver.

A test class derives from `KubeSuite` and gives a `server` fixture.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kubenode.errors import HostError, KubenodeError, TryLater
from kubenode.host.kube import apiservers, drain, nodes, rbac
from kubenode.host.kube.approval import approve
from kubenode.host.kube.client import Api
from kubenode.host.kube.errors import Conflict, Forbidden, Invalid, NotFound, Throttled, Unauthorised
from kubenode.host.kube.identity import AgentIdentity
from kubenode.host.kube.leases import Leases
from kubenode.host.kube.live import look
from kubenode.host.kube.names import LEASES, NODES, REQUESTS, STATUS_ANNOTATION
from kubenode.host.kube.reading import name_of
from kubenode.host.kube.requests import pending
from kubenode.host.kube.tokens import Tokens
from kubenode.host.kube.view import kubeadm_config, node_of
from kubenode.model.documents import Role
from kubenode.model.kubernetes import Answer, EvictablePod, KubernetesVersion, Lease, NodeReport
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot
from kubenode.model.plain import plain
from kubenode.model.state import NodeStatus
from kubenode.model.version import Version
from kubenode.plan.observations import account, digest
from tests.contract.kube_world import NOW, FixedClock, KnownSecrets, Server, World, peers, world_of, write_kubeconfig
from tests.fakes.kubeapi.pki import Authority, Pair

SLOT = "slot-pool-workers-0"
SLOTS = {"workers": frozenset({SLOT}), "control-plane": frozenset({"slot-control-plane-0"})}


@pytest.fixture
def world(server: Server) -> Iterator[World]:
    with world_of(server) as world:
        world.namespace()
        yield world


def account_of(node: str, at: datetime) -> str:
    observed = Observed(
        f"boot-{node}", BootedSlot(Slot.A, Version("2026.11.1"), "a" * 64), (BootEntry(Version("2026.11.1"), "a" * 64),)
    )
    return account(NodeStatus(node, at, "c" * 40, "Up to date", f"All is well at {node}.", observed=observed))


def took(leases: Leases, name: str) -> bool:
    """Try to take the slot; True when this one has it."""
    try:
        leases.acquire(SLOT, name, "race", None, NOW)
    except TryLater:
        return False
    return True


class KubeSuite:
    # The transport.

    def test_long_lists_come_in_pages(self, world: World, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("kubenode.host.kube.client.PAGE", 3)
        for number in range(10):
            world.node(f"n{number}")
        assert [it["metadata"]["name"] for it in world.admin.list(NODES)] == [f"n{number}" for number in range(10)]

    def test_what_is_missing_is_not_found(self, world: World):
        with pytest.raises(NotFound, match=r'nodes "nobody" not found \(404\)'):
            world.admin.get(f"{NODES}/nobody")
        with pytest.raises(NotFound, match=r"\(404\)"):
            world.admin.get("/apis/example.net/v1/things")
        assert world.admin.delete(f"{NODES}/nobody") is False

    def test_an_object_is_created_once(self, world: World):
        world.node("n1")
        with pytest.raises(Conflict, match=r'nodes "n1" already exists \(409\)'):
            world.node("n1")

    def test_an_old_version_is_not_replaced(self, world: World):
        old = world.node("n1")
        nodes.cordon(world.admin, "n1")
        with pytest.raises(Conflict, match=r"the object has been modified"):
            world.admin.replace(f"{NODES}/n1", old)
        with pytest.raises(Conflict, match=r"the object has been modified"):
            world.admin.patch(f"{NODES}/n1", {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}})

    def test_what_is_not_valid_is_refused(self, world: World):
        with pytest.raises(Invalid, match=r"metadata.name.*\(422\)"):
            world.admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "No Name"}})

    def test_strangers_and_the_powerless(self, world: World):
        stranger = world.api("stranger")
        with pytest.raises(Forbidden, match=r'User "stranger" cannot list resource "nodes"') as refused:
            list(stranger.list(NODES))
        assert "docs/cluster.md" in refused.value.hint

    def test_a_wrong_token_is_unauthorised(self, world: World):
        access = replace(world.server.authority.access(world.server.url), token="wrong")
        with Api(access) as api, pytest.raises(Unauthorised, match=r"\(401\)") as refused:
            list(api.list(NODES))
        assert "certificate may have expired" in refused.value.hint

    # Slots.

    def test_a_slot_is_taken_kept_and_given_back(self, world: World):
        leases = Leases(world.admin)
        assert leases.ensure(frozenset({SLOT})) == 1
        assert leases.ensure(frozenset({SLOT, "slot-pool-workers-1"})) == 1
        world.node("w1")
        leases.acquire(SLOT, "w1", "update to 2026.11.2", None, NOW)
        held = leases.all()[0]
        assert held == Lease(SLOT, "w1", NOW, "update to 2026.11.2")
        leases.acquire(SLOT, "w1", "again", None, NOW + timedelta(hours=1))
        assert leases.all()[0] == held
        with pytest.raises(TryLater, match="the lease slot-pool-workers-0 is held by w1 by now"):
            leases.acquire(SLOT, "w2", "me, too", None, NOW)
        leases.release(SLOT, "w2")
        assert leases.all()[0] == held
        leases.release(SLOT, "w1")
        leases.release(SLOT, "w1")
        assert leases.all() == (Lease(SLOT), Lease("slot-pool-workers-1"))
        with pytest.raises(TryLater, match="the lease slot-pool-workers-0 is free by now"):
            leases.acquire(SLOT, "w2", "", "w1", NOW)

    def test_a_slot_is_never_stolen_on_time(self, world: World):
        leases = Leases(world.admin)
        leases.ensure(frozenset({SLOT}))
        world.node("w1", ready=False)
        leases.acquire(SLOT, "w1", "", None, NOW)
        with pytest.raises(TryLater, match="is held by w1, which is still a node of the cluster") as refused:
            leases.acquire(SLOT, "w2", "", "w1", NOW + timedelta(days=3650))
        assert "it never expires" in refused.value.hint

    def test_the_slot_of_a_vanished_node_can_be_taken_over(self, world: World):
        leases = Leases(world.admin)
        leases.ensure(frozenset({SLOT}))
        world.node("w1")
        leases.acquire(SLOT, "w1", "", None, NOW)
        assert nodes.delete(world.admin, "w1")
        leases.acquire(SLOT, "w2", "", "w1", NOW)
        assert leases.all()[0].holder == "w2"

    def test_there_is_never_a_slot_that_nobody_made(self, world: World):
        with pytest.raises(HostError, match="there is no lease slot-pool-workers-0 in kubenode-system"):
            Leases(world.admin).acquire(SLOT, "w1", "", None, NOW)

    def test_twenty_at_once_and_one_holder(self, world: World):
        Leases(world.admin).ensure(frozenset({SLOT}))
        names = [f"w{number}" for number in range(20)]
        for name in names:
            world.node(name)
        start = threading.Barrier(len(names))

        def attempt(name: str) -> bool:
            with Api(world.admin.access, connect_seconds=120, seconds=120) as api:
                api.get("/version")
                start.wait(60)
                return took(Leases(api), name)

        with ThreadPoolExecutor(len(names)) as pool:
            won = [name for name, got in zip(names, pool.map(attempt, names), strict=True) if got]
        assert len(won) == 1
        assert Leases(world.admin).all()[0].holder == won[0]

    def test_two_holders_never(self, world: World):
        """Ten agents take and give back as fast as they can; who holds looks whether another one does, too."""
        Leases(world.admin).ensure(frozenset({SLOT}))
        holders: set[str] = set()
        worst, rounds, guard = [0], [0], threading.Lock()

        def work(name: str) -> None:
            with Api(world.admin.access, connect_seconds=120, seconds=120) as api:
                leases = Leases(api)
                for _ in range(8):
                    if took(leases, name):
                        with guard:
                            holders.add(name)
                            worst[0] = max(worst[0], len(holders))
                            rounds[0] += 1
                        with guard:
                            holders.discard(name)
                        leases.release(SLOT, name)

        for number in range(10):
            world.node(f"w{number}")
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(work, [f"w{number}" for number in range(10)]))
        assert worst == [1]
        assert rounds[0] > 1

    def test_a_person_breaks_a_slot(self, world: World):
        leases = Leases(world.admin)
        leases.ensure(frozenset({SLOT}))
        world.node("w1")
        leases.acquire(SLOT, "w1", "", None, NOW)
        with pytest.raises(HostError, match="is not held by w2 any more; nothing was changed"):
            leases.break_(SLOT, "w2", "jane: dead", NOW)
        leases.break_(SLOT, "w1", "jane: dead", NOW)
        assert leases.all()[0].holder is None
        annotations = world.admin.get(f"{LEASES}/{SLOT}")["metadata"]["annotations"]
        assert annotations == {"kubenode.dev/broken": "2026-11-25T12:00:00.000000Z from w1 by jane: dead"}

    # Access.

    def test_the_rules_are_installed_once_and_repaired(self, world: World):
        first = rbac.install(world.admin, SLOTS)
        assert first == len(rbac.objects(SLOTS))
        assert rbac.install(world.admin, SLOTS) == 0
        assert rbac.allowed(world.admin) == SLOTS
        more = {**SLOTS, "edge": frozenset({"slot-pool-edge-0"})}
        assert rbac.install(world.admin, more) == 2
        # A pool that is gone takes its rules with it.
        assert rbac.install(world.admin, SLOTS) == 2
        assert rbac.allowed(world.admin) == SLOTS
        path = "/apis/rbac.authorization.k8s.io/v1/namespaces/kubenode-system/roles/kubenode:slots:workers"
        world.admin.patch(path, {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})
        assert rbac.install(world.admin, SLOTS) == 1
        assert world.admin.get(path)["rules"] == [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [SLOT],
                "verbs": ["update"],
            }
        ]

    def test_a_worker_takes_the_slots_of_its_pool_only(self, world: World):
        rbac.install(world.admin, SLOTS)
        Leases(world.admin).ensure(frozenset().union(*SLOTS.values()))
        world.node("w1")
        worker = Leases(world.agent("w1", "workers"))
        worker.acquire(SLOT, "w1", "", None, NOW)
        assert [it.holder for it in worker.all()] == [None, "w1"]
        with pytest.raises(Forbidden, match='cannot update resource "leases"'):
            worker.acquire("slot-control-plane-0", "w1", "", None, NOW)
        with pytest.raises(Forbidden, match='cannot create resource "leases"'):
            worker.ensure(frozenset({"slot-pool-workers-9"}))
        worker.release(SLOT, "w1")

    def test_a_worker_reads_nodes_and_changes_none(self, world: World):
        rbac.install(world.admin, SLOTS)
        world.node("w1")
        worker = world.agent("w1", "workers")
        assert len(list(worker.list(NODES))) == 1
        for attempt in (
            lambda: nodes.cordon(worker, "w1"),
            lambda: nodes.delete(worker, "w1"),
            lambda: list(worker.list("/api/v1/pods")),
            lambda: list(worker.list("/api/v1/namespaces/kube-system/secrets")),
            lambda: worker.delete(f"{LEASES}/{SLOT}"),
        ):
            with pytest.raises(Forbidden):
                attempt()

    # Nodes.

    def test_a_kubelet_cordons_and_annotates_its_own_node_only(self, world: World):
        world.node("w1")
        world.node("w2")
        own = world.kubelet("w1")
        nodes.cordon(own, "w1")
        nodes.cordon(own, "w1")
        seen = node_of(own.get(f"{NODES}/w1"))
        assert (seen.cordoned, seen.cordoned_by_us) == (True, True)
        report = NodeReport(
            Version("2026.11.1"), "a" * 64, NOW, frozenset({"b" * 64}), commit="c" * 40, phase="Draining"
        )
        nodes.report(own, "w1", plain(report))
        assert node_of(own.get(f"{NODES}/w1")).report == report
        nodes.uncordon(own, "w1")
        nodes.uncordon(own, "w1")
        seen = node_of(own.get(f"{NODES}/w1"))
        assert (seen.cordoned, seen.cordoned_by_us, seen.report) == (False, False, report)
        assert (seen.ready, seen.role, seen.boot_id, seen.kubelet) == (
            True,
            Role.WORKER,
            "boot-w1",
            KubernetesVersion("1.20.2"),
        )
        for attempt in (nodes.cordon, lambda api, name: nodes.report(api, name, {})):
            with pytest.raises(Forbidden, match="w2"):
                attempt(own, "w2")

    def test_a_laptop_sees_the_cluster_and_what_each_node_says(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Contract of `host/kube/live.py`: what cannot be used makes one node silent, never the look fail."""
        here = ("127.0.0.1", int(world.server.url.rpartition(":")[2]))
        monkeypatch.setattr("kubenode.host.kube.apiservers.places", lambda api: (here, ("192.0.2.11", 1)))
        monkeypatch.setattr("kubenode.host.kube.live._SECONDS", 20)
        world.founded("192.0.2.11")
        world.node("cp-1", labels={"node-role.kubernetes.io/control-plane": ""})
        for name in ("w1", "w2", "w3", "w4"):
            world.node(name)
        at = datetime.now(UTC)
        for name in ("cp-1", "w1", "w2", "w3"):
            told = account_of(name, at)
            report = NodeReport(Version("2026.11.1"), "a" * 64, at, account=digest(told), at=at)
            nodes.report(world.kubelet(name), name, plain(report), told)
        for name, broken in (("w2", "[" * 5_000), ("w3", account_of("w1", at))):
            report = NodeReport(Version("2026.11.1"), "a" * 64, at, account=digest(broken), at=at)
            nodes.report(world.kubelet(name), name, plain(report), broken)
        nodes.cordon(world.kubelet("w1"), "w1")
        world.pod("web", "w1", owner="ReplicaSet")
        world.pod("other", "w2", owner="ReplicaSet")
        admin = world.server.authority.issue("kubernetes-admin", ("system:masters",))
        write_kubeconfig(tmp_path / "config", world.server.url, world.server.authority, admin)
        seen = look(tmp_path / "config")
        assert [it.node for it in seen.reports] == ["cp-1", "w1"]
        own = seen.reports[1].observed.cluster
        assert own is not None and (own.me, own.nodes, own.by_name["w1"].cordoned) == ("w1", seen.view.nodes, True)
        assert seen.reports[1].observed.booted.version == Version("2026.11.1")
        assert seen.messages == {
            "cp-1": "All is well at cp-1.",
            "w1": "All is well at w1.",
            "w2": "",
            "w3": "",
            "w4": "",
        }
        assert sorted(seen.silent) == ["w2", "w3", "w4"]
        assert "cannot be used" in seen.silent["w2"] and "is that of w1" in seen.silent["w3"]
        assert "no agent has reported" in seen.silent["w4"]
        assert seen.view.pods == {"cp-1": (), "w1": (EvictablePod("default", "web"),), "w2": (), "w3": (), "w4": ()}
        assert seen.view.apiservers["127.0.0.1"] == KubernetesVersion("1.20.2")
        assert (seen.view.etcd, seen.view.tokens) == (None, frozenset())
        assert any("etcd" in it for it in seen.unseen)

    def test_what_a_person_cordoned_stays_cordoned(self, world: World):
        world.node("w1")
        world.admin.patch(f"{NODES}/w1", {"spec": {"unschedulable": True}})
        own = world.kubelet("w1")
        nodes.cordon(own, "w1")
        nodes.uncordon(own, "w1")
        seen = node_of(own.get(f"{NODES}/w1"))
        assert (seen.cordoned, seen.cordoned_by_us) == (True, False)

    def test_a_report_is_bounded(self, world: World):
        world.node("w1")
        with pytest.raises(HostError, match="has 20011 bytes, more than 16384"):
            nodes.report(world.admin, "w1", {"x": "y" * 20_003})

    def test_a_node_that_is_gone_cannot_be_cordoned(self, world: World):
        with pytest.raises(HostError, match="the cluster has no node w1"):
            nodes.cordon(world.admin, "w1")
        assert nodes.delete(world.admin, "w1") is False

    # Draining.

    def test_a_drain_leaves_what_belongs_to_the_node(self, world: World):
        world.node("w1")
        world.node("w2")
        world.pod("web", "w1", owner="ReplicaSet")
        world.pod("bare", "w1")
        world.pod("agent", "w1", owner="DaemonSet")
        world.pod("static", "w1", mirror=True)
        world.pod("done", "w1", owner="Job", phase="Succeeded")
        world.pod("elsewhere", "w2")
        own = world.kubelet("w1")
        assert [(it.name, it.ending) for it in drain.left_on(own, "w1")] == [("bare", False), ("web", False)]
        left = drain.evict_some(own, "w1")
        # Accepted is not gone: the kubelet ends them first.
        assert [(it.namespace, it.name, it.ending, it.budget) for it in left] == [
            ("default", "bare", True, None),
            ("default", "web", True, None),
        ]
        assert [it.name for it in drain.evict_some(own, "w1")] == ["bare", "web"]
        world.end_pod("bare")
        assert [it.name for it in drain.evict_some(own, "w1")] == ["web"]
        world.end_pod("web")
        assert drain.evict_some(own, "w1") == ()
        there = {
            it["metadata"]["name"]: it["metadata"].get("deletionTimestamp") for it in world.admin.list("/api/v1/pods")
        }
        assert there == dict.fromkeys(["agent", "static", "done", "elsewhere"])

    def test_a_budget_blocks_and_is_named_and_others_go(self, world: World):
        world.node("w1")
        world.budget("web-minimum", {"app": "web"}, 0)
        world.pod("web", "w1", owner="ReplicaSet", labels={"app": "web"})
        world.pod("other", "w1", owner="ReplicaSet")
        own = world.kubelet("w1")
        other, web = drain.evict_some(own, "w1")
        assert (other.name, other.ending) == ("other", True)
        assert (web.name, web.ending, web.budget) == ("web", False, "web-minimum")
        assert "would violate the pod's disruption budget" in web.why
        with pytest.raises(Throttled, match="disruption budget"):
            own.create(
                "/api/v1/namespaces/default/pods/web/eviction",
                {"apiVersion": drain.eviction_version(own), "kind": "Eviction", "metadata": {"name": "web"}},
            )

    def test_a_budget_allows_as_many_as_it_says(self, world: World):
        world.node("w1")
        world.budget("web", {"app": "web"}, 1)
        for number in range(3):
            world.pod(f"web-{number}", "w1", owner="ReplicaSet", labels={"app": "web"})
        left = drain.evict_some(world.kubelet("w1"), "w1")
        assert [it.ending for it in left] == [True, False, False]

    def test_force_deletes_what_a_budget_keeps(self, world: World):
        world.node("w1")
        world.budget("web", {"app": "web"}, 0)
        world.pod("web", "w1", owner="ReplicaSet", labels={"app": "web"})
        own = world.kubelet("w1")
        assert [it.ending for it in drain.evict_some(own, "w1", force=True)] == [True]
        # Gracefully: its kubelet still ends it.
        assert [it.ending for it in drain.evict_some(own, "w1", force=True)] == [True]
        world.end_pod("web")
        assert drain.evict_some(own, "w1", force=True) == ()

    def test_two_budgets_for_one_pod_block_and_the_reason_is_told(self, world: World):
        world.node("w1")
        world.budget("first", {"app": "web"}, 1)
        world.budget("second", {"app": "web"}, 1)
        world.pod("web", "w1", owner="ReplicaSet", labels={"app": "web"})
        (web,) = drain.evict_some(world.kubelet("w1"), "w1")
        assert (web.ending, web.budget) == (False, None)
        assert "more than one PodDisruptionBudget" in web.why

    def test_a_kubelet_cannot_evict_for_others(self, world: World):
        world.node("w1")
        world.node("w2")
        world.pod("web", "w2", owner="ReplicaSet")
        with pytest.raises(Forbidden):
            drain.evict_some(world.kubelet("w1"), "w2")

    # Certificates.

    def test_an_agent_gets_its_certificate_and_works_with_it(self, world: World, tmp_path: Path):
        rbac.install(world.admin, SLOTS)
        world.node("w1")
        Leases(world.admin).ensure(frozenset({SLOT}))
        own, now = world.kubelet("w1"), datetime.now(UTC)
        folder = tmp_path / "state"
        identity = AgentIdentity(folder, "w1", "workers")
        assert identity.current(now) is None
        assert "was made; a control plane has to approve it" in (identity.advance(own, now) or "")
        assert "waits for a control plane" in (identity.advance(own, now) or "")
        names = set(pending(world.admin))
        assert len(names) == 1
        approve(world.admin, {"another"}, peers(w1="workers"), now)
        assert set(pending(world.admin)) == names
        approve(world.admin, names, peers(w1="workers"), now)
        assert pending(world.admin) == {}
        approve(world.admin, names, peers(w1="workers"), now)
        assert world.sign_approved() == 1
        assert identity.advance(own, now) is None
        mine = identity.current(now)
        assert mine is not None
        assert [path.name for path in folder.iterdir()] == ["agent.pem"]
        assert (folder / "agent.pem").stat().st_mode & 0o777 == 0o600
        Leases(world.as_pair(Pair(mine.certificate, mine.key))).acquire(SLOT, "w1", "", None, NOW)
        # Nothing is asked for before two thirds of its time are over.
        assert identity.advance(own, now) is None
        assert len(list(world.admin.list(REQUESTS))) == 1
        assert "was made" in (identity.advance(own, mine.renew) or "")
        assert identity.current(now) == mine
        # Moved to another pool, it needs another certificate.
        assert AgentIdentity(folder, "w1", "edge").current(now) is None

    def test_a_kubelet_cannot_get_the_certificate_of_another_agent(self, world: World, tmp_path: Path):
        now = datetime.now(UTC)
        AgentIdentity(tmp_path, "w1", "workers").advance(world.kubelet("w2"), now)
        names = set(pending(world.admin))
        with pytest.raises(
            HostError, match="is not approved: 'system:node:w2' asks for a certificate of the node 'w1'"
        ):
            approve(world.admin, names, peers(w1="workers", w2="workers"), now)
        assert set(pending(world.admin)) == names
        assert world.sign_approved() == 0

    def test_a_refused_request_is_given_up_and_made_anew(self, world: World, tmp_path: Path):
        own, now = world.kubelet("w1"), datetime.now(UTC)
        identity = AgentIdentity(tmp_path, "w1", "workers")
        identity.advance(own, now)
        (request,) = world.admin.list(REQUESTS)
        condition = {"type": "Denied", "status": "True", "reason": "Person", "message": "not this one"}
        request["status"] = {"conditions": [condition]}
        world.admin.replace(f"{REQUESTS}/{name_of(request)}/approval", request)
        assert (identity.advance(own, now) or "").endswith("was refused: not this one")
        assert "was made" in (identity.advance(own, now) or "")
        assert len(list(world.admin.list(REQUESTS))) == 2

    def test_an_agent_cannot_approve(self, world: World, tmp_path: Path):
        rbac.install(world.admin, SLOTS)
        now = datetime.now(UTC)
        AgentIdentity(tmp_path, "w1", "workers").advance(world.kubelet("w1"), now)
        for api in (world.agent("w1", "workers"), world.kubelet("w1")):
            with pytest.raises(Forbidden):
                approve(api, set(pending(world.admin)), peers(w1="workers"), now)

    # Tokens.

    def test_a_token_is_there_only_while_it_is_wanted(self, world: World):
        tokens = Tokens(world.admin)
        wanted = {"w1": "abcdef.0123456789abcdef", "w2": "bbbbbb.0123456789abcdef"}
        assert tokens.keep(wanted, NOW) == 2
        assert tokens.keep(wanted, NOW) == 0
        # Half its time later it is prolonged.
        assert tokens.keep(wanted, NOW + timedelta(minutes=31)) == 2
        secret = world.admin.get("/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef")
        assert secret["type"] == "bootstrap.kubernetes.io/token"
        assert tokens.keep({"w2": "bbbbbb.fedcba9876543210"}, NOW) == 2
        assert tokens.present() == {"bootstrap-token-bbbbbb": "w2"}
        assert tokens.keep({}, NOW) == 1
        assert tokens.present() == {}

    def test_tokens_of_others_are_left_alone(self, world: World):
        folder = "/api/v1/namespaces/kube-system/secrets"
        body = {"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token"}
        world.admin.create(folder, {**body, "metadata": {"name": "bootstrap-token-abcdef"}})
        tokens = Tokens(world.admin)
        with pytest.raises(HostError, match="the token of w1 has the id of another token"):
            tokens.keep({"w1": "abcdef.0123456789abcdef"}, NOW)
        assert tokens.keep({}, NOW) == 0
        assert world.admin.get(f"{folder}/bootstrap-token-abcdef")
        with pytest.raises(HostError, match="the bootstrap token of w1 is none"):
            tokens.keep({"w1": "short"}, NOW)

    # The whole, as machines use it.

    def test_where_the_api_servers_are_and_what_they_run(self, world: World):
        world.founded("192.0.2.12", "192.0.2.11")
        rbac.install(world.admin, SLOTS)
        worker = world.agent("w1", "workers")
        assert apiservers.places(worker) == (("192.0.2.11", 6443), ("192.0.2.12", 6443))
        port = int(world.server.url.rpartition(":")[2])
        assert apiservers.versions(worker, [("127.0.0.1", port), ("127.0.0.1", 1)]) == {
            ("127.0.0.1", port): KubernetesVersion("v1.20.2"),
            ("127.0.0.1", 1): None,
        }

    def test_a_worker_joins_and_works_with_its_own_rights(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        at = datetime.now(UTC)
        here = ("127.0.0.1", int(world.server.url.rpartition(":")[2]))
        monkeypatch.setattr("kubenode.host.kube.apiservers.places", lambda api: (here,))
        world.founded("192.0.2.11")
        world.node("cp-1", labels={"node-role.kubernetes.io/control-plane": ""})
        world.node("w1")
        fleet = peers(cp_1="control-plane", w1="workers")
        boss = world.machine(
            tmp_path / "cp-1", "cp-1", fleet, at, secrets=KnownSecrets({"w1": "abcdef.0123456789abcdef"})
        )
        worker = world.machine(tmp_path / "w1", "w1", fleet, at)
        for _ in range(2):
            boss.create_leases(frozenset().union(*SLOTS.values()))
        assert rbac.allowed(world.admin) == {"workers": {SLOT}}
        assert worker.view() is None
        assert "this node's agent has no certificate yet: the certificate request kubenode-agent-w1-" in worker.unseen
        boss.approve(frozenset(pending(world.admin)))
        assert world.sign_approved() == 1
        worker.acquire_lease(SLOT, "update", None)
        worker.cordon("w1")
        report = NodeReport(Version("2026.11.1"), "a" * 64, at)
        worker.report(report)
        world.pod("web", "w1", owner="ReplicaSet")
        seen = worker.view()
        assert seen is not None, worker.unseen
        # No Node has that address, and cp-1's own API server does not answer.
        assert seen.apiservers == {"127.0.0.1": KubernetesVersion("1.20.2"), "cp-1": None}
        assert (seen.me, seen.version, seen.etcd) == ("w1", KubernetesVersion("1.20.2"), None)
        assert [(it.name, it.role, it.cordoned_by_us, it.report) for it in seen.nodes] == [
            ("cp-1", Role.CONTROL_PLANE, False, None),
            ("w1", Role.WORKER, True, report),
        ]
        assert {it.name: it.holder for it in seen.leases} == {SLOT: "w1", "slot-control-plane-0": None}
        assert seen.pods == {"w1": (EvictablePod("default", "web"),)}
        assert [it.ending for it in worker.evict_some("w1", force=False)] == [True]
        world.end_pod("web")
        assert worker.evict_some("w1", force=False) == ()
        worker.uncordon("w1")
        worker.release_lease(SLOT)
        assert {it.holder for it in Leases(world.admin).all()} == {None}
        for attempt in (
            lambda: worker.delete_node("w1"),
            lambda: worker.approve(frozenset({"x"})),
            lambda: worker.create_leases(frozenset({"slot-pool-workers-1"})),
            lambda: worker.cordon("cp-1"),
        ):
            with pytest.raises(Forbidden):
                attempt()
        with pytest.raises(HostError, match="cannot be read"):
            worker.remove_etcd_member("1")
        with pytest.raises(HostError, match="the fleet has no bootstrap token for cp-1"):
            boss.set_tokens(frozenset({"cp-1", "w1"}))
        assert Tokens(world.admin).nodes(at) == {"w1"}
        secrets = "/api/v1/namespaces/kube-system/secrets"
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bootstrap-token-cccccc"}}
        world.admin.create(secrets, {**body, "type": "bootstrap.kubernetes.io/token"})
        for _ in range(2):
            boss.withdraw_token("cccccc.0123456789abcdef")
        assert {name_of(it) for it in world.admin.list(secrets)} & {"bootstrap-token-cccccc"} == set()
        assert worker.configuration() is None
        boss.mark_configuration("d" * 64)
        # As its kubelet: a node that has just joined has no agent's certificate yet.
        assert worker.configuration() == "d" * 64
        assert worker.is_ready()
        worker.mark_socket("unix:///run/some.sock")
        annotations = world.admin.get(f"{NODES}/w1")["metadata"]["annotations"]
        assert annotations["kubeadm.alpha.kubernetes.io/cri-socket"] == "unix:///run/some.sock"
        boss.delete_node("w1")
        boss.delete_node("w1")
        assert not worker.is_ready(), "it has no Node"

    def test_a_tick_that_takes_hours_asks_with_a_certificate_in_force(self, world: World, tmp_path: Path):
        """`kubeadm upgrade` alone may take an hour, and the API refuses a certificate that ended meanwhile (401)."""
        clock = FixedClock(datetime.now(UTC) - timedelta(hours=3))
        boss = world.machine(tmp_path, "cp-1", peers(cp_1="control-plane"), clock)
        with pytest.raises(KubenodeError):
            boss.delete_node("nobody")
        clock.at = datetime.now(UTC)
        boss.delete_node("nobody")

    def test_a_damaged_token_keeps_no_other_node_out(self, world: World, tmp_path: Path):
        at = datetime.now(UTC)
        secrets = KnownSecrets({"w2": "abcdef.0123456789abcdef"}, damaged=frozenset({"w1"}))
        fleet = peers(cp_1="control-plane", w1="workers", w2="workers")
        boss = world.machine(tmp_path, "cp-1", fleet, at, secrets=secrets)
        with pytest.raises(HostError, match="the token of w1 is damaged"):
            boss.set_tokens(frozenset({"w1", "w2"}))
        assert Tokens(world.admin).nodes(at) == {"w2"}

    def test_who_answers_before_a_machine_has_joined(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        fleet = peers(cp_1="control-plane", cp_2="control-plane", cp_3="control-plane")
        port = int(world.server.url.rpartition(":")[2])
        monkeypatch.setattr("kubenode.host.kube.cluster.API_PORT", port)
        fleet["cp-2"] = replace(fleet["cp-2"], address="127.0.0.1")
        # Nobody listens there, and the certificate does not name it.
        fleet["cp-3"] = replace(fleet["cp-3"], address="127.0.0.9")
        machine = world.machine(tmp_path, "cp-1", fleet, datetime.now(UTC))
        version = KubernetesVersion("1.20.2")
        assert machine.answers() == (Answer("cp-2", version), Answer("endpoint", version))
        stranger = KnownSecrets(ca_certificate=Authority().pair.certificate)
        machine = world.machine(tmp_path / "x", "cp-1", fleet, datetime.now(UTC), secrets=stranger)
        assert machine.answers() == ()

    def test_whether_the_cluster_knows_the_token_of_a_machine_that_has_not_joined(self, world: World, tmp_path: Path):
        tokens = {"w1": "aaaaaa.0123456789abcdef", "w2": "bbbbbb.0123456789abcdef"}
        secrets = KnownSecrets(tokens, world.server.authority.pair.certificate, damaged=frozenset({"w4"}))
        fleet = peers(w1="workers", w2="workers", w3="workers", w4="workers")
        one, two, without, damaged = (
            world.machine(tmp_path / name, name, fleet, datetime.now(UTC), secrets=secrets) for name in fleet
        )
        stranger = replace(secrets, ca_certificate=Authority().pair.certificate)
        elsewhere = world.machine(tmp_path / "x", "w1", fleet, datetime.now(UTC), secrets=stranger)
        world.signs("aaaaaa", "cccccc")
        assert (one.invited(), two.invited()) == (True, False)
        assert without.invited() is None, "the fleet has no token for it: the join says so"
        assert damaged.invited() is None
        assert elsewhere.invited() is None, "that is another cluster"
        world.admin.delete("/api/v1/namespaces/kube-public/configmaps/cluster-info")
        assert one.invited() is False
        rules = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-public/rolebindings"
        world.admin.delete(f"{rules}/kubeadm:bootstrap-signer-clusterinfo")
        assert one.invited() is None, "nobody may look"

    def test_reports_that_are_none_are_left_out(self, world: World):
        world.node("w1")
        for value in ("{", "[1]", "7", "[" * 10_000, '{"x": "' + "y" * 20_000 + '"}'):
            world.admin.patch(f"{NODES}/w1", {"metadata": {"annotations": {STATUS_ANNOTATION: value}}})
            assert node_of(world.admin.get(f"{NODES}/w1")).report is None
        for field, value in (("release", "x"), ("since", "never"), ("since", "2026-11-25T12:00:00"), ("poisoned", "x")):
            report = {"release": "1.0", "root_hash": "a", "since": "2026-11-25T12:00:00+00:00", field: value}
            world.admin.patch(f"{NODES}/w1", {"metadata": {"annotations": {STATUS_ANNOTATION: json.dumps(report)}}})
            assert node_of(world.admin.get(f"{NODES}/w1")).report is None

    def test_a_cluster_that_kubeadm_has_not_founded_is_looked_at_later(self, world: World):
        world.admin.delete("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")
        with pytest.raises(TryLater, match="the cluster has no kubeadm-config yet"):
            kubeadm_config(world.admin)
