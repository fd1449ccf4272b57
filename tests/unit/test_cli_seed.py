"""`kubenode seed` at the command's boundary: identities, seeds that the agent reads, and what is refused."""

import base64
import json
import os
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from cliworld import NODE, Done, World, kubenode

from kubenode.host.age import recipient_of
from kubenode.host.paths import Paths
from kubenode.host.seed import own_identity, qemu_arguments
from kubenode.host.state import StateFolder
from kubenode.host.statefiles import decode_seed, encode_seed
from kubenode.model.state import Seed

URL = "https://git.example.net/fleet.git"


def seed(world: World, *words: str | Path, node: str = "edge-1") -> Done:
    return world.run("seed", node, "--fleet-url", URL, *words)


def folder(world: World) -> Path:
    return world.top / "edge-1.seed"


def recipient(world: World) -> str:
    return recipient_of((folder(world) / "identity.key").read_bytes(), "identity.key")


def test_a_seed_is_what_the_agent_reads(world: World, tmp_path: Path) -> None:
    done = seed(world)
    assert done.code == 0, done.err
    expected = Seed(URL, decode_seed((folder(world) / "seed.json").read_bytes()).fleet_id, world.head, "edge-1")
    # On the state partition.
    state = Paths(tmp_path / "disk").state
    state.mkdir(parents=True)
    for name in ("seed.json", "identity.key"):
        (state / name).write_bytes((folder(world) / name).read_bytes())
    assert StateFolder(Paths(tmp_path / "disk"), {}).seed() == expected
    assert own_identity(Paths(tmp_path / "disk"), {}) == (
        (folder(world) / "identity.key").read_bytes(),
        state / "identity.key",
    )
    # As credentials, which come first.
    credentials = tmp_path / "vm/run/credentials/@system"
    credentials.mkdir(parents=True)
    for path in (folder(world) / "smbios").iterdir():
        kind, _, rest = path.read_text().partition(":")
        name, _, value = rest.partition("=")
        assert (kind, name) == ("io.systemd.credential.binary", path.name)
        (credentials / name).write_bytes(base64.b64decode(value, validate=True))
    assert StateFolder(Paths(tmp_path / "vm"), {}).seed() == expected
    text, found = own_identity(Paths(tmp_path / "vm"), {})
    assert (recipient_of(text, "x"), found) == (recipient(world), credentials / "kubenode.identity")
    assert f"ageRecipient: {recipient(world)}" in (world.fleet / "nodes/edge-1.yaml").read_text()
    assert kubenode("validate", world.fleet).code == 0


