"""Authenticates a history and compares with `git log --format=%G?` over the same commits, in one run.

Usage: python -m tests.bench.authenticate [COMMITS]. Prints both times and their ratio; exit 1 when verdicts differ.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from kubenode.host.git import FleetRepository
from kubenode.trust.chain import authenticate
from kubenode.trust.policy import POLICY_PATH
from tests.gitrepo import FLEET_ID, GitRepo, SigningKey, policy_yaml, signed_commit


def build(folder: Path, count: int) -> tuple[GitRepo, SigningKey, str, str]:
    """Make a repository with `count` signed commits, each changing one node file."""
    alice = SigningKey.make(folder, "alice")
    repo = GitRepo.init(folder / "remote")
    repo.write(POLICY_PATH, policy_yaml({"alice": [alice]}))
    anchor = tip = repo.commit("start", alice)
    for number in range(count):
        blob = repo.git("hash-object", "-w", "--stdin", stdin=f"n: {number}\n".encode())
        repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},nodes/n{number % 50}.yaml")
        tip = repo.store(signed_commit(alice, repo.git("write-tree"), (tip,), f"change {number}"))
    repo.point(tip)
    return repo, alice, anchor, tip


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repo, alice, anchor, head = build(folder, count)
        allowed = folder / "allowed"
        allowed.write_text(f'alice@example.net namespaces="git" {alice.public}\n')

        start = time.perf_counter()
        options = {"gpg.ssh.allowedSignersFile": str(allowed)}
        printed = repo.git("log", "--first-parent", "--format=%G?", f"{anchor}..{head}", options=options).split()
        git_seconds = time.perf_counter() - start

        copy = FleetRepository(folder / "fleet.git")
        copy.fetch(repo.url)
        start = time.perf_counter()
        chain = copy.first_parent_chain(anchor, head)
        commit = authenticate(copy.anchor(anchor), chain, fleet_id=FLEET_ID, head=head)
        our_seconds = time.perf_counter() - start
        copy.close()

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"commits               {count}")
    print(f"git log %G?           {git_seconds:.2f} s (good: {printed.count('G')})")
    print(f"kubenode authenticate {our_seconds:.2f} s (good: {commit.verified}, paths and policy checked too)")
    print(f"ratio                 {git_seconds / our_seconds:.1f} times faster; peak memory {peak:.0f} MiB")
    return 0 if printed.count("G") == commit.verified == count else 1


if __name__ == "__main__":
    sys.exit(main())
