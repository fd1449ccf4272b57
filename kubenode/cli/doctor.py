"""The command doctor: what this machine lacks for its work, and whether a fleet and what it needs can be reached."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import git, repository, signing_key
from kubenode.cli.demo import install_missing
from kubenode.cli.options import Output
from kubenode.cli.output import Format, print_json, print_table, say
from kubenode.cli.release import policy_in
from kubenode.errors import ExitCode, HostError, KubenodeError, UsageError

if TYPE_CHECKING:
    from kubenode.host.requirements import Requirement
    from kubenode.model.documents import FleetDocuments


class Work(StrEnum):
    """What a machine is used for."""

    LAPTOP = "laptop"
    BUILDER = "builder"
    LAB = "lab"
    KUBERNETES = "kubernetes"


class State(StrEnum):
    """What a check found. A note spoils nothing; what cannot be reached may answer later."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"
    WRONG = "wrong"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, for which work, what was found, and what to do about it."""

    area: str
    name: str
    state: State
    detail: str


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(doctor)


def doctor(
    work: Annotated[
        list[Work] | None,
        typer.Option("--for", help="What this machine is for; repeatable. Else laptop, builder and lab."),
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option("-C", "--fleet-dir", help="Check this fleet repo too, and what it names.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Kubernetes API to reach, else the fleet's endpoint.")
    ] = None,
    install: Annotated[bool, typer.Option("--install", help="Install what is missing, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Say what this machine lacks for its work, and whether a fleet repo and what it needs are in order.

    Exit code 1 when something is missing or wrong, 75 when something only does not answer. `--for kubernetes` is for
    machines that build a Kubernetes for tests.

    Example: kubenode doctor --for laptop -C homelab

    Example: kubenode doctor --install
    """
    from kubenode.host import requirements

    wanted = tuple(dict.fromkeys(work or (Work.LAPTOP, Work.BUILDER, Work.LAB)))
    if install:
        needed = requirements.missing([it for each in wanted for it in _packages(each)])
        if needed:
            install_missing(needed, yes=yes)
    checks = [check for each in wanted for check in _of_machine(each)]
    if fleet is not None:
        checks += _of_fleet(fleet)
    checks += _of_api(fleet, server)
    if output is Format.JSON:
        rows = [{"area": it.area, "name": it.name, "state": it.state.value, "detail": it.detail} for it in checks]
        print_json("Doctor", {"checks": rows})
    else:
        print_table(("For", "What", "State", "Detail"), [(it.area, it.name, it.state, it.detail) for it in checks])
    _finish(checks, requirements.missing([it for each in wanted for it in _packages(each)]))


def _finish(checks: Sequence[Check], needed: "Sequence[Requirement]") -> None:
    """Say the sentence and exit with what was found."""
    from kubenode.host import requirements

    count = {state: sum(it.state is state for it in checks) for state in State}
    if needed:
        say(f"Install what is missing with: {' '.join(requirements.install_command(needed))}")
    bad = [f"{count[state]} {state}" for state in (State.MISSING, State.WRONG, State.UNREACHABLE) if count[state]]
    if not bad:
        notes = f", {count[State.NOTE]} noted" if count[State.NOTE] else ""
        say(f"Nothing is missing: {count[State.OK]} of {len(checks)} checks are good{notes}.")
        return
    say(f"{', '.join(bad)}; {count[State.OK]} of {len(checks)} checks are good.")
    only_later = not count[State.MISSING] and not count[State.WRONG]
    raise typer.Exit(int(ExitCode.TRY_LATER if only_later else ExitCode.FAILURE))


def _packages(work: Work) -> "Sequence[Requirement]":
    from kubenode.host import requirements

    known = {
        Work.LAPTOP: requirements.LAPTOP,
        Work.BUILDER: requirements.BUILDER,
        Work.LAB: requirements.LAB,
        Work.KUBERNETES: requirements.KUBERNETES,
    }
    return known[work]


