"""Commands of the machine that says which commit is the newest: trust stamp, and publish --fleet."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenode.cli.clone import authenticated, commit_of, full_id, git, repository
from kubenode.cli.options import Branch, FleetFolder
from kubenode.cli.output import say
from kubenode.errors import Untrusted, UsageError

if TYPE_CHECKING:
    from kubenode.trust.headfile import Head
    from kubenode.trust.policy import Freshness

Keys = Annotated[list[Path] | None, typer.Option("--key", help="SSH key that stamps; repeat it while keys change.")]
Anchor = Annotated[str | None, typer.Option(help="Commit that is trusted already (40 hex digits); not needed later.")]
Expires = Annotated[
    str | None, typer.Option(help="How long the stamp holds, for example 12h; the policy's maxAge if not given.")
]

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def stamp(
    key: Keys = None,
    fleet: FleetFolder = Path(),
    anchor: Anchor = None,
    branch: Branch = "main",
    store: Annotated[Path | None, typer.Option(help="Folder of the static store where nodes read it.")] = None,
    push: Annotated[str | None, typer.Option(help="Git remote to push it to, as branch kubenode-stamp.")] = None,
    expires: Expires = None,
) -> None:
    """Sign that the head of the branch is the newest commit (head.json), after authenticating it as a node does.

    Run it from a timer or CI, several times in each maxAge of the trust policy.

    Example: kubenode trust stamp -C homelab --key stamp.key --push origin
    """
    if not key:
        raise UsageError("no key is named", hint="Name one that spec.freshness.keys lists: --key stamp.key")
    if store is None and push is None:
        raise UsageError(
            "a stamp has to be published somewhere",
            hint="--store DIR for a static store, --push origin for a git host.",
        )
    stamper = Stamper(fleet, branch, anchor, tuple(key), _duration(expires))
    if store is not None:
        from kubenode.image.publish_fleet import publish_fleet

        publish_fleet(repository(fleet), store, branch, stamper.commit, stamper.make)
        say(f"{stamper.said} It is in {store}.")
    if push is not None:
        _push(stamper, push)
        say(f"{stamper.said} It is in the branch kubenode-stamp of {push}.")


def publish_fleet_repo(
    fleet: Path, store: Path, branch: str, anchor: str | None, keys: tuple[Path, ...], expires: str | None
) -> None:
    """Do what `kubenode publish --fleet` does."""
    from kubenode.image.publish_fleet import publish_fleet

    stamper = Stamper(fleet, branch, anchor, keys, _duration(expires), again=False)
    done = publish_fleet(repository(fleet), store, branch, stamper.commit, stamper.make)
    if not done.added and not done.stamped:
        say(f"{store} offers commit {done.head[:12]} already; nothing has changed.")
    else:
        say(f"Published the fleet up to commit {done.head[:12]} to {store}: {done.added} bytes of bundles added.")


@dataclass
class Stamper:
    """Makes head.json for the head of a branch. With `again` also when the old one still holds for this head."""

    fleet: Path
    branch: str
    anchor: str | None
    keys: tuple[Path, ...]
    holds: timedelta | None
    again: bool = True
    said: str = ""
    """What was stamped, as a sentence."""

    def __post_init__(self) -> None:
        from kubenode.host.signing import SshSigner

        repository(self.fleet)
        for key in self.keys:
            SshSigner(str(key)).public()  # Raises UsageError before anything is begun.
        self.commit = commit_of(self.fleet, f"refs/heads/{self.branch}")

    def make(self, old: bytes | None) -> bytes:
        """Return the new head.json, given the one that is published now. Raises Untrusted, UsageError, HostError."""
        from kubenode.host.clock import SystemClock
        from kubenode.host.signing import SshSigner
        from kubenode.trust import headfile
        from kubenode.trust.freshness import span

        before = _readable(old)
        fleet_id, freshness = self._authenticate(old, before)
        now = SystemClock().now().replace(microsecond=0)
        if freshness is None:
            if self.keys:
                raise UsageError(
                    "the trust policy asks for no freshness, so no stamp would be read",
                    hint="Add spec.freshness with maxAge and keys to trust/policy.yaml, or leave --key out.",
                )
            if before is not None and before.head == self.commit and old is not None:
                return old
            serial = _next_serial(before, int(now.timestamp()))
            return headfile.envelope(headfile.payload(fleet_id, self.commit, serial, now, now))
        signers = self._signers(freshness)
        maximum = timedelta(seconds=freshness.max_age)
        if old is not None and not self.again and self._still_holds(old, fleet_id, freshness):
            return old
        if before is not None and before.issued > now:
            say(f"Warning: the stamp before was issued at {before.issued:%Y-%m-%d %H:%M} UTC; is a clock wrong?")
        if self.holds is not None and self.holds > maximum:
            say(f"Note: nodes believe it for the policy's maxAge ({span(freshness.max_age)}), however late it expires.")
        serial = _next_serial(before, int(now.timestamp()))
        payload = headfile.payload(fleet_id, self.commit, serial, now, now + (self.holds or maximum))
        message = headfile.signed_bytes(payload)
        signed = [(name, SshSigner(str(key)).sign(message, headfile.NAMESPACE)) for name, key in signers]
        data = headfile.envelope(payload, signed)
        stamped = headfile.verify(data, freshness.keys, fleet_id)
        until = f"{min(stamped.expires, stamped.issued + maximum):%Y-%m-%d %H:%M} UTC"
        self.said = f"Stamp {serial} vouches for commit {self.commit[:12]} until {until}."
        return data

    def _authenticate(self, old: bytes | None, before: "Head | None") -> "tuple[str, Freshness | None]":
        """Authenticate the branch and return the fleet's id and what its policy says of freshness."""
        from kubenode.fleet.layout import FLEET_PATH
        from kubenode.fleet.load import load_fleet

        anchor = full_id(self.fleet, self.anchor) if self.anchor else self._own_anchor(old, before)
        try:
            tree = authenticated(self.fleet, anchor, self.commit)
        except Untrusted as refusal:
            what = f"nothing is published: {refusal.message}"
            raise Untrusted(refusal.reason, what, subject=refusal.subject, hint=refusal.hint) from refusal
        if FLEET_PATH not in tree:
            raise UsageError(f"commit {self.commit[:12]} has no {FLEET_PATH}", hint="Is -C the folder of a fleet repo?")
        return load_fleet({FLEET_PATH: tree[FLEET_PATH]}).fleet.id, tree.policy.freshness

    def _own_anchor(self, old: bytes | None, before: "Head | None") -> str:
        """Return the commit that this machine's own key has vouched for; without keys, what it published or began with.

        Raises UsageError: a clone is no proof of what it is a clone of.
        """
        from kubenode.host.signing import SshSigner
        from kubenode.trust import headfile

        if not self.keys:
            if before is not None:
                return before.head
            return git(self.fleet, "rev-list", "--first-parent", "--max-parents=0", self.commit).text.split()[-1]
        if old is not None and before is not None:
            try:
                return headfile.verify(old, [SshSigner(str(key)).public() for key in self.keys], before.fleet_id).head
            except Untrusted:
                pass
        raise UsageError(
            "no stamp by this key is published yet, so nothing says which history to trust",
            hint="Name a commit that you trust this once: --anchor followed by its 40 hex digits.",
        )

    def _signers(self, freshness: "Freshness") -> list[tuple[str, Path]]:
        """Return (fingerprint, key) of the keys to sign with. Raises UsageError for one that nodes would not accept."""
        from kubenode.host.signing import SshSigner

        if not self.keys:
            raise UsageError(
                "the trust policy asks for freshness, so head.json has to be signed",
                hint="Name a key that spec.freshness.keys lists: --key stamp.key",
            )
        found = [(SshSigner(str(path)).public(), path) for path in self.keys]
        known = ", ".join(key.fingerprint for key in freshness.keys)
        for public, path in found:
            # While keys change, a stamp carries one that is not listed yet or not any more.
            if public not in freshness.keys and len(found) == 1:
                raise UsageError(
                    f"{path} ({public.fingerprint}) is not among spec.freshness.keys of commit {self.commit[:12]}",
                    hint=f"Listed there: {known}.",
                )
        return [(public.fingerprint, path) for public, path in found]

    def _still_holds(self, old: bytes, fleet_id: str, freshness: "Freshness") -> bool:
        """Say whether the published stamp is for this commit and has more than half of its time left."""
        from kubenode.host.clock import SystemClock
        from kubenode.trust import headfile

        try:
            stamped = headfile.verify(old, freshness.keys, fleet_id)
        except Untrusted:
            return False
        end = min(stamped.expires, stamped.issued + timedelta(seconds=freshness.max_age))
        left = end - SystemClock().now()
        return stamped.head == self.commit and left > (end - stamped.issued) / 2


