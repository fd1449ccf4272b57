"""Puts the public half of a machine's identity into its document, and leaves everything else there as it is."""

from kubenode.errors import FleetInvalid, KubenodeError, Location
from kubenode.fleet import decode
from kubenode.fleet.edit import insert, node_at, replace
from kubenode.fleet.layout import Kind, path_of
from kubenode.fleet.recipients import canonical
from kubenode.trust.strictyaml import load


def with_recipient(node_yaml: bytes, name: str, recipient: str) -> bytes:
    """Return `nodes/<name>.yaml` with this age recipient as `spec.identity.ageRecipient`; comments stay.

    Raises FleetInvalid when the document is none, or is laid out so that only a person can change it.
    """
    path = path_of(Kind.NODE, name)
    canonical(recipient)
    decode.node(load(node_yaml, path), name)
    text = node_yaml.decode()
    try:
        if node_at(text, "spec", "identity", "ageRecipient") is not None:
            text = replace(text, recipient, "spec", "identity", "ageRecipient")
        elif node_at(text, "spec", "identity") is not None:
            text = insert(text, "ageRecipient", recipient, "spec", "identity")
        else:
            text = insert(text, "identity", f"{{ageRecipient: {recipient}}}", "spec")
        if decode.node(load(text.encode(), path), name).age_recipient == recipient:
            return text.encode()
    except (KubenodeError, KeyError):
        pass
    hint = f"Write it by hand: spec.identity.ageRecipient: {recipient}"
    raise FleetInvalid("the identity cannot be put into this document", location=Location(path), hint=hint)
