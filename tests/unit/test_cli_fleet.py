"""`kubenode new` and `kubenode validate`, and how every command meets files and folders that are not as they should."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cliworld import STORE, World, kubenode

EXAMPLE = Path(__file__).parents[2] / "fleet-example"

# new


def test_new_again_with_the_same_key(prepared: World, tmp_path: Path) -> None:
    words = ("--signing-key", prepared.key, "--sigstore", prepared.sigstore, "--store", STORE)
    done = kubenode("new", "second", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.err.splitlines()] == ["Using", "Using", "Fleet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["second"]
    assert kubenode("validate", tmp_path / "second").code == 0
    done = kubenode("new", "second", *words, cwd=tmp_path)
    assert (done.code, "not an empty folder" in done.err) == (64, True)


def test_new_into_an_empty_folder(prepared: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ("--signing-key", prepared.key, "--sigstore", prepared.sigstore, "--store", STORE)
    assert kubenode("new", ".", *words, "--name", "other", cwd=tmp_path / "empty").code == 0
    assert (tmp_path / "empty" / "fleet.yaml").is_file()


@pytest.mark.parametrize("name", ["Odd Name", "Ümlaut", "a_b", "-x", "a/b", "x" * 64, "y\n", 'q"', "../up", ""])
def test_new_with_an_unusable_name_leaves_nothing(tmp_path: Path, name: str) -> None:
    done = kubenode("new", "target", f"--name={name}", "--store", STORE, cwd=tmp_path)
    if name:
        assert (done.code, done.out) == (64, "")
        assert "--name" in done.err
        assert list(tmp_path.iterdir()) == []
    else:  # As if it was not given.
        assert done.code == 0


@pytest.mark.parametrize("store", ["not a url", "", "https://user:secret@host/x", "https://"])
def test_new_with_an_unusable_store(tmp_path: Path, store: str) -> None:
    done = kubenode("new", "target", "--store", store, cwd=tmp_path)
    assert (done.code, list(tmp_path.iterdir())) == (64, [])


def test_new_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    assert kubenode("new", "target", "--store", STORE, cwd=tmp_path).code == 64


def test_new_with_a_public_key_only(prepared: World, tmp_path: Path) -> None:
    done = kubenode("new", tmp_path / "x", "--store", STORE, "--signing-key", f"{prepared.key}.pub")
    assert (done.code, list(tmp_path.iterdir())) == (64, [])


def test_new_where_nothing_can_be_written() -> None:
    done = kubenode("new", "/proc/nosuch/fleet", "--store", STORE)
    assert done.code == 1
    assert done.err.startswith("Error: ")


def test_new_is_whole_or_not_there(prepared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    words = ("--signing-key", prepared.key, "--sigstore", prepared.sigstore, "--store", STORE)
    done = kubenode("new", tmp_path / "fleet", *words)
    assert (done.code, "No space left on device" in done.err) == (1, True)
    assert list(tmp_path.iterdir()) == []


# validate


def test_the_example_is_valid() -> None:
    done = kubenode("validate", EXAMPLE, "--output", "json")
    assert (done.code, done.json["problems"]) == (0, [])
    assert done.last.endswith("no problems.")


def test_problems_as_json(world: World) -> None:
    path = world.fleet / "pools" / "workers.yaml"
    path.write_text(path.read_text().replace("role: worker", "role: wroker"))
    done = kubenode("validate", world.fleet, "-o", "json")
    assert done.code == 1
    problem = done.json["problems"][0]
    assert set(problem) == {"path", "line", "column", "rule", "severity", "message", "hint"}
    assert (problem["path"], problem["severity"]) == ("pools/workers.yaml", "error")
    assert problem["line"] > 1 and problem["column"] > 1
    human = kubenode("validate", ".", cwd=world.fleet)
    assert human.code == 1
    assert human.out.startswith(f"pools/workers.yaml:{problem['line']}:{problem['column']}: error: ")
    assert human.last == "1 problem in .."


def test_warnings_are_no_failure(world: World) -> None:
    done = kubenode("validate", world.fleet, "-o", "json")
    assert done.code == 0
    assert all(it["severity"] == "warning" for it in done.json["problems"])


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"{", b"a: [", b"\x00" * 9, b"a: &x [*x]", b"- " * 5000, b"[" * 9999]
)
def test_garbage_gives_problems(world: World, content: bytes) -> None:
    for path in ("fleet.yaml", "trust/policy.yaml", "pools/workers.yaml", "trust/sigstore/trusted_root.json"):
        (world.fleet / path).write_bytes(content)
    done = kubenode("validate", world.fleet, "-o", "json")
    assert done.code == 1
    assert {"fleet.yaml", "trust/policy.yaml", "pools/workers.yaml"} <= {it["path"] for it in done.json["problems"]}
    assert world.run("verify", world.out / "2026.11.1", "--channel", "beta").code == 1
    # Nobody committed the garbage, and a promotion takes nothing of it along.
    assert world.run("promote", "2026.11.2", "nightly").code == 0
    assert world.git("show", "--format=", "--name-only") == "channels/nightly.yaml"


def test_odd_names_links_and_pipes(world: World) -> None:
    (world.fleet / "nodes" / os.fsdecode(b"\xff.yaml")).write_text("x")
    (world.fleet / "link").symlink_to("/etc")
    os.mkfifo(world.fleet / "pipe")
    done = kubenode("validate", world.fleet, "-o", "json")
    assert done.code == 1
    assert {"link", "pipe"} <= {it["path"] for it in done.json["problems"]}
    assert kubenode("validate", world.fleet).code == 1


@pytest.mark.parametrize("folder", ["nosuch", "afile", "empty"])
def test_validate_what_is_no_fleet(tmp_path: Path, folder: str) -> None:
    (tmp_path / "afile").touch()
    (tmp_path / "empty").mkdir()
    done = kubenode("validate", tmp_path / folder)
    assert done.code == (1 if folder == "empty" else 64)
    assert "fleet.yaml" in done.out + done.err


# The command line itself, in processes of its own.


def process(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "kubenode", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_no_command_shows_the_help() -> None:
    done = process()
    assert done.returncode == 64
    assert "Usage: kubenode" in done.stdout
    assert "no command was given" in done.stderr


def test_wrong_words(tmp_path: Path) -> None:
    for words in (("frob",), ("validate", "--frob"), ("validate", "-o", "xml"), ("trust",), ("plan",)):
        done = kubenode(*words, cwd=tmp_path)
        assert done.code == 64, words
        assert "Hint: " in done.err


def test_version() -> None:
    done = kubenode("--version")
    assert (done.code, done.out.split()[0]) == (0, "kubenode")


def test_a_reader_that_goes_away() -> None:
    script = f"{sys.executable} -m kubenode validate {EXAMPLE} -o json | true"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_terminal_without_unicode(world: World) -> None:
    (world.fleet / "nodes" / "ümlaut.yaml").write_text("x")
    done = process("validate", str(world.fleet), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert json.loads(process("validate", str(world.fleet), "-o", "json").stdout)["problems"]


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color(tmp_path: Path, no_color: str, coloured: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    env = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    argv = [sys.executable, "-m", "kubenode", "validate", "nosuch"]
    subprocess.run(argv, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=theirs, check=False)
    os.close(theirs)
    said = os.read(ours, 9999).decode()
    os.close(ours)
    assert "nosuch is not a folder" in said
    assert ("\x1b[" in said) is coloured


def test_full_disk_on_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-m", "kubenode", "validate", str(EXAMPLE), "-o", "json"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_reconcile_on_a_machine_that_is_no_node() -> None:
    if Path("/var/lib/kubenode/seed.json").exists():
        pytest.skip("this machine is a node")
    for words in (("reconcile", "--dry-run"), ("reconcile", "--dry-run", "-o", "json")):
        done = kubenode(*words)
        assert (done.code, done.out) == (1, "")
        assert "no seed" in done.err
