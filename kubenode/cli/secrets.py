"""Commands for sealed secrets: seal (also again, and the cluster's CA set) and unseal."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.complete import names, secret_readers
from kubenode.cli.options import FleetFolder
from kubenode.cli.output import say
from kubenode.errors import HostError, KubenodeError, UsageError
from kubenode.fleet.layout import Kind

Keys = Annotated[
    list[Path] | None,
    typer.Option(
        "--identity", "-i", help="Your age identity or SSH private key (- reads stdin); else the clone's signing key."
    ),
]
_STDIN = Path("-")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(seal)
    app.command()(unseal)


def seal(
    name: Annotated[
        str | None, typer.Argument(help="Name of the secret.", autocompletion=names(Kind.SEALED_SECRET))
    ] = None,
    file: Annotated[Path, typer.Argument(help="File with the secret; - reads stdin.")] = _STDIN,
    fleet: FleetFolder = Path(),
    readers: Annotated[
        list[str] | None,
        typer.Option(
            "--for", help="Who needs it: node:NAME, pool:NAME or role:ROLE; repeatable.", autocompletion=secret_readers
        ),
    ] = None,
    operators: Annotated[
        list[str] | None,
        typer.Option("--operator", help="Person who can open it; repeatable. Else everybody with ageRecipients."),
    ] = None,
    path: Annotated[str | None, typer.Option(help="Where nodes put it, below /etc or /run.")] = None,
    mode: Annotated[str | None, typer.Option(help="Permissions on the node, else 0600.")] = None,
    owner: Annotated[str | None, typer.Option(help="Owner on the node (user or user:group), else root.")] = None,
    reseal: Annotated[
        bool, typer.Option("--reseal", help="Seal what is sealed already to those who need it now.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="With --reseal: every secret.")] = False,
    cluster_ca: Annotated[
        bool, typer.Option("--cluster-ca", help="Make the cluster's CA set, sealed to the control planes.")
    ] = False,
    replace_ca: Annotated[
        bool, typer.Option("--replace-cluster-ca", help="With --cluster-ca: give up the CA set that is there.")
    ] = False,
    bootstrap_tokens: Annotated[
        bool, typer.Option("--bootstrap-tokens", help="Make a token for each node of the cluster that has none.")
    ] = False,
    identity: Keys = None,
) -> None:
    """Seal a secret to the nodes that need it and to operators; the plain text is never written anywhere.

    Writes secrets/NAME.age and its description secrets/NAME.yaml, to be committed together. A secret that is there
    already keeps its readers and its place unless they are given.

    Example: kubenode seal registry auth.json -C homelab --for pool:workers --path /etc/containerd/auth.json
    """
    place = [path, mode, owner]
    if (reseal and cluster_ca) or (every and not reseal) or (replace_ca and not cluster_ca):
        raise UsageError(
            "--all goes with --reseal, --replace-cluster-ca with --cluster-ca",
            hint="`kubenode seal --help` shows how to call it.",
        )
    if reseal:
        if (name is None) is not every or any([readers, operators, *place]) or file != _STDIN:
            hint = "Example: kubenode seal --reseal registry --identity ~/.ssh/id_ed25519"
            raise UsageError("--reseal takes the NAME of one secret, or --all, and --identity", hint=hint)
        _reseal(fleet, name, identity or [])
        return
    if identity:
        hint = "To change who can open a secret that is sealed already: kubenode seal --reseal NAME"
        raise UsageError("--identity goes with --reseal: sealing needs no private key", hint=hint)
    if bootstrap_tokens:
        if name is not None or cluster_ca or any([readers, *place]):
            hint = "Example: kubenode seal --bootstrap-tokens -C homelab"
            raise UsageError("--bootstrap-tokens takes no name, readers or place: they are given", hint=hint)
        _seal_tokens(fleet, operators)
        return
    if cluster_ca:
        if name is not None or any([readers, *place]):
            hint = "Example: kubenode seal --cluster-ca -C homelab"
            raise UsageError("--cluster-ca takes no name, readers or place: they are given", hint=hint)
        _seal_cluster_ca(fleet, operators, replace_ca)
        return
    if name is None:
        raise UsageError("the secret needs a name", hint="Example: kubenode seal NAME FILE --for pool:workers")
    _seal_file(fleet, name, file, readers, operators, path, mode, owner)


def _seal_file(
    fleet: Path,
    name: str,
    file: Path,
    readers: list[str] | None,
    operators: list[str] | None,
    path: str | None,
    mode: str | None,
    owner: str | None,
) -> None:
    from kubenode.cli import sealing

    read = sealing.read_fleet(fleet)
    sealing.check_name(name)
    old = read.secrets.get(name)
    place = sealing.place(old, path, mode, owner)
    secret = sealing.describe(read, name, readers, operators, place)
    (done,) = sealing.save(read, [sealing.prepare(read, secret, _plain_text(file, fleet))])
    say(
        f"Sealed {name} to {sealing.described(done.sealed)}. "
        f"Commit secrets/{name}.age and secrets/{name}.yaml together."
    )


def _reseal(fleet: Path, name: str | None, keys: list[Path]) -> None:
    from kubenode.cli import sealing
    from kubenode.fleet.validate import validate
    from kubenode.host.age import unseal as opened

    read = sealing.read_fleet(fleet)
    chosen = [sealing.known(read, name)] if name else list(read.secrets.values())
    wrong = {problem.path for problem in validate(read.files)}
    stale = [it for it in chosen if not wrong.isdisjoint({f"secrets/{it.name}.age", f"secrets/{it.name}.yaml"})]
    if not stale:
        say("Nothing is to be done: " + ("it is" if name else "all are") + " sealed to exactly those who need it.")
        return
    identities = sealing.identities(fleet, keys)
    ready, failed = [], []
    for secret in stale:
        try:
            plain = opened(sealing.sealed_bytes(read, secret), identities, f"secrets/{secret.name}.age")
            ready.append(sealing.prepare(read, secret, plain))
        except KubenodeError as error:
            if name:
                raise
            say(f"{secret.name} stays as it is: {error} {error.hint}".rstrip())
            failed.append(secret.name)
    before = dict(read.secrets)
    for secret in sealing.save(read, ready):
        say(f"Sealed {secret.name} to {sealing.described(secret.sealed)}.")
        gone = sealing.dropped(before[secret.name].sealed, secret.sealed)
        if gone:
            say(f"  The earlier keys of {gone} still open what is in git's history.")
            say("  If they may be in the wrong hands, change the secret itself.")
    if failed:
        raise HostError(
            f"{len(failed)} of {len(stale)} secrets could not be sealed again: {', '.join(failed)}",
            hint="Let another operator do it; commit what was sealed.",
        )
    say(f"Commit the changes in {fleet / 'secrets'}, .age and .yaml together.")


def _seal_cluster_ca(fleet: Path, operators: list[str] | None, replace_ca: bool) -> None:
    from kubenode.cli import sealing
    from kubenode.fleet.cluster_ca import CLUSTER_CA, encode_ca_set
    from kubenode.host.clock import SystemClock
    from kubenode.host.cluster_ca import make_ca_set

    read = sealing.read_fleet(fleet)
    there = read.secrets.get(CLUSTER_CA)
    if there is not None and not replace_ca:
        raise UsageError(
            f"the fleet has a cluster CA set already: secrets/{CLUSTER_CA}.yaml",
            hint=f"To seal it to new control planes: kubenode seal --reseal {CLUSTER_CA}. Before the cluster's first "
            "boot it can be given up with --replace-cluster-ca; later that breaks the cluster: no kubelet, kubeconfig, "
            "etcd member or service account token made under the old set is accepted any more.",
        )
    if read.documents.fleet.cluster is None:
        raise UsageError("the fleet has no cluster", hint="Add spec.cluster to fleet.yaml first.")
    files = make_ca_set(SystemClock().now())
    secret = sealing.cluster_ca(read, operators, files)
    (done,) = sealing.save(read, [sealing.prepare(read, secret, encode_ca_set(files))])
    assert done.cluster_ca is not None
    typer.echo(done.cluster_ca.ca_cert_hash)
    if there is not None:
        say("The old CA set is given up: machines that were set up under it must be set up again.")
    say(
        f"Made the cluster's CA set (10 years), sealed to {sealing.described(done.sealed)}. "
        f"Commit secrets/{CLUSTER_CA}.age and secrets/{CLUSTER_CA}.yaml together."
    )


def _seal_tokens(fleet: Path, operators: list[str] | None) -> None:
    import secrets

    from kubenode.cli import sealing
    from kubenode.fleet import tokens

    read = sealing.read_fleet(fleet)
    if read.documents.fleet.cluster is None:
        raise UsageError("the fleet has no cluster to join", hint="Add spec.cluster to fleet.yaml first.")
    without = tokens.nodes_without(read.documents.nodes, read.documents.pools, read.secrets)
    ready = [node for node in without if node.age_recipient is not None]
    made = []
    for node in ready:
        token = tokens.make_token(secrets.choice).encode()
        made.append(sealing.prepare(read, sealing.bootstrap_token(read, node.name, operators), token))
    for secret in sealing.save(read, made):
        say(f"Sealed {secret.name} to {sealing.described(secret.sealed)}.")
    later = [node.name for node in without if node.age_recipient is None]
    if later:
        say(f"No token yet for {', '.join(later)}: no identity to seal to. First: kubenode seed {later[0]}")
    if not made:
        say("No token was made" + (": every node of the cluster has one." if not later else "."))
        return
    count = f"{len(made)} bootstrap token{'s' if len(made) > 1 else ''}"
    say(f"Made {count}. Commit the changes in {fleet / 'secrets'}, .age and .yaml together.")


def unseal(
    name: Annotated[str, typer.Argument(help="Name of the secret.", autocompletion=names(Kind.SEALED_SECRET))],
    fleet: FleetFolder = Path(),
    identity: Keys = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write (mode 0600, never replaced); - is stdout.")
    ] = _STDIN,
) -> None:
    """Open a sealed secret with an operator's key.

    Example: kubenode unseal registry -C homelab --identity ~/.ssh/id_ed25519 --output auth.json
    """
    from kubenode.cli import sealing
    from kubenode.host.age import unseal as opened
    from kubenode.host.files import write_new

    if output != _STDIN and output.resolve().is_relative_to(fleet.resolve()):
        raise UsageError(f"{output} would be plain text in the fleet repo", hint="Name a file elsewhere.")
    if output != _STDIN and (output.exists() or output.is_symlink()):
        raise UsageError(f"{output} exists and is not written over", hint="Name another file.")
    read = sealing.read_fleet(fleet)
    secret = sealing.known(read, name)
    identities = sealing.identities(fleet, identity or [])
    plain = opened(sealing.sealed_bytes(read, secret), identities, f"secrets/{name}.age")
    if output == _STDIN:
        sys.stdout.buffer.write(plain)
        sys.stdout.flush()
        say(f"Opened {name}.")
        return
    write_new(output, plain)
    say(f"Opened {name} into {output}, readable by you only. It is plain text: delete it when you are done.")


def _plain_text(file: Path, fleet: Path) -> bytes:
    """Return the secret, read into memory. Raises UsageError when it is empty, too large or would be typed."""
    from kubenode.fleet.secrets import MAX_SECRET

    if file == _STDIN:
        if sys.stdin.isatty():
            hint = "Name a FILE, or pipe it: pass show registry | kubenode seal registry --for pool:workers"
            raise UsageError("the secret would be typed here, and be seen on the screen", hint=hint)
        plain = sys.stdin.buffer.read(MAX_SECRET + 1)
    else:
        with file.open("rb") as opened:
            plain = opened.read(MAX_SECRET + 1)
        if file.resolve().is_relative_to(fleet.resolve()):
            say(f"{file} lies in the fleet repo in plain text: delete it before you commit.")
    if not plain:
        raise UsageError("the secret is empty", hint="Did the command before the pipe fail?")
    if len(plain) > MAX_SECRET:
        hint = "Secrets are keys and passwords; other files belong into the image or into a pool's files."
        raise UsageError(f"the secret is larger than {MAX_SECRET:,} bytes", hint=hint)
    return plain
