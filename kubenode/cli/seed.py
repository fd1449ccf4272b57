"""The command that makes a machine's identity and what it needs before its first contact with the fleet."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import authenticated, commit_of, git, repository
from kubenode.cli.complete import names
from kubenode.cli.options import FleetFolder, Output
from kubenode.cli.output import Format, print_json, say
from kubenode.errors import FleetInvalid, UsageError
from kubenode.fleet.layout import Kind, path_of

if TYPE_CHECKING:
    from kubenode.model.documents import FleetDocuments

_MACHINE_ID = re.compile("[0-9a-f]{32}")
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(seed)


def seed(
    node: Annotated[
        str, typer.Argument(help="Name of the machine, as in nodes/NODE.yaml.", autocompletion=names(Kind.NODE))
    ],
    fleet: FleetFolder = Path(),
    out: Annotated[Path | None, typer.Option(help="Folder for the seed, else NODE.seed beside the fleet repo.")] = None,
    fleet_url: Annotated[
        str | None, typer.Option(help="Where the machine fetches the fleet, else origin's URL.")
    ] = None,
    branch: Annotated[str, typer.Option(help="Branch that the machine follows.")] = "main",
    anchor: Annotated[str, typer.Option(help="Commit that the machine trusts from the start.")] = "HEAD",
    new_identity: Annotated[
        bool, typer.Option("--new-identity", help="Give up the machine's present identity (lost or stolen).")
    ] = False,
    network: Annotated[
        list[Path] | None, typer.Option(help="A .network, .netdev or .link file for systemd-networkd; repeatable.")
    ] = None,
    dns: Annotated[list[str] | None, typer.Option(help="Address of a DNS server; repeatable.")] = None,
    ntp: Annotated[list[str] | None, typer.Option(help="Time server, with DHCP for the rest; repeatable.")] = None,
    machine_id: Annotated[
        str | None, typer.Option(help="Machine id (32 hex digits), else the machine makes one.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a machine's identity and its seed: what it needs before its first contact with the fleet.

    The public half goes into nodes/NODE.yaml, to be committed; the private half exists only in the seed.

    Example: kubenode seed cp-1 -C homelab --fleet-url https://git.example.net/fleet.git
    """
    from kubenode.fleet.identity import with_recipient
    from kubenode.fleet.load import load_fleet
    from kubenode.host import seed as format_of
    from kubenode.host.files import write_atomically, write_new
    from kubenode.host.statefiles import encode_seed
    from kubenode.host.tree import read_folder
    from kubenode.model.state import Seed

    url = _address(fleet, fleet_url)
    extra = _extra(network or [], dns or [], ntp or [], machine_id)
    folder = (out or fleet.resolve().parent / f"{node}.seed").absolute()
    if folder.resolve().is_relative_to(fleet.resolve()):
        raise UsageError(
            f"{folder} is in the fleet repo", hint="The seed is secret: name a folder elsewhere with --out."
        )
    commit, fleet_id = _anchor(fleet, anchor)
    files = read_folder(fleet).files
    documents = load_fleet(files)
    path = path_of(Kind.NODE, node)
    if node not in documents.nodes:
        raise _unknown(node, list(documents.nodes))
    before = documents.nodes[node].age_recipient
    text, recipient, made = _identity(node, before, folder, new_identity=new_identity)
    document = with_recipient(files[path], node, recipient)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = folder / format_of.IDENTITY_FILE
    if made:
        write_new(key, text)
    if document != files[path]:
        write_atomically(fleet / path, document, 0o644)
    plain = encode_seed(Seed(url, fleet_id, commit, node, branch))
    write_atomically(folder / format_of.SEED_FILE, plain)
    credentials = {format_of.SEED: plain, format_of.IDENTITY: text, **extra}
    strings = _write_strings(folder, credentials)
    words = format_of.qemu_arguments(strings)
    if output is Format.JSON:
        result = {"node": node, "recipient": recipient, "anchor": commit, "folder": str(folder), "qemu": words}
        print_json("Seed", {**result, "identity": str(key)})
    else:
        lines = [f"{flag} {shlex.quote(value)}" for flag, value in zip(words[::2], words[1::2], strict=True)]
        typer.echo(" \\\n".join(lines))
    _explain(node, folder, made=made, changed=document != files[path])
    if before is not None and before != recipient:
        _explain_reseal(node, files, documents)


def _explain(node: str, folder: Path, *, made: bool, changed: bool) -> None:
    say(f"QEMU: add the arguments above. libvirt: put {folder / 'libvirt.xml'} into the domain.")
    say(f"A machine without a hypervisor: put {folder}/seed.json and identity.key into /var/lib/kubenode (0600).")
    say(
        "SECRET: identity.key, libvirt.xml and smbios/kubenode.identity hold the machine's private key. "
        "Keep it offline or delete it when the machine runs."
    )
    commit = f" Commit and push nodes/{node}.yaml before the machine starts." if changed else ""
    say(f"The seed of {node} is in {folder}, with {'a new' if made else 'its present'} identity.{commit}")


def _explain_reseal(node: str, files: Mapping[str, bytes], documents: "FleetDocuments") -> None:
    from kubenode.fleet.secrets import load_secrets, needed_by

    me = documents.nodes[node]
    pool = documents.pools.get(me.pool)
    theirs = [name for name, secret in load_secrets(files).items() if needed_by(secret, me, pool)]
    if theirs:
        say(
            f"The new identity opens none of {node}'s secrets yet ({', '.join(theirs)}): kubenode seal --reseal --all. "
            "If the old one was stolen, change what is in them: whoever has it can read them in git's history."
        )


