"""head.json: a signed statement that a commit was the newest of its fleet at a moment, as a DSSE envelope.

Formats: DSSE v1.0.2 (https://github.com/secure-systems-lab/dsse, envelope.md and protocol.md); `sig` is the base64 of
an armored SSH signature (PROTOCOL.sshsig) over the pre-authentication encoding, in the namespace `kubenode-head`. So
`ssh-keygen -Y verify` can check it too. An unsigned head.json (a fleet without freshness) has no signatures.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubenode.errors import Untrusted
from kubenode.model.state import Stamp
from kubenode.trust import sshsig
from kubenode.trust.keys import PublicKey
from kubenode.trust.reasons import Reason
from kubenode.trust.strictjson import strict_json

PAYLOAD_TYPE = "application/vnd.kubenode.head+json"
NAMESPACE = "kubenode-head"
HEAD_NAME = "head.json"
MAX_BYTES = 256 << 10
"""Of a whole head.json: a payload of a few hundred bytes, and room for signatures of large RSA keys."""
MAX_SIGNATURES = 8
MAX_SERIAL = (1 << 53) - 1
"""The largest whole number that every JSON reader keeps exactly (RFC 8259, section 6)."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FLEET = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_WHAT = "head.json"


@dataclass(frozen=True)
class Head:
    """A head.json as it was read; nothing is checked yet. `signatures` are armored SSH signatures."""

    fleet_id: str
    head: str
    serial: int
    issued: datetime
    expires: datetime
    payload: bytes
    signatures: tuple[bytes, ...]


def payload(fleet_id: str, head: str, serial: int, issued: datetime, expires: datetime) -> bytes:
    """Return the bytes to be signed, as canonical JSON. Times are aware; fractions of a second are dropped."""
    document = {
        "fleetId": fleet_id,
        "head": head,
        "serial": serial,
        "issued": _written(issued),
        "expires": _written(expires),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def signed_bytes(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload: what the SSH signature is over."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, signatures: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """Return head.json. `signatures` are (fingerprint of the key, armored SSH signature over `signed_bytes`)."""
    document = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key, "sig": base64.b64encode(armored).decode()} for key, armored in signatures],
    }
    return json.dumps(document).encode() + b"\n"


def read(data: bytes) -> Head:
    """Read a head.json. Who made it is not asked here, so what it says is a hint. Raises Untrusted(HeadInvalid)."""
    document = _object(strict_json(data, MAX_BYTES, Reason.HEAD_INVALID, _WHAT), "payload", "payloadType", "signatures")
    if document["payloadType"] != PAYLOAD_TYPE:
        raise _invalid(f"its payloadType is not {PAYLOAD_TYPE}")
    said = _base64(document["payload"], "payload")
    listed = document["signatures"]
    if not isinstance(listed, list) or len(listed) > MAX_SIGNATURES:
        raise _invalid(f"its signatures are not a list of at most {MAX_SIGNATURES}")
    signatures = []
    for item in listed:
        signatures.append(_base64(_object(item, "sig")["sig"], "sig"))
    inner = _object(
        strict_json(said, MAX_BYTES, Reason.HEAD_INVALID, f"the payload of {_WHAT}"),
        *("fleetId", "head", "serial", "issued", "expires"),
    )
    serial = inner["serial"]
    if not isinstance(serial, int) or isinstance(serial, bool) or not 1 <= serial <= MAX_SERIAL:
        raise _invalid("its serial is not a whole number from 1 to 2^53 - 1")
    issued, expires = _time(inner, "issued"), _time(inner, "expires")
    if expires < issued:
        raise _invalid("it expires before it was issued")
    return Head(
        _matching(inner, "fleetId", _FLEET),
        _matching(inner, "head", _COMMIT),
        serial,
        issued,
        expires,
        said,
        tuple(signatures),
    )


def verify(data: bytes, keys: Sequence[PublicKey], fleet_id: str) -> Stamp:
    """Check who made a head.json and for which fleet; whether it is new enough is `freshness.judge`'s business.

    One valid signature by one of `keys` is enough, so that a stamp can carry those of an old and a new key.
    Raises Untrusted: HeadInvalid, HeadUnknownKey (nobody of `keys` signed), HeadSignature (a signature by one of `keys`
    is not valid), HeadOtherFleet.
    """
    head = read(data)
    refusal: Untrusted | None = None
    strangers = []
    for armored in head.signatures:
        try:
            key = sshsig.parse(armored, subject=_WHAT).key
            if key not in keys:
                strangers.append(key.fingerprint)
                continue
            sshsig.verify(armored, signed_bytes(head.payload), namespace=NAMESPACE, subject=_WHAT)
        except Untrusted as error:
            refusal = error
            continue
        if head.fleet_id != fleet_id:
            raise Untrusted(
                Reason.HEAD_OTHER_FLEET,
                f"{_WHAT} is of the fleet {head.fleet_id}, not of {fleet_id}",
                subject=_WHAT,
                hint="Use a stamping key of its own for each fleet, and check where this fleet's stamps are published.",
            )
        return Stamp(head.head, head.serial, head.issued, head.expires, key.fingerprint)
    if refusal is not None:
        raise Untrusted(
            Reason.HEAD_SIGNATURE, f"{_WHAT} is not signed validly: {refusal.message}", subject=_WHAT, hint=refusal.hint
        ) from refusal
    who = f"signed by {', '.join(strangers)}" if strangers else "not signed"
    raise Untrusted(
        Reason.HEAD_UNKNOWN_KEY,
        f"{_WHAT} is {who}; spec.freshness.keys of the trust policy lists {', '.join(key.fingerprint for key in keys)}",
        subject=_WHAT,
        hint="Stamp with a key that the policy lists (kubenode trust stamp --key), or add the key to the policy first.",
    )


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(document: dict[str, Any], key: str) -> datetime:
    text = _matching(document, key, _TIME)
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _invalid(f"its {key} is not a time") from None


def _object(value: object, *keys: str) -> dict[str, Any]:
    """Return an object that has these keys; others are ignored, as DSSE asks of readers (envelope.md)."""
    if not isinstance(value, dict) or not set(keys) <= set(value):
        raise _invalid(f"it is not an object with the keys {', '.join(keys)}")
    return value


def _text(document: dict[str, Any], key: str) -> str:
    value = document[key]
    if not isinstance(value, str) or len(value) > 200:
        raise _invalid(f"its {key} is not a short text")
    return value


def _matching(document: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = _text(document, key)
    if not pattern.fullmatch(value):
        raise _invalid(f"its {key} is {value[:80]!r}")
    return value


def _base64(value: object, key: str) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        pass
    raise _invalid(f"its {key} is not base64")


def _invalid(what: str) -> Untrusted:
    return Untrusted(
        Reason.HEAD_INVALID,
        f"{_WHAT} cannot be used: {what}",
        subject=_WHAT,
        hint="Publish it again: kubenode trust stamp.",
    )
