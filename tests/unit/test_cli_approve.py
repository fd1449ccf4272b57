"""`kubenode trust request`, `approve` and `show`: one person asks, two approve, each in a clone of their own."""

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cliworld import Done, World, kubenode

from kubenode.trust.approvals import NAMESPACE, TRAILER, payload
from tests.gitrepo import SigningKey

RULES = """\
    - {paths: ["trust/**"], people: [operator, bob, carol], threshold: 2}
    - {paths: ["channels/**"], people: [operator, bob, carol], threshold: 3}
    - {paths: ["pools/**"], people: [bob], threshold: 1}
    - {paths: ["README.md", "nodes/**"], people: [operator, bob], threshold: 2}
"""


@dataclass(frozen=True)
class Team:
    """A bare `hub`, and clones of it whose owners sign with their own keys. main of the hub is the anchor."""

    top: Path
    anchor: str

    def git(self, who: str, *words: str | Path, check: bool = True) -> str:
        argv = ["git", "-C", str(self.top / who), *map(str, words)]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def run(self, who: str, *words: str | Path) -> Done:
        done = kubenode("trust", *words, "-C", self.top / who)
        assert "Traceback" not in done.err
        return done

    def change(self, who: str, *paths: str, branch: str = "work", text: str = "x\n") -> str:
        """Commit a change of these files on a new branch and push it; return the commit."""
        self.git(who, "switch", "--quiet", "--create", branch)
        for path in paths:
            (self.top / who / path).parent.mkdir(exist_ok=True)
            (self.top / who / path).write_text(text)
        self.git(who, "add", "--all")
        self.git(who, "commit", "--quiet", "--message", f"Change {', '.join(paths)}\n\nBecause of it.\n\nHelped-by: me")
        self.git(who, "push", "--quiet", "origin", branch)
        return self.git(who, "rev-parse", "HEAD")

    def push(self, who: str, branch: str = "work") -> None:
        self.git(who, "push", "--quiet", "--force-with-lease", "origin", branch)

    def take(self, who: str, branch: str = "work") -> None:
        self.git(who, "fetch", "--quiet")
        self.git(who, "branch", "--quiet", "--force", branch, f"origin/{branch}")

    def verify(self, who: str, revision: str = "work") -> tuple[int, dict[str, str]]:
        done = self.run(who, "verify", "--anchor", self.anchor, "--output", "json", revision)
        return done.code, json.loads(done.out)


@pytest.fixture(scope="session")
def made(prepared: World, tmp_path_factory: pytest.TempPathFactory) -> Team:
    top = tmp_path_factory.mktemp("team")
    keys = {who: SigningKey.make(top, who) for who in ("bob", "carol", "mallory")}
    subprocess.run(["cp", "-a", prepared.fleet, top / "start"], check=True)
    policy = top / "start" / "trust" / "policy.yaml"
    text = policy.read_text()
    people = "".join(f'    {who}: {{keys: ["{keys[who].public}"]}}\n' for who in ("bob", "carol"))
    head, _, rest = text.partition("  rules:\n")
    builders = rest[rest.index("\n  # Whose images") :]
    policy.write_text(f"{head.rstrip()}\n{people}  rules:\n{RULES}{builders}")
    team = Team(top, "")
    team.git("start", "commit", "--quiet", "--all", "--message", "A team")
    subprocess.run(["git", "clone", "--quiet", "--bare", "start", "hub.git"], cwd=top, check=True, capture_output=True)
    for who in ("operator", "bob", "carol", "mallory"):
        subprocess.run(["git", "clone", "--quiet", "hub.git", who], cwd=top, check=True, capture_output=True)
        key = prepared.key if who == "operator" else keys[who].path
        settings = {"user.name": who, "user.email": f"{who}@example.net", "user.signingKey": key}
        for name, value in (settings | {"gpg.format": "ssh", "commit.gpgSign": "true"}).items():
            team.git(who, "config", name, str(value))
    return Team(top, team.git("start", "rev-parse", "HEAD"))


