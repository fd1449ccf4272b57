"""Follows a pushed commit through the fleet until every node is there, somebody is needed, or time is up."""

import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from kubenode.cli import statusview, statuswatch
from kubenode.cli.applygit import Remote, new_commits, remote_of
from kubenode.cli.clone import where
from kubenode.cli.output import WIDTH_OF_FILES, conclude, say
from kubenode.cli.statuslook import Fleet, Sight
from kubenode.errors import ExitCode, KubenodeError, TryLater
from kubenode.plan.arrival import End, end_of, lagging
from kubenode.plan.status import LOOKS_EVERY, Row, Standing, shown

PATIENCE = LOOKS_EVERY
"""How long silent nodes are waited for when no other has anything left to do."""


@dataclass
class Follow:
    """What is followed. `limit`: how long, at most; `arrived`: the last sentence when it went well."""

    folder: Path
    remote: Remote
    fleet: Fleet
    look: Callable[[], Sight]
    limit: timedelta
    quiet_since: float | None = None
    last: tuple[Row, ...] = ()
    told_of_leaving: bool = False

    def run(self) -> ExitCode:
        """Look until there is an end, and say which. Ctrl-C ends the looking, and nothing else."""
        started = time.monotonic()
        title = f"Following commit {self.fleet.commit[:12]}: {self.fleet.subject}"
        watch = statuswatch.Watch(self.fleet, self.look, title)
        try:
            # The screen that changes is put away before the end is told.
            with closing(watch.sights()) as sights:
                for sight in sights:
                    # What was seen before the cluster went away has been judged.
                    done = self._judge(sight) if not watch.trouble else None
                    if done is None and time.monotonic() - started > self.limit.total_seconds():
                        over = f"{shown(self.limit)} are over, and it is not done: {self._missing(sight)}."
                        done = ExitCode.TRY_LATER, f"{over} {watch.trouble}".rstrip()
                    if done is not None:
                        break
                else:
                    raise AssertionError("sights never end by themselves")
        except KeyboardInterrupt:
            so_far = f" ({statusview.counts(watch.last.rows)})" if watch.last is not None else ""
            say(f"Stopped looking{so_far}. The rollout goes on: nodes follow git, not this command.{self._again()}")
            return ExitCode.TRY_LATER
        except KubenodeError as error:
            say(f"The commit is pushed, and the cluster cannot be seen: {error.message}.{self._again()}")
            return ExitCode.TRY_LATER
        return self._end(sight, *done)

    def _judge(self, sight: Sight) -> tuple[ExitCode, str] | None:
        rows = sight.rows
        end = end_of(rows, lagging(rows), halted=self.fleet.halted, leaving=bool(sight.leaving))
        if end is None and sight.leaving and not self.told_of_leaving:
            self.told_of_leaving = True
            who = statusview.listed(sight.leaving)
            say(f"{who} is not in git any more, and still in the cluster: a control plane drains and removes it.")
        if end is End.ARRIVED:
            return ExitCode.OK, f"Every node is what commit {self.fleet.commit[:12]} says."
        if end is End.STUCK:
            names = statusview.listed([row.node for row in rows if row.standing is Standing.STUCK])
            return ExitCode.STUCK, f"A person is needed for {names}, and no other node is at work."
        if end is End.HALTED:
            return (
                ExitCode.TRY_LATER,
                "Every node knows the commit, and the fleet is halted: kubenode resume lets it go.",
            )
        if end is End.UNSEEN:
            return (
                ExitCode.TRY_LATER,
                f"Every node that can be seen from here is there; not seen: {self._missing(sight)}.",
            )
        return self._superseded(rows) or self._only_silent(sight)

    def _superseded(self, rows: tuple[Row, ...]) -> tuple[ExitCode, str] | None:
        """Return the end when the branch has moved on: nodes follow its newest commit, not this one."""
        if not any(row.word.commit and row.word.commit not in self.fleet.commits.behind for row in rows):
            return None
        try:
            now = remote_of(self.folder, self.remote.name, self.remote.branch)
        except TryLater:
            return None
        if now.head is None or now.head == self.fleet.commit:
            return None
        newest = new_commits(self.folder, self.fleet.commit, now.head)
        what = newest[-1].line if newest else now.head[:12]
        name = f"{now.name}/{now.branch}"
        return ExitCode.TRY_LATER, f"{name} has moved on, and nodes follow its newest commit now: {what}."

    def _only_silent(self, sight: Sight) -> tuple[ExitCode, str] | None:
        """Return the end when nothing but silence is left, and has been for a while."""
        left = {row.standing for row in sight.rows} - {Standing.DONE, Standing.UNSEEN}
        ageless = tuple(replace(row, age=None) for row in sight.rows)
        unchanged, self.last = ageless == self.last, ageless
        if left != {Standing.SILENT} or not unchanged or self.quiet_since is None:
            self.quiet_since = time.monotonic()
            return None
        if time.monotonic() - self.quiet_since < PATIENCE.total_seconds():
            return None
        return ExitCode.TRY_LATER, f"Every other node is there; nothing is heard of {self._missing(sight)}."

    def _missing(self, sight: Sight) -> str:
        waited = [row.node for row in sight.rows if row.standing is not Standing.DONE]
        return statusview.listed([*waited, *(f"{name} (to leave the cluster)" for name in sight.leaving)])

    def _end(self, sight: Sight, code: ExitCode, said: str) -> ExitCode:
        if code is not ExitCode.OK:
            said += self._again()
        if sys.stderr.isatty():
            say("")
            statuswatch.show(self.fleet, sight)
        elif code is not ExitCode.OK:
            for line, _ in statusview.problem_lines(sight.rows, WIDTH_OF_FILES):
                say(line)
        conclude(said)
        return code

    def _again(self) -> str:
        place = where(self.folder)
        return f" Look again: kubenode status --watch{place}; stop it: kubenode halt{place} --push --reason ..."
