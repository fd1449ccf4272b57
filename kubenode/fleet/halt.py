"""Turns the halt switch of fleet.yaml; comments, quoting and layout stay as they are."""

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet import decode
from kubenode.fleet.edit import insert, node_at, replace
from kubenode.fleet.layout import FLEET_PATH
from kubenode.trust.strictyaml import load

_SPEC, _ROLLOUT, _HALTED = "spec", "rollout", "halted"


def set_halted(fleet_yaml: bytes, halted: bool) -> bytes:
    """Return fleet.yaml with `spec.rollout.halted` set, or the same bytes when it says so already.

    Raises FleetInvalid when the document is no fleet, or is written in a way that must be changed by hand.
    """
    if decode.fleet(load(fleet_yaml, FLEET_PATH)).halted is halted:
        return fleet_yaml
    text, value = fleet_yaml.decode(), str(halted).lower()
    try:
        new = _changed(text, value).encode()
        done = decode.fleet(load(new, FLEET_PATH)).halted is halted
    except (KeyError, FleetInvalid):
        done = False
    if not done:
        raise FleetInvalid(
            "spec.rollout.halted is written in a way that is not changed here",
            location=Location(FLEET_PATH),
            hint=f"Set spec.rollout.halted to {value} with an editor, and commit it signed.",
        )
    return new


def _changed(text: str, value: str) -> str:
    if node_at(text, _SPEC, _ROLLOUT, _HALTED) is not None:
        return replace(text, value, _SPEC, _ROLLOUT, _HALTED)
    rollout = node_at(text, _SPEC, _ROLLOUT)
    if rollout is None:
        return insert(text, _ROLLOUT, f"{{{_HALTED}: {value}}}", _SPEC)
    if rollout.value:
        return insert(text, _HALTED, value, _SPEC, _ROLLOUT)
    return replace(text, f"{{{_HALTED}: {value}}}", _SPEC, _ROLLOUT)
