"""What `kubenode new` writes: the example fleet without its machines and releases, in the name of its first owner."""

import re
from collections.abc import Mapping, Sequence

from kubenode.errors import UsageError
from kubenode.fleet import schemas
from kubenode.fleet.edit import comment_out, quoted, replace
from kubenode.fleet.layout import FLEET_PATH, KUBEADM_CLUSTER_PATH, TRUSTED_ROOT_PATH, Kind, kind_at
from kubenode.fleet.problems import Severity
from kubenode.fleet.validate import validate
from kubenode.trust.policy import POLICY_PATH, Builder

_DROPPED = (Kind.NODE, Kind.RELEASE, Kind.SEALED_SECRET)
_SCHEMA_LINE = re.compile(r"^(# yaml-language-server: \$schema=)\.\./", re.MULTILINE)

_POLICY = """\
# yaml-language-server: $schema=../schemas/trust-policy.json
apiVersion: kubenode.dev/v1alpha1
kind: TrustPolicy
metadata:
  name: {name}
spec:
  # Everybody whose SSH signature or approval counts; lines as in .pub files. To revoke a key, remove it.
  people:
    {person}:
      keys:
        - {key}
{recipients}
  # The first rule that matches a changed path decides; a path without a rule can't be changed by anyone.
  # The threshold counts people. With a second person, raise the one of trust/** to 2: then nobody can change alone
  # who is trusted.
  rules:
    - paths: ["trust/**"]
      people: [{person}]
      threshold: 1
    - paths: ["**"]
      people: [{person}]
      threshold: 1

  # Whose images a channel takes, as written in the Sigstore certificate.
  builders:
"""

_RECIPIENTS = """\
      # What secrets are sealed to (`kubenode seal`): this SSH key, or a key of its own (age1..., see age-keygen).
      ageRecipients:
        - {key}
"""


def render_new(
    example: Mapping[str, bytes],
    *,
    name: str,
    fleet_id: str,
    person: str,
    ssh_key: str,
    stores: Sequence[str],
    builder: Builder,
    trusted_root: bytes | None = None,
) -> dict[str, bytes]:
    """Return the files of a new fleet repo, made from those of the example fleet.

    `ssh_key` is the line of the .pub file of the first owner, `person`; `builder` may build for every channel.
    The example's nodes and releases are left out, its channels are empty, its cluster is a comment. The schemas come
    along, for editors. Raises UsageError when the result would not be valid, because a value is not.
    """
    files = {path: data for path, data in example.items() if not _is_dropped(path)}
    channels = [path for path in files if kind_at(path) is Kind.CHANNEL]
    for path in channels:
        files[path] = replace(files[path].decode(), "[]", "spec", "releases").encode()
    fleet = replace(files[FLEET_PATH].decode(), quoted(name), "metadata", "name")
    fleet = replace(fleet, quoted(fleet_id), "spec", "id")
    fleet = replace(fleet, f"[{', '.join(quoted(store) for store in stores)}]", "spec", "stores")
    files[FLEET_PATH] = comment_out(fleet, "spec", "cluster").encode()
    cluster = files[KUBEADM_CLUSTER_PATH].decode()
    files[KUBEADM_CLUSTER_PATH] = replace(cluster, quoted(name), "clusterName").encode()
    key = quoted(ssh_key.strip())
    recipients = _RECIPIENTS.format(key=key) if ssh_key.startswith(("ssh-ed25519 ", "ssh-rsa ")) else ""
    policy = _POLICY.format(name=quoted(name), person=quoted(person), key=key, recipients=recipients)
    allowed = f"{{issuer: {quoted(builder.issuer)}, identity: {quoted(builder.identity)}}}"
    for channel in sorted(path.rpartition("/")[2].removesuffix(".yaml") for path in channels):
        policy += f"    {channel}:\n      - {allowed}\n"
    files[POLICY_PATH] = policy.encode()
    if trusted_root is not None:
        files[TRUSTED_ROOT_PATH] = trusted_root
    for path in [path for path in files if kind_at(path) is not None and path != POLICY_PATH]:
        files[path] = _SCHEMA_LINE.sub(r"\1", files[path].decode()).encode()
    files.update({f"schemas/{file}": schemas.schema_bytes(kind) for kind, file in schemas.FILES.items()})
    for problem in validate(files):
        if problem.severity is Severity.ERROR:
            raise UsageError(f"the new fleet would not be valid: {problem.message}", hint=problem.hint)
    return files


def _is_dropped(path: str) -> bool:
    return kind_at(path) in _DROPPED or path.endswith(".age")