@pytest.fixture
def team(made: Team, tmp_path: Path) -> Team:
    subprocess.run(["cp", "-a", f"{made.top}/.", tmp_path / "a team"], check=True)
    copy = Team(tmp_path / "a team", made.anchor)
    for who in ("operator", "bob", "carol", "mallory"):
        copy.git(who, "remote", "set-url", "origin", copy.top / "hub.git")
        if who != "operator":
            copy.git(who, "config", "user.signingKey", str(copy.top / f"id_{who}"))
    return copy


def test_three_people_in_three_clones(team: Team) -> None:
    team.change("operator", "channels/beta.yaml")
    code, verdict = team.verify("operator")
    assert (code, verdict["reason"]) == (3, "ThresholdNotMet")

    done = team.run("operator", "request")
    assert done.code == 0, done.err
    assert "rule 2       channels/beta.yaml needs all of bob, carol, operator: missing bob and carol" in done.err
    assert "Still missing: bob and carol. Next: git -C" in done.last
    assert "push --force-with-lease origin work, and there: kubenode trust approve work" in done.last
    team.push("operator")

    for who in ("bob", "carol"):
        team.take(who)
        (team.top / who / "README.md").write_text("work in progress\n")
        before = team.git(who, "rev-parse", "work")
        done = team.run(who, "approve", "work")
        assert done.code == 0, done.err
        # Nothing else moved: same files, parent, author, message; the work tree and the index stay as they are.
        assert team.git(who, "status", "--porcelain") == " M README.md"
        assert team.git(who, "log", "-1", "--format=%s", "work") == "Change channels/beta.yaml"
        for form in ("%T", "%P", "%an %ae %ad", "%s", "%(trailers:key=Helped-by)"):
            assert team.git(who, "log", "-1", f"--format={form}", "work") == team.git(
                who, "log", "-1", f"--format={form}", before
            )
        assert team.git(who, "log", "-1", "--format=%cn", "work") == who
        assert team.git(who, "reflog", "-1", "--format=%gs", "work") == "kubenode trust: approval added"
        team.push(who)
    assert "Every rule is met. Next: git -C" in done.last
    assert "push origin work:main" in done.last
    trailers = team.git("carol", "log", "-1", f"--format=%(trailers:key={TRAILER},valueonly)", "work").split("\n")
    assert len([line for line in trailers if line]) == 3
    assert team.verify("carol")[0] == 0
    assert "Nothing to approve" in team.run("carol", "approve", "work").last
    team.git("carol", "push", "--quiet", "origin", "work:main")


def test_the_approval_is_a_signature_that_ssh_keygen_verifies(team: Team, tmp_path: Path) -> None:
    """By hand, as docs/trust.md says."""
    team.change("operator", "nodes/x.yaml")
    done = team.run("bob", "approve", "--print", "origin/work")
    assert done.code == 64
    team.git("bob", "fetch", "--quiet")
    before = team.git("bob", "for-each-ref")
    done = team.run("bob", "approve", "--print", "origin/work")
    assert done.code == 0, done.err
    assert team.git("bob", "for-each-ref") == before
    name, version, parent, tree, signature = done.out.split()
    assert (name, version, parent) == (f"{TRAILER}:", "v1", team.anchor)
    identity = next(
        line.split()[-1].strip('"')
        for line in team.git("bob", "show", "main:fleet.yaml").splitlines()
        if line.strip().startswith("id:")
    )
    (tmp_path / "sig").write_text(f"-----BEGIN SSH SIGNATURE-----\n{signature}\n-----END SSH SIGNATURE-----\n")
    (tmp_path / "allowed").write_text(f"bob {(team.top / 'id_bob.pub').read_text()}")
    argv = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "bob", "-n", NAMESPACE, "-s", "sig"]
    text = payload(identity, parent, tree)
    assert text == f"kubenode-approval v1\nparent {parent}\ntree {tree}\nfleet {identity}\n".encode()
    subprocess.run(argv, cwd=tmp_path, input=text, check=True, capture_output=True)

    # Out of band: the author puts it in with git alone.
    line = done.out.strip()
    team.git("operator", "commit", "--quiet", "--amend", "--no-edit", "--trailer", line)
    assert team.verify("operator")[0] == 0


