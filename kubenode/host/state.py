"""The agent's files below /var/lib/kubenode: `kubenode.ports.StateStore`."""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kubenode.errors import HostError, StateLost, TryLater
from kubenode.host.files import host_errors, make_folder, sync_folder, write_atomically
from kubenode.host.paths import Paths
from kubenode.host.seed import SEED, places
from kubenode.host.statefiles import (
    API_VERSION,
    MAX_BYTES,
    Generation,
    decode_journal,
    decode_seed,
    decode_trust,
    encode_journal,
    encode_trust,
)
from kubenode.model.journal import Journal
from kubenode.model.plain import plain
from kubenode.model.state import NodeStatus, Seed, TrustState

_TRUST = ("trust.json", "trust.backup.json")
_JOURNAL = "journal.json"
_KEPT_BAD = 3
"""Damaged journals that are kept, the newest ones."""
_BAD_NUMBER = re.compile(r"journal\.json\.bad-([0-9]{1,9})")


class StateFolder:
    """Implements `kubenode.ports.StateStore`. `environment` is that of the process."""

    def __init__(
        self,
        paths: Paths = Paths(),  # noqa: B008 - frozen
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._paths = paths
        self._folder = paths.state
        self._environment = environment
        self._locked = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the tick lock; the kernel gives it back when the process ends. Raises TryLater when it is held."""
        make_folder(self._folder)
        with host_errors(f"{self._folder}/lock cannot be opened", self._folder):
            handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TryLater("another tick runs on this node", hint="wait until it ends") from error
            self._locked = True
            yield
        finally:
            self._locked = False
            os.close(handle)

    def seed(self) -> Seed:
        """Return the seed: a credential of the service, of the system, or seed.json on the state partition.

        The first that exists counts. Raises HostError saying where it was looked for, or what is wrong with it.
        """
        looked = places(SEED, self._paths, self._environment)
        for place in looked:
            data = _read(place)
            if data is not None:
                try:
                    return decode_seed(data)
                except ValueError as error:
                    raise HostError(f"the seed {place} cannot be used: {error}", hint="see docs/host.md") from error
        raise HostError(
            f"this machine has no seed; it was looked for in {', '.join(map(str, looked))}",
            hint=f"give the machine the credential {SEED}, which `kubenode seed` makes, or install it with a seed",
        )

    def load_trust(self) -> TrustState | None:
        """Return the trust state of the newer valid copy; under the lock, a copy that is damaged or older is replaced.

        None when there never was one. Raises StateLost when a copy exists and none is readable.
        """
        newest, numbers = self._copies()
        if newest is None:
            return None
        if self._locked and any(number != newest.number for number in numbers.values()):
            # What was read is right whether or not it can be copied now: a full disk must not stop the tick.
            with suppress(HostError):
                self._write_trust(newest, [name for name in _TRUST if numbers[name] != newest.number])
        return newest.state

    def save_trust(self, state: TrustState) -> None:
        """Keep the trust state, twice; a crash between the copies leaves the newer one valid.

        Raises NoSpace, HostError; StateLost when a copy exists and none is readable.
        """
        make_folder(self._folder)
        newest, _ = self._copies()
        number = 0 if newest is None else newest.number + 1
        self._write_trust(Generation(number, state), list(_TRUST))

    def load_journal(self) -> Journal:
        """Return the journal without the poisoned releases; an unreadable one is set aside, and an empty one returned.

        Raises HostError when the file exists and the disk does not give it.
        """
        path = self._folder / _JOURNAL
        data = _read(path)
        if data is None:
            return Journal()
        try:
            return decode_journal(data)
        except ValueError:
            if self._locked:
                self._set_aside(path)
            return Journal()

    def save_journal(self, journal: Journal) -> None:
        """Keep the journal. Raises NoSpace, HostError."""
        make_folder(self._folder)
        write_atomically(self._folder / _JOURNAL, encode_journal(journal))

    def save_status(self, status: NodeStatus) -> None:
        """Write status.json for people and exporters; a full or broken disk is not this method's business."""
        fields = plain(status)
        assert isinstance(fields, dict)
        document = {"apiVersion": API_VERSION, "kind": "NodeStatus", **fields}
        with suppress(HostError):
            make_folder(self._folder)
            write_atomically(self._folder / "status.json", json.dumps(document).encode() + b"\n", 0o644)

    def _copies(self) -> tuple[Generation | None, dict[str, int | None]]:
        """Return the newest valid copy and the generation of each, None for one that is missing or damaged."""
        newest: Generation | None = None
        numbers: dict[str, int | None] = {}
        damage = []
        for name in _TRUST:
            numbers[name] = None
            try:
                data = _read(self._folder / name)
                if data is None:
                    continue
                copy = decode_trust(data)
            except (ValueError, HostError) as error:
                damage.append(f"{name}: {error}")
                continue
            numbers[name] = copy.number
            if newest is None or copy.number > newest.number:
                newest = copy
        if newest is None and damage:
            raise StateLost(
                f"the trust state in {self._folder} is unreadable ({'; '.join(damage)}), so what this machine trusted "
                "last is not known, and an older fleet could be played to it",
                hint="restore trust.json from a backup, or install the machine again with a new seed",
            )
        return newest, numbers

    def _write_trust(self, copy: Generation, names: list[str]) -> None:
        for name in names:
            write_atomically(self._folder / name, encode_trust(copy))

    def _set_aside(self, path: Path) -> None:
        with host_errors(f"{path} cannot be set aside", self._folder):
            numbers = sorted(
                int(match[1]) for name in self._folder.iterdir() if (match := _BAD_NUMBER.fullmatch(name.name))
            )
            path.rename(path.with_name(f"{_JOURNAL}.bad-{numbers[-1] + 1 if numbers else 1}"))
            for number in numbers[: max(0, len(numbers) - _KEPT_BAD + 1)]:
                path.with_name(f"{_JOURNAL}.bad-{number}").unlink(missing_ok=True)
            sync_folder(self._folder)


def _read(path: Path) -> bytes | None:
    """Return a file's bytes (one more than allowed at most), None when it does not exist. Raises HostError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(
            f"{path} cannot be read: {error.strerror}",
            hint="Run this as root on a node; on a laptop use `kubenode plan`.",
        ) from error
