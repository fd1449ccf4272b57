"""Mutation check of the planner and of commit trust: `python -m tests.mutants [plan|trust]`.

Each mutant is one small change of the text that makes it unsafe or useless: a gate dropped, an order swapped, a
comparison turned. It is applied to a copy, and the package's unit and property tests must fail there. A mutant that
survives is a hole in the tests; one whose text is not found any more is stale and must be rewritten.
"""

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "plan": (
        tuple(f"tests/unit/test_plan_{name}.py" for name in ("decide", "hops", "slots", "windows")),
        ("tests/property/test_plan_properties.py",),
    ),
    "trust": (("tests/unit/test_trust_approvals.py",), ("tests/unit/test_trust_chain.py",)),
}
"""By package: the tests that are to fail, the quick ones first."""


@dataclass(frozen=True)
class Mutant:
    """A change: in this file of the package, the one place that says `old` says `new`."""

    what: str
    file: str
    old: str
    new: str


PLAN = (
    Mutant("act in a trial boot", "decide.py", "    _trial,\n", ""),
    Mutant("forget failed trials", "decide.py", "    _remember_failed_trial,\n", ""),
    Mutant(
        "remove an entry before its failure is remembered",
        "decide.py",
        "    _remember_failed_trial,\n    _boot_entry_missing,\n    _restore_superseded,\n    _remove_stray_entries,\n",
        "    _remove_stray_entries,\n    _remember_failed_trial,\n    _boot_entry_missing,\n    _restore_superseded,\n",
    ),
    Mutant("go on without an own boot entry", "decide.py", "    _boot_entry_missing,\n", ""),
    Mutant("leave the mark of an abandoned downgrade", "decide.py", "    _restore_superseded,\n", ""),
    Mutant("leave stray entries", "decide.py", "    _remove_stray_entries,\n", ""),
    Mutant("leave downloads", "decide.py", "    _prune,\n", ""),
    Mutant(
        "activate when halted or in a cluster", "decide.py", "        _forbidden(node, hop)\n        or ", "        "
    ),
    Mutant("restart when halted", "decide.py", "node.desired.halted or node.stale", "node.stale"),
    Mutant("start what is new on a stale node", "decide.py", "    _stale,\n", ""),
    Mutant("let a power cut start it on a stale node", "decide.py", "halted or node.stale or", "halted or"),
    Mutant(
        "a stale node forgets failed trials",
        "decide.py",
        "    _trial,\n    _remember_failed_trial,\n",
        "    _trial,\n    _stale,\n    _remember_failed_trial,\n",
    ),
    Mutant("activate without a fallback", "decide.py", "        or _no_fallback(node)\n", ""),
    Mutant(
        "activate outside windows",
        "decide.py",
        '        or node.outside_window(f"activate release {hop.version}")\n',
        "",
    ),
    Mutant(
        "restart outside windows",
        "decide.py",
        'return node.outside_window(f"restart into release {hop.version}") or node.act(',
        "return node.act(",
    ),
    Mutant(
        "downgrade below a better entry",
        "decide.py",
        "slots.booted_entry(observed) if node.goes_down else None",
        "None",
    ),
    Mutant("write the running slot", "decide.py", "slot = observed.booted.slot.other", "slot = observed.booted.slot"),
    Mutant("keep entries of a slot being written", "decide.py", "in slots.other_entries(observed):", "in ():"),
    Mutant("write what is staged", "decide.py", "if not slots.is_staged(hop, observed):", "if True:"),
    Mutant("try a release that was signed again", "hops.py", " or bad.manifest == release.manifest", ""),
    Mutant("ignore floors", "hops.py", " and (release.floor is None or start >= release.floor)", ""),
    Mutant("hop over poisoned releases", "hops.py", " and not is_poisoned(release, poisoned)", ""),
    Mutant("take the longest way", "hops.py", "min(open_ways", "max(open_ways"),
    Mutant(
        "start a half-written slot", "slots.py", "return observed.spare == release.root_hash and any(", "return any("
    ),
    Mutant("start what the loader would not choose", "slots.py", " and starts_next(entry, observed)\n", "\n"),
    Mutant("take a superseded entry for a failed one", "slots.py", "(entry.tries_done == 0 or ", "(False or "),
    Mutant("keep an entry without its slot", "slots.py", "entry.root_hash != observed.spare or ", ""),
    Mutant("one restart too many", "backoff.py", "attempt.failures >= BUDGETS", "attempt.failures > BUDGETS"),
    Mutant("wait for ever", "backoff.py", ", LONGEST_DELAY)", ", FIRST_DELAY * 2000)"),
    Mutant("wait for a clock that was set back", "backoff.py", "timedelta(0) <= since < span", "since < span"),
    Mutant("a window that closes late", "windows.py", "< window.duration for", "<= window.duration for"),
)

