"""Commands by which several people vouch for one change: `trust request` and `trust approve`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.changes import (
    Change,
    approval_of,
    has_approved,
    owner_of,
    read_change,
    signer_of,
    voices,
)
from kubenode.cli.changes import (
    approve as add_approval,
)
from kubenode.cli.clone import where
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, say
from kubenode.errors import UsageError
from kubenode.trust.approvals import TRAILER

if TYPE_CHECKING:
    from kubenode.host.signing import SshSigner
    from kubenode.trust.assess import Assessment

Revision = Annotated[str, typer.Argument(metavar="REV", help="Branch whose newest commit is meant, or that commit.")]
PrintOnly = Annotated[bool, typer.Option("--print", help="Change nothing; print your approval's trailer line.")]


def register(group: typer.Typer) -> None:
    """Add the commands of this module to `kubenode trust`."""
    group.command()(request)
    group.command()(approve)


def request(
    revision: Revision = "HEAD",
    fleet: FleetFolder = Path(),
    print_only: PrintOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Put your own approval into your change, so that others can add theirs, and say who must still approve.

    The commit is made again with the same files, parents, author and message. Somebody else's change is only looked at.
    Example: kubenode trust request -C homelab
    """
    change = read_change(fleet, revision, branch_needed=not print_only)
    _refuse_hopeless(change.assessment)
    _show(change, output)
    if change.assessment.accepted and not print_only:
        _finish(change, output, f"Nothing to ask for: nodes take commit {change.assessment.commit.short} as it is.")
        return
    signer = signer_of(fleet)
    key = signer.public()
    if print_only:
        _print_trailer(change, signer)
        return
    own = change.assessment.vouchers.key in (None, key)
    if own and voices(change.assessment, key) and not has_approved(change.assessment, key):
        _keep_signature(change, owner_of(change.assessment, key))
        change = add_approval(change, signer)
        say(f"{change.name} is now commit {change.assessment.commit.short}, with your approval in it.")
    _finish(change, output, _next(change))


def approve(
    revision: Revision,
    fleet: FleetFolder = Path(),
    print_only: PrintOnly = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before signing.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what a change does and what it needs, and approve it with your key.

    The commit is made again with the same files, parents, author and message, and with your approval; files in the
    work tree are not touched. Example: kubenode trust approve -C homelab new-node
    """
    change = read_change(fleet, revision, branch_needed=not print_only)
    _show(change, output)
    _refuse_hopeless(change.assessment)
    if change.assessment.accepted and not print_only:
        _finish(change, output, f"Nothing to approve: nodes take commit {change.assessment.commit.short} as it is.")
        return
    signer = signer_of(fleet)
    _check_voice(change.assessment, signer)
    if print_only:
        _print_trailer(change, signer)
        return
    me = owner_of(change.assessment, signer.public())
    if has_approved(change.assessment, signer.public()):
        _finish(change, output, f"{me} approved this change already. {_next(change)}")
        return
    _keep_signature(change, me)
    commit = change.assessment.commit
    say(f"To read it: git{where(fleet)} diff {commit.parents[0][:12]} {commit.short}")
    if not yes and sys.stdin is not None and sys.stdin.isatty() and not typer.confirm(f"Approve as {me}?", err=True):
        raise typer.Abort
    change = add_approval(change, signer)
    _finish(change, output, f"{me} approved: {change.name} is now {change.assessment.commit.short}. {_next(change)}")


def _show(change: Change, output: Format) -> None:
    from kubenode.cli.changeview import show_change

    if output is not Format.JSON:
        show_change(change.assessment)


def _finish(change: Change, output: Format, sentence: str) -> None:
    from kubenode.cli.changeview import as_json

    if output is Format.JSON:
        print_json("TrustChange", {**as_json(change.assessment, change.fleet_id), "branch": change.name})
    say(sentence)


def _print_trailer(change: Change, signer: "SshSigner") -> None:
    typer.echo(f"{TRAILER}: {approval_of(change, signer)}")
    say(
        "The line above approves exactly these files on top of exactly this parent. Whoever makes the commit adds it: "
        f"git commit --amend --no-edit -S --trailer '{TRAILER}: ...'"
    )


def _refuse_hopeless(change: "Assessment") -> None:
    """Raise what no approval can cure: a path without a rule, a policy that cannot be used."""
    from kubenode.trust.refusal import refusal

    if change.broken is not None:
        raise change.broken
    refused = refusal(change) if change.unmatched else None
    if refused is not None:
        raise refused


def _check_voice(change: "Assessment", signer: "SshSigner") -> None:
    from kubenode.trust.refusal import who_must

    key = signer.public()
    if voices(change, key):
        return
    me = owner_of(change, key)
    if me is None:
        raise UsageError(
            f"your key {key.fingerprint} belongs to nobody in the trust policy, so your approval would not count",
            hint="`kubenode trust show` lists people and keys; `git config user.signingKey` names yours.",
        )
    raise UsageError(
        f"{me} has no say in this change, so the approval would not count",
        hint=f"Still missing: {who_must(change.unmet)}." if change.unmet else "`kubenode trust show` lists the rules.",
    )


def _keep_signature(change: Change, me: str | None) -> None:
    """Raise UsageError when making the commit again would throw away the signature of somebody whose voice is needed.

    A signature covers the message, and an approval changes that; so the signer's own voice has to be in a trailer.
    """
    from kubenode.trust.assess import Why

    assessment = change.assessment
    for demand in assessment.demands:
        policy = assessment.new if demand.why is Why.NEW_ROOT else assessment.old
        signer = assessment.vouchers.signer(policy)
        if signer is None or signer == me or signer in assessment.vouchers.approvers(policy):
            continue
        left = (demand.rule.people & demand.vouched) - {signer}
        mine = {me} & demand.rule.people
        if signer in demand.rule.people and len(left | mine) < demand.rule.threshold:
            raise UsageError(
                f"{signer} signed this commit and has not put an approval into it: adding yours would make the commit "
                f"again, and {signer}'s signature would be lost, which {demand.rule} needs",
                hint=f"{signer} first runs: kubenode trust request {change.name}, and pushes it. Or send {signer} what "
                f"`kubenode trust approve{where(change.fleet)} {change.name} --print` prints.",
            )


def _next(change: Change) -> str:
    from kubenode.trust.refusal import who_must

    git = f"git{where(change.fleet)} push"
    push = f"{git} --force-with-lease origin {change.name}"
    if change.assessment.accepted:
        # A merge button would make another commit, with another parent or without the trailers.
        done = push if change.name == "main" else f"{git} origin {change.name}:main"
        return f"Every rule is met. Next: {done}   (if main is what nodes follow)"
    missing = who_must(change.assessment.unmet)
    return f"Still missing: {missing}. Next: {push}, and there: kubenode trust approve {change.name}"
