"""`kubenode trust verify`: verdicts, anchors and revisions that are none, clones of every kind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cliworld import World, kubenode

NOWHERE = "0" * 40


def verify(world: World, *words: str, anchor: str | None = None) -> tuple[int, dict[str, str]]:
    done = world.run("trust", "verify", "--anchor", anchor or world.anchor, "--output", "json", *words)
    assert "Traceback" not in done.err
    return done.code, json.loads(done.out)


def test_trusted(prepared: World) -> None:
    code, verdict = verify(prepared)
    assert code == 0
    assert (verdict["verdict"], verdict["reason"], verdict["commit"]) == ("trusted", "Trusted", prepared.head)
    assert "5 commits" in verdict["message"]


def test_a_real_process_says_the_same(prepared: World) -> None:
    words = ["trust", "verify", "--anchor", prepared.anchor, "-C", "homelab", "--output", "json", "main"]
    argv = [sys.executable, "-m", "kubenode", *words]
    done = subprocess.run(argv, cwd=prepared.top, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "trusted"
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(".\n")


def test_the_anchor_itself(prepared: World) -> None:
    code, verdict = verify(prepared, prepared.anchor)
    assert (code, verdict["commit"]) == (0, prepared.anchor)


def test_upper_case_anchor(prepared: World) -> None:
    assert verify(prepared, anchor=prepared.anchor.upper())[0] == 0


def test_unsigned_commit(world: World) -> None:
    world.git("-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "--message", "x")
    code, verdict = verify(world)
    assert (code, verdict["verdict"], verdict["reason"]) == (3, "refused", "UnsignedCommit")
    assert verdict["commit"] == world.head
    assert verdict["hint"]


def test_strangers_commit(world: World) -> None:
    stranger = world.top / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    signing = f"user.signingKey={stranger}"
    world.git("-c", signing, "commit", "--quiet", "--gpg-sign", "--allow-empty", "--message", "x")
    code, verdict = verify(world)
    assert (code, verdict["verdict"], verdict["reason"]) == (3, "refused", "UnknownSigner")
    assert verdict["commit"] == world.head


def test_rewound(prepared: World) -> None:
    code, verdict = verify(prepared, "HEAD~1", anchor=prepared.head)
    assert (code, verdict["reason"]) == (3, "NotDescendant")


def test_human_refusal_ends_with_one_sentence(prepared: World) -> None:
    done = prepared.run("trust", "verify", "--anchor", prepared.head, "HEAD~1")
    assert (done.code, done.out) == (3, "")
    assert done.last == "Refused (NotDescendant)."


def test_unknown_anchor_leaves_the_clone_alone(world: World) -> None:
    before = sorted(path.name for path in (world.fleet / ".git").iterdir())
    code, verdict = verify(world, anchor=NOWHERE)
    assert (code, verdict["reason"], verdict["commit"]) == (3, "AnchorMissing", NOWHERE)
    assert sorted(path.name for path in (world.fleet / ".git").iterdir()) == before
    assert verify(world)[0] == 0


def test_a_tree_is_no_anchor(prepared: World) -> None:
    code, verdict = verify(prepared, anchor=prepared.git("rev-parse", "HEAD^{tree}"))
    assert (code, verdict["reason"]) == (3, "CommitMalformed")
    assert "is a tree, not a commit" in verdict["message"]


@pytest.mark.parametrize("anchor", ["", "HEAD", "main", "-x", "12345678", "z" * 40, "a" * 41, "\udcff", "a\nb"])
def test_only_full_ids_are_anchors(prepared: World, anchor: str) -> None:
    done = prepared.run("trust", "verify", f"--anchor={anchor}", "--output", "json")
    assert (done.code, done.out) == (64, "")
    assert "not a full commit id" in done.err


def test_an_abbreviation_is_answered_with_the_full_id(prepared: World) -> None:
    done = prepared.run("trust", "verify", "--anchor", prepared.anchor[:10])
    assert done.code == 64
    assert f"--anchor {prepared.anchor}" in done.err


@pytest.mark.parametrize("revision", ["nosuch", "", "HEAD^{tree}", NOWHERE, "a b", "HEAD~999", "\udcff"])
def test_unknown_revision(prepared: World, revision: str) -> None:
    done = prepared.run("trust", "verify", "--anchor", prepared.anchor, "--output", "json", "--", revision)
    assert (done.code, done.out) == (64, "")
    assert "Hint:" in done.err


def test_anchor_is_needed(prepared: World) -> None:
    done = prepared.run("trust", "verify")
    assert done.code == 64
    assert "--anchor" in done.err


@pytest.mark.parametrize("folder", ["nosuch", "empty", "afile"])
def test_no_repository(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "afile").touch()
    done = kubenode("trust", "verify", "--anchor", NOWHERE, "-C", tmp_path / folder, "--output", "json")
    assert (done.code, done.out) == (64, "")
    assert "is not a git repository" in done.err


def test_repository_without_commits(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    done = kubenode("trust", "verify", "--anchor", NOWHERE, "-C", tmp_path)
    assert done.code == 64
    assert "has no commit 'HEAD'" in done.err


def test_bare_clone_and_linked_work_tree(world: World) -> None:
    world.git("clone", "--quiet", "--bare", ".", world.top / "bare.git")
    world.git("worktree", "add", "--quiet", "--detach", world.top / "linked")
    for folder in ("bare.git", "linked"):
        done = kubenode("trust", "verify", "--anchor", world.anchor, "-C", world.top / folder)
        assert done.code == 0, done.err


def test_shallow_clone_says_so(world: World) -> None:
    world.git("clone", "--quiet", "--depth=1", f"file://{world.fleet}", world.top / "shallow")
    done = kubenode("trust", "verify", "--anchor", world.anchor, "-C", world.top / "shallow")
    assert done.code == 3
    assert "fetch --unshallow" in done.err


def test_inside_a_hook(prepared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    assert prepared.run("trust", "verify", "--anchor", NOWHERE.replace("0", "1")).code == 3


def test_without_git(prepared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = prepared.anchor
    monkeypatch.setenv("PATH", "/nonexistent")
    done = prepared.run("trust", "verify", "--anchor", anchor)
    assert done.code == 1
    assert "Is git installed?" in done.err


def test_damaged_clone(world: World) -> None:
    anchor, head = world.anchor, world.head
    (world.fleet / ".git" / "objects" / head[:2] / head[2:]).unlink()
    done = world.run("trust", "verify", "--anchor", anchor, head)
    assert done.code in (1, 64)
    assert "Hint:" in done.err


def test_local_sigstore(tmp_path: Path) -> None:
    done = kubenode("trust", "local-sigstore", tmp_path / "instance")
    assert done.code == 0, done.err
    assert (tmp_path / "instance" / "trusted_root.json").is_file()
    assert kubenode("trust", "local-sigstore", tmp_path / "instance").code == 64
    assert kubenode("trust", "local-sigstore", tmp_path / "other", "--issuer", "no url").code == 64