def _identity(node: str, present: str | None, folder: Path, *, new_identity: bool) -> tuple[bytes, str, bool]:
    """Return the machine's identity, its recipient, and whether it was made now. Raises UsageError."""
    from kubenode.host.age import new_identity as make
    from kubenode.host.age import recipient_of
    from kubenode.host.seed import IDENTITY_FILE

    key = folder / IDENTITY_FILE
    if not key.exists():
        if present is not None and not new_identity:
            raise UsageError(
                f"{node} has an identity, and its private half is not in {folder}",
                hint=f"Copy it there as {IDENTITY_FILE}. When it is lost: --new-identity, then seal its secrets "
                "again (`kubenode seal --reseal --all`), commit, and give the machine the new seed.",
            )
        made = make()
        return made.text.encode(), made.recipient, True
    if new_identity:
        raise UsageError(
            f"{key} exists, and an identity is never written over", hint="Move it away, or name another --out."
        )
    text = key.read_bytes()
    recipient = recipient_of(text, str(key))
    if present is not None and present != recipient:
        raise UsageError(
            f"{key} is another identity than the one of nodes/{node}.yaml",
            hint="Name the folder of this machine's seed with --out.",
        )
    return text, recipient, False


def _write_strings(folder: Path, credentials: Mapping[str, bytes]) -> dict[str, Path]:
    """Write the SMBIOS string of each credential to a file of its own, and the libvirt snippet."""
    from kubenode.host.files import write_atomically
    from kubenode.host.seed import libvirt_xml, smbios_string

    strings = folder / "smbios"
    strings.mkdir(mode=0o700, exist_ok=True)
    for old in strings.iterdir():  # Of an earlier seed, with more credentials.
        if old.name not in credentials and re.match(r"(network|system)\.", old.name):
            old.unlink()
    for name, value in credentials.items():
        write_atomically(strings / name, smbios_string(name, value).encode())
    write_atomically(folder / "libvirt.xml", libvirt_xml(credentials).encode())
    return {name: strings / name for name in credentials}


def _address(fleet: Path, given: str | None) -> str:
    from kubenode.host.git_run import check_address, shown
    from kubenode.host.mirror import addresses

    url = given or git(fleet, "remote", "get-url", "origin", check=False).text.strip()
    hint = "Say it with --fleet-url https://git.example.net/fleet.git"
    if not url or (given is None and url.startswith(("/", "."))):
        raise UsageError("nothing says where the machine fetches the fleet repo", hint=hint)
    if not addresses(url):
        check_address(url)
    if _PASSWORD.search(url):
        raise UsageError(f"the address {shown(url)} has a password in it", hint=f"{hint}, without a password.")
    return url


def _anchor(fleet: Path, revision: str) -> tuple[str, str]:
    """Return the anchor and the fleet's id, authenticated from the fleet's first commit. Raises Untrusted."""
    from kubenode.fleet.load import load_fleet

    folder = repository(fleet)
    if (folder / "shallow").exists():
        hint = f"git -C {fleet} fetch --unshallow"
        raise UsageError(f"{fleet} is a shallow clone: its history cannot be authenticated from the start", hint=hint)
    commit = commit_of(fleet, revision)
    first = git(fleet, "rev-list", "--first-parent", "--max-parents=0", commit).text.split()[-1]
    return commit, load_fleet(authenticated(fleet, first, commit).files).fleet.id


def _unknown(node: str, known: Sequence[str]) -> FleetInvalid:
    from kubenode.errors import Location
    from kubenode.fleet.problems import did_you_mean

    hint = did_you_mean(node, known) or f"Write nodes/{node}.yaml first, with the pool of the machine."
    return FleetInvalid(f"there is no node {node[:80]!r}", location=Location(f"nodes/{node[:80]}.yaml"), hint=hint)


def _extra(network: Sequence[Path], dns: Sequence[str], ntp: Sequence[str], machine_id: str | None) -> dict[str, bytes]:
    """Return the credentials that systemd itself reads (systemd.system-credentials(7)). Raises UsageError."""
    from kubenode.host.seed import NETWORK_KINDS, dhcp_with_ntp

    if network and ntp:
        raise UsageError("--ntp goes without --network", hint="Write NTP= into the .network file.")
    for word in (*dns, *ntp):
        if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.:%_-]*", word):
            raise UsageError(f"{word[:80]!r} is no address of a server", hint="One address for each --dns or --ntp.")
    found: dict[str, bytes] = {}
    for file in network:
        kind = file.suffix.removeprefix(".")
        if kind not in NETWORK_KINDS or not re.fullmatch("[A-Za-z0-9._-]+", file.stem):
            hint = "Files for systemd-networkd end in .network, .netdev or .link; see systemd.network(5)."
            raise UsageError(f"{file} is no file for systemd-networkd", hint=hint)
        found[f"network.{kind}.{file.stem}"] = file.read_bytes()
    if ntp:
        found["network.network.80-seed"] = dhcp_with_ntp(" ".join(ntp))
    if dns:
        found["network.dns"] = " ".join(dns).encode()
    if machine_id is not None:
        if not _MACHINE_ID.fullmatch(machine_id) or not int(machine_id, 16):
            raise UsageError(f"{machine_id[:80]!r} is not a machine id", hint="32 hex digits: systemd-id128 new")
        found["system.machine_id"] = machine_id.encode()
    return found
