"""A fleet from a static store: real git, a real HTTP server, honest and not."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from kubenode.errors import HostError, NoSpace, TryLater, Untrusted, UsageError
from kubenode.host import static
from kubenode.host.fleetindex import Bundle, Index, encode, index_name
from kubenode.host.git import DAMAGED, FleetRepository
from kubenode.host.mirror import addresses
from kubenode.host.static import StaticFleet
from kubenode.image import publish_fleet as publish_module
from kubenode.image.publish_fleet import publish_fleet
from kubenode.model.state import Stamp, TrustState
from kubenode.trust import headfile
from kubenode.trust.chain import authenticate
from kubenode.trust.policy import POLICY_PATH
from tests import fleetstore
from tests.fleetstore import StoreServer, serving
from tests.gitrepo import GitRepo, SigningKey, policy_yaml
from tests.stamps import FLEET, ISSUED, stamp

LIMITS = (2.0, 2.0, 2.0, 1024)


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.make(tmp_path_factory.mktemp("keys"), "alice")


@dataclass
class Site:
    """A repo, the store that it is published to, a server in front of it, and a node's copy."""

    folder: Path
    repo: GitRepo
    key: SigningKey
    server: StoreServer
    serial: int = 0
    made: list[StaticFleet] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.server.folder

    def grow(self, count: int = 1) -> str:
        for _ in range(count):
            self.serial += 1
            self.repo.write(f"nodes/{self.serial}.yaml", f"n: {self.serial}")
            self.repo.commit(f"change {self.serial}", self.key)
        return self.repo.head

    def publish(self, store: Path | None = None) -> str:
        head = self.repo.head
        self.serial += 1
        data = stamp(head, self.serial, self.key)

        def make(old: bytes | None) -> bytes:
            return old if old is not None and headfile.read(old).head == head else data

        publish_fleet(self.repo.path / ".git", store or self.store, "main", head, make)
        return head

    def source(self, *servers: StoreServer, name: str = "node") -> StaticFleet:
        repository = FleetRepository(self.folder / name / "fleet.git")
        found = [server.address for server in servers or (self.server,)]
        source = StaticFleet(repository, found, limits=LIMITS, choose=lambda count: 0)
        self.made.append(source)
        return source

    def known(self, commit: str, serial: int = 1) -> TrustState:
        """What nodes remember that trust a commit; they have accepted it, as the agent does first."""
        for source in self.made:
            if source.stored_head() is not None:
                with suppress(HostError):
                    source.repository.accept(commit)
        seen = Stamp(commit, serial, ISSUED, ISSUED + timedelta(days=1), self.key.key.fingerprint)
        return TrustState(FLEET, commit, stamp=seen)


@contextmanager
def new_site(tmp_path: Path, alice: SigningKey) -> Iterator[Site]:
    repo = GitRepo.init(tmp_path / "repo")
    repo.write(POLICY_PATH, policy_yaml({"alice": [alice]}))
    repo.write("big", os.urandom(9000))  # So that a step is smaller than the whole.
    repo.commit("start", alice)
    (tmp_path / "store").mkdir()
    with serving(tmp_path / "store") as server:
        yield Site(tmp_path, repo, alice, server)


@pytest.fixture
def site(tmp_path: Path, alice: SigningKey) -> Iterator[Site]:
    with new_site(tmp_path, alice) as made:
        yield made


@dataclass
class Standing:
    """A site with one publication after the first, of which a node has seen only the first."""

    site: Site
    anchor: str
    head: str


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, alice: SigningKey) -> Iterator[Standing]:
    with new_site(tmp_path_factory.mktemp("standing"), alice) as site:
        anchor = site.publish()
        site.source(name="template").fetch()
        site.grow()
        yield Standing(site, anchor, site.publish())


def check_whole(source: StaticFleet, anchor: str, head: str) -> None:
    """Authenticate and read everything up to the head."""
    assert source.stored_head() == head
    commit = authenticate(source.anchor(anchor), source.chain(anchor, head), fleet_id=FLEET, head=head)
    assert len(source.tree(commit)) > 0