def test_a_commit_that_its_author_did_not_prepare(team: Team) -> None:
    """Making it again would lose the author's signature, which is needed."""
    commit = team.change("operator", "nodes/x.yaml")
    team.take("bob")
    done = team.run("bob", "approve", "work")
    assert done.code == 64
    assert "operator's signature would be lost" in done.err
    assert "kubenode trust request work" in done.err
    assert team.git("bob", "rev-parse", "work") == commit


def test_asking_for_somebody_elses_change_approves_nothing(team: Team) -> None:
    commit = team.change("operator", "nodes/x.yaml")
    team.take("bob")
    done = team.run("bob", "request", "work")
    assert (done.code, "Still missing: bob" in done.last) == (0, True), done.err
    assert team.git("bob", "rev-parse", "work") == commit


def test_a_shallow_clone_says_so(team: Team) -> None:
    team.change("operator", "nodes/x.yaml")
    words = ("clone", "--quiet", "--depth=1", "--branch=work", f"file://{team.top / 'hub.git'}", team.top / "shallow")
    team.git("operator", *words)
    done = team.run("shallow", "approve", "work")
    assert done.code == 64
    assert "fetch --unshallow" in done.err


def test_one_approval_is_enough_when_the_author_has_no_say(team: Team) -> None:
    team.change("carol", "pools/standalone.yaml")
    assert "Still missing: bob" in team.run("carol", "request").last
    team.take("bob")
    done = team.run("bob", "approve", "work")
    assert (done.code, "Every rule is met" in done.last) == (0, True), done.err
    assert team.verify("bob")[0] == 0


def test_a_rebase_breaks_an_approval_and_the_refusal_says_so(team: Team) -> None:
    team.change("operator", "nodes/x.yaml")
    team.run("operator", "request")
    team.push("operator")
    team.take("bob")
    assert team.run("bob", "approve", "work").code == 0
    team.push("bob")
    team.git("operator", "fetch", "--quiet")
    team.git("operator", "reset", "--quiet", "--hard", "origin/work")
    (team.top / "operator" / "nodes" / "x.yaml").write_text("one more line\n")
    team.git("operator", "commit", "--quiet", "--all", "--amend", "--no-edit")
    code, verdict = team.verify("operator")
    assert (code, verdict["reason"]) == (3, "ThresholdNotMet")
    assert "bob approved another version of this change: other files" in verdict["message"]
    done = team.run("operator", "verify", "--anchor", team.anchor, "work")
    assert "note         bob approved another version" in done.err
    assert f"kubenode trust approve -C '{team.top / 'operator'}' work" in done.err
    # The next round leaves out what cannot count any more.
    done = team.run("operator", "request")
    assert "Still missing: bob" in done.last
    message = team.git("operator", "log", "-1", "--format=%B")
    assert message.count(TRAILER) == 1
    assert "Helped-by: me" in message


def test_a_merge_of_the_forge_is_taken_when_it_keeps_the_approvals(team: Team) -> None:
    """An unsigned merge with the same first parent and files, and the trailers in its message."""
    team.change("operator", "nodes/x.yaml")
    team.run("operator", "request")
    team.push("operator")
    team.take("bob")
    team.run("bob", "approve", "work")
    message = team.git("bob", "log", "-1", "--format=%B", "work")
    team.git("bob", "switch", "--quiet", "main")
    words = ("-c", "commit.gpgSign=false", "merge", "--quiet", "--no-ff")
    team.git("bob", *words, "-m", "Merge branch 'work'", "work")
    code, verdict = team.verify("bob", "main")
    assert (code, verdict["reason"]) == (3, "UnsignedCommit")
    assert "merge locally" in verdict["hint"]
    team.git("bob", "reset", "--quiet", "--hard", team.anchor)
    team.git("bob", *words, "-m", message, "work")
    assert team.verify("bob", "main")[0] == 0


def test_strangers_and_people_without_a_say(team: Team) -> None:
    commit = team.change("operator", "nodes/x.yaml")
    for who, words in (("mallory", "belongs to nobody"), ("carol", "carol has no say in this change")):
        team.take(who)
        done = team.run(who, "approve", "work")
        assert done.code == 64
        assert words in done.err
        assert team.git(who, "rev-parse", "work") == commit


