"""Writes channel and release documents; comments, quoting and layout of what is there already stay as they are."""

from kubenode.errors import FleetInvalid, Location, UsageError
from kubenode.fleet import decode, scalars
from kubenode.fleet.edit import node_at, quoted
from kubenode.fleet.layout import API_VERSION, Kind, path_of
from kubenode.model.version import Version
from kubenode.trust.strictyaml import load


def promote(channel_yaml: bytes, version: str) -> bytes:
    """Return a channel document with a release put first.

    Raises UsageError when the version is none, is in the channel already or is older than the channel's first, and
    FleetInvalid when the document is no channel.
    """
    new = _version(version)
    document = load(channel_yaml, "channel")
    name = decode.check_header(document, Kind.CHANNEL, None)
    releases = decode.channel(document, name).releases
    if new in releases:
        raise UsageError(f"{new} is in channel {name!r} already", hint="Nothing is to be done.")
    if releases and new < releases[0]:
        hint = f"A channel lists the newest release first. To go back: kubenode rollback {name} --to {new}"
        raise UsageError(f"{new} is older than {releases[0]}, the first release of channel {name!r}", hint=hint)
    text = channel_yaml.decode()
    node = node_at(text, "spec", "releases")
    if node is None or not isinstance(node.value, list):
        raise FleetInvalid(
            "spec.releases is not a list",
            location=Location(path_of(Kind.CHANNEL, name)),
            hint="Write a list, newest first: one line with a dash for each version.",
        )
    start = node.start_mark.index
    if not node.value:
        return f"{text[:start]}[{quoted(new.text)}]{text[node.end_mark.index :]}".encode()
    first = node.value[0]
    at = first.start_mark.index
    item = f"{first.style}{new}{first.style}" if first.style else quoted(new.text)
    if node.flow_style:
        return f"{text[:at]}{item}, {text[at:]}".encode()
    dash = text.rindex("-", 0, at)
    line = text.rfind("\n", 0, dash) + 1
    ending = "\r\n" if "\r\n" in text else "\n"
    return f"{text[:at]}{item}{ending}{text[line:]}".encode()


def release_document(
    version: str,
    manifest_sha256: str,
    root_hash: str,
    kubernetes: str | None = None,
    floor: str | None = None,
    notes: str = "",
) -> bytes:
    """Return `releases/<version>.yaml`; the digests are 64 hex digits.

    Raises UsageError when a value is malformed and FleetInvalid when the notes cannot stand in a document.
    """
    lines = [
        "# Written by `kubenode publish`: a release never changes.",
        f"apiVersion: {API_VERSION}",
        f"kind: {Kind.RELEASE}",
        "metadata:",
        f"  name: {quoted(_version(version).text)}",
        "spec:",
        f"  version: {quoted(version)}",
    ]
    try:
        lines.append(f"  manifest: sha256:{scalars.hex_digest(manifest_sha256)}")
        # Always in quotes: a hash of digits would be read as a number.
        lines.append(f'  rootHash: "{scalars.hex_digest(root_hash)}"')
        if kubernetes is not None:
            lines.append(f"  kubernetes: {scalars.kubernetes(kubernetes)}")
    except ValueError as error:
        raise UsageError(
            str(error), hint="This comes from the release's manifest: build and publish the release again."
        ) from error
    if floor is not None:
        lines.append(f"  floor: {quoted(_version(floor).text)}")
    if notes:
        lines.append("  notes: |-")
        lines.extend(f"    {line}".rstrip() for line in notes.strip().splitlines())
    data = ("\n".join(lines) + "\n").encode()
    decode.release(load(data, path_of(Kind.RELEASE, version)), version)
    return data


def _version(text: str) -> Version:
    try:
        return Version(text)
    except ValueError as error:
        raise UsageError(str(error), hint="Versions are two to four dotted numbers.") from error
