"""Authenticates a long signed history and compares with `git log --format=%G?` in the same run.

Usage: python -m tests.bench.authenticate [COMMITS [FOR_GIT]]

git verifies the newest FOR_GIT commits (1,000, for it takes minutes for all); the times are compared per commit. The
verdicts of `git verify-commit` and `ssh-keygen -Y verify` on a sample must be the same. Exit 1 when they differ.
"""

import argparse
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kubenode.errors import Untrusted
from kubenode.host.git import FleetRepository
from kubenode.trust import sshsig
from kubenode.trust.chain import authenticate
from kubenode.trust.commit import parse_commit
from tests.gitrepo import FLEET_ID, GitRepo, SigningKey, long_history

SAMPLE = 20


def by_git(repo: GitRepo, oid: str, allowed: Path) -> bool:
    done = subprocess.run(
        ["git", "-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", oid],
        cwd=repo.path,
        check=False,
        capture_output=True,
    )
    return done.returncode == 0


def by_ssh_keygen(raw: bytes, oid: str, allowed: Path) -> bool:
    commit = parse_commit(oid, raw)
    signature = allowed.with_name("signature")
    signature.write_bytes(commit.signature or b"")
    words = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "alice@example.net", "-n", "git", "-s", signature]
    return subprocess.run(words, input=commit.payload, check=False, capture_output=True).returncode == 0


def by_us(raw: bytes, oid: str, alice: SigningKey) -> bool:
    commit = parse_commit(oid, raw)
    try:
        return sshsig.verify(commit.signature or b"", commit.payload, namespace="git") == alice.key
    except Untrusted:
        return False


def compare(repo: GitRepo, alice: SigningKey, allowed: Path, oids: list[str]) -> int:
    """Return how many of the commits, and of copies of them with another message, get another verdict from git."""
    different = 0
    for oid in oids:
        raw = repo.raw(oid)
        forged = raw.replace(b"change", b"chance")
        for content, name in ((raw, oid), (forged, repo.store(forged))):
            verdicts = {
                by_git(repo, name, allowed),
                by_ssh_keygen(content, name, allowed),
                by_us(content, name, alice),
                name == oid,
            }
            different += len(verdicts) != 1
    return different


def measure(path: Path, anchor: str, head: str) -> tuple[int, float, float]:
    """Authenticate; return how many commits, in how many seconds, and the most memory of this process in MiB."""
    with FleetRepository(path) as copy:
        start = time.perf_counter()
        commit = authenticate(copy.anchor(anchor), copy.first_parent_chain(anchor, head), fleet_id=FLEET_ID, head=head)
        seconds = time.perf_counter() - start
    # Not ru_maxrss, which a new process takes over from the one that started it.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return commit.verified, seconds, int(peak[1]) / 1024 if peak else 0.0


def measure_alone(path: Path, anchor: str, head: str) -> tuple[int, float, float]:
    """Measure in a process of its own, so that memory is of nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (path, anchor, head))


def main() -> int:
    parser = argparse.ArgumentParser(description="Authenticate a long history, and let git do it too.")
    parser.add_argument("commits", nargs="?", type=int, default=10_000)
    parser.add_argument("for_git", nargs="?", type=int, default=1_000)
    options = parser.parse_args()
    count, for_git = options.commits, min(options.commits, options.for_git)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alice = SigningKey.make(folder, "alice")
        repo = GitRepo.init(folder / "remote")
        oids = long_history(repo, alice, count)
        allowed = folder / "allowed"
        allowed.write_text(f'alice@example.net namespaces="git" {alice.public}\n')

        start = time.perf_counter()
        ours = {"gpg.ssh.allowedSignersFile": str(allowed)}
        printed = repo.git("log", "--first-parent", f"-{for_git}", "--format=%G?", oids[-1], options=ours).split()
        git_seconds = (time.perf_counter() - start) / for_git

        with FleetRepository(folder / "fleet.git") as copy:
            start = time.perf_counter()
            copy.fetch(repo.url)
            fetched = time.perf_counter() - start
            _, _, before = measure_alone(copy.path, oids[0], oids[count // 10])
            verified, our_seconds, after = measure_alone(copy.path, oids[0], oids[-1])
            our_seconds /= count
            start = time.perf_counter()
            copy.accept(oids[-1])
            accepted = time.perf_counter() - start
        different = compare(repo, alice, allowed, oids[1 :: max(1, count // SAMPLE)])

    print(f"commits               {count:,}, fetched in {fetched:.1f} s, accepted in {accepted:.1f} s")
    print(f"git log %G?           {git_seconds * 1e3:.3f} ms a commit, over {for_git:,} (good: {printed.count('G'):,})")
    print(f"kubenode authenticate {our_seconds * 1e3:.3f} ms a commit, over {count:,} (good: {verified:,})")
    print(f"ratio                 {git_seconds / our_seconds:.1f} times faster, paths and policy checked too")
    print(f"memory                {before:.1f} MiB after {count // 10:,} commits, {after:.1f} MiB after {count:,}")
    print(f"verdicts              {different} of a sample differ from those of git verify-commit and ssh-keygen")
    good = printed.count("G") == for_git and verified == count and not different
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
