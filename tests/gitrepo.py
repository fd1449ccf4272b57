"""Real temporary git repositories with SSH-signed commits, for tests.

* `SigningKey.make(folder, "alice")` asks ssh-keygen for a key; `GitRepo.init(path)` makes a repository; `write`,
  `commit(message, key)` sign with real git and ssh-keygen.
* `policy_yaml({"alice": [key]})` writes a trust policy.
* `World(path, keys)` is a remote with a policy, and a node that follows it.
* `trusted_tree_of({path: content})` gives a TrustedTree without git: the commit is its own anchor.
* `sign_in_process` and `signed_commit` are quick, for odd signatures; `long_history` for thousands of commits.
"""

import base64
import hashlib
import os
import subprocess
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from kubenode.host.git import FleetRepository
from kubenode.trust import approvals
from kubenode.trust.chain import TrustedTree, authenticate, trust_anchor
from kubenode.trust.commit import object_id
from kubenode.trust.evidence import CommitEvidence, TreeEvidence
from kubenode.trust.keys import PublicKey
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.tree import trusted_tree
from kubenode.trust.wire import string

# Time is fixed, so that the same steps give the same ids.
IDENTITY = "Alice Example <alice@example.net> 1767225600 +0000"
FLEET_ID = "6f1c1d1e-6a1b-4a43-9f0e-0f5f4f6e7a11"
Rules = Sequence[tuple[Sequence[str], Sequence[str], int]]


@dataclass(frozen=True)
class SigningKey:
    """An SSH key pair in files: `path` is the private key, `public` the line of its .pub file."""

    path: Path
    public: str

    @classmethod
    def make(cls, folder: Path, name: str, kind: str = "ed25519", bits: int | None = None) -> "SigningKey":
        """Let ssh-keygen make a key without passphrase."""
        path = folder / f"id_{name}"
        size = ["-b", str(bits)] if bits else []
        argv = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", f"{name}@example.net", "-f", str(path)]
        subprocess.run(argv, check=True, capture_output=True)
        return cls(path, path.with_name(path.name + ".pub").read_text().strip())

    @property
    def key(self) -> PublicKey:
        return PublicKey.parse(self.public)


def policy_yaml(people: Mapping[str, Sequence[SigningKey | str]], rules: Rules = ((("**",), ("alice",), 1),)) -> str:
    """Return a trust policy; a rule is (paths, people, threshold)."""
    lines = [
        "apiVersion: kubenode.dev/v1alpha1",
        "kind: TrustPolicy",
        "metadata: {name: homelab}",
        "spec:",
        "  people:",
    ]
    for person, keys in people.items():
        listed = ", ".join(f'"{key if isinstance(key, str) else key.public}"' for key in keys)
        lines.append(f"    {person}: {{keys: [{listed}]}}")
    lines.append("  rules:")
    for paths, names, threshold in rules:
        quoted = ", ".join(f'"{path}"' for path in paths)
        lines.append(f"    - {{paths: [{quoted}], people: [{', '.join(names)}], threshold: {threshold}}}")
    return "\n".join(lines) + "\n"