def test_one_request_when_nothing_is_new_and_only_what_is_new_else(site: Site) -> None:
    anchor = site.publish()
    source = site.source()
    assert source.stored_head() is None and source.stamp() is None
    assert source.fetch() == anchor
    assert site.server.seen() == ["head.json", "index", "bundles"]
    assert source.stamp() == (site.store / "head.json").read_bytes()
    assert source.fetch(site.known(anchor)) == anchor
    assert site.server.seen() == ["head.json"]
    site.grow(3)
    head = site.publish()
    full, step = sorted((site.store / "bundles").iterdir(), key=lambda path: path.stat().st_size, reverse=True)
    assert source.fetch(site.known(anchor)) == head
    assert site.server.asked[2:] == [f"bundles/{step.name}"]
    assert site.server.seen() == ["head.json", "index", "bundles"]
    check_whole(source, anchor, head)
    # A new machine takes the full bundle and the step.
    fresh = site.source(name="fresh")
    assert fresh.fetch() == head
    assert site.server.asked[2:] == [f"bundles/{full.name}", f"bundles/{step.name}"]
    check_whole(fresh, anchor, head)
    assert not list((site.folder / "fresh").glob("fleet.bundles")) and not list(
        site.folder.glob("*/fleet.incoming.git")
    )


def test_a_new_stamp_for_the_same_head_costs_one_request(site: Site) -> None:
    head = site.publish()
    source = site.source()
    source.fetch()
    site.server.seen()
    data = stamp(head, 99, site.key)
    (site.store / "head.json").write_bytes(data)
    assert source.fetch(site.known(head)) == head
    assert (site.server.seen(), source.stamp()) == (["head.json"], data)


@pytest.mark.parametrize("scheme", ["etag", "time", "none", "file"])
def test_validators(site: Site, scheme: str) -> None:
    head = site.publish()
    source = site.source()
    if scheme == "time":
        site.server.answers["head.json"] = fleetstore.by_time
    if scheme == "none":
        site.server.answers["head.json"] = lambda h, data: h.send(200, data or b"")
    if scheme == "file":
        repository = FleetRepository(site.folder / "node" / "fleet.git")
        source = StaticFleet(repository, [f"static+{site.store.as_uri()}"])
    assert source.fetch() == head
    before = (site.folder / "node" / "fleet.head.json").stat().st_mtime_ns
    site.server.seen()
    assert source.fetch() == head
    assert site.server.seen() == ([] if scheme == "file" else ["head.json"])
    assert (site.folder / "node" / "fleet.head.json").stat().st_mtime_ns == before, "nothing is written"
    site.grow()
    newer = site.publish()
    if scheme != "time":
        assert source.fetch() == newer


@pytest.mark.parametrize(
    ("kind", "answer", "said"),
    [
        ("head.json", fleetstore.status(404), "it answers with status 404"),
        ("head.json", fleetstore.status(500), "it answers with status 500"),
        ("head.json", fleetstore.loops, "redirects more than 5 times"),
        ("head.json", fleetstore.garbage, "head.json is not acceptable JSON"),
        ("head.json", fleetstore.endless, "it sends more than 262144 bytes"),
        ("head.json", fleetstore.half, "peer closed connection"),
        ("index", fleetstore.status(404), "it answers with status 404"),
        ("index", fleetstore.loops, "redirects more than 5 times"),
        ("index", fleetstore.garbage, "json cannot be used"),
        ("index", fleetstore.endless, "is larger than 262144 bytes"),
        ("bundles", fleetstore.status(404), "it answers with status 404"),
        ("bundles", fleetstore.garbage, "bundle ended at"),
        ("bundles", fleetstore.flipped, "size or sha256 differ"),
        ("bundles", fleetstore.longer, "size or sha256 differ"),
        ("bundles", fleetstore.half, "peer closed connection"),
        ("bundles", fleetstore.endless, "size or sha256 differ"),
        ("bundles", fleetstore.loops, "redirects more than 5 times"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:20]),
)
def test_a_broken_store_changes_nothing_and_another_is_asked(
    standing: Standing, kind: str, answer: fleetstore.Answer, said: str
) -> None:
    site, known = standing.site, standing.site.known(standing.anchor)
    for name in ("node", "fresh"):
        shutil.rmtree(site.folder / name, ignore_errors=True)
    shutil.copytree(site.folder / "template", site.folder / "node")
    source = site.source()
    kept = source.stamp()
    site.server.answers = {kind: answer}
    for reader in (source, site.source(name="fresh")):
        with pytest.raises(TryLater) as caught:
            reader.fetch(known)
        assert said in caught.value.message and caught.value.hint
    assert (source.stored_head(), source.stamp()) == (standing.anchor, kept)
    with serving(site.store) as good:
        assert site.source(site.server, good).fetch(known) == standing.head
    check_whole(source, standing.anchor, standing.head)


