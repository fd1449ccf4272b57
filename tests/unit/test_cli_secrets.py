"""`kubenode seal` and `unseal` at the command's boundary, with real keys; nothing in plain text is left anywhere."""

import hashlib
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cliworld import Done, World, kubenode

from kubenode.host import age, files

SECRET = b"correct horse battery staple\n"


@pytest.fixture(scope="module")
def sealed_once(prepared: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The prepared fleet, whose machine has an identity, and a secret `db` for it, all committed; not to be changed."""
    world = World(tmp_path_factory.mktemp("sealed") / "with space")
    shutil.copytree(prepared.top, world.top, symlinks=True)
    world.git("config", "user.signingKey", world.key)
    done = world.run("seed", "edge-1", "--fleet-url", "https://git.example.net/fleet.git")
    assert done.code == 0, done.err
    done = seal(world, "db", "--for", "pool:standalone", "--path", "/etc/db/password")
    assert done.code == 0, done.err
    commit(world)
    return world


@pytest.fixture
def sealed(sealed_once: World, tmp_path: Path) -> Iterator[World]:
    """A copy of it of this test's own."""
    world = World(tmp_path / "with space")
    shutil.copytree(sealed_once.top, world.top, symlinks=True)
    world.git("config", "user.signingKey", world.key)
    yield world
    for path in world.top.rglob("*"):  # Whatever a test did: the plain text is in no file.
        if path.is_file() and path.name != "opened":
            assert SECRET.strip() not in path.read_bytes(), path


def seal(world: World, *words: str | Path, stdin: bytes = SECRET) -> Done:
    return kubenode("seal", *words, "-C", world.fleet, stdin=stdin)


def commit(world: World) -> None:
    world.git("add", "--all")
    world.git("commit", "--quiet", "--message", "Secrets")


def identity(world: World, node: str = "edge-1") -> Path:
    return world.top / f"{node}.seed" / "identity.key"


def add_node(world: World, name: str) -> None:
    path = world.fleet / "nodes" / f"{name}.yaml"
    path.write_text((world.fleet / "nodes/edge-1.yaml").read_text().split("spec:")[0].replace("edge-1", name))
    path.write_text(path.read_text() + "spec: {pool: standalone}\n")
    done = world.run("seed", name, "--fleet-url", "https://git.example.net/fleet.git")
    assert done.code == 0, done.err


def problems(world: World) -> list[tuple[str, str]]:
    done = kubenode("validate", world.fleet, "-o", "json")
    return [(it["path"], it["rule"]) for it in done.json["problems"] if it["path"].startswith("secrets/")]


# Sealing.


def test_seal_and_unseal(sealed: World) -> None:
    assert problems(sealed) == []
    for key in ([], ["--identity", sealed.key], ["-i", identity(sealed)]):
        done = sealed.run("unseal", "db", *key)
        assert (done.code, done.out, done.err) == (0, SECRET.decode(), "Opened db.\n")
    again = seal(sealed, "db", stdin=b"rotated")
    assert (again.code, again.out) == (0, "")
    assert again.err == (
        "Sealed db to node edge-1 and operator operator. Commit secrets/db.age and secrets/db.yaml together.\n"
    )
    assert sealed.run("unseal", "db").out == "rotated"
    assert (sealed.fleet / "secrets/db.yaml").read_text().count("/etc/db/password") == 1


def test_from_a_file_and_of_any_bytes(sealed: World, tmp_path: Path) -> None:
    secret = bytes(range(256)) * 2048
    (tmp_path / "x").write_bytes(secret)
    assert seal(sealed, "large", tmp_path / "x", "--for", "node:edge-1").code == 0
    output = tmp_path / "opened"
    done = sealed.run("unseal", "large", "--output", output)
    assert (done.code, done.out, output.read_bytes() == secret, output.stat().st_mode & 0o777) == (0, "", True, 0o600)
    assert (
        done.last == f"Opened large into {output}, readable by you only. It is plain text: delete it when you are done."
    )


WATCHED = """
import os, sys
written = set()

def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        written.add(str(arguments[0]))
    elif event in ("subprocess.Popen", "os.exec"):
        print("started", *arguments[1][:1])

sys.addaudithook(watch)
sys.dont_write_bytecode = True
try:
    from kubenode.cli.main import main
    main()
finally:
    print(*sorted(written), sep="\\n")
"""


def test_only_the_two_files_are_opened_for_writing(sealed: World) -> None:
    """No temporary file has the plain text: nothing else is written, and no process is started that could."""
    argv = [sys.executable, "-c", WATCHED, "seal", "db", "-C", str(sealed.fleet)]
    done = subprocess.run(argv, input=SECRET, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    names = [re.sub(r"[0-9a-f]{16}", "X", Path(line).name) for line in done.stdout.decode().splitlines()]
    assert names == [".db.age.X.tmp", ".db.yaml.X.tmp"]


def test_unseal_writes_no_plain_text_into_the_repo(sealed: World) -> None:
    done = sealed.run("unseal", "db", "--output", sealed.fleet / "x")
    assert (done.code, "would be plain text in the fleet repo" in done.err, sealed.dirty) == (64, True, "")


def test_unseal_writes_over_nothing(sealed: World, tmp_path: Path) -> None:
    output = tmp_path / "there"
    output.write_text("mine")
    done = sealed.run("unseal", "db", "--output", output)
    assert (done.code, output.read_text()) == (64, "mine")
    assert done.err.splitlines()[0] == f"Error: {output} exists and is not written over"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert sealed.run("unseal", "db", "--output", tmp_path / "link").code == 64
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        ([], SECRET, "the secret needs a name"),
        (["x"], SECRET, "nothing says who needs 'x'"),
        (["x", "--for", "pool:standalon"], SECRET, "Did you mean 'standalone'?"),
        (["x", "--for", "edge-1"], SECRET, "'edge-1' does not say who needs the secret"),
        (["x", "--for", "node:edge-1"], b"", "the secret is empty"),
        (["x", "--for", "node:edge-1"], b"x" * (512 * 1024 + 1), "the secret is larger than 524,288 bytes"),
        (["x", "--for", "node:edge-1", "--operator", "opertor"], SECRET, "Did you mean 'operator'?"),
        (["x", "--for", "node:edge-1", "--mode", "0600"], SECRET, "--mode and --owner need --path"),
        (["x", "--for", "node:edge-1", "--path", "/etc/x", "--mode", "rw"], SECRET, "'rw' is not an octal mode"),
        (["X", "--for", "node:edge-1"], SECRET, "'X' cannot be the name of a secret"),
        (["../x", "--for", "node:edge-1"], SECRET, "'../x' cannot be the name of a secret"),
        (["cluster-ca", "--for", "node:edge-1"], SECRET, "is the name of the cluster's CA set"),
        (["x", "/nosuch", "--for", "node:edge-1"], SECRET, "/nosuch: No such file or directory"),
        (["db", "--all"], SECRET, "--all goes with --reseal"),
        (["db", "--reseal", "--all"], SECRET, "--reseal takes the NAME of one secret, or --all"),
        (["--reseal"], SECRET, "--reseal takes the NAME of one secret, or --all"),
        (["db", "--reseal", "--for", "node:edge-1"], SECRET, "--reseal takes the NAME"),
        (["dbb", "--reseal"], SECRET, "Did you mean 'db'?"),
        (["db", "--identity", "x"], SECRET, "--identity goes with --reseal"),
        (["--cluster-ca", "--for", "node:edge-1"], SECRET, "--cluster-ca takes no name, readers or place"),
        (["--cluster-ca"], SECRET, "the fleet has no cluster"),
    ],
)
def test_refused(sealed_once: World, words: list[str], stdin: bytes, said: str) -> None:
    done = seal(sealed_once, *words, stdin=stdin)
    assert done.code in (1, 64), done.err
    assert said in done.err
    assert "Hint: " in done.err or "No such file" in done.err
    assert sealed_once.dirty == ""