def _of_machine(work: Work) -> Iterator[Check]:
    from kubenode.host.requirements import kvm_usable

    for it in _packages(work):
        yield Check(work, it.package, State.OK if it.present else State.MISSING, it.purpose)
    if work is Work.LAB and kvm_usable():
        yield Check(work, "/dev/kvm", State.OK, "fast virtual machines")
    elif work is Work.LAB:
        yield Check(work, "/dev/kvm", State.NOTE, "not usable here: virtual machines are emulated, ten times slower")


def _of_fleet(fleet: Path) -> Iterator[Check]:
    """Check documents and signing key, and that remote and stores answer. Raises UsageError when there is no fleet."""
    from kubenode.fleet.layout import FLEET_PATH
    from kubenode.fleet.problems import Severity
    from kubenode.fleet.validate import validate
    from kubenode.host import reach
    from kubenode.host.tree import read_folder

    files = read_folder(fleet).files
    if FLEET_PATH not in files:
        raise UsageError(
            f"{fleet} is no fleet repo: it has no {FLEET_PATH}",
            hint="Name the fleet repo with -C, or make one with `kubenode new DIR`.",
        )
    errors = [it for it in validate(files) if it.severity is Severity.ERROR]
    if errors:
        yield Check("fleet", "documents", State.WRONG, f"{len(errors)} wrong, see: kubenode validate {fleet}")
    else:
        yield Check("fleet", "documents", State.OK, f"{len(files)} files are valid")
    yield _signing(fleet, files)
    if (fleet / ".git").exists():
        yield _remote(fleet)
    documents = _readable(files)
    for url in documents.fleet.stores if documents is not None else ():
        yield _answers("fleet", "image store", url, reach.store(url))


def _readable(files: dict[str, bytes]) -> "FleetDocuments | None":
    from kubenode.fleet.load import load_fleet

    try:
        return load_fleet(files)
    except KubenodeError:
        return None  # The line about the documents says so.


def _signing(fleet: Path, files: dict[str, bytes]) -> Check:
    """Look whether the clone signs with a key that the policy knows."""
    from kubenode.host.signing import SshSigner

    try:
        repository(fleet)
        key = SshSigner(signing_key(fleet)).public()
        owner = policy_in(files).owner(key)
    except KubenodeError as error:
        return Check("fleet", "signing key", State.WRONG, f"{error.message}. {error.hint}")
    if owner is None:
        return Check("fleet", "signing key", State.WRONG, f"{key.fingerprint} is nobody's in trust/policy.yaml")
    return Check("fleet", "signing key", State.OK, f"it is {owner}'s")


def _remote(fleet: Path) -> Check:
    """Look whether the remote `origin` answers, with the operator's own git; it asks for no password."""
    from kubenode.host.git_run import shown

    url = git(fleet, "remote", "get-url", "origin", check=False).text.strip()
    if not url:
        return Check("fleet", "remote origin", State.NOTE, "none yet: git remote add origin URL")
    try:
        done = git(
            fleet, "ls-remote", "--quiet", "origin", "HEAD", check=False, environment={"GIT_TERMINAL_PROMPT": "0"}
        )
        said = done.stderr.decode(errors="replace").strip() or "git gives no reason"
        why = "" if done.returncode == 0 else said.splitlines()[-1]
    except HostError as error:
        why = error.message
    return _answers("fleet", "remote origin", shown(url), shown(why))


def _of_api(fleet: Path | None, server: str | None) -> Iterator[Check]:
    """Look whether the API server, the given one or the fleet's, takes connections. Raises UsageError."""
    from kubenode.host import reach
    from kubenode.host.tree import read_folder

    documents = _readable(read_folder(fleet).files) if fleet is not None and server is None else None
    cluster = documents.fleet.cluster if documents is not None else None
    address = server or (cluster.endpoint if cluster is not None else None)
    if address is None:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{address[:80]!r} is no address", hint="HOST:PORT, for example k8s.example.net:6443")
    yield _answers("cluster", "Kubernetes API", address, reach.connection(host.strip("[]"), int(port)))


def _answers(area: str, name: str, address: str, why: str) -> Check:
    return Check(area, name, State.UNREACHABLE if why else State.OK, f"{address}: {why or 'answers'}")
