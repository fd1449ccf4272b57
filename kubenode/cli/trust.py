"""Commands about trust: verify (who changed the fleet repo) and local-sigstore (who builds, without internet).

`request` and `approve` are in `cli.approve`, `show` is in `cli.trustshow`.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli import approve, trustshow
from kubenode.cli.clone import authenticated, commit_of, full_id, repository, where
from kubenode.cli.fleet import DEFAULT_ISSUER
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, say, show_refusal
from kubenode.cli.stamp import stamp
from kubenode.errors import Untrusted

if TYPE_CHECKING:
    from kubenode.trust.refusal import ChangeRefused


def register(app: typer.Typer) -> None:
    """Add `kubenode trust ...`."""
    group = typer.Typer(help="Who may change the fleet, and who may build its images.", no_args_is_help=True)
    group.command()(verify)
    trustshow.register(group)
    approve.register(group)
    group.command("local-sigstore")(local_sigstore)
    group.command()(stamp)
    app.add_typer(group, name="trust")


def verify(
    anchor: Annotated[str, typer.Option(help="Commit to start from, trusted already (40 hex digits).")],
    revision: Annotated[str, typer.Argument(metavar="REV", help="Branch, tag or commit to authenticate.")] = "HEAD",
    fleet: FleetFolder = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Authenticate every commit from the anchor to REV, as a node does; exit code 3 when one is refused.

    Example: kubenode trust verify -C homelab --anchor 1f0c2b... main
    """
    from kubenode.trust.reasons import Reason
    from kubenode.trust.refusal import ChangeRefused

    folder = repository(fleet)
    anchor = full_id(fleet, anchor)
    head = commit_of(fleet, revision)
    try:
        trusted = authenticated(fleet, anchor, head).commit
    except ChangeRefused as refusal:
        details = _details(fleet, refusal, revision, head)
        commit = refusal.assessment.commit
        fields = {"commit": commit.oid, "author": commit.author, "subject": commit.subject}
        raise show_refusal("TrustVerdict", refusal, output, details=details, **fields) from refusal
    except Untrusted as refusal:
        if refusal.reason == Reason.ANCHOR_MISSING and (folder / "shallow").exists():
            refusal.hint = f"This clone is shallow, as CI systems make them: git -C {fleet} fetch --unshallow"
        raise show_refusal("TrustVerdict", refusal, output, commit=refusal.subject or head) from refusal
    message = f"{head[:12]} is trusted: {_commits(trusted.verified)} authenticated."
    if output is Format.JSON:
        result = {"verdict": "trusted", "reason": Reason.TRUSTED.value, "commit": trusted.oid, "message": message}
        print_json("TrustVerdict", {**result, "hint": ""})
    say(message)


def _details(fleet: Path, refusal: "ChangeRefused", revision: str, head: str) -> Sequence[str]:
    """Return the lines that say it at length, with the commands for this clone in the hint."""
    from kubenode.cli.changeview import state_lines
    from kubenode.trust.refusal import APPROVE

    lines = [f"{refusal.headline}.", *(f"  {line}" for line in state_lines(refusal.assessment))]
    if refusal.subject == head:
        name = shlex.quote(revision) if revision != "HEAD" else "BRANCH"
        refusal.hint = refusal.hint.replace(APPROVE, f"kubenode trust approve{where(fleet)} {name}")
    else:
        refusal.hint += f" It lies below {head[:12]}: what follows it has to be made again on top of the repaired one."
    return lines


def _commits(number: int) -> str:
    if number == 0:
        return "it is the anchor itself, and no later commit had to be"
    return "1 commit after the anchor was" if number == 1 else f"{number} commits after the anchor were"


def local_sigstore(
    directory: Annotated[Path, typer.Argument(help="Folder to create.")],
    issuer: Annotated[str, typer.Option(help="URL that certificates name as the identity's issuer.")] = DEFAULT_ISSUER,
    rekor: Annotated[int, typer.Option(min=1, max=2, help="Version of Rekor whose log entries it makes.")] = 1,
) -> None:
    """Make a Sigstore instance in a folder: builds are then signed and verified without internet.

    Example: kubenode trust local-sigstore ~/.config/kubenode/sigstore
    """
    from kubenode.host.clock import SystemClock
    from kubenode.image import sigstore_local

    root = sigstore_local.create(directory, issuer=issuer, now=SystemClock().now(), rekor=2 if rekor == 2 else 1)
    say(f"Made {directory}; put {root} into the fleet repo as trust/sigstore/trusted_root.json.")