def test_what_would_be_a_mistake_is_not_written(sealed_once: World) -> None:
    done = seal(sealed_once, "x", "--for", "node:edge-1", "--path", "/etc/kubernetes/pki/ca.key")
    assert (done.code, sealed_once.dirty) == (1, "")
    assert "/etc/kubernetes/pki/ca.key is not a secret's to set" in done.err


def test_nothing_is_typed_at_a_terminal(sealed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    argv = [sys.executable, "-m", "kubenode", "seal", "x", "--for", "node:edge-1", "-C", str(sealed.fleet)]
    with os.fdopen(leader, "wb"):
        done = subprocess.run(argv, stdin=follower, capture_output=True, text=True, timeout=60, check=False)
        os.close(follower)
    assert done.returncode == 64
    assert done.stderr.startswith("Error: the secret would be typed here, and be seen on the screen\nHint: ")


def test_a_plain_file_in_the_repo_is_pointed_out(sealed: World) -> None:
    plain = sealed.fleet / "opened"
    plain.write_bytes(SECRET)
    done = seal(sealed, "x", plain, "--for", "node:edge-1")
    assert (done.code, "delete it before you commit" in done.err) == (0, True)


def test_no_operator_could_open_it(sealed: World) -> None:
    policy = sealed.fleet / "trust/policy.yaml"
    before, _, rest = policy.read_text().partition("      ageRecipients:")
    policy.write_text(before + rest.split("\n", 2)[2])
    done = seal(sealed, "x", "--for", "node:edge-1")
    assert (done.code, "no operator could open it" in done.err) == (64, True)
    assert ("secrets/db.yaml", "no-recipient") in problems(sealed)


# Opening.


def test_other_keys_open_nothing(sealed: World, tmp_path: Path) -> None:
    add_node(sealed, "edge-2")
    stranger = identity(sealed, "edge-2")
    done = sealed.run("unseal", "db", "--identity", stranger)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[0] == f"Error: secrets/db.age is not sealed to {stranger}"
    for text, said in (
        (f"{sealed.key}.pub", "is the public half of a key"),
        (str(sealed.fleet / "fleet.yaml"), "is no key that opens sealed files"),
        (str(sealed.fleet / "secrets/db.age"), "is itself encrypted"),
        (str(tmp_path / "none"), "cannot be read: No such file"),
    ):
        done = sealed.run("unseal", "db", "--identity", text)
        assert done.code in (1, 64)
        assert said in done.err


def test_an_identity_from_stdin(sealed: World) -> None:
    text = identity(sealed).read_bytes()
    done = kubenode("unseal", "db", "-C", sealed.fleet, "--identity", "-", stdin=text)
    assert (done.code, done.out) == (0, SECRET.decode())
    damaged = text.replace(b"AGE-SECRET-KEY-1", b"AGE-SECRET-KEY-1QQ")
    done = kubenode("unseal", "db", "-C", sealed.fleet, "--identity", "-", stdin=damaged)
    assert (done.code, "what stdin gave holds a damaged age identity" in done.err) == (64, True)
    assert damaged.split(b"KEY-1")[1][:20].decode() not in done.err


def test_a_key_with_a_passphrase(sealed: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_bytes(sealed.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "pass phrase", "-f", key], check=True, capture_output=True)
    done = sealed.run("unseal", "db", "--identity", key)
    assert (done.code, "has a passphrase, and nobody can be asked for it here" in done.err) == (64, True)
    assert age.read_identity(key, lambda prompt: "pass phrase")[0].name == str(key)
    with pytest.raises(Exception, match="the passphrase does not open"):
        age.read_identity(key, lambda prompt: "wrong")


def test_a_swapped_file_is_not_opened(sealed: World) -> None:
    """Anybody can seal to a public key: what the description does not name is not opened, nor sealed again."""
    other = age.seal(b"an attacker's", [age.recipient_of(identity(sealed).read_bytes(), "x"), signing(sealed)])
    (sealed.fleet / "secrets/db.age").write_bytes(other)
    commit(sealed)
    for words in (["unseal", "db"], ["seal", "db", "--reseal"]):
        done = sealed.run(*words)
        assert (done.code, done.out) == (1, "")
        assert "this is not the sealed file that secrets/db.yaml describes" in done.err
    assert problems(sealed) == [("secrets/db.yaml", "seal-differs")]


def signing(world: World) -> str:
    return world.key.with_name(f"{world.key.name}.pub").read_text().strip()


# Sealing again.


def test_a_new_node_and_a_node_that_left(sealed: World) -> None:
    add_node(sealed, "edge-2")
    assert problems(sealed) == [("secrets/db.yaml", "stale-seal")]
    done = sealed.run("seal", "--reseal", "db")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[0] == "Sealed db to nodes edge-1, edge-2 and operator operator."
    assert sealed.run("unseal", "db", "-i", identity(sealed, "edge-2")).out == SECRET.decode()
    (sealed.fleet / "nodes/edge-2.yaml").unlink()
    assert problems(sealed) == [("secrets/db.yaml", "seal-too-wide")]
    done = sealed.run("seal", "--reseal", "--all")
    assert done.code == 0
    assert "The earlier keys of node edge-2 still open what is in git's history." in done.err
    assert problems(sealed) == []
    assert sealed.run("unseal", "db", "-i", identity(sealed, "edge-2")).code == 1
    before = (sealed.fleet / "secrets/db.age").read_bytes()
    done = sealed.run("seal", "--reseal", "--all")
    assert (done.code, done.last) == (0, "Nothing is to be done: all are sealed to exactly those who need it.")
    assert (sealed.fleet / "secrets/db.age").read_bytes() == before


def test_what_one_operator_cannot_open_stops_no_other(sealed: World) -> None:
    assert seal(sealed, "web", "--for", "pool:standalone").code == 0
    document = sealed.fleet / "secrets/web.yaml"
    other = age.seal(SECRET, [age.new_identity().recipient])
    (sealed.fleet / "secrets/web.age").write_bytes(other)

    digest = hashlib.sha256(other).hexdigest()
    document.write_text(re.sub("sha256:[0-9a-f]{64}", f"sha256:{digest}", document.read_text()))
    add_node(sealed, "edge-2")
    done = sealed.run("seal", "--reseal", "--all")
    assert done.code == 1
    assert f"web stays as it is: secrets/web.age is not sealed to {sealed.key}" in done.err
    assert "1 of 2 secrets could not be sealed again: web" in done.err
    assert problems(sealed) == [("secrets/web.age", "bad-seal"), ("secrets/web.yaml", "stale-seal")]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


@pytest.mark.parametrize("again", [["seal", "db"], ["seal", "db", "--reseal"]])
def test_killed_between_both_files(sealed: World, monkeypatch: pytest.MonkeyPatch, again: list[str]) -> None:
    add_node(sealed, "edge-2")
    write = files.write_atomically

    def killed(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.name == "db.yaml":
            raise Killed
        write(path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr("kubenode.cli.sealing.write_atomically", killed)
        with pytest.raises(Killed):
            seal(sealed, "db", "--reseal", stdin=b"")
    done = kubenode("validate", sealed.fleet)
    assert "secrets/db.age is not the file with this digest [seal-differs]" in done.out
    assert "Was sealing it interrupted? Do it again: kubenode seal db FILE, or kubenode seal --reseal db" in done.out
    assert kubenode(*again, "-C", sealed.fleet, stdin=b"" if "--reseal" in again else SECRET).code == 0
    assert problems(sealed) == []
    assert sealed.run("unseal", "db", "-i", identity(sealed, "edge-2")).out == SECRET.decode()


def test_killed_before_the_first_description(sealed: World) -> None:
    assert seal(sealed, "new", "--for", "node:edge-1").code == 0
    (sealed.fleet / "secrets/new.yaml").unlink()
    assert problems(sealed) == [("secrets/new.age", "seal-without-description")]
    assert seal(sealed, "new", "--for", "node:edge-1").code == 0
    assert problems(sealed) == []


def test_a_full_disk_leaves_what_was_there(sealed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kubenode.host.files.os.fsync", full)
        done = seal(sealed, "db", stdin=b"new")
    assert (done.code, "is too full" in done.err, sealed.dirty) == (1, True, "")


def test_errors_do_not_quote_the_secret(sealed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails while the plain text is in memory: no message and no traceback has it."""
    for place in (
        "kubenode.cli.sealing.seal",
        "kubenode.cli.sealing.write_atomically",
        "kubenode.cli.sealing.validate",
    ):

        def broken(*arguments: object, **others: object) -> None:
            raise RuntimeError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(place, broken)
            with pytest.raises(RuntimeError) as caught:
                seal(sealed, "db")
        assert "horse" not in "".join(map(str, caught.value.args))
    opened = age.OpenedSecret(None, SECRET)  # type: ignore[arg-type]
    assert "horse" not in repr(opened)
    assert "SECRET" not in repr(age.new_identity())


# The cluster's CA set.


@pytest.fixture
def cluster(world: World) -> World:
    """A fleet with a cluster and one control plane with an identity."""
    fleet = world.fleet / "fleet.yaml"
    lines = fleet.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line == "  # cluster:")
    for number in range(start, len(lines)):
        if not lines[number].startswith("  # "):
            break
        lines[number] = "  " + lines[number].removeprefix("  # ")
    fleet.write_text("\n".join(lines) + "\n")
    (world.fleet / "nodes/cp-1.yaml").write_text(
        "apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {name: cp-1}\nspec: {pool: control-plane}\n"
    )
    done = world.run("seed", "cp-1", "--fleet-url", "https://git.example.net/fleet.git")
    assert done.code == 0, done.err
    return world


def test_the_cluster_ca(cluster: World) -> None:
    done = cluster.run("seal", "--cluster-ca")
    assert done.code == 0, done.err
    digest = done.out.strip()
    assert digest.startswith("sha256:")
    assert done.last.startswith(
        "Made the cluster's CA set (10 years), sealed to node cp-1 and operator operator. Commit"
    )
    assert problems(cluster) == [("secrets/cluster-ca.yaml", "no-token")], "the next step"
    document = (cluster.fleet / "secrets/cluster-ca.yaml").read_text()
    assert f"caCertHash: {digest}" in document
    assert "PRIVATE KEY" not in document
    opened = cluster.run("unseal", "cluster-ca", "-i", identity(cluster, "cp-1"))
    assert opened.out.count("PRIVATE KEY-----") == 8
    before = (cluster.fleet / "secrets/cluster-ca.age").read_bytes()
    again = cluster.run("seal", "--cluster-ca")
    assert (again.code, (cluster.fleet / "secrets/cluster-ca.age").read_bytes()) == (64, before)
    assert "the fleet has a cluster CA set already: secrets/cluster-ca.yaml" in again.err
    assert "later that breaks the cluster" in again.err
    replaced = cluster.run("seal", "--cluster-ca", "--replace-cluster-ca")
    assert replaced.code == 0
    assert replaced.out.strip() != digest
    assert "machines that were set up under it must be set up again" in replaced.err


# Bootstrap tokens.


def declare(world: World, name: str, pool: str) -> None:
    """Write a node's document, without an identity."""
    (world.fleet / f"nodes/{name}.yaml").write_text(
        f"apiVersion: kubenode.dev/v1alpha1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{pool: {pool}}}\n"
    )


def test_each_node_gets_a_token_of_its_own(cluster: World) -> None:
    declare(cluster, "cp-2", "control-plane")
    assert cluster.run("seed", "cp-2", "--fleet-url", "https://git.example.net/fleet.git").code == 0
    done = cluster.run("seal", "--bootstrap-tokens")
    assert done.code == 0, done.err
    assert done.last.startswith("Made 2 bootstrap tokens. Commit")
    assert problems(cluster) == []
    found = []
    for node in ("cp-1", "cp-2"):
        assert f"bootstrapTokenOf: {node}" in (cluster.fleet / f"secrets/bootstrap-token-{node}.yaml").read_text()
        # Every control plane publishes it, and the node joins with it.
        keys = [identity(cluster, "cp-1"), identity(cluster, "cp-2")]
        opened = [cluster.run("unseal", f"bootstrap-token-{node}", "-i", key).out for key in keys]
        assert opened[0] == opened[1] and re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", opened[0])
        found.append(opened[0])
    assert found[0] != found[1]
    before = (cluster.fleet / "secrets/bootstrap-token-cp-1.age").read_bytes()
    again = cluster.run("seal", "--bootstrap-tokens")
    assert (again.code, again.last) == (0, "No token was made: every node of the cluster has one.")
    assert (cluster.fleet / "secrets/bootstrap-token-cp-1.age").read_bytes() == before


def test_a_node_that_cannot_join_is_pointed_out(cluster: World) -> None:
    def said() -> list[str]:
        listed = kubenode("validate", cluster.fleet, "-o", "json").json["problems"]
        return [it["message"] for it in listed if it["rule"] == "no-token"]

    cluster.run("seal", "--cluster-ca")
    assert said() == ["no bootstrap token, so they could not join the cluster (again): cp-1"]
    cluster.run("seal", "--bootstrap-tokens")
    assert said() == []


def test_tokens_before_identities(cluster: World) -> None:
    pool = (cluster.fleet / "pools/control-plane.yaml").read_text()
    (cluster.fleet / "pools/workers.yaml").write_text(
        pool.replace("name: control-plane", "name: workers").replace("role: control-plane", "role: worker")
    )
    declare(cluster, "w-1", "workers")
    done = cluster.run("seal", "--bootstrap-tokens")
    assert "No token yet for w-1: no identity to seal to. First: kubenode seed w-1" in done.err
    assert done.last.startswith("Made 1 bootstrap token. Commit")
    # A token must open for every control plane, or the one without could not publish it.
    declare(cluster, "cp-2", "control-plane")
    cluster.run("seed", "w-1", "--fleet-url", "https://git.example.net/fleet.git")
    done = cluster.run("seal", "--bootstrap-tokens")
    assert done.code != 0 and "Make its identity first: kubenode seed cp-2" in done.err
    assert not (cluster.fleet / "secrets/bootstrap-token-w-1.age").exists()
