"""What must be true of every decision, for any facts at all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.agent.postcondition import holds
from kubenode.model.decision import (
    Act,
    ActivateSlot,
    Converged,
    FetchRelease,
    PoisonRelease,
    PruneStaging,
    Reboot,
    RestoreEntry,
    RetireEntry,
    Stuck,
    Wait,
    WriteSlot,
)
from kubenode.model.documents import Role
from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.observed import BootedSlot, BootEntry, Observed, Slot, StagedImage
from kubenode.model.version import Version
from kubenode.plan import backoff, windows
from kubenode.plan.decide import decide
from tests.sim.facts import NOW, desired, entry, manifest, member, poisoned, release, root, window

VERSIONS = ("1.0", "2.0", "2.1", "3.0", "10.0")
versions = st.sampled_from(VERSIONS)
tries = st.sampled_from((None, None, 0, 1, 3))


@st.composite
def entries(draw):
    return entry(draw(versions), draw(tries), draw(st.integers(0, 3)))


@st.composite
def releases(draw):
    names = draw(st.lists(versions, min_size=0 if draw(st.integers(0, 19)) == 0 else 1, max_size=4))
    found = [release(name, draw(st.none() | versions)) for name in names]
    if found and draw(st.integers(0, 9)) == 0:  # The same version with other content.
        found[0] = replace(found[0], root_hash="rebuilt", manifest="rebuilt")
    return found


spans = st.sampled_from([window((0,), "11:00", 2), window((5,), "02:00", 4), window((0,), "00:00", 1, "No/Where")])
some_desired = st.builds(
    lambda found, halted, spans: desired(*found, halted=halted, windows=tuple(spans)),
    releases(),
    st.booleans(),
    st.lists(spans, max_size=2),
)


@st.composite
def some_observed(draw, trial=None):
    booted = draw(versions)
    others = draw(st.lists(entries(), max_size=3))
    own = [entry(booted, draw(tries), draw(st.integers(0, 1)))] if draw(st.integers(0, 9)) else []
    staged = draw(st.none() | versions)
    return Observed(
        boot_id="boot",
        booted=BootedSlot(
            draw(st.sampled_from(Slot)), Version(booted), root(booted), draw(st.booleans()) if trial is None else trial
        ),
        entries=tuple(draw(st.permutations(own + others))),
        spare=draw(st.none() | versions.map(root)),
        staged=StagedImage(Version(staged), root(staged)) if staged else None,
        fetched=draw(st.frozensets(versions.map(manifest), max_size=2)),
        partial=draw(st.frozensets(versions.map(manifest), max_size=2)),
        kubernetes=draw(st.sampled_from((None, None, None, member(Role.WORKER)))),
    )


@st.composite
def near_an_update(draw):
    """Facts around one step of an update: by chance alone, hardly any would get that far."""
    running, target = draw(st.lists(versions, min_size=2, max_size=2, unique=True))
    others = draw(st.lists(versions.filter(lambda it: it not in (running, target)), max_size=2, unique=True))
    floor = draw(st.sampled_from((None, None, None, *VERSIONS)))
    want = desired(
        release(target, floor),
        *others,
        halted=draw(st.integers(0, 4)) == 0,
        windows=tuple(draw(st.lists(spans, max_size=1))),
    )
    hop = draw(st.sampled_from((target, target, target, *others)))
    own = entry(running, draw(st.sampled_from((None, None, None, 0, 2))), draw(st.sampled_from((0, 0, 1))))
    beside = draw(st.sampled_from(((), (), (entry(hop, 3),), (entry(hop, 3),), (entry(hop, 0, 3),), (entry(hop),))))
    see = Observed(
        boot_id="boot",
        booted=BootedSlot(draw(st.sampled_from(Slot)), Version(running), root(running)),
        entries=(own, *beside),
        spare=draw(st.sampled_from((root(hop), root(hop), root(hop), None, root(running)))),
        staged=draw(
            st.sampled_from((StagedImage(Version(hop), root(hop)), StagedImage(Version(hop), root(hop)), None))
        ),
        fetched=draw(st.sampled_from((frozenset({manifest(hop)}), frozenset({manifest(hop)}), frozenset()))),
        kubernetes=draw(st.sampled_from((None, None, None, None, member(Role.WORKER)))),
    )
    return want, see


some_facts = st.one_of(st.tuples(some_desired, some_observed()), near_an_update(), near_an_update())

steps = st.sampled_from(("fetch", "write", "activate", "reboot", "retire", "restore", "poison"))
keys = st.builds(
    lambda step, name: f"{step}:{(root if step in ('retire', 'restore', 'poison') else manifest)(name)}",
    steps,
    versions,
)
every_key = [f"{step}:{manifest(name)}" for step in ("fetch", "write", "activate", "reboot") for name in VERSIONS]
attempts = st.builds(
    Attempt,
    st.integers(0, 9) | st.just(10**9),
    st.sampled_from((0, 30, 90, 4000, 10**6, -90)).map(lambda ago: NOW - timedelta(seconds=ago)),
    st.just("it broke"),
)
some_journal = st.builds(
    Journal,
    st.dictionaries(keys, attempts, max_size=3) | attempts.map(lambda same: dict.fromkeys(every_key, same)),
    st.none() | versions.map(root),
    st.lists(
        st.builds(
            lambda name, known: replace(poisoned(name), manifest=manifest(name) if known else None),
            versions,
            st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
)
moments = st.sampled_from((NOW, NOW.replace(day=28, hour=3)))


@settings(max_examples=900, deadline=None)
@given(some_facts, some_journal, moments)
def test_every_decision_is_safe(facts, journal, now):
    want, see = facts
    decision = decide(want, see, journal, now)
    assert decision == decide(want, see, journal, now), "deterministic"
    if not see.booted.trial and want.releases:
        check_failed_trials(decision, see, journal)
    match decision:
        case Stuck(reason, message, hint):
            assert reason.isalnum() and message.endswith(".") and hint.endswith(".")
        case Wait(reason, message, until):
            assert reason.isalnum() and message.endswith(".")
            assert until is None or until > now
            if reason == "Backoff":
                assert until <= now + backoff.LONGEST_DELAY
        case Converged():
            assert see.booted.root_hash == want.target.root_hash and not see.booted.trial
        case Act(action, why):
            assert why.endswith(".")
            assert not see.booted.trial, "a trial is systemd's"
            assert not holds(action, see, journal), "nothing is done twice"
            attempt = journal.attempts.get(backoff.step_key(action))
            if attempt:
                budget = backoff.BUDGETS.get(backoff.step_key(action).partition(":")[0])
                assert budget is None or attempt.failures < budget
            check_action(action, want, see, journal, now)


def check_failed_trials(decision, see, journal):
    known = {bad.root_hash for bad in journal.poisoned} | {see.booted.root_hash, journal.superseded}
    failed = [it for it in see.entries if it.tries_left == 0 and it.tries_done > 0 and it.root_hash not in known]
    if failed:
        assert isinstance(decision, Wait | Stuck) or isinstance(decision.action, PoisonRelease), "first of all"


def check_action(action, want, see, journal, now):
    running = see.booted.root_hash
    others = [it for it in see.entries if it.root_hash != running]
    own = [it for it in see.entries if it.root_hash == running]
    if isinstance(action, FetchRelease | WriteSlot | ActivateSlot | Reboot):
        hop = action.release
        assert hop in want.releases and hop.root_hash != running
        assert hop.floor is None or see.booted.version >= hop.floor
        assert not any(bad.root_hash == hop.root_hash or bad.manifest == hop.manifest for bad in journal.poisoned)
        assert own, "without an entry to come back to nothing begins"
    if isinstance(action, ActivateSlot | Reboot):
        assert not want.halted and see.kubernetes is None
        assert windows.is_open(want.windows, now)
        assert see.spare == action.release.root_hash, "never a half-written slot"
        assert all(it.root_hash in (running, see.spare) for it in see.entries), "every entry has its slot"
    match action:
        case WriteSlot(hop, slot):
            assert slot is not see.booted.slot
            assert hop.manifest in see.fetched
            assert not others, "the ESP never names a slot that is being written"
        case ActivateSlot(hop, supersede):
            assert not others and hop.manifest in see.fetched
            assert see.staged is not None and see.staged.root_hash == hop.root_hash
            down = hop.version < see.booted.version
            assert (supersede in own) if down else (supersede is None and any(it.tries_left is None for it in own))
        case Reboot(hop):
            trials = [it for it in others if it.root_hash == hop.root_hash and (it.tries_left or 0) > 0]
            assert trials
            assert hop.version > see.booted.version or all(it.tries_left == 0 for it in own), "it would not be chosen"
        case RetireEntry(gone):
            assert gone in others
        case RestoreEntry(back):
            assert back in own and back.tries_left == 0
        case PoisonRelease(_, root_hash):
            assert any(it.root_hash == root_hash and it.tries_left == 0 and it.tries_done > 0 for it in others)
            assert root_hash != journal.superseded
        case PruneStaging(downloads, staged):
            assert downloads or staged
            assert downloads <= see.fetched | see.partial


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.tuples(some_desired, some_observed(trial=False)), near_an_update()), st.none() | versions.map(root))
def test_every_way_ends(facts, superseded):
    """From any state, with effects that work, a few actions lead to an end, and to the target unless something says no.

    Releases may be the wrong target, but each is run by hops that go one way: no oscillation, no loop.
    """
    want, see = facts
    journal = Journal(superseded=superseded)
    restarts = 0
    for _ in range(60):
        decision = decide(want, see, journal, NOW)
        if not isinstance(decision, Act):
            break
        see, journal = apply(decision.action, see, journal)
        restarts += isinstance(decision.action, Reboot)
    else:
        raise AssertionError("it never ends")
    assert restarts <= len(VERSIONS)
    if isinstance(decision, Wait):
        assert decision.reason in ("Halted", "OutsideWindow")
    if restarts == 0 and (want.halted or see.kubernetes is not None):
        started = [it for it in see.entries if (it.tries_left or 0) > 0 and it.root_hash != see.booted.root_hash]
        assert not started or isinstance(decision, Stuck), "no power cut may start what is forbidden"
    if isinstance(decision, Converged):
        assert not see.fetched | see.partial and see.staged is None, "nothing is left over"
        own = [it for it in see.entries if it.root_hash == see.booted.root_hash]
        assert not all((it.tries_left, it.tries_done) == (0, 0) for it in own), "no mark of a downgrade is left"
        after = [it for it in see.entries if it.tries_left != 0 and it.root_hash != see.booted.root_hash]
        assert all(it.version < see.booted.version and it.tries_left is None for it in after), (
            "the next boot is the same"
        )


def apply(action, see, journal):
    """What the machine shows when an action works and every trial is blessed."""
    others = tuple(it for it in see.entries if it.root_hash != see.booted.root_hash)
    own = tuple(it for it in see.entries if it.root_hash == see.booted.root_hash)
    match action:
        case FetchRelease(hop):
            see = replace(see, fetched=see.fetched | {hop.manifest})
        case RetireEntry(gone):
            see = replace(see, entries=tuple(it for it in see.entries if it.root_hash != gone.root_hash))
        case RestoreEntry(back):
            see = replace(see, entries=(*others, replace(back, tries_left=None, tries_done=0)))
        case WriteSlot(hop):
            see = replace(see, spare=hop.root_hash, staged=StagedImage(hop.version, hop.root_hash))
        case ActivateSlot(hop, supersede):
            if supersede:
                own = (replace(supersede, tries_left=0, tries_done=0),)
                journal = replace(journal, superseded=supersede.root_hash)
            see = replace(see, entries=(*own, *others, BootEntry(hop.version, hop.root_hash, 3)), staged=None)
        case Reboot(hop):
            good = tuple(it for it in see.entries if it.root_hash != hop.root_hash)
            see = replace(
                see,
                booted=BootedSlot(see.booted.slot.other, hop.version, hop.root_hash),
                entries=(*good, BootEntry(hop.version, hop.root_hash)),
                spare=see.booted.root_hash,
            )
        case PoisonRelease(version, root_hash, digest):
            journal = replace(journal, poisoned=(*journal.poisoned, Poisoned(version, root_hash, digest, "failed")))
        case PruneStaging(downloads, staged):
            see = replace(
                see,
                fetched=see.fetched - downloads,
                partial=see.partial - downloads,
                staged=None if staged else see.staged,
            )
    return see, journal


@settings(max_examples=100, deadline=None)
@given(some_desired, some_observed(), some_journal, st.datetimes(timezones=st.just(UTC)))
def test_no_time_breaks_it(want, see, journal, now):
    decide(want, see, journal, now)
    decide(want, see, journal, datetime.max.replace(tzinfo=UTC))
    decide(want, see, journal, datetime.min.replace(tzinfo=UTC))