class GitRepo:
    """A temporary repository with a work tree; git runs without anybody's configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def init(cls, path: Path, object_format: str = "sha1") -> "GitRepo":
        path.mkdir(parents=True, exist_ok=True)
        repo = cls(path)
        repo.git("init", "--quiet", "--template=", f"--object-format={object_format}", "--initial-branch=main")
        return repo

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def git(self, *words: str, stdin: bytes = b"", options: Mapping[str, str] | None = None, check: bool = True) -> str:
        """Run git in the repository and return what it printed, stripped."""
        name, _, rest = IDENTITY.partition(" <")
        email, _, date = rest.partition("> ")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        }
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email, f"GIT_{role}_DATE": f"@{date}"}
        settings = [word for key, value in (options or {}).items() for word in ("-c", f"{key}={value}")]
        done = subprocess.run(
            ["git", *settings, *words],
            check=False,
            cwd=self.path,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(f"git {' '.join(words)} failed: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, name: str, content: str | bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, message: str, key: SigningKey | None, *words: str) -> str:
        """Commit the whole work tree, signed by real git and ssh-keygen (or unsigned), and return the id."""
        self.git("add", "--all")
        return self._sign_with("commit", "--quiet", "--allow-empty", "-m", message, *words, key=key)

    def merge(self, message: str, key: SigningKey | None, *others: str) -> str:
        """Merge other commits into the current branch, as one signed merge commit."""
        return self._sign_with("merge", "--quiet", "--no-ff", "-m", message, *others, key=key)

    def _sign_with(self, *words: str, key: SigningKey | None) -> str:
        options = {"user.name": "Alice Example", "user.email": "alice@example.net", "commit.gpgSign": "false"}
        if key is not None:
            options |= {"gpg.format": "ssh", "user.signingKey": str(key.path), "commit.gpgSign": "true"}
        self.git(*words, options=options)
        return self.head

    def raw(self, oid: str, kind: str = "commit") -> bytes:
        done = subprocess.run(["git", "cat-file", kind, oid], cwd=self.path, check=True, capture_output=True)
        return done.stdout

    def store(self, raw: bytes, kind: str = "commit") -> str:
        """Write an object, however odd, and return its id."""
        return self.git("hash-object", "-t", kind, "-w", "--stdin", "--literally", stdin=raw)

    def point(self, oid: str, branch: str = "main") -> str:
        """Set a branch to a commit, leaving index and work tree alone; returns the id."""
        (self.path / ".git" / "refs" / "heads" / branch).write_text(oid + "\n")
        return oid


HOMELAB_RULES: Rules = [
    (["trust/**"], ["alice"], 1),
    (["releases/**"], ["ci", "alice"], 1),
    (["nodes/**", "fleet.yaml"], ["alice"], 1),
]


class World:
    """A signed remote, a node's copy of it, and the anchor: the first commit. alice decides, ci makes releases."""

    def __init__(self, path: Path, keys: Mapping[str, SigningKey]) -> None:
        self.keys = keys
        self.remote = GitRepo.init(path / "remote")
        self.copy = FleetRepository(path / "fleet.git")
        self.policy(HOMELAB_RULES)
        self.remote.write("nodes/a.yaml", "a: 1\n")
        self.remote.write("releases/1.yaml", "a: 1\n")
        self.anchor = self.commit("start", "alice")

    def policy(self, rules: Rules, *people: str) -> None:
        names = people or ("alice", "ci")
        text = policy_yaml({name: [self.keys[name]] for name in names}, rules)
        self.remote.write(POLICY_PATH, text)

    def commit(self, message: str, signer: str | None) -> str:
        return self.remote.commit(message, self.keys[signer] if signer else None)

    def node(self, name: str, signer: str | None = "alice") -> str:
        self.remote.write(f"nodes/{name}.yaml", "a: 1\n")
        return self.commit(f"node {name}", signer)

    @property
    def tree(self) -> str:
        return self.remote.git("rev-parse", "HEAD^{tree}")

    def follow(self, anchor: str | None = None, *, fetch: bool = True) -> TrustedTree:
        """Do what a node does; without `fetch`, with what was fetched last."""
        anchor = anchor or self.anchor
        head = self.copy.fetch(self.remote.url) if fetch else self.copy.stored_head()
        assert head is not None
        commit = authenticate(
            self.copy.anchor(anchor), self.copy.first_parent_chain(anchor, head), fleet_id=FLEET_ID, head=head
        )
        tree = trusted_tree(commit, self.copy.read_tree(head))
        self.copy.accept(commit.oid)
        return tree


def armor(key: PublicKey, signature: bytes, *, namespace: str = "git", digest: str = "sha512") -> bytes:
    """Wrap a raw SSH signature blob as ssh-keygen prints it (PROTOCOL.sshsig)."""
    fields = (key.blob, namespace.encode(), b"", digest.encode(), signature)
    blob = b"SSHSIG" + (1).to_bytes(4, "big") + b"".join(map(string, fields))
    text = base64.b64encode(blob)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])


def to_sign(message: bytes, *, namespace: str = "git", digest: str = "sha512") -> bytes:
    """Return the bytes that a key signs for a message (PROTOCOL.sshsig)."""
    hashed = hashlib.new(digest, message).digest()
    return b"SSHSIG" + b"".join(map(string, (namespace.encode(), b"", digest.encode(), hashed)))