def test_nothing_modified_is_no_answer_to_who_has_nothing(site: Site) -> None:
    site.publish()
    site.server.answers["head.json"] = fleetstore.unasked
    with pytest.raises(TryLater, match="it answers with status 304"):
        site.source().fetch()


def test_a_folder_with_a_head_json_that_is_too_large(site: Site) -> None:
    (site.store / "head.json").write_bytes(b" " * (headfile.MAX_BYTES + 1))
    source = StaticFleet(FleetRepository(site.folder / "node" / "fleet.git"), [f"static+{site.store.as_uri()}"])
    with pytest.raises(TryLater, match=r"head\.json is larger than 262144 bytes"):
        source.fetch()


def test_a_broken_transfer_is_continued(site: Site) -> None:
    site.grow(3)
    head = site.publish()
    source = site.source()
    site.server.answers["bundles"] = fleetstore.half
    with pytest.raises(TryLater):
        source.fetch()
    (part,) = (site.folder / "node" / "fleet.bundles").iterdir()
    begun = part.stat().st_size
    assert begun > 0
    ranges: list[str] = []

    def resumed(h: fleetstore.Handler, data: bytes | None) -> None:
        ranges.append(h.headers["Range"])
        fleetstore.honest(h, data)

    site.server.answers["bundles"] = resumed
    assert source.fetch() == head
    assert ranges == [f"bytes={begun}-"]


def test_a_part_that_was_spoiled_is_thrown_away(site: Site) -> None:
    head = site.publish()
    source = site.source()
    (bundle,) = (site.store / "bundles").iterdir()
    (site.folder / "node" / "fleet.bundles").mkdir(parents=True)
    (site.folder / "node" / "fleet.bundles" / bundle.name).write_bytes(b"spoiled" * 9)
    (site.folder / "node" / "fleet.bundles" / "of-another-time.bundle").write_bytes(b"x")
    assert source.fetch() == head


def rewrite(site: Site, head: str, *bundles: Bundle) -> None:
    (site.store / index_name(head)).write_bytes(encode(Index(head, bundles)))


def offered(site: Site, head: str) -> tuple[Bundle, ...]:
    document = json.loads((site.store / index_name(head)).read_text())
    return tuple(Bundle(it["from"], it["to"], it["sha256"], it["size"]) for it in document["bundles"])


def test_a_missing_or_broken_step_falls_back_to_the_whole(site: Site) -> None:
    anchor = site.publish()
    sources = [site.source(name=name) for name in ("gone", "cut", "unnamed")]
    for source in sources:
        source.fetch()
    site.grow(2)
    head = site.publish()
    full, step = offered(site, head)
    whole = site.folder / "whole"
    site.publish(whole)
    (new_full,) = (whole / "bundles").iterdir()
    (site.store / "bundles" / new_full.name).write_bytes(new_full.read_bytes())
    best = Bundle(None, head, new_full.stem, new_full.stat().st_size)
    content = (site.store / step.name).read_bytes()
    (site.store / step.name).unlink()
    rewrite(site, head, full, step, best)
    assert sources[0].fetch(site.known(anchor)) == head
    (site.store / step.name).write_bytes(content[:-9] + b"123456789")
    assert sources[1].fetch(site.known(anchor)) == head
    rewrite(site, head, best)
    assert sources[2].fetch(site.known(anchor)) == head
    for source in sources:
        check_whole(source, anchor, head)


