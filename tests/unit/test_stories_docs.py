"""What an operator meets who knows nothing yet: typos, help, completion, manual pages, and the doctor."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cliworld import World, kubenode

from kubenode.cli import doctor
from kubenode.host import requirements

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nobody_listens() -> Iterator[str]:
    """Return an address of this machine that refuses connections: its port is taken and nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def somebody_listens() -> Iterator[str]:
    """Return an address of this machine where connections are taken."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def reachable(world: World) -> World:
    """Return a fleet whose image store and git remote are folders of this machine."""
    fleet = world.fleet / "fleet.yaml"
    fleet.write_text(re.sub(r"https://images\.example\.net/kubenode", world.store.as_uri(), fleet.read_text()))
    bare = world.top / "bare.git"
    world.git("clone", "--quiet", "--bare", ".", bare)
    world.git("remote", "add", "origin", bare)
    return world


# A command that is not there, an option that is not there, a folder that is no fleet.


def test_a_misspelled_command_is_answered_with_the_right_one() -> None:
    done = kubenode("valdate")
    assert (done.code, done.out) == (64, "")
    assert "No such command 'valdate'" in done.err and "validate" in done.err
    assert "Hint: `kubenode COMMAND --help` shows how to call it." in done.err


def test_a_wrong_option_names_the_near_one_and_changes_nothing(world: World) -> None:
    before = world.head
    done = kubenode("promote", "2026.11.2", "nightly", "-C", world.fleet, "--mesage", "x")
    assert (done.code, done.out) == (64, "")
    assert "--mesage" in done.err and "--message" in done.err
    assert (world.head, world.dirty) == (before, "")


@pytest.mark.parametrize(
    "words",
    [("plan", "--observed", "-"), ("promote", "2026.11.2", "stable"), ("trust", "show"), ("seed", "cp-1")],
    ids=" ".join,
)
def test_where_there_is_no_fleet_the_hint_says_how_to_name_one(words: tuple[str, ...], tmp_path: Path) -> None:
    done = kubenode(*words, cwd=tmp_path)
    assert done.code == 64
    assert "is not a git repository" in done.err or "nothing says where" in done.err
    assert "Hint: " in done.err and ("-C" in done.err or "--fleet-url" in done.err)


def test_validate_of_an_empty_folder_names_what_is_missing(tmp_path: Path) -> None:
    done = kubenode("validate", tmp_path)
    assert done.code == 1
    assert "fleet.yaml" in done.out and "[missing-file]" in done.out


# Help.


def test_help_shows_an_example_that_can_be_copied(world: World) -> None:
    shown = " ".join(kubenode("validate", "--help").out.split())
    assert "Example: kubenode validate . --output json" in shown
    assert kubenode("validate", ".", "--output", "json", cwd=world.fleet).json["problems"] == []


def test_kubenode_alone_shows_every_command() -> None:
    done = kubenode()
    assert done.code == 64
    assert {"new", "validate", "plan", "doctor", "trust"} <= set(re.findall(r"│ ([a-z]+) ", done.out + done.err))


# Completion, through the protocol that the shell's script speaks.


def completed(line: str, cwd: Path) -> list[str]:
    """Return what bash would be offered for the last word of a line."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "_KUBENODE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    argv = [sys.executable, "-m", "kubenode"]
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("kubenode pro", ["promote"]),
        ("kubenode trust app", ["approve"]),
        ("kubenode promote --mes", ["--message"]),
        ("kubenode validate --output ", ["table", "json"]),
        ("kubenode promote 2026.11.2 ", ["beta", "nightly", "stable"]),
        ("kubenode promote 2026.11", ["2026.11.1", "2026.11.2"]),
        ("kubenode verify out --channel b", ["beta"]),
        ("kubenode seed w", ["worker-1", "worker-2"]),
        ("kubenode seal x --for role:", ["role:control-plane", "role:worker", "role:standalone"]),
        ("kubenode build ", ["node"]),
    ],
)
def test_completion_knows_commands_options_and_names_of_the_fleet(line: str, offered: list[str]) -> None:
    assert completed(line, ROOT / "fleet-example") == offered


