"""The rules of `validate`: what each one finds, and what to do when the check itself knows nothing more special."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What is wrong, as part of a sentence, and what to do next, as a sentence; docs/errors.md is made from both."""

    meaning: str
    advice: str


RULES: Mapping[str, Rule] = {
    "yaml": Rule(
        "the file is not the strict YAML that kubenode reads",
        "Write plain YAML: no anchors, tags or duplicate keys, text with special characters in quotes.",
    ),
    "empty-document": Rule(
        "the file has no document", "Write the document (docs/fleet-format.md), or remove the file."
    ),
    "wrong-kind": Rule(
        "a document of another kind belongs here", "Move the document to the folder of its kind, or correct `kind`."
    ),
    "api-version": Rule(
        "the format is not one that this kubenode reads",
        "Write apiVersion: kubenode.dev/v1alpha1, or use the kubenode that this document was written for.",
    ),
    "name-differs": Rule("`metadata.name` is not the file name", "Make metadata.name the file name without .yaml."),
    "version-differs": Rule(
        "`spec.version` is not the release's name", "Make spec.version, metadata.name and the file name the same."
    ),
    "missing-field": Rule("a required field is missing", "Add the field: docs/fleet-format.md explains it."),
    "unknown-field": Rule(
        "there is no such field, or it belongs elsewhere", "Correct the name or move the field to where it belongs."
    ),
    "wrong-type": Rule(
        "text where a list belongs, and the like", "docs/fleet-format.md says what belongs there, with an example."
    ),
    "not-allowed": Rule("not one of the allowed words", "Write one of the allowed words."),
    "bad-value": Rule("not a duration, version, URL and so on", "docs/fleet-format.md shows an example of each value."),
    "out-of-range": Rule("too small, too large, or empty", "Write a value within the limit."),
    "duplicate-item": Rule("listed twice", "Remove one of them."),
    "missing-file": Rule(
        "a file that every fleet, or every cluster, needs",
        "Add the file; `kubenode new` makes all that every fleet needs.",
    ),
    "missing-overlay": Rule(
        "an image names an overlay folder that has no files",
        "Add files to the folder, or take `overlay` out of the recipe.",
    ),
    "file-extension": Rule("a document whose name does not end in `.yaml` is not read", "Rename it to end in .yaml."),
    "misplaced-file": Rule(
        "a document in a folder below its folder is not read", "Move it up into the folder of its kind."
    ),
    "file-too-large": Rule("over 1 MiB", "Keep large files elsewhere: nodes read at most 1 MiB of a document."),
    "unknown-pool": Rule("the fleet has no such pool", "Add pools/NAME.yaml, or correct the name."),
    "unknown-channel": Rule("the fleet has no such channel", "Add channels/NAME.yaml, or correct the name."),
    "unknown-release": Rule("the fleet has no such release", "Publish the release first: `kubenode publish`."),
    "unknown-image": Rule("the fleet has no such image recipe", "Add images/NAME.yaml, or correct the name."),
    "unknown-node": Rule("the fleet has no such node", "Add nodes/NAME.yaml, or correct the name."),
    "unknown-source": Rule("the repo has no such file", "Add the file below files/, or correct the path."),
    "channel-order": Rule(
        "the newest release does not come first", "Put the newest release first; `kubenode promote` does."
    ),
    "floor-too-new": Rule(
        "the floor is not older than the release",
        "The floor is an older release; leave it out if any may update directly.",
    ),
    "no-hop-path": Rule(
        "nodes on an older release of the channel cannot get to the first",
        "Keep a release in the channel that leads there: one that honours the floor, one Kubernetes minor at a time.",
    ),
    "not-promoted": Rule(
        "the release is not in the channel it must come from",
        "Promote the release into that channel first: `kubenode promote`.",
    ),
    "channel-empty": Rule(
        "a pool with nodes follows a channel without releases",
        "Promote a release into it: `kubenode promote`, or pin the pool with `release`.",
    ),
    "cluster-missing": Rule(
        "there are Kubernetes nodes but no cluster", "Add spec.cluster to fleet.yaml, or make the pools standalone."
    ),
    "bootstrap-node-role": Rule("the bootstrap node is no control plane", "Name a node of a control-plane pool."),
    "even-control-planes": Rule(
        "an even number of control planes (warning)",
        "Have one, three or five: an even number tolerates no more failures than one less.",
    ),
    "rollout-order": Rule(
        "workers before control planes", "Put control planes first: kubelets are never newer than API servers."
    ),
    "release-without-kubernetes": Rule(
        "a Kubernetes pool runs an image without Kubernetes",
        "Give the pool a release whose recipe has spec.kubernetes, or make it standalone.",
    ),
    "kubernetes-skew": Rule(
        "kubelets newer than the API servers, or too old for them", "Move the control planes first, then the workers."
    ),
    "shared-identity": Rule(
        "two nodes have the same address or key", "Make an identity for each machine: `kubenode seed NODE`."
    ),
    "bad-key": Rule("not a usable SSH public key", "Write the line of a .pub file."),
    "bad-window": Rule(
        "a maintenance window that never opens",
        "Write days, a start such as 02:00, and a duration of at least a minute.",
    ),
    "unknown-time-zone": Rule(
        "a time zone that is not in the IANA database",
        "Write a name of the IANA time zone database, such as Europe/Berlin.",
    ),
    "wave-order": Rule(
        "a wave is not larger than the one before",
        "Let each wave be larger than the one before, such as [1, 25%, 100%].",
    ),
    "owned-path": Rule(
        "the file belongs to kubeadm, the image or kubenode", "Choose another path: this file would be written by two."
    ),
    "unknown-person": Rule(
        "a rule names somebody who is not in `people`",
        "Add the person to spec.people of trust/policy.yaml, or correct the name.",
    ),
    "bad-pattern": Rule(
        "a path pattern that cannot be used",
        "Write a glob from the top of the repo, such as nodes/** or channels/*.yaml.",
    ),
    "policy-locks-out": Rule(
        "nobody could change the policy again", "Keep a rule for trust/** whose threshold its people can reach."
    ),
    "bad-policy": Rule(
        "another mistake in the policy, such as a key of two people", "docs/trust.md says what a policy may say."
    ),
    "no-builders": Rule(
        "nobody may build for a channel in use", "Add the channel to spec.builders of trust/policy.yaml."
    ),
    "bad-trusted-root": Rule("not a Sigstore trusted root", "Copy trusted_root.json from the Sigstore instance again."),
    "kubeadm-version": Rule(
        "an unknown version, or one that a pool's kubeadm cannot read",
        "Write the document in an apiVersion that every kubeadm in use reads.",
    ),
    "extra-args": Rule(
        "a mapping in v1beta4, a list before it, or a value that is not text",
        "v1beta4 wants a list of name and value, v1beta3 a mapping; values are text, in quotes.",
    ),
    "kubeadm-owned-field": Rule("a field that kubenode fills in", "Take the field out: kubenode fills it in."),
    "endpoint-differs": Rule(
        "kubeadm's endpoint is not the fleet's", "Make controlPlaneEndpoint that of fleet.yaml, or leave it out."
    ),
    "kubelet-sync": Rule(
        "a `syncFrequency` with which kubeadm's upgrades fail", "Write 2m or less; the kubelet's default is 1m."
    ),
    "duplicate-kind": Rule("two kubeadm documents of one kind", "Keep one of the two."),
    "patch-name": Rule(
        "kubeadm would not read a patch of this name", "Name it TARGET[SUFFIX][+PATCHTYPE].EXTENSION, as kubeadm does."
    ),
    "secret-in-plain-text": Rule(
        "a file below `secrets/` is not sealed",
        "Seal it: `kubenode seal NAME FILE`; and change what is in it, it is in git's history.",
    ),
    "seal-without-description": Rule(
        "nothing says who needs a sealed file", "Seal it again with --for, which writes the description."
    ),
    "seal-differs": Rule(
        "the sealed file is missing or is another one than described; sealing was interrupted",
        "Seal it again: `kubenode seal NAME FILE`, or `kubenode seal --reseal NAME`.",
    ),
    "bad-seal": Rule(
        "the sealed file is damaged, or sealed to another number of recipients than described",
        "Seal it again: `kubenode seal NAME FILE`.",
    ),
    "stale-seal": Rule(
        "a node or operator that needs the secret cannot open it: new, or with a new key",
        "Seal it again: `kubenode seal --reseal NAME`.",
    ),
    "seal-too-wide": Rule(
        "a node or operator can open it and does not need it any more (warning)",
        "Change what is in it: `kubenode seal NAME FILE`.",
    ),
    "no-recipient": Rule(
        "a node or operator that needs a secret has no age recipient",
        "Give the node an identity (`kubenode seed NODE`), the operator an age recipient.",
    ),
    "no-token": Rule(
        "nodes of the cluster have no bootstrap token (warning)", "Make them: `kubenode seal --bootstrap-tokens`."
    ),
    "token-place": Rule(
        "a bootstrap token in a secret of another name, or sealed for others than its node and the control planes",
        "Remove both files and make them again: `kubenode seal --bootstrap-tokens`.",
    ),
    "bad-recipient": Rule(
        "nothing can be sealed to this age recipient or SSH key",
        "Write age1... or the line of an SSH key (ed25519, RSA).",
    ),
    "ca-hash": Rule(
        "the hash of the cluster's CA certificate is another, or stands in the wrong secret",
        "Only `kubenode seal --cluster-ca` writes caCertHash; take the file of the commit that made it.",
    ),
    "private-key": Rule("a private key, anywhere", "Take it out, and make a new one: it is in git's history."),
    "not-a-file": Rule("a link or special file, which nodes refuse", "Replace it by a plain file."),
}