def test_a_step_without_what_it_builds_on_is_refused(site: Site) -> None:
    site.publish()
    site.grow()
    head = site.publish()
    full, step = offered(site, head)
    rewrite(site, head, replace(step, start=None))
    with pytest.raises(TryLater, match="bundle builds on commits that this machine does not have"):
        site.source().fetch()
    assert site.source().stored_head() is None
    rewrite(site, head, replace(full, end=head))
    with pytest.raises(TryLater, match=f"leads to {full.end[:12]}, not to {head[:12]} as the index says"):
        site.source().fetch()
    assert site.source().stored_head() is None


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Other"},
        {"head": "a" * 40},
        {"bundles": {}},
        {"bundles": [7]},
        {"bundles": [{"from": None, "to": "x", "sha256": "0" * 64, "size": 1}]},
        {"bundles": [{"from": None, "to": "a" * 40, "sha256": "../../etc/passwd", "size": 1}]},
        {"bundles": [{"from": None, "to": "a" * 40, "sha256": "0" * 64, "size": 1 << 40}]},
        {"bundles": [{"from": None, "to": "a" * 40, "sha256": "0" * 64, "size": True}]},
        {"bundles": [{"from": None, "to": "a" * 40, "sha256": "0" * 64, "size": 1}] * 257},
        {"bundles": []},
        # Round and round.
        {"bundles": [{"from": None, "to": "a" * 40, "sha256": "0" * 64, "size": 1}] * 2},
        {
            "bundles": [
                {"from": None, "to": "a" * 40, "sha256": "0" * 64, "size": 1},
                {"from": "a" * 40, "to": "a" * 40, "sha256": "0" * 64, "size": 1},
            ]
        },
    ],
)
def test_an_index_that_lies(standing: Standing, change: dict[str, object]) -> None:
    site = standing.site
    site.server.answers = {}
    path = site.store / index_name(standing.head)
    honest = path.read_text()
    site.server.seen()
    try:
        path.write_text(json.dumps({**json.loads(honest), **change}))
        with pytest.raises(TryLater, match="no address of the fleet repo can be used"):
            site.source(name="never").fetch()
    finally:
        path.write_text(honest)
    assert site.server.seen() == ["head.json", "index"]


def test_objects_that_fsck_refuses_never_arrive(site: Site) -> None:
    anchor = site.publish()
    source = site.source()
    source.fetch()
    tree = site.repo.git(
        "mktree", stdin=f"100644 blob {site.repo.git('hash-object', '-w', POLICY_PATH)}\t.git\n".encode()
    )
    bad = site.repo.git("commit-tree", "-m", "bad", "-p", anchor, tree)
    site.repo.git("update-ref", "refs/heads/main", bad)
    site.publish()
    # git 2.39 does not check the objects of a bundle: the candidate may have them, the copy never does.
    assert source.fetch(site.known(anchor)) == bad
    with pytest.raises(Untrusted, match="consistency check refuses"):
        source.repository.accept(bad)
    source.repository.drop()
    assert source.stored_head() == anchor
    assert source.repository._place(bad) is None


def test_a_full_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.publish()

    def full(folder: Path, needed: int) -> None:
        raise NoSpace("the file system is too full")

    monkeypatch.setattr(static, "require_free", full)
    with pytest.raises(NoSpace):
        site.source().fetch()
    assert site.server.seen() == ["head.json", "index"]


# Mirrors.


def test_a_mirror_that_stands_still_only_delays(site: Site, tmp_path: Path) -> None:
    old = site.publish()
    site.publish(tmp_path / "slow")
    with serving(tmp_path / "slow") as slow:
        site.grow()
        head = site.publish()
        serial = headfile.read((site.store / "head.json").read_bytes()).serial
        source = site.source(slow, site.server)
        # Nothing better is known yet: what the first gives is taken.
        assert source.fetch(site.known(old)) == old
        assert source.fetch(site.known(old)) == old
        slow.seen()
        # Another turn brings the newer head; from then on the slow one is passed over.
        source._choose = lambda count: 1
        assert source.fetch(site.known(old)) == head
        source._choose = lambda count: 0
        assert source.fetch(site.known(head, serial)) == head
        assert (slow.seen(), source.stamp()) == (["head.json"], (site.store / "head.json").read_bytes())
        # When only old ones answer, the agent gets to see that, and the head does not go back.
        site.server.answers["*"] = fleetstore.status(503)
        assert source.fetch(site.known(head, serial)) == head
        assert headfile.read(source.stamp() or b"").head == old


def test_a_lagging_mirror_without_stamps_is_no_rewound_branch(site: Site, tmp_path: Path) -> None:
    old = site.publish()
    site.publish(tmp_path / "slow")
    site.grow()
    head = site.publish()
    with serving(tmp_path / "slow") as slow:
        source = site.source(site.server, slow)
        assert source.fetch() == head
        source._choose = lambda count: 1
        assert source.fetch(TrustState(FLEET, head)) == head == source.stored_head()
        assert old != head