TRUST = (
    Mutant("count keys, not people", "policy.py", "len(self.people & signers) >= self.threshold", "bool(signers)"),
    Mutant(
        "count approvals, not people",
        "assess.py",
        "        return self.rule.met_by(self.vouched)",
        "        return self.rule.met_by(self.vouched) or len(self.vouched) > 1",
    ),
    Mutant(
        "count by the child's policy",
        "assess.py",
        "    people = vouchers.people(old)",
        "    people = vouchers.people(new)",
    ),
    Mutant("approve for every fleet", "approvals.py", "\\nfleet {fleet_id}\\n", "\\n"),
    Mutant("approve for every parent", "approvals.py", "\\nparent {parent}\\n", "\\n"),
    Mutant("approve for every tree", "approvals.py", "\\ntree {tree}\\n", "\\n"),
    Mutant(
        "take a stale approval",
        "approvals.py",
        "None if same else Flaw.STALE",
        "None",
    ),
    Mutant("take any purpose", "approvals.py", 'NAMESPACE = "kubenode-approval"', 'NAMESPACE = "git"'),
    Mutant("take a commit that nobody vouches for", "assess.py", " and bool(self.people)", ""),
    Mutant("forget paths without a rule", "assess.py", "            unmatched.append(change)", "            pass"),
    Mutant(
        "forget the new root rule",
        "assess.py",
        "    if new is not old:\n        demands",
        "    if False:\n        demands",
    ),
    Mutant(
        "let the old people speak for the new policy",
        "assess.py",
        "below_trust, vouchers.people(new))",
        "below_trust, people)",
    ),
    Mutant("forget the root rule", "assess.py", "if below_trust and old.root_rule not in paths:", "if False:"),
    Mutant(
        "let approvals heal a wrong signature",
        "vouchers.py",
        "if error.reason != Reason.UNSUPPORTED_SIGNATURE:",
        "if False:",
    ),
    Mutant(
        "take a broken policy",
        "assess.py",
        "not (self.unmatched or self.broken or self.unmet)",
        "not (self.unmatched or self.unmet)",
    ),
    Mutant("read approvals anywhere", "trailers.py", "if _is_block(block) and not", "if block and not"),
    Mutant("read any number of approvals", "approvals.py", "len(found) > MAX_APPROVALS", "len(found) > 10_000"),
    Mutant("follow any parent", "assess.py", "    _check_parent(commit, parent)\n", ""),
)
MUTANTS = {"plan": PLAN, "trust": TRUST}
CONTROL = {
    "plan": Mutant("none", "decide.py", "def decide(", "def decide("),
    "trust": Mutant("none", "assess.py", "def assess(", "def assess("),
}


def killed_by(mutant: Mutant, package: str) -> str | None:
    """Return which tests fail with this mutant, None when all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for top in ("kubenode", "tests"):
            shutil.copytree(ROOT / top, copy / top, ignore=shutil.ignore_patterns("__pycache__", "mkosi", "vm"))
        path = copy / "kubenode" / package / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise AssertionError(
                f"stale mutant: {mutant.what!r} finds {text.count(mutant.old)} places in {mutant.file}"
            )
        path.write_text(text.replace(mutant.old, mutant.new))
        for number, tests in enumerate(TESTS[package], 1):
            if _fails(copy, tests):
                return f"killed {number}"
    return None


def _fails(copy: Path, tests: tuple[str, ...]) -> bool:
    """Run tests in a forked child, which spares starting Python and pytest for every mutant."""
    import hypothesis
    import pytest

    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.chdir(copy)
            sys.path.insert(0, str(copy))
            for name in [name for name in sys.modules if name.split(".")[0] in ("kubenode", "tests")]:
                del sys.modules[name]
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            hypothesis.settings.register_profile("mutants", database=None, deadline=None, derandomize=True)
            hypothesis.settings.load_profile("mutants")
            status = int(
                pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--rootdir={copy}", *tests])
            )
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        # A mutant must fail a test; one that cannot even be imported proves nothing.
        raise AssertionError(f"pytest ended with {code} on {', '.join(tests)}")
    return code == 1


def main() -> int:
    """Print a table of all mutants; return 1 when one survives."""
    count = survivors = 0
    for package in sys.argv[1:] or MUTANTS:
        if killed_by(CONTROL[package], package) is not None:
            print(f"The tests of {package} fail without any mutant: repair them first.")
            return 1
        for mutant in MUTANTS[package]:
            start = time.monotonic()
            found = killed_by(mutant, package)
            count += 1
            survivors += found is None
            where = f"{package}/{mutant.file}"
            print(f"{found or 'SURVIVES':<9} {time.monotonic() - start:4.1f} s  {where:<20} {mutant.what}", flush=True)
    print(f"{count - survivors} of {count} mutants were killed.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
