"""Mutation check of the planner and of commit trust: `python -m tests.mutants [plan|member|trust]`.

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
    "member": (
        ("tests/unit/test_plan_kubernetes.py", "tests/unit/test_kube_requests.py"),
        ("tests/property/test_kubernetes_properties.py",),
    ),
    "trust": (("tests/unit/test_trust_approvals.py",), ("tests/unit/test_trust_chain.py",)),
}
"""By group, `member` for what is about members of a cluster: the tests that are to fail, the quick ones first."""


@dataclass(frozen=True)
class Mutant:
    """A change: in this file of the package, the one place that says `old` says `new`."""

    what: str
    file: str
    old: str
    new: str
    member: bool = False
    """Whether it is about members of a cluster, although its file is about every machine."""

    @property
    def of_members(self) -> bool:
        """Whether tests of members of a cluster are to notice it."""
        return self.member or "kubernetes" in self.file


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
    Mutant("activate when halted or not declared", "decide.py", "        or _forbidden(node, hop)\n", ""),
    Mutant("restart when halted", "decide.py", "if node.desired.halted or node.stale", "if node.stale"),
    Mutant(
        "restart an undeclared member",
        "decide.py",
        " or gates.local_role(node) is not None:\n        return False",
        ":\n        return False",
    ),
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
    # Members of a cluster.
    Mutant(
        "restart a member whatever the cluster says",
        "decide.py",
        "    return node.view is None or restart.permitted(node, node.hop)\n",
        "    return True\n",
        member=True,
    ),
    Mutant(
        "leave half an upgrade when halted",
        "decide.py",
        "        _half_done(node, hop)\n        or _forbidden",
        "        _forbidden",
        member=True,
    ),
    Mutant(
        "pass two before pass one", "decide.py", "control_plane.pass_one(node, hop) or restart", "restart", member=True
    ),
    Mutant(
        "keep what is not needed",
        "decide.py",
        "return leases.let_go(node, decision, begun=control_plane.begun(node))",
        "return decision",
        member=True,
    ),
    Mutant("no upkeep", "decide.py", "decision = upkeep.chores(node, decision)", "pass", member=True),
    Mutant(
        "a machine joins before its release fits",
        "node.py",
        "if not self.newcomer:\n            return self.desired.target",
        "if True:\n            return self.desired.target",
        member=True,
    ),
    Mutant("a kubelet newer than an API server", "kubernetes/skew.py", "return kubelet <= apiserver and ", "return "),
    Mutant("kubelets too old", "kubernetes/skew.py", "else 2", "else 3"),
    Mutant("kubelets go back", "kubernetes/skew.py", "if new.minor < kubelet.minor or not", "if not"),
    Mutant(
        "two minors at once",
        "kubernetes/skew.py",
        "new.minor[1] - plane.minor[1] <= 1)",
        "new.minor[1] - plane.minor[1] <= 2)",
    ),
    Mutant("etcd 3.6 from anywhere", "kubernetes/skew.py", "and etcd < _ETCD_36_FROM", "and False"),
    Mutant(
        "join another minor", "kubernetes/skew.py", "return role is Role.WORKER or {version", "return True or {version"
    ),
    Mutant(
        "begin without the API",
        "kubernetes/gates.py",
        "if node.desired.halted:\n        return Wait",
        "if False:\n        return Wait",
    ),
    Mutant(
        "begin outside windows", "kubernetes/gates.py", "    return node.outside_window(what)\n", "    return None\n"
    ),
    Mutant(
        "a cordoned node is there",
        "kubernetes/gates.py",
        "return not node.ready or node.cordoned",
        "return not node.ready",
    ),
    Mutant(
        "a node that is NotReady is there",
        "kubernetes/gates.py",
        "return not node.ready or node.cordoned",
        "return node.cordoned",
    ),
    Mutant("silent API servers", "kubernetes/gates.py", "if version is None and name != me\n", "if False\n"),
    Mutant("etcd with alarms", "kubernetes/gates.py", "    if view.etcd.alarms:\n", "    if False:\n"),
    Mutant("etcd with sick members", "kubernetes/gates.py", "    if sick:\n", "    if False:\n"),
    Mutant("etcd with learners", "kubernetes/gates.py", "    if learners:\n", "    if False:\n"),
    Mutant(
        "etcd with strangers",
        "kubernetes/gates.py",
        "    if {member.name for member in members} != planes:\n",
        "    if False:\n",
    ),
    Mutant(
        "leave old kubelets behind", "kubernetes/control_plane.py", "        or gates.kubelets_too_old(node, new)\n", ""
    ),
    Mutant(
        "API servers two minors apart",
        "kubernetes/control_plane.py",
        "        _minors(node, new, what)\n        or gates",
        "        gates",
    ),
    Mutant(
        "pass one of a closed rollout",
        "kubernetes/control_plane.py",
        "        or rollout.closed(node, rollout.release_goal(hop))\n",
        "",
    ),
    Mutant("two control planes at once", "kubernetes/control_plane.py", "        or leases.room(node, what)\n", ""),
    Mutant(
        "upgrade a control plane that is away",
        "kubernetes/control_plane.py",
        "    if me_away(node):\n",
        "    if False:\n",
    ),
    Mutant(
        "upgrade without images", "kubernetes/control_plane.py", "    if new not in here.pulled:\n", "    if False:\n"
    ),
    Mutant(
        "upgrade without a snapshot",
        "kubernetes/control_plane.py",
        "    if hop.manifest not in here.snapshots:\n",
        "    if False:\n",
    ),
    Mutant("always the first", "kubernetes/control_plane.py", "first = view.version < new", "first = True"),
    Mutant(
        "documents left behind",
        "kubernetes/control_plane.py",
        "or (node.view is not None and node.view.version < min(versions))",
        "",
    ),
    Mutant("restart before API servers", "kubernetes/restart.py", "        or _apiservers(node, hop)\n", ""),
    Mutant(
        "an API server of unknown age", "kubernetes/restart.py", "(version is None and new > here.kubelet)", "False"
    ),
    Mutant("restart with an old configuration", "kubernetes/restart.py", "        or _configuration(node, what)\n", ""),
    Mutant(
        "restart out of turn",
        "kubernetes/restart.py",
        "        or rollout.turn(node, rollout.release_goal(hop, down=node.goes_down))\n",
        "",
    ),
    Mutant("too many away", "kubernetes/restart.py", "        or leases.room(node, what)\n", ""),
    Mutant(
        "restart without a kubelet set",
        "kubernetes/restart.py",
        "    if here.kubelet_sets.get(hop.root_hash) != cluster.configuration:\n",
        "    if False:\n",
    ),
    Mutant(
        "restart without a lease",
        "kubernetes/restart.py",
        "return _lease(node, hop) or _empty(node, *then)",
        "return _empty(node, *then)",
    ),
    Mutant("restart with pods", "kubernetes/restart.py", "if me.cordoned and not left:", "if me.cordoned:"),
    Mutant("restart without a cordon", "kubernetes/restart.py", "if me.cordoned and not left:", "if not left:"),
    Mutant("pods unseen", "kubernetes/restart.py", "        or _pods(node, what)\n", ""),
    Mutant(
        "drain for ever",
        "kubernetes/restart.py",
        "    if late and not rollout_of_pool.drain_force:\n",
        "    if False:\n",
    ),
    Mutant(
        "force every drain",
        "kubernetes/restart.py",
        "drain = Drain(node.name, late)",
        "drain = Drain(node.name, True)",
    ),
    Mutant(
        "a closed rollout goes on",
        "kubernetes/rollout.py",
        "    if len(failed) > rollout.max_failures:\n        return Stuck",
        "    if False:\n        return Stuck",
    ),
    Mutant(
        "one failure too many",
        "kubernetes/rollout.py",
        "    if len(failed) > rollout.max_failures:\n        return Stuck",
        "    if len(failed) > rollout.max_failures + 1:\n        return Stuck",
    ),
    Mutant(
        "waves at once",
        "kubernetes/rollout.py",
        '    if found.pending:\n        return Wait("WaitsForWave"',
        '    if False:\n        return Wait("WaitsForWave"',
    ),
    Mutant(
        "no soak", "kubernetes/rollout.py", "if found.soaking_until is None or found.soaking_until <= now:", "if True:"
    ),
    Mutant(
        "pools at once",
        "kubernetes/rollout.py",
        "or _earlier_waves(node, goal, rollout) or _earlier_pools(node)",
        "or _earlier_waves(node, goal, rollout)",
    ),
    Mutant(
        "half a node is none",
        "kubernetes/rollout.py",
        "return max(1, ceil(part) if up else int(part))",
        "return ceil(part) if up else int(part)",
    ),
    Mutant(
        "steal a lease",
        "kubernetes/leases.py",
        "return lease.holder is not None and lease.holder not in view.by_name and ",
        "return lease.holder is not None and lease.holder not in view.by_name or ",
    ),
    Mutant(
        "a lease for work that is held back",
        "kubernetes/leases.py",
        "        if wait is not None:\n            return wait\n    if held(node):",
        "        if False:\n            return wait\n    if held(node):",
    ),
    Mutant(
        "emptied for work that is held back",
        "kubernetes/leases.py",
        "    for action in work:\n",
        "    for action in () if held(node) else work:\n",
    ),
    Mutant(
        "restart what is held back",
        "kubernetes/restart.py",
        "    yield Reboot(hop)\n",
        "    yield from ()\n",
    ),
    Mutant(
        "held back by what is done",
        "kubernetes/restart.py",
        "    if not slots.is_activated(hop, node.observed):\n",
        "    if True:\n",
    ),
    Mutant("give back before it is told", "kubernetes/leases.py", "    if report is not None:\n", "    if False:\n"),
    Mutant("both go on", "kubernetes/leases.py", "limit is None or number < limit", "limit is None"),
    Mutant(
        "give back before it is healthy", "kubernetes/leases.py", "    if unhealthy is not None:\n", "    if False:\n"
    ),
    Mutant(
        "stay cordoned",
        "kubernetes/leases.py",
        "    if me is not None and me.cordoned_by_us:\n        return node.act(Uncordon",
        "    if False:\n        return node.act(Uncordon",
    ),
    Mutant("give back half an upgrade", "kubernetes/leases.py", "    if begun:\n", "    if False:\n"),
    Mutant(
        "an old look at the Node", "node.py", "            and me.boot_id == self.observed.boot_id\n", "", member=True
    ),
    Mutant(
        "init beside a cluster",
        "kubernetes/joining.py",
        "    if not node.observed.answers:\n",
        "    if node.name == cluster.bootstrap_node or not node.observed.answers:\n",
    ),
    Mutant("init for ever", "kubernetes/joining.py", "if node.now >= cluster.init_before:", "if False:"),
    Mutant(
        "init anywhere",
        "kubernetes/joining.py",
        "return _init(node) if node.name == cluster.bootstrap_node else _nobody(node)",
        "return _init(node)",
    ),
    Mutant("join when halted", "kubernetes/joining.py", "    if node.desired.halted:\n", "    if False:\n"),
    Mutant(
        "join whatever the version",
        "kubernetes/joining.py",
        "return _versions(node) or _token(node)",
        "return _token(node)",
    ),
    Mutant("join without a token", "kubernetes/joining.py", " or _token(node) or ", " or "),
    Mutant("what the kubelet rejected stays away", "decide.py", "    upkeep.revive,\n", "", member=True),
    Mutant(
        "remove the quorum",
        "kubernetes/joining.py",
        "    if not quorum_without(node.view.etcd, member):\n",
        "    if False:\n",
    ),
    Mutant("join beside a stale member", "kubernetes/joining.py", "    if stale is not None:\n", "    if False:\n"),
    Mutant(
        "certificates end",
        "kubernetes/upkeep.py",
        "or until - node.now > RENEW_BEFORE:",
        "or until - node.now > URGENT_BEFORE:",
    ),
    Mutant(
        "certificates wait for a window",
        "kubernetes/upkeep.py",
        "(None if urgent else gates.begin(node, what)) or",
        "gates.begin(node, what) or",
    ),
    Mutant(
        "take out what is not ours",
        "kubernetes/upkeep.py",
        "it.name not in cluster.by_name and it.report is not None]",
        "it.name not in cluster.by_name]",
    ),
    Mutant(
        "configure workers first",
        "kubernetes/configuration.py",
        "        if view.configuration != cluster.configuration:\n",
        "        if False:\n",
    ),
    Mutant(
        "approve for others",
        "kubernetes/requests.py",
        "foreign = sorted(request.names - declared)",
        "foreign: list[str] = []",
    ),
    Mutant(
        "approve administrators", "kubernetes/requests.py", '_unlike("groups", request.organizations, groups)', "None"
    ),
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
_DECIDE = Mutant("none", "decide.py", "def decide(", "def decide(")
GROUPS = {
    "plan": ("plan", _DECIDE, tuple(it for it in PLAN if not it.of_members)),
    "member": ("plan", _DECIDE, tuple(it for it in PLAN if it.of_members)),
    "trust": ("trust", Mutant("none", "assess.py", "def assess(", "def assess("), TRUST),
}
"""By group: the package that is changed, a change that changes nothing, and the mutants."""


def killed_by(mutant: Mutant, group: str) -> str | None:
    """Return which tests fail with this mutant, None when all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for top in ("kubenode", "tests"):
            shutil.copytree(ROOT / top, copy / top, ignore=shutil.ignore_patterns("__pycache__", "mkosi", "vm"))
        path = copy / "kubenode" / GROUPS[group][0] / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise AssertionError(
                f"stale mutant: {mutant.what!r} finds {text.count(mutant.old)} places in {mutant.file}"
            )
        path.write_text(text.replace(mutant.old, mutant.new))
        for number, tests in enumerate(TESTS[group], 1):
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
    for group in sys.argv[1:] or GROUPS:
        package, control, mutants = GROUPS[group]
        if killed_by(control, group) is not None:
            print(f"The tests of {group} fail without any mutant: repair them first.")
            return 1
        for mutant in mutants:
            start = time.monotonic()
            found = killed_by(mutant, group)
            count += 1
            survivors += found is None
            where = f"{package}/{mutant.file}"
            print(f"{found or 'SURVIVES':<9} {time.monotonic() - start:4.1f} s  {where:<20} {mutant.what}", flush=True)
    print(f"{count - survivors} of {count} mutants were killed.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