def test_what_a_lying_mirror_puts_on_top_goes_with_the_next_honest_one(site: Site, tmp_path: Path) -> None:
    head = site.publish()
    source = site.source()
    source.fetch()
    site.repo.write("evil.yaml", "x\n")
    evil = site.repo.commit("evil", None)
    site.publish(tmp_path / "evil")
    site.repo.git("reset", "--quiet", "--hard", head)
    with serving(tmp_path / "evil") as liar:
        both = site.source(liar, site.server)
        assert both.fetch(site.known(head)) == evil
        both._choose = lambda count: 1
        assert both.fetch(site.known(head)) == head == both.stored_head()
        assert both.stamp() == (site.store / "head.json").read_bytes()


def test_bundles_come_from_any_mirror(site: Site, tmp_path: Path) -> None:
    head = site.publish()
    site.server.answers["bundles"] = fleetstore.status(404)
    with serving(site.store) as second:
        assert site.source(site.server, second).fetch() == head
        assert second.seen() == ["bundles"]


def test_a_damaged_copy_is_replaced(site: Site) -> None:
    anchor = site.publish()
    site.grow()
    source = site.source()
    head = site.publish()
    source.fetch()
    known = site.known(anchor)
    (source.repository.path / DAMAGED).touch()
    assert source.fetch(known) == head
    source.repository.accept(head)
    assert not (source.repository.path / DAMAGED).exists()
    check_whole(source, anchor, head)
    (site.folder / "node" / "fleet.head.json").write_bytes(b"torn")
    assert source.stamp() is None
    assert source.fetch(site.known(anchor)) == head
    assert source.stamp() == (site.store / "head.json").read_bytes()


@pytest.mark.parametrize(
    "url",
    ["static+ftp://x/y", "static+https://", "static+file://host/x", "static+https://a https://b", "static+relative"],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="not the address of a static fleet store"):
        addresses(url)


def test_addresses() -> None:
    assert addresses("https://git.example.net/fleet.git") == ()
    assert addresses(" static+https://a/x/  static+file:///srv ") == ("static+https://a/x", "static+file:///srv")
    with pytest.raises(UsageError, match="names 9 addresses; at most 8"):
        addresses(" ".join(["static+https://a"] * 9))


# Publishing.


def listing(store: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(store)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in store.rglob("*")
        if path.is_file()
    }


def test_publishing_again_changes_nothing(site: Site) -> None:
    site.publish()
    site.grow()
    site.publish()
    before = listing(site.store)
    site.publish()
    assert listing(site.store) == before
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in site.store.rglob("*.*") if path.name != ".lock")


def test_a_long_life(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many publications the store is small, new machines take few steps, and old ones find their way."""
    monkeypatch.setattr(publish_module, "MAX_STEPS", 2)
    monkeypatch.setattr(publish_module, "KEPT_STEPS", 4)
    anchor = site.publish()
    early = site.source(name="early")
    early.fetch()
    for _ in range(6):
        site.grow()
        site.publish()
    site.server.seen()
    site.source(name="fresh").fetch()
    assert len(site.server.seen()) <= 2 + 1 + 2
    head = site.repo.head
    kinds = [bundle.start is None for bundle in offered(site, head)]
    assert (kinds.count(True), kinds.count(False)) == (1, 4)
    assert len(list((site.store / "bundles").iterdir())) <= 5 + 2, "and what who reads now may need"
    assert len(list((site.store / "index").iterdir())) == 2
    assert early.fetch(site.known(anchor)) == head
    check_whole(early, anchor, head)


def test_a_rewritten_branch_is_not_published(site: Site) -> None:
    start = site.publish()
    site.grow()
    site.publish()
    before = listing(site.store)
    site.repo.git("reset", "--quiet", "--hard", start)
    site.grow()
    with pytest.raises(UsageError, match="does not build on it"):
        site.publish()
    assert listing(site.store) == before


def test_a_store_that_lost_files_is_made_whole(site: Site) -> None:
    site.publish()
    site.grow()
    head = site.publish()
    for path in (site.store / "bundles").iterdir():
        path.unlink()
    site.publish()
    assert site.source().fetch() == head
    for path in (site.store / "index").iterdir():
        path.write_text("{}")
    site.publish()
    assert site.source(name="other").fetch() == head