def _push(stamper: Stamper, remote: str) -> None:
    """Push head.json to the remote as the one file of an orphan commit. Raises UsageError, HostError."""
    from kubenode.host.remote import STAMP_BRANCH
    from kubenode.trust.headfile import HEAD_NAME, MAX_BYTES

    fleet = stamper.fleet
    ref, kept = f"refs/heads/{STAMP_BRANCH}", "refs/kubenode/stamp"
    listed = git(fleet, "ls-remote", "--", remote, ref, f"refs/heads/{stamper.branch}").text.splitlines()
    refs = {name: oid for oid, _, name in (line.partition("\t") for line in listed)}
    if refs.get(f"refs/heads/{stamper.branch}") != stamper.commit:
        raise UsageError(
            f"{remote} does not have commit {stamper.commit[:12]} as the head of {stamper.branch}",
            hint="Nodes would take it for withheld: push or pull the branch first.",
        )
    old = None
    if ref in refs:
        git(fleet, "fetch", "--quiet", "--no-tags", "--", remote, f"+{ref}:{kept}")
        blob = f"{kept}:{HEAD_NAME}"
        size = git(fleet, "cat-file", "-s", blob, check=False)
        if size.returncode == 0 and int(size.text) <= MAX_BYTES:
            old = git(fleet, "cat-file", "blob", blob).stdout
    data = stamper.make(old)
    commit = _orphan_commit(fleet, HEAD_NAME, data)
    # Only over what was read: two stampers must not count the same number twice.
    lease = f"--force-with-lease={ref}:{refs.get(ref, '')}"
    git(fleet, "push", "--quiet", "--no-verify", lease, "--", remote, f"{commit}:{ref}", timeout=300)


def _orphan_commit(fleet: Path, name: str, data: bytes) -> str:
    """Store a commit without parents that holds one file, and return its id."""
    identity = {f"GIT_{role}_{what}": it for role in ("AUTHOR", "COMMITTER") for what, it in _IDENTITY.items()}
    blob = git(fleet, "hash-object", "-w", "--stdin", stdin=data).text.strip()
    tree = git(fleet, "mktree", stdin=f"100644 blob {blob}\t{name}\n".encode()).text.strip()
    return git(fleet, "commit-tree", "-m", "Stamp", tree, environment=identity).text.strip()


_IDENTITY = {"NAME": "kubenode", "EMAIL": "stamp@kubenode.invalid"}


def _next_serial(before: "Head | None", seconds: int) -> int:
    """Return a serial above the last one; never below the seconds since 1970, so that a lost store cannot rewind it."""
    return max(seconds, before.serial + 1 if before is not None else 1)


def _readable(old: bytes | None) -> "Head | None":
    from kubenode.trust.headfile import read

    try:
        return read(old) if old is not None else None
    except Untrusted as refusal:
        say(f"Note: {refusal.message}; it is replaced.")
        return None


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a duration", hint="Write for example 12h, 30m or 7d.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
