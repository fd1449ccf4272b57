"""Commands about trust: verify (who changed the fleet repo) and local-sigstore (who builds, without internet)."""

from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.fleet import DEFAULT_ISSUER
from kubenode.cli.options import FleetFolder, Output, commit_of, repository
from kubenode.cli.output import Format, print_json, say, show_error
from kubenode.errors import Untrusted


def register(app: typer.Typer) -> None:
    """Add `kubenode trust ...`."""
    group = typer.Typer(help="Who may change the fleet, and who may build its images.", no_args_is_help=True)
    group.command()(verify)
    group.command("local-sigstore")(local_sigstore)
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
    from kubenode.host.git import FleetRepository
    from kubenode.trust.chain import authenticate
    from kubenode.trust.reasons import Reason
    from kubenode.trust.tree import trusted_tree

    folder = repository(fleet)
    head = commit_of(fleet, revision)
    try:
        with FleetRepository(folder) as source:
            trusted = authenticate(source.anchor(anchor), source.first_parent_chain(anchor, head), head=head)
            trusted_tree(trusted, source.read_tree(trusted.oid))
    except Untrusted as refusal:
        if output is Format.JSON:
            verdict = {"verdict": "refused", "reason": refusal.reason, "commit": refusal.subject or head}
            print_json("TrustVerdict", {**verdict, "message": refusal.message, "hint": refusal.hint})
        show_error(refusal)
        say(f"Refused ({refusal.reason}).")
        raise typer.Exit(int(refusal.exit_code)) from refusal
    commits = "1 commit" if trusted.verified == 1 else f"{trusted.verified} commits"
    message = f"{commits} after the anchor authenticated; {head[:12]} is trusted."
    if output is Format.JSON:
        result = {"verdict": "trusted", "reason": Reason.TRUSTED.value, "commit": trusted.oid, "message": message}
        print_json("TrustVerdict", {**result, "hint": ""})
    say(message)


def local_sigstore(
    directory: Annotated[Path, typer.Argument(help="Folder to create.")],
    issuer: Annotated[str, typer.Option(help="URL that certificates name as the identity's issuer.")] = DEFAULT_ISSUER,
) -> None:
    """Make a Sigstore instance in a folder: builds are then signed and verified without internet.

    Example: kubenode trust local-sigstore ~/.config/kubenode/sigstore
    """
    from kubenode.host.clock import SystemClock
    from kubenode.image import sigstore_local

    root = sigstore_local.create(directory, issuer=issuer, now=SystemClock().now())
    say(f"Made {directory}; put {root} into the fleet repo as trust/sigstore/trusted_root.json.")