def test_only_the_owner_reads_it_and_the_secret_is_not_shown(world: World) -> None:
    previous = os.umask(0)
    try:
        done = seed(world)
    finally:
        os.umask(previous)
    for path in (folder(world), *folder(world).rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    key = (folder(world) / "identity.key").read_text()
    secret = key.splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-1")
    assert secret not in done.out + done.err
    assert base64.b64encode(key.encode()).decode()[:60] not in done.out + done.err
    assert secret.encode() not in (folder(world) / "seed.json").read_bytes()
    holders = {path.name for path in folder(world).rglob("*") if path.is_file() and holds(path, key)}
    assert holders == {"identity.key", "libvirt.xml", "kubenode.identity"}
    assert "SECRET: identity.key, libvirt.xml and smbios/kubenode.identity hold the machine's private key." in done.err


def holds(path: Path, key: str) -> bool:
    return key in path.read_text() or base64.b64encode(key.encode()).decode() in path.read_text()


def test_the_forms_for_hypervisors(world: World, tmp_path: Path) -> None:
    (tmp_path / "10-lan.network").write_text("[Match]\nName=en*\n")
    machine_id = "0123456789abcdef" * 2
    words = ("--network", tmp_path / "10-lan.network", "--dns", "192.0.2.53", "--dns", "2001:db8::53")
    done = seed(world, *words, "--machine-id", machine_id)
    assert done.code == 0, done.err
    lines = done.out.replace(" \\\n", "\n").splitlines()
    names = ["kubenode.seed", "kubenode.identity", "network.network.10-lan", "network.dns", "system.machine_id"]
    assert lines == [f"-smbios 'type=11,path={folder(world)}/smbios/{name}'" for name in names]
    domain = ElementTree.fromstring(f"<domain>{(folder(world) / 'libvirt.xml').read_text()}</domain>")
    entries = [entry.text for entry in domain.findall("sysinfo[@type='smbios']/oemStrings/entry")]
    assert entries == [(folder(world) / "smbios" / name).read_text() for name in names]
    assert domain.find("smbios[@mode='sysinfo']") is not None
    values = [base64.b64decode((entry or "").partition("=")[2]).decode() for entry in entries]
    assert values[2:] == ["[Match]\nName=en*\n", "192.0.2.53 2001:db8::53", machine_id]
    # Another seed leaves no credentials of the one before.
    done = seed(world, "--ntp", "ntp.example.net")
    assert sorted(path.name for path in (folder(world) / "smbios").iterdir()) == [
        "kubenode.identity",
        "kubenode.seed",
        "network.network.80-seed",
    ]


def test_commas_in_paths_are_doubled() -> None:
    assert qemu_arguments({"x": Path("/a,b/x")}) == ["-smbios", "type=11,path=/a,,b/x"]


def test_as_json(world: World) -> None:
    done = seed(world, "--output", "json")
    assert done.json["kind"] == "Seed"
    assert done.json["recipient"] == recipient(world)
    assert (done.json["anchor"], done.json["identity"]) == (world.head, str(folder(world) / "identity.key"))
    assert "AGE-SECRET" not in done.out


def test_again_keeps_the_identity(world: World) -> None:
    assert "with a new identity. Commit and push nodes/edge-1.yaml" in seed(world).last
    first, document = recipient(world), (world.fleet / "nodes/edge-1.yaml").read_bytes()
    done = seed(world, "--branch", "next")
    assert (done.code, recipient(world)) == (0, first)
    assert done.last == f"The seed of edge-1 is in {folder(world)}, with its present identity."
    assert (world.fleet / "nodes/edge-1.yaml").read_bytes() == document
    assert json.loads((folder(world) / "seed.json").read_text())["branch"] == "next"


def test_a_killed_seed_is_taken_up_again(world: World) -> None:
    """The key is written before the document names it: without the second, the first is used."""
    assert seed(world).code == 0
    first = recipient(world)
    (world.fleet / "nodes/edge-1.yaml").write_text(NODE)
    assert seed(world).code == 0
    assert recipient(world) == first
    assert first in (world.fleet / "nodes/edge-1.yaml").read_text()


def test_a_lost_identity(world: World, tmp_path: Path) -> None:
    assert seed(world).code == 0
    assert kubenode("seal", "db", "-C", world.fleet, "--for", "node:edge-1", stdin=b"x").code == 0
    before = (world.fleet / "nodes/edge-1.yaml").read_bytes()
    done = seed(world, "--out", tmp_path / "other")
    assert (done.code, (tmp_path / "other").exists()) == (64, False)
    assert f"edge-1 has an identity, and its private half is not in {tmp_path}/other" in done.err
    assert "--new-identity" in done.err and "kubenode seal --reseal --all" in done.err
    done = seed(world, "--new-identity")
    assert done.code == 64
    assert f"{folder(world)}/identity.key exists, and an identity is never written over" in done.err
    assert (world.fleet / "nodes/edge-1.yaml").read_bytes() == before
    done = seed(world, "--out", tmp_path / "other", "--new-identity")
    assert done.code == 0
    assert "The new identity opens none of edge-1's secrets yet (db): kubenode seal --reseal --all." in done.last
    assert (world.fleet / "nodes/edge-1.yaml").read_bytes() != before
    done = seed(world)
    assert (done.code, "is another identity than the one of nodes/edge-1.yaml" in done.err) == (64, True)


def test_a_damaged_identity(world: World) -> None:
    folder(world).mkdir()
    (folder(world) / "identity.key").write_text("AGE-SECRET-KEY-1GARBAGE")
    done = seed(world)
    assert (done.code, "does not hold one age identity" in done.err, "GARBAGE" in done.err) == (1, True, False)


def test_a_stranger_at_the_head(world: World) -> None:
    world.git("commit", "--quiet", "--allow-empty", "--no-gpg-sign", "--message", "stranger")
    done = seed(world)
    assert (done.code, done.out, folder(world).exists()) == (3, "", False)
    assert seed(world, "--anchor", "HEAD^").code == 0
    assert decode_seed((folder(world) / "seed.json").read_bytes()).anchor == world.git("rev-parse", "HEAD^")


def test_a_shallow_clone(world: World, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    world.git("clone", "--quiet", "--depth=1", world.fleet.as_uri(), shallow)
    done = kubenode("seed", "edge-1", "-C", shallow, "--fleet-url", URL)
    assert (done.code, "is a shallow clone: its history cannot be authenticated from the start" in done.err) == (
        64,
        True,
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--machine-id", "x"], 64, "'x' is not a machine id"),
        (["--machine-id", "0" * 32], 64, "is not a machine id"),
        (["--dns", "a b"], 64, "'a b' is no address of a server"),
        (["--network", "x.conf.d"], 64, "is no file for systemd-networkd"),
        (["--network", "/nosuch.network"], 1, "/nosuch.network: No such file"),
        (["--network", "a.network", "--ntp", "n"], 64, "--ntp goes without --network"),
        (["--anchor", "nosuch"], 64, "has no commit 'nosuch'"),
        (["--fleet-url", "ext::sh"], 64, "is not an address that is fetched from"),
        (["--fleet-url", "https://a:word@host/x"], 64, "the address https://host/x has a password in it"),
    ],
)
def test_refused(prepared: World, words: list[str], code: int, said: str) -> None:
    done = seed(prepared, *words)
    assert (done.code, done.out) == (code, ""), done.err
    assert said in done.err
    assert "word@" not in done.err
    assert prepared.dirty == ""
    assert not folder(prepared).exists()


def test_unknown_machines_and_places(prepared: World) -> None:
    done = seed(prepared, node="edge-2")
    assert done.code == 1
    assert done.err == "Error: nodes/edge-2.yaml: there is no node 'edge-2'\nHint: Did you mean 'edge-1'?\n"
    done = seed(prepared, "--out", prepared.fleet / "seeds")
    assert (done.code, "is in the fleet repo" in done.err) == (64, True)
    done = prepared.run("seed", "edge-1")
    assert (done.code, "nothing says where the machine fetches the fleet repo" in done.err) == (64, True)
    assert prepared.dirty == ""


def test_the_address_of_origin(world: World) -> None:
    world.git("remote", "add", "origin", "git@git.example.net:fleet.git")
    assert world.run("seed", "edge-1").code == 0
    assert decode_seed((folder(world) / "seed.json").read_bytes()).fleet_url == "git@git.example.net:fleet.git"


def test_seeds_survive_a_round_trip() -> None:
    seed = Seed(URL, "6f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11", "0" * 40, "a.b-c", "x/y")
    assert decode_seed(encode_seed(seed)) == seed


def test_a_machine_without_identity_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"no identity; it was looked for in /c/kubenode\.identity, .*identity\.key"):
        own_identity(Paths(tmp_path), {"CREDENTIALS_DIRECTORY": "/c"})


@pytest.mark.parametrize(
    "url",
    ["static+https://cdn.example.net/fleet", "static+http://a.example.net/f static+file:///srv/fleet"],
)
def test_a_machine_may_follow_a_static_store(world: World, url: str) -> None:
    assert kubenode("seed", "edge-1", "-C", world.fleet, "--fleet-url", url).code == 0
    assert decode_seed((folder(world) / "seed.json").read_bytes()).fleet_url == url


def test_a_static_store_that_is_none_is_refused_before_anything_is_made(world: World) -> None:
    done = kubenode("seed", "edge-1", "-C", world.fleet, "--fleet-url", "static+ftp://a.example.net/f")
    assert (done.code, folder(world).exists()) == (64, False)
    assert "is not the address of a static fleet store" in done.err
