"""The command apply: from a commit on the laptop to nodes that run it, and an exit code that says whether they do."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.app import INTERRUPTED
from kubenode.cli.options import Branch, Context, FleetFolder, Kubeconfig, Remote, kubeconfig_of
from kubenode.cli.output import say
from kubenode.errors import ExitCode, KubenodeError, UsageError

if TYPE_CHECKING:
    from kubenode.cli.applygit import Commit
    from kubenode.cli.applygit import Remote as At
    from kubenode.cli.plansources import Seen
    from kubenode.cli.statuslook import Fleet

_MOST_COMMITS = 20
"""Commits that are shown before the question."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(apply)


def apply(
    plan: Annotated[
        Path | None, typer.Argument(help="Plan that was saved with `kubenode plan --save`; a fresh one if not given.")
    ] = None,
    fleet: FleetFolder = Path(),
    commit: Annotated[
        str | None, typer.Option(metavar="MESSAGE", help="Commit everything that is changed, signed, first.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Follow until every node is there.")] = True,
    timeout: Annotated[str, typer.Option(help="How long to follow: 90m, 6h.")] = "2h",
    anchor: Annotated[
        str | None, typer.Option(help="Commit that is trusted already (40 hex digits); else the first of the history.")
    ] = None,
    remote: Remote = None,
    branch: Branch = "main",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Push the fleet after a plan that you confirm, and follow it until every node is what the commit says.

    Exit code 0 only then; 3 when nodes would refuse the commit; 4 when a node is stuck; 75 when it was not seen to end.
    Ctrl-C stops the looking, not the rollout.

    Example: kubenode apply -C homelab
    """
    from kubenode.cli import applygit, applytree
    from kubenode.cli.clone import commit_of, committed, full_id, repository

    limit = _limit(timeout)
    repository(fleet)
    applygit.check_branch(fleet, branch)
    changed = applytree.changed_files(fleet)
    if commit is None:
        applytree.refuse_changes(fleet, changed)
    elif plan is not None:
        raise UsageError("a saved plan is for a commit that exists", hint="Commit first, and plan for that.")
    elif changed:
        applytree.commit_everything(fleet, changed, commit)
    else:
        say("No file has changed, so there is nothing to commit.")
    at, head = applygit.remote_of(fleet, remote, branch), commit_of(fleet, "HEAD")
    applygit.check_builds_on(at, head)
    applytree.refuse_mistakes(committed(fleet, head), head)
    applygit.authenticate_push(at, head, full_id(fleet, anchor) if anchor else None)
    one = _Apply(fleet, at, head, kubeconfig, context)
    one.plan(plan, must_see=follow)
    if at.head != head:
        one.push(applygit.new_commits(fleet, at.head, head), yes=yes)
    else:
        say(f"{at.name}/{branch} has commit {head[:12]} already.")
    code = one.follow(limit) if follow else one.leave()
    if code is not ExitCode.OK:
        raise typer.Exit(int(code))


@dataclass
class _Apply:
    """One apply, once the commit and the remote are known to be good."""

    folder: Path
    remote: "At"
    commit: str
    kubeconfig: Path | None
    context: str | None

    def __post_init__(self) -> None:
        from kubenode.cli.statuslook import fleet_at

        self.fleet: Fleet = fleet_at(self.folder, self.commit)

    @property
    def clustered(self) -> bool:
        """Whether there is a cluster that can be looked at."""
        return self.fleet.documents.fleet.cluster is not None

    def plan(self, saved: Path | None, *, must_see: bool) -> None:
        """Show what nodes will do, by the planner that runs on them. Raises KubenodeError for a stale saved plan."""
        from kubenode.cli import planview
        from kubenode.cli.output import Format, conclude
        from kubenode.cli.plansince import show_since

        seen = self._gather(must_see=must_see or saved is not None) if self.clustered else None
        if saved is not None:
            self._refuse_stale(saved, seen)
        if seen is not None:
            planview.show(seen.plan, everything=False)
            conclude(planview.closing(seen.plan))
        elif self.remote.head not in (None, self.commit):
            show_since(self.folder, self.remote.head or "", self.commit, Format.TABLE, (), everything=False)

    def _gather(self, *, must_see: bool) -> "Seen | None":
        from kubenode.cli.plansources import gather

        try:
            return gather(self.folder, self.commit, kubeconfig_of(self.kubeconfig), self.context, None, ())
        except KubenodeError as error:
            if not must_see:
                say(f"The cluster cannot be seen, so there is no plan of what nodes will do: {error.message}")
                return None
            error.message = f"nothing was pushed: {error.message}"
            error.hint = f"{error.hint} `--no-follow` pushes without looking.".strip()
            raise

    def _refuse_stale(self, path: Path, seen: "Seen | None") -> None:
        from kubenode.plan.saved import decode, facts, stale

        try:
            saved = decode(path.read_bytes(), str(path))
        except OSError as error:
            hint = "Make a plan first: kubenode plan --save FILE"
            raise UsageError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
        if seen is None:
            raise UsageError("a saved plan needs a cluster to compare with", hint="Leave the plan out.")
        why = stale(saved, seen.fleet_id, self.commit, facts(seen.reports, seen.view))
        if why:
            raise KubenodeError(
                f"{path} is stale, so nothing was pushed: {' '.join(why)}",
                hint="Look at a new one: kubenode plan --save FILE",
            )

    def push(self, commits: "Sequence[Commit]", *, yes: bool) -> None:
        """Ask, and push."""
        from kubenode.cli.applygit import push
        from kubenode.cli.clone import where

        to = f"{self.remote.name}/{self.remote.branch}"
        many = f"{len(commits)} commits for {to}, every one authenticated:"
        say(f"1 commit for {to}, authenticated:" if len(commits) == 1 else many)
        if len(commits) > _MOST_COMMITS:
            say(f"  ... {len(commits) - _MOST_COMMITS} earlier ones: git{where(self.folder)} log")
        for it in commits[-_MOST_COMMITS:]:
            say(f"  {it.line}")
        if self.fleet.halted:
            say("The fleet is halted: nodes fetch and write releases, and nothing restarts until `kubenode resume`.")
        if not yes:
            _confirm(f"Push to {to}?")
        push(self.remote, self.commit)
        say(f"Pushed commit {self.commit[:12]} to {to}.")

    def follow(self, limit: timedelta) -> ExitCode:
        """Follow until there is an end."""
        from kubenode.cli import applyfollow, statuslook

        if not self.clustered:
            say("This fleet has no cluster, so nobody can see from here what its machines do; their status.json tells.")
            return ExitCode.TRY_LATER
        looker = statuslook.live_looker(self.fleet, kubeconfig_of(self.kubeconfig), self.context)
        say(_when())
        return applyfollow.Follow(self.folder, self.remote, self.fleet, looker, limit).run()

    def leave(self) -> ExitCode:
        """Say how to look later."""
        from kubenode.cli.clone import where

        say(f"{_when()} Look: kubenode status --watch{where(self.folder)}")
        return ExitCode.OK


def _when() -> str:
    from kubenode.host.clock import SystemClock
    from kubenode.plan.status import LOOKS_EVERY, shown

    latest = SystemClock().now() + LOOKS_EVERY
    return (
        f"Nothing can push nodes: each looks by itself every {shown(LOOKS_EVERY)}, the last one by {latest:%H:%M} UTC."
    )


def _confirm(question: str) -> None:
    """Ask; anything but yes ends it with nothing pushed. Raises UsageError when nobody is there to answer."""
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        say("")
        if sys.stdin.isatty():  # Ctrl-C is an answer.
            say("Nothing was pushed.")
            raise typer.Exit(INTERRUPTED) from None
        raise UsageError("nobody answered, so nothing was pushed", hint="--yes pushes without asking.") from None
    if not agreed:
        say("Nothing was pushed.")
        raise typer.Exit(INTERRUPTED)


def _limit(text: str) -> timedelta:
    from kubenode.fleet.scalars import duration

    try:
        return duration(text)
    except ValueError as error:
        raise UsageError(str(error), hint="--timeout 90m, for example.") from error
