"""Turns the objects of a trusted commit into a `TrustedTree`: every byte bound to the commit by its hash."""

from collections.abc import Mapping
from types import MappingProxyType

from kubenode.errors import FleetInvalid, Untrusted
from kubenode.trust.commit import object_id
from kubenode.trust.evidence import (
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_SUBMODULE,
    MODE_SYMLINK,
    MODE_TREE,
    TreeEvidence,
)
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from kubenode.trust.strictyaml import load
from kubenode.trust.trusted import PROOF, TrustedCommit, TrustedTree

MAX_FILES = 50_000
MAX_TREE_BYTES = 256 << 20
MAX_DEPTH = 32
FLEET_PATH = "fleet.yaml"

# Modes as git writes them into tree objects; 100664 and other old forms fail fsck.
_MODES = {b"100644": MODE_FILE, b"100755": MODE_EXECUTABLE, b"40000": MODE_TREE}
_REFUSED = {b"120000": MODE_SYMLINK, b"160000": MODE_SUBMODULE}


def trusted_tree(commit: TrustedCommit, evidence: TreeEvidence, *, fleet_id: str | None = None) -> TrustedTree:
    """Check all objects of a trusted commit against its tree id and return its files, in git's order.

    With `fleet_id`, `spec.id` of fleet.yaml must be that id. Raises Untrusted: ObjectMismatch (an object is missing or
    its bytes are others), UnsafeEntry (submodule, symlink, odd name, two names that differ only in case),
    TooMuchEvidence, FleetIdMismatch. Objects that the tree does not name are ignored.
    """
    walk = _Walk(commit.oid, evidence)
    walk.tree(commit.tree, "", 0)
    policy = walk.files.get(POLICY_PATH)
    if policy is None or object_id("blob", policy) != commit.policy_blob:
        raise Untrusted(
            Reason.OBJECT_MISMATCH,
            f"commit {commit.oid[:12]}: {POLICY_PATH} is not the policy by which the commit was checked",
            subject=commit.oid,
            hint="The local copy of the fleet repo is damaged; remove it, and it is fetched again.",
        )
    tree = TrustedTree(commit, MappingProxyType(walk.files), proof=PROOF)
    if fleet_id is not None:
        _check_fleet_id(tree, fleet_id)
    return tree


class _Walk:
    def __init__(self, commit: str, evidence: TreeEvidence) -> None:
        self.files: dict[str, bytes] = {}
        self._commit = commit
        self._evidence = evidence
        self._size = 0
        self._entries = 0

    def tree(self, oid: str, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._refused(Reason.TOO_MUCH_EVIDENCE, f"{prefix} is nested more than {MAX_DEPTH} folders deep")
        raw = self._object("tree", oid, prefix or "the top folder", self._evidence.trees)
        folded: dict[str, str] = {}
        at = 0
        while at < len(raw):
            space = raw.find(b" ", at, at + 8)
            end = raw.find(b"\0", space + 1)
            if space < 0 or end < 0 or end + 21 > len(raw):
                raise self._refused(Reason.UNSAFE_ENTRY, f"the folder {prefix or '/'} is not a well-formed tree")
            mode, name, child = raw[at:space], raw[space + 1 : end], raw[end + 1 : end + 21].hex()
            at = end + 21
            text = self._name(prefix, name)
            twin = folded.get(text.casefold())
            folded[text.casefold()] = text
            if twin is not None:
                raise self._refused(
                    Reason.UNSAFE_ENTRY,
                    f"{prefix}{twin} and {prefix}{text} differ only in upper and lower case, if at all",
                    "Some machines see one file where others see two: rename one of them.",
                )
            self._entry(mode, child, prefix + text, depth)

    def _entry(self, mode: bytes, oid: str, path: str, depth: int) -> None:
        self._entries += 1
        if self._entries > MAX_FILES:
            raise self._refused(Reason.TOO_MUCH_EVIDENCE, f"the tree has more than {MAX_FILES:,} entries")
        if mode in _REFUSED:
            what = "a symbolic link" if _REFUSED[mode] == MODE_SYMLINK else "a submodule"
            raise self._refused(
                Reason.UNSAFE_ENTRY, f"{path} is {what}", "A fleet repo holds plain files only: replace or remove it."
            )
        kind = _MODES.get(mode)
        if kind is None:
            raise self._refused(Reason.UNSAFE_ENTRY, f"{path} has the unknown mode {mode.decode('ascii', 'replace')}")
        if kind == MODE_TREE:
            self.tree(oid, path + "/", depth + 1)
            return
        content = self._object("blob", oid, path, self._evidence.blobs)
        self._size += len(content)
        if self._size > MAX_TREE_BYTES:
            raise self._refused(Reason.TOO_MUCH_EVIDENCE, f"the tree has more than {MAX_TREE_BYTES >> 20} MiB of files")
        self.files[path] = content

    def _name(self, prefix: str, name: bytes) -> str:
        try:
            text = name.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._refused(Reason.UNSAFE_ENTRY, f"a name in {prefix or '/'} is not UTF-8") from error
        odd = not text or "/" in text or "\\" in text or not text.isprintable() or len(name) > 255
        if odd or text in (".", "..") or text.casefold() == ".git":
            raise self._refused(Reason.UNSAFE_ENTRY, f"the name {text[:80]!r} in {prefix or '/'} is not allowed")
        return text

    def _object(self, kind: str, oid: str, what: str, objects: Mapping[str, bytes]) -> bytes:
        content = objects.get(oid)
        if content is None or object_id(kind, content) != oid:
            state = "is missing" if content is None else "has other bytes than its id says"
            raise self._refused(
                Reason.OBJECT_MISMATCH,
                f"{what} ({kind} {oid[:12]}) {state}",
                "The local copy of the fleet repo is damaged; remove it, and it is fetched again.",
            )
        return content

    def _refused(self, reason: Reason, message: str, hint: str = "") -> Untrusted:
        return Untrusted(reason, f"commit {self._commit[:12]}: {message}", subject=self._commit, hint=hint)


def _check_fleet_id(tree: TrustedTree, expected: str) -> None:
    found: object = None
    try:
        value = load(tree.files.get(FLEET_PATH, b""), FLEET_PATH).value
        spec = value.get("spec") if isinstance(value, dict) else None
        found = spec.get("id") if isinstance(spec, dict) else None
    except FleetInvalid as error:
        found = f"unreadable: {error}"
    if found != expected:
        raise Untrusted(
            Reason.FLEET_ID_MISMATCH,
            f"commit {tree.oid[:12]}: {FLEET_PATH} names the fleet {found}, but this machine belongs to {expected}",
            subject=tree.oid,
            hint="Check the fleet URL of the machine; a fleet's id never changes.",
        )