def test_what_no_approval_can_help(team: Team) -> None:
    team.change("operator", "elsewhere.txt")
    done = team.run("operator", "request")
    assert done.code == 3
    assert "no rule of the trust policy speaks about that path" in done.err
    team.git("operator", "switch", "--quiet", "main")
    team.change("operator", "trust/policy.yaml", branch="broken", text="people: [\n")
    done = team.run("operator", "approve", "broken")
    assert done.code == 3
    assert "is refused" in done.err


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("HEAD~1", "is not the newest commit of a local branch"),
        ("origin/work", "is a branch of a remote"),
        ("nosuch", "has no commit 'nosuch'"),
    ],
)
def test_only_the_end_of_a_branch_can_be_made_again(team: Team, revision: str, words: str) -> None:
    team.change("operator", "nodes/x.yaml")
    team.git("operator", "branch", "--quiet", "-D", "main")
    done = team.run("operator", "approve", revision)
    assert done.code == 64
    assert words in done.err
    assert "Hint:" in done.err


def test_the_first_commit_needs_nobody(team: Team) -> None:
    root = team.git("operator", "rev-list", "--max-parents=0", "HEAD")
    done = team.run("operator", "approve", "--print", root)
    assert done.code == 64
    assert "has no parent" in done.err


def test_a_detached_head(team: Team) -> None:
    team.change("operator", "nodes/x.yaml")
    team.git("operator", "checkout", "--quiet", "--detach")
    team.git("operator", "branch", "--quiet", "-D", "work")
    done = team.run("operator", "request")
    assert done.code == 0, done.err
    assert team.git("operator", "log", "-1", "--format=%B").count(TRAILER) == 1


