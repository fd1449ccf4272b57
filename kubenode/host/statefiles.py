"""The JSON of the agent's files: how values are written, and how they are read by releases before and after.

Rules for all of them: `apiVersion` and `kind` come first, unknown keys are ignored on reading, a key keeps its meaning
for ever, and a new key has a default. So the agent of an older release reads what a newer one wrote after a fallback.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubenode.model.journal import Attempt, Journal, Poisoned
from kubenode.model.state import Seed, Stamp, TrustState
from kubenode.model.version import Version

API_VERSION = "kubenode.dev/v1alpha1"
MAX_BYTES = 1 << 20

_HEX40 = re.compile(r"[0-9a-f]{40}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_SEED_KEYS = {"fleetUrl", "fleetId", "anchor", "node", "branch"}


@dataclass(frozen=True)
class Generation:
    """One copy of the trust state; of two valid copies the one with the larger number counts."""

    number: int
    state: TrustState


def encode_trust(generation: Generation) -> bytes:
    """Return a copy of the trust state, with a checksum over what it says."""
    state = generation.state
    content: dict[str, Any] = {
        "commit": state.commit,
        "fleetId": state.fleet_id,
        "generation": generation.number,
        "poisoned": [
            {"version": str(bad.version), "rootHash": bad.root_hash, "manifest": bad.manifest, "reason": bad.reason}
            for bad in state.poisoned
        ],
    }
    if state.stamp is not None:
        content["stamp"] = {
            "head": state.stamp.head,
            "serial": state.stamp.serial,
            "issued": state.stamp.issued.isoformat(),
            "expires": state.stamp.expires.isoformat(),
            "key": state.stamp.key,
        }
    return _encode("TrustState", {"sha256": _checksum(content), "content": content})


def decode_trust(data: bytes) -> Generation:
    """Return a copy of the trust state. Raises ValueError when it is torn, damaged or something else."""
    document = _decode(data, "TrustState")
    content = _object(document.get("content"))
    if document.get("sha256") != _checksum(content):
        raise ValueError("the checksum is wrong")
    number = content.get("generation")
    if not isinstance(number, int) or number < 0:
        raise ValueError("generation is not a number")
    poisoned = tuple(
        Poisoned(
            Version(_text(bad, "version")), _text(bad, "rootHash"), _optional(bad, "manifest"), _text(bad, "reason")
        )
        for bad in map(_object, _list(content.get("poisoned", [])))
    )
    stamp = None if content.get("stamp") is None else _stamp(_object(content["stamp"]))
    return Generation(number, TrustState(_text(content, "fleetId"), _match(content, "commit", _HEX40), poisoned, stamp))


def _stamp(document: dict[str, Any]) -> Stamp:
    serial = document.get("serial")
    if not isinstance(serial, int) or isinstance(serial, bool) or serial < 1:
        raise ValueError("the stamp's serial is not a number")
    return Stamp(
        _match(document, "head", _HEX40),
        serial,
        _time(document, "issued"),
        _time(document, "expires"),
        _text(document, "key"),
    )


def _time(document: dict[str, Any], key: str) -> datetime:
    moment = datetime.fromisoformat(_text(document, key))
    if moment.tzinfo is None:
        raise ValueError(f"{key} has no time zone")
    return moment


def encode_journal(journal: Journal) -> bytes:
    """Return the journal without the poisoned releases, which are kept with the trust state."""
    attempts = {
        key: {
            "failures": attempt.failures,
            "last": attempt.last.isoformat(),
            "error": attempt.error,
            "reason": attempt.reason,
        }
        for key, attempt in journal.attempts.items()
    }
    return _encode("Journal", {"attempts": attempts, "superseded": journal.superseded})


def decode_journal(data: bytes) -> Journal:
    """Return a journal. Raises ValueError when it is torn, damaged or something else."""
    document = _decode(data, "Journal")
    attempts = {}
    for key, value in _object(document.get("attempts", {})).items():
        entry = _object(value)
        failures, last = entry.get("failures"), datetime.fromisoformat(_text(entry, "last"))
        if not isinstance(failures, int) or failures < 0 or last.tzinfo is None:
            raise ValueError(f"the attempt {key[:80]!r} is not one")
        reason = _text(entry, "reason") if "reason" in entry else ""
        attempts[key] = Attempt(failures, last, _text(entry, "error"), reason)
    return Journal(attempts, _optional(document, "superseded"))


def encode_seed(seed: Seed) -> bytes:
    """Return a seed as the JSON that `decode_seed` reads. There is no secret in it."""
    document = {
        "fleetUrl": seed.fleet_url,
        "fleetId": seed.fleet_id,
        "anchor": seed.anchor,
        "node": seed.node,
        "branch": seed.branch,
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def decode_seed(data: bytes) -> Seed:
    """Return a seed. Raises ValueError naming the key that is missing, unknown or wrong: people write seeds."""
    document = _parse(data)
    unknown = sorted(set(document) - _SEED_KEYS)
    if unknown:
        raise ValueError(f"it has the unknown key {unknown[0][:80]!r}; keys are {', '.join(sorted(_SEED_KEYS))}")
    branch = _match(document, "branch", _BRANCH) if "branch" in document else "main"
    return Seed(
        _text(document, "fleetUrl"),
        _match(document, "fleetId", _UUID),
        _match(document, "anchor", _HEX40),
        _match(document, "node", _NODE),
        branch,
    )


def _encode(kind: str, fields: dict[str, Any]) -> bytes:
    document = {"apiVersion": API_VERSION, "kind": kind, **fields}
    return json.dumps(document, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _decode(data: bytes, kind: str) -> dict[str, Any]:
    document = _parse(data)
    if document.get("kind") != kind:
        raise ValueError(f"it is not of the kind {kind}")
    return document


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    try:
        return _object(json.loads(data, object_pairs_hook=_unique))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _checksum(content: dict[str, Any]) -> str:
    # Over what was read, unknown keys included, in one canonical form.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object where one must be")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("it is not a JSON list where one must be")
    return value


def _text(document: dict[str, Any], key: str) -> str:
    if key not in document:
        raise ValueError(f"the key {key} is missing")
    value = document[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    return value


def _optional(document: dict[str, Any], key: str) -> str | None:
    return None if document.get(key) is None else _text(document, key)


def _match(document: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = _text(document, key)
    if not pattern.fullmatch(value):
        raise ValueError(f"{key} is {value[:80]!r}, which does not look like {pattern.pattern}")
    return value