def test_completion_takes_the_fleet_that_was_named_before(tmp_path: Path) -> None:
    assert completed(f"kubenode promote -C {ROOT / 'fleet-example'} 2026.11.2 s", tmp_path) == ["stable"]


def test_completion_outside_a_fleet_offers_no_names_and_no_error(tmp_path: Path) -> None:
    assert completed("kubenode seed ", tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed_for_each_shell(shell: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "_KUBENODE_COMPLETE": f"source_{shell}"}
    argv = [sys.executable, "-m", "kubenode"]
    script = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    assert f"_KUBENODE_COMPLETE=complete_{shell}" in script


# The doctor.


def test_the_doctor_names_the_exact_command_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = kubenode("doctor", "--for", "laptop", "--output", "json")
    assert done.code == 1
    assert {(it["name"], it["state"]) for it in done.json["checks"]} == {
        ("git", "missing"),
        ("openssh-client", "missing"),
    }
    assert "apt-get install --yes --no-install-recommends git openssh-client" in done.err
    assert done.last == "2 missing; 0 of 2 checks are good."


def test_the_doctor_finds_a_whole_fleet_in_order(reachable: World, somebody_listens: str) -> None:
    done = kubenode("doctor", "--for", "laptop", "-C", reachable.fleet, "--server", somebody_listens)
    assert done.code == 0, done.out + done.err
    assert "it is operator's" in done.out and "unreachable" not in done.out
    assert done.last == "Nothing is missing: 7 of 7 checks are good."


def test_the_doctor_tells_what_does_not_answer_from_what_is_wrong(reachable: World, nobody_listens: str) -> None:
    words = ("doctor", "--for", "laptop", "-C", reachable.fleet, "--output", "json")
    assert kubenode(*words, "--server", nobody_listens).code == 75
    reachable.git("remote", "set-url", "origin", reachable.top / "gone.git")
    reachable.store.rename(reachable.top / "elsewhere")
    done = kubenode(*words)
    state = {it["name"]: it["state"] for it in done.json["checks"]}
    assert (done.code, state["remote origin"], state["image store"]) == (75, "unreachable", "unreachable")
    (reachable.fleet / "channels" / "beta.yaml").write_text("kind: Channel\n")
    done = kubenode(*words)
    state = {it["name"]: it["state"] for it in done.json["checks"]}
    assert (done.code, state["documents"], state["signing key"]) == (1, "wrong", "ok")


def test_the_doctor_sees_a_clone_that_signs_with_a_strangers_key(reachable: World) -> None:
    stranger = reachable.top / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True)
    reachable.git("config", "user.signingKey", stranger)
    done = kubenode("doctor", "--for", "laptop", "-C", reachable.fleet)
    assert done.code == 1
    assert "is nobody's in trust/policy.yaml" in " ".join(done.out.split())


def test_the_doctor_shows_no_password_of_a_remote(reachable: World, nobody_listens: str) -> None:
    reachable.git("remote", "set-url", "origin", f"http://me:hunter2@{nobody_listens}/fleet.git")
    done = kubenode("doctor", "--for", "laptop", "-C", reachable.fleet)
    assert done.code == 75
    assert "hunter2" not in done.out + done.err


def test_the_doctor_refuses_what_is_no_fleet_and_no_address(tmp_path: Path) -> None:
    done = kubenode("doctor", "-C", tmp_path)
    assert (done.code, "it has no fleet.yaml" in done.err) == (64, True)
    done = kubenode("doctor", "--server", "k8s.example.net")
    assert (done.code, "HOST:PORT" in done.err) == (64, True)


def test_the_doctor_says_that_a_machine_without_kvm_is_slow_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "kvm_usable", lambda: False)
    monkeypatch.setattr(doctor, "_packages", lambda _: ())
    done = kubenode("doctor", "--for", "lab")
    assert done.code == 0
    assert "ten times slower" in done.out
    assert done.last == "Nothing is missing: 0 of 1 checks are good, 1 noted."