def test_a_branch_moved_meanwhile_is_left_alone(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    team.change("operator", "nodes/x.yaml")
    from kubenode.host.signing import SshSigner

    real = SshSigner.sign

    def slow(signer: SshSigner, message: bytes, namespace: str) -> bytes:
        team.git("operator", "commit", "--quiet", "--allow-empty", "--message", "meanwhile")
        return real(signer, message, namespace)

    monkeypatch.setattr(SshSigner, "sign", slow)
    done = team.run("operator", "request")
    assert done.code == 75
    assert "was moved to" in done.err
    assert team.git("operator", "log", "-1", "--format=%s", "work") == "meanwhile"


def test_a_failing_signature_changes_nothing(team: Team) -> None:
    commit = team.change("operator", "nodes/x.yaml")
    team.git("operator", "config", "gpg.ssh.program", "/bin/false")
    done = team.run("operator", "request")
    assert done.code == 1
    assert "signing with" in done.err
    team.git("operator", "config", "gpg.ssh.program", "/nonexistent")
    assert team.run("operator", "request").code == 1
    team.git("operator", "config", "--unset", "gpg.ssh.program")
    team.git("operator", "config", "--unset", "user.signingKey")
    assert "has no signing key" in team.run("operator", "request").err
    team.git("operator", "config", "user.signingKey", "~/nosuch")
    assert "has no public key nosuch.pub" in team.run("operator", "request").err
    team.git("operator", "config", "gpg.format", "openpgp")
    assert "approvals are SSH signatures" in team.run("operator", "request").err
    assert team.git("operator", "rev-parse", "work") == commit


def test_another_key_than_the_one_beside_it(team: Team) -> None:
    team.change("operator", "nodes/x.yaml")
    team.take("bob")
    (team.top / "id_bob.pub").write_text((team.top / "id_carol.pub").read_text())
    done = team.run("bob", "approve", "--print", "work")
    assert done.code in (1, 64)
    assert "Hint:" in done.err


def test_a_key_in_an_agent(team: Team) -> None:
    """Only the public key is in a file, or in the configuration itself; the agent has the private one."""
    started = subprocess.run(["ssh-agent", "-s"], check=True, capture_output=True, text=True).stdout
    agent = dict(part.split("=", 1) for part in started.replace("\n", "").split(";") if part.startswith("SSH_"))
    try:
        environment = os.environ | agent
        private = team.top / "id_bob"
        subprocess.run(["ssh-add", "-q", str(private)], env=environment, check=True, capture_output=True)
        private.unlink()
        team.change("operator", "pools/standalone.yaml")
        team.take("bob")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSH_AUTH_SOCK", agent["SSH_AUTH_SOCK"])
            public = (team.top / "id_bob.pub").read_text().strip()
            for setting in (str(private) + ".pub", public, f"key::{public}"):
                team.git("bob", "config", "user.signingKey", setting)
                done = team.run("bob", "approve", "--print", "work")
                assert done.code == 0, done.err
                assert done.out.startswith(f"{TRAILER}: v1 ")
            assert team.run("bob", "approve", "work").code == 0
        assert team.verify("bob")[0] == 0
    finally:
        os.kill(int(agent["SSH_AGENT_PID"]), signal.SIGTERM)


def test_json(team: Team) -> None:
    team.change("operator", "nodes/x.yaml", "channels/beta.yaml")
    done = team.run("operator", "request", "--output", "json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert (shown["kind"], shown["accepted"], shown["branch"]) == ("TrustChange", False, "work")
    assert (shown["signer"], shown["approvers"]) == ("operator", ["operator"])
    assert [(it["rule"], it["paths"], it["missing"], it["waiting"]) for it in shown["demands"]] == [
        (2, ["channels/beta.yaml"], 2, ["bob", "carol"]),
        (4, ["nodes/x.yaml"], 1, ["bob"]),
    ]


def test_odd_messages_and_authors_stay_as_they_are(team: Team) -> None:
    team.git("operator", "switch", "--quiet", "--create", "work")
    (team.top / "operator" / "nodes" / "x.yaml").write_text("x\n")
    team.git("operator", "add", "--all")
    words = ("-c", "i18n.commitEncoding=ISO-8859-1", "commit", "--quiet", "--cleanup=verbatim")
    author = ("--author", "Jos\udce9 <jose@example.net>", "--date", "@1700000000 +0530")
    team.git("operator", *words, *author, "--message", "Gr\udcfc\udcdfe\n\n# not a comment\n\n  indented\n")
    done = team.run("operator", "request")
    assert done.code == 0, done.err
    after = subprocess.run(
        ["git", "-C", team.top / "operator", "cat-file", "commit", "HEAD"], check=True, capture_output=True
    ).stdout
    assert b"\nauthor Jos\xe9 <jose@example.net> 1700000000 +0530\n" in after
    assert b"\nencoding ISO-8859-1\n" in after
    assert "Gr\u00fc\u00dfe\n\n# not a comment\n\n  indented\n".encode("latin-1") in after


def test_promotions_that_need_more_people_are_kept(team: Team) -> None:
    done = kubenode("promote", "2026.11.2", "beta", "-C", team.top / "operator")
    assert done.code == 0, done.err
    assert "Nodes will not take this commit yet" in done.err
    assert "kubenode trust request" in done.err
    assert "is now the newest release of beta" in done.last
    assert team.run("operator", "request").code == 0


def test_show(team: Team) -> None:
    done = team.run("bob", "show")
    assert done.code == 0, done.err
    for words in ("operator", SigningKey(team.top / "id_bob", (team.top / "id_bob.pub").read_text()).key.fingerprint):
        assert words in done.out
    assert "1 (root)" in done.out
    assert "2 of bob, carol, operator" in done.out
    assert "Freshness: not asked for." in done.out
    assert "3 people, 4 rules" in done.last
    assert max(map(len, done.out.splitlines())) <= 100
    done = team.run("bob", "show", "nodes/x.yaml", "./pools/y", "elsewhere")
    assert [line.split() for line in done.out.splitlines()[1:]] == [
        ["nodes/x.yaml", "rule", "4", "all", "of", "bob,", "operator"],
        ["pools/y", "rule", "3", "bob"],
        ["elsewhere", "no", "rule", "nobody", "may", "change", "it"],
    ]
    shown = json.loads(team.run("bob", "show", "--output", "json", "fleet.yaml").out)
    assert shown["kind"] == "TrustPolicy"
    assert [rule["threshold"] for rule in shown["rules"]] == [2, 3, 1, 2]
    assert shown["paths"] == [{"path": "fleet.yaml", "rule": None, "people": [], "threshold": None}]
    for path in ("/etc/passwd", "nodes/", "../x", ""):
        assert team.run("bob", "show", path).code == 64
