"""Commands for the person who looks after a cluster: kubeconfig (a way in) and lease (who holds what)."""

import getpass
import os
import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.options import Context, Output
from kubenode.cli.output import Format, print_json, print_table, say
from kubenode.errors import HostError, UsageError

if TYPE_CHECKING:
    from kubenode.host.kube.kubeconfig import Access

ADMIN = Path("/etc/kubernetes/admin.conf")
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help=f"How to reach the cluster; else $KUBECONFIG, {ADMIN}, ~/.kube/config."),
]


def register(app: typer.Typer) -> None:
    """Add `kubenode kubeconfig` and `kubenode lease ...`."""
    app.command()(kubeconfig)
    group = typer.Typer(
        help="The slots that nodes take before they change anything that disturbs.", no_args_is_help=True
    )
    group.command("list")(list_leases)
    group.command("break")(break_lease)
    app.add_typer(group, name="lease")


def kubeconfig(
    user: Annotated[str, typer.Option(help="Name in the certificate; audit logs show it.")] = "",
    group: Annotated[str, typer.Option(help="Group in the certificate; else the cluster's administrators.")] = "",
    server: Annotated[str, typer.Option(help=f"HOST:PORT of the API; else that of {ADMIN}.")] = "",
    ca: Annotated[Path, typer.Option(help="Folder with the cluster's ca.crt and ca.key.")] = Path(
        "/etc/kubernetes/pki"
    ),
    hours: Annotated[int, typer.Option(min=1, max=24 * 365, help="How long the certificate is good for.")] = 24,
) -> None:
    """Print a kubeconfig with a new client certificate, made with the cluster's CA. Run it on a control plane.

    Nobody can take such a certificate back: keep it short.

    Example: kubenode kubeconfig --user jane --hours 8 > jane.conf
    """
    from kubenode.host.clock import SystemClock
    from kubenode.host.kube.client import Api
    from kubenode.host.kube.kubeconfig import Access, kubeconfig_text, load_kubeconfig
    from kubenode.host.kube.mint import mint, signer_of
    from kubenode.host.kube.rbac import administrators

    user = user or getpass.getuser()
    now = SystemClock().now()
    address = f"https://{server.removeprefix('https://')}" if server else load_kubeconfig(ADMIN).server
    if not re.fullmatch(r"https://(\[[0-9A-Fa-f:]+\]|[0-9A-Za-z.-]+):[0-9]{1,5}", address):
        raise UsageError(
            f"{server or address!r} is no address: HOST:PORT, for example k8s.example.net:6443",
            hint="Name it with --server, as spec.cluster.endpoint in fleet.yaml does.",
        )
    signer = signer_of(ca / "ca")
    if signer is None:
        raise HostError(f"{ca} has no ca.crt with ca.key", hint="Run it on a control plane, or name --ca FOLDER.")
    if not group:
        asking = mint(signer, "kubenode:kubeconfig", ("system:masters",), now)
        with Api(Access(address, *asking, source=str(ca))) as api:
            group = administrators(api)
    made = Access(address, *mint(signer, user, (group,), now, timedelta(hours=hours)), source=str(ca))
    typer.echo(kubeconfig_text(made, user), nl=False)
    say(f"{user} is in the group {group} at {address} until {now + timedelta(hours=hours):%Y-%m-%d %H:%M} UTC.")


def list_leases(kubeconfig: Kubeconfig = None, context: Context = None, output: Output = Format.TABLE) -> None:
    """Show every lease: who holds it, since when and for what, and whether its holder is still a node.

    Example: kubenode lease list
    """
    from kubenode.host.kube.client import Api
    from kubenode.host.kube.leases import Leases
    from kubenode.host.kube.names import NODES
    from kubenode.host.kube.reading import name_of
    from kubenode.model.plain import plain

    with Api(_access(kubeconfig, context)) as api:
        found = Leases(api).all()
        nodes = {name_of(it) for it in api.list(NODES)}
    gone = {lease.name for lease in found if lease.holder is not None and lease.holder not in nodes}
    if output is Format.JSON:
        leases = [{"name": it.name, "holder": it.holder, "since": plain(it.since), "why": it.why} for it in found]
        print_json("LeaseList", {"leases": [{**it, "holderGone": it["name"] in gone} for it in leases]})
    elif found:
        rows = []
        for lease in found:
            holder = f"{lease.holder} (no such node)" if lease.name in gone else lease.holder or "-"
            rows.append([lease.name, holder, f"{lease.since:%Y-%m-%d %H:%M}" if lease.since else "-", lease.why or "-"])
        print_table(["LEASE", "HOLDER", "SINCE (UTC)", "WHY"], rows)
    held = sum(lease.holder is not None for lease in found)
    say(
        f"{held} of {len(found)} leases are held."
        if found
        else "There are no leases: no control plane has made any yet."
    )


def break_lease(
    lease: Annotated[str, typer.Argument(help="Name of the lease, as `kubenode lease list` shows it.")],
    reason: Annotated[str, typer.Option(help="Why: kept at the lease, and shown to others.")],
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Free a lease whose holder does nothing any more and will not come back by itself.

    Leases never expire: only a person can know that a node which is silent is not in the middle of an upgrade. The
    holder notices at its next tick that it has lost the lease, and starts nothing new.

    Example: kubenode lease break slot-pool-workers-0 --reason "disk of worker-2 is dead"
    """
    from kubenode.host.clock import SystemClock
    from kubenode.host.kube.client import Api
    from kubenode.host.kube.leases import Leases

    if not reason.strip():
        raise UsageError("the reason is empty", hint="say why, others will read it")
    with Api(_access(kubeconfig, context)) as api:
        leases = Leases(api)
        found = {it.name: it for it in leases.all()}
        if lease not in found:
            raise UsageError(f"there is no lease {lease}", hint=f"there are: {', '.join(found) or 'none'}")
        held = found[lease]
        if held.holder is None:
            say(f"{lease} is free already.")
            return
        since = f" since {held.since:%Y-%m-%d %H:%M} UTC" if held.since else ""
        why = f" for: {held.why}" if held.why else ""
        if not yes:
            say(f"{lease} is held by {held.holder}{since}{why}.")
            say(f"If {held.holder} is in the middle of it, breaking the lease lets another node go down, too.")
            typer.confirm("Break it?", abort=True, err=True)
        by = f"{getpass.getuser()}@{socket.gethostname()}"
        leases.break_(lease, held.holder, f"{by}: {reason.strip()}", SystemClock().now())
    say(f"{lease} was taken from {held.holder}{since}.")


def _access(path: Path | None, context: str | None) -> "Access":
    from kubenode.host.kube.kubeconfig import load_kubeconfig

    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    places = [path] if path else [Path(named)] if named else [ADMIN, Path.home() / ".kube/config"]
    for place in places[:-1]:
        if place.exists():
            return load_kubeconfig(place, context)
    return load_kubeconfig(places[-1], context)