def sign_in_process(key: SigningKey, message: bytes, *, namespace: str = "git") -> bytes:
    """Sign with an ed25519 key without starting ssh-keygen."""
    private = load_ssh_private_key(key.path.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    signature = private.sign(to_sign(message, namespace=namespace))
    return armor(key.key, string(b"ssh-ed25519") + string(signature), namespace=namespace)


def approval(key: SigningKey, parent: str, tree: str, *, fleet_id: str = FLEET_ID, claim: str = "") -> str:
    """Return an approval trailer, signed in this process; `claim` stands in it instead of `PARENT TREE`."""
    signature = sign_in_process(key, approvals.payload(fleet_id, parent, tree), namespace=approvals.NAMESPACE)
    names = claim.split() or (parent, tree)
    return f"{approvals.TRAILER}: {approvals.value_of(names[0], names[1], signature)}"


def unsigned_commit(tree: str, parents: Sequence[str], message: str) -> bytes:
    """Return a raw commit object without signature."""
    heads = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {IDENTITY}", f"committer {IDENTITY}"]
    return ("\n".join(heads) + f"\n\n{message}\n").encode()


def with_signature(raw: bytes, signature: bytes, header: bytes = b"gpgsig") -> bytes:
    """Put a signature header where git puts it: after the other headers."""
    head, _, message = raw.partition(b"\n\n")
    folded = signature.rstrip(b"\n").replace(b"\n", b"\n ")
    return head + b"\n" + header + b" " + folded + b"\n\n" + message


def signed_commit(key: SigningKey, tree: str, parents: Sequence[str], message: str) -> bytes:
    """Return a raw commit object, signed in this process."""
    raw = unsigned_commit(tree, parents, message)
    return with_signature(raw, sign_in_process(key, raw))


def long_history(repo: GitRepo, key: SigningKey, count: int) -> list[str]:
    """Make an anchor and `count` signed commits after it, each changing a file, in seconds; return their ids.

    All objects go into one pack of our own making (git's Documentation/gitformat-pack.txt), which git then indexes.
    """
    private = load_ssh_private_key(key.path.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    public = key.key
    objects: dict[str, tuple[int, bytes]] = {}

    def add(kind: str, content: bytes) -> str:
        oid = object_id(kind, content)
        objects[oid] = {"commit": 1, "tree": 2, "blob": 3}[kind], content
        return oid

    def tree(entries: Sequence[tuple[bytes, bytes, str]]) -> str:
        return add("tree", b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries))

    policy = tree([(b"100644", b"policy.yaml", add("blob", policy_yaml({"alice": [key]}).encode()))])
    nodes = {f"n{number:02}.yaml".encode(): add("blob", b"n: start\n") for number in range(50)}
    oids: list[str] = []
    for number in range(count + 1):
        nodes[f"n{number % 50:02}.yaml".encode()] = add("blob", f"n: {number}\n".encode())
        folder = tree([(b"100644", name, oid) for name, oid in nodes.items()])
        root = tree([(b"40000", b"nodes", folder), (b"40000", b"trust", policy)])
        raw = unsigned_commit(root, oids[-1:], f"change {number}")
        signature = private.sign(to_sign(raw))
        oids.append(add("commit", with_signature(raw, armor(public, string(b"ssh-ed25519") + string(signature)))))
    repo.git("index-pack", "--stdin", stdin=pack(objects.values()))
    repo.point(oids[-1])
    return oids


def pack(objects: Collection[tuple[int, bytes]]) -> bytes:
    """Return a pack of undeltified objects: (1 commit, 2 tree, 3 blob; content)."""
    parts = [b"PACK", (2).to_bytes(4, "big"), len(objects).to_bytes(4, "big")]
    for kind, content in objects:
        parts += [pack_header(kind, len(content)), zlib.compress(content, 1)]
    body = b"".join(parts)
    return body + hashlib.sha1(body).digest()


def pack_header(kind: int, size: int) -> bytes:
    """Return the type and size that begin an object in a pack."""
    first, size = kind << 4 | size & 15, size >> 4
    numbers = []
    while size:
        numbers.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    return bytes([*numbers, first])


def trusted_tree_of(files: Mapping[str, str | bytes], policy: str | bytes | None = None) -> TrustedTree:
    """Return a TrustedTree of these files without git: the commit is the anchor, so no signature is needed.

    `policy` becomes trust/policy.yaml; when it and the file are missing, a policy with one throw-away key is added.
    """
    content = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
    if policy is not None or POLICY_PATH not in content:
        chosen = policy if policy is not None else policy_yaml({"alice": [throw_away_key()]})
        content[POLICY_PATH] = chosen.encode() if isinstance(chosen, str) else chosen
    trees: dict[str, bytes] = {}
    blobs: dict[str, bytes] = {}
    root = _store_tree(content, trees, blobs)
    raw = unsigned_commit(root, (), "anchor")
    commit = trust_anchor(CommitEvidence(object_id("commit", raw), raw, (), content[POLICY_PATH]))
    return trusted_tree(commit, TreeEvidence(trees, blobs))


def throw_away_key() -> str:
    """Return a public key line whose private half is forgotten at once."""
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return "ssh-ed25519 " + base64.b64encode(string(b"ssh-ed25519") + string(raw)).decode()


def _store_tree(content: Mapping[str, bytes], trees: dict[str, bytes], blobs: dict[str, bytes]) -> str:
    folders: dict[str, dict[str, bytes]] = {}
    entries: list[tuple[bytes, bytes, str]] = []
    for path, data in content.items():
        first, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(first, {})[rest] = data
        else:
            oid = object_id("blob", data)
            blobs[oid] = data
            entries.append((first.encode(), b"100644", oid))
    for name, inside in folders.items():
        entries.append((name.encode(), b"40000", _store_tree(inside, trees, blobs)))
    entries.sort(key=lambda entry: entry[0] + (b"/" if entry[1] == b"40000" else b""))
    raw = b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for name, mode, oid in entries)
    oid = object_id("tree", raw)
    trees[oid] = raw
    return oid
