"""Turns the objects of a git repository into evidence about commits. Nothing here decides about trust."""

from collections.abc import Generator, Iterator, Sequence

from kubenode.errors import Untrusted
from kubenode.host import process
from kubenode.host.git_objects import Damaged, GitObjects
from kubenode.trust.commit import MAX_COMMIT, parse_commit
from kubenode.trust.evidence import MODE_SUBMODULE, MODE_TREE, ChangedPath, CommitEvidence, TreeEvidence
from kubenode.trust.policy import POLICY_PATH
from kubenode.trust.reasons import Reason
from kubenode.trust.strictyaml import MAX_BYTES
from kubenode.trust.tree import MAX_FILES, MAX_TREE_BYTES

MAX_COMMITS = 100_000
MAX_PATH_BYTES = 16 << 20
"""All names in the changes of one commit together."""
MAX_PATH = 1 << 20
BATCH = 256

_LIMIT = f"at most {MAX_FILES:,} entries and {MAX_TREE_BYTES >> 20} MiB are read"


def anchor(objects: GitObjects, oid: str) -> CommitEvidence:
    """Return the evidence for a commit that is trusted already. Raises Damaged, Untrusted."""
    raw = objects.read(oid, "commit", MAX_COMMIT)
    try:
        listed = objects.git("ls-tree", "-z", "--full-tree", oid, "--", POLICY_PATH).stdout
    except process.ProcessFailed as error:
        raise Damaged(f"the tree of commit {oid[:12]} cannot be read") from error
    policy = None
    if listed:
        mode, kind, blob = listed.partition(b"\t")[0].decode().split()
        policy = _policy(objects, blob) if kind == "blob" and mode.startswith("100") else None
    return CommitEvidence(oid, raw, (), policy)


def first_parent_chain(objects: GitObjects, start: CommitEvidence, head: str) -> Iterator[CommitEvidence]:
    """Yield the commits after `start` up to `head` along the first parents, oldest first.

    Memory holds the ids of all, the contents of 256 commits (4 MiB) and the changes of one.
    Raises Untrusted (NotDescendant, TooMuchEvidence) and Damaged.
    """
    trusted, policy = start.oid, start.policy
    if head == trusted:
        return
    objects.read(head, "commit", MAX_COMMIT)
    oids = _between(objects, trusted, head) if objects.has(trusted) else []
    first = parse_commit(oids[0], objects.read(oids[0], "commit", MAX_COMMIT)) if oids else None
    if first is None or first.parents[:1] != (trusted,):
        raise _not_descendant(objects, trusted, head, rewound=not oids and objects.has(trusted))
    previous = trusted
    for at in range(0, len(oids), BATCH):
        batch = oids[at : at + BATCH]
        changes = _changes(objects, previous, batch)
        try:
            for (oid, raw), changed in zip(objects.read_all(batch, "commit", MAX_COMMIT), changes, strict=True):
                entry = next((change for change in changed if change.path == POLICY_PATH.encode()), None)
                if entry is not None:
                    policy = _policy(objects, entry.oid) if entry.mode & 0o170000 == 0o100000 else None
                yield CommitEvidence(oid, raw, changed, policy)
        finally:
            changes.close()
        previous = batch[-1]


def on_line(objects: GitObjects, commit: str, head: str) -> bool:
    """Say whether a commit lies below `head` on its first-parent chain; False when it is not there at all."""
    limit = f"--max-count={MAX_COMMITS + 1}"
    done = objects.git("rev-list", "--first-parent", "--parents", limit, head, f"^{commit}", check=False)
    # What is not below `commit` ends just above it, if it is on the line.
    last = done.text.splitlines()[-1:] if done.returncode == 0 else []
    return [line.split()[1:2] for line in last] == [[commit]]


def read_tree(objects: GitObjects, oid: str) -> TreeEvidence:
    """Read all trees and blobs of a commit, each once. Raises Untrusted(TooMuchEvidence) before too much, Damaged."""
    commit = parse_commit(oid, objects.read(oid, "commit", MAX_COMMIT))
    trees: dict[str, bytes] = {}
    blobs: set[str] = set()
    entries, room = 0, MAX_TREE_BYTES
    level = {commit.tree}
    while level:
        names = sorted(level)
        room -= sum(objects.sizes(names, "tree").values())
        if room < 0:
            raise _too_large(oid)
        level = set()
        for name, raw in objects.read_all(names, "tree", MAX_TREE_BYTES):
            trees[name] = raw
            for mode, child in _entries(raw):
                entries += 1
                if mode == MODE_TREE:
                    level.add(child)
                elif mode != MODE_SUBMODULE:
                    blobs.add(child)
            if entries > MAX_FILES:
                raise _too_large(oid)
        level -= trees.keys()
    names = sorted(blobs)
    if sum(objects.sizes(names, "blob").values()) > room:
        raise _too_large(oid)
    return TreeEvidence(trees, dict(objects.read_all(names, "blob", MAX_TREE_BYTES)))


def _between(objects: GitObjects, trusted: str, head: str) -> list[str]:
    limit = f"--max-count={MAX_COMMITS + 1}"
    try:
        listed = objects.git("rev-list", "--first-parent", "--reverse", limit, head, f"^{trusted}")
    except process.ProcessFailed as error:
        raise Damaged(f"the history of {head[:12]} cannot be read") from error
    oids = listed.text.split()
    if len(oids) > MAX_COMMITS:
        raise Untrusted(
            Reason.TOO_MUCH_EVIDENCE,
            f"more than {MAX_COMMITS:,} commits lie between {trusted[:12]} and {head[:12]}",
            subject=head,
            hint="Install the machine again with a newer anchor.",
        )
    return oids


def _entries(tree: bytes) -> Iterator[tuple[int, str]]:
    """Yield (mode, id) of a tree's entries as far as they can be read; `trust.tree` judges the names and the form."""
    at = 0
    while (end := tree.find(b"\0", at)) >= 0 and end + 21 <= len(tree):
        mode = tree[at:end].partition(b" ")[0]
        if not mode.isdigit() or len(mode) > 6:
            return
        yield int(mode, 8) if not set(mode) & set(b"89") else 0, tree[end + 1 : end + 21].hex()
        at = end + 21


def _changes(
    objects: GitObjects, previous: str, batch: Sequence[str]
) -> Generator[tuple[ChangedPath, ...], None, None]:
    """Yield what each commit changes against the one before it, from one process that is read as it is needed."""
    pairs = zip(batch, (previous, *batch), strict=False)
    asked = "".join(f"{child} {parent}\n" for child, parent in pairs)
    flags = ("--stdin", "-r", "--raw", "-z", "--no-renames", "--full-index", "--ignore-submodules=none")
    waiting = iter(batch)
    current: list[ChangedPath] = []
    oid, size = "", 0
    try:
        with objects.stream("diff-tree", *flags, "--no-ext-diff", "--no-textconv", "--always") as diff:
            diff.ask(asked.encode(), last=True)
            words = _words(diff)
            for word in words:
                if not word.startswith(b":"):
                    if oid:
                        yield tuple(current)
                    current, size = [], 0
                    oid = next(waiting, "")
                    if word.decode("ascii", "replace") != oid:
                        raise Damaged("git compares other commits than it was asked to")
                    continue
                _, mode, _, new, _ = word.decode("ascii").split(" ")
                path = next(words)
                size += len(path)
                if len(current) >= MAX_FILES or size > MAX_PATH_BYTES:
                    raise _too_large(oid)
                current.append(ChangedPath(path, int(mode, 8), new))
            yield tuple(current)
    except process.ProcessFailed as error:
        # Is something broken, or is it more than git can do within its limits? Reading it ourselves tells.
        failed = next(waiting, oid)
        read_tree(objects, failed)
        raise _too_large(failed) from error


def _words(diff: process.Conversation) -> Iterator[bytes]:
    """Split what git prints at its NUL bytes."""
    rest = b""
    for chunk in diff.chunks():
        *words, rest = (rest + chunk).split(b"\0")
        yield from words
        if len(rest) > MAX_PATH:
            raise Untrusted(
                Reason.TOO_MUCH_EVIDENCE,
                f"a commit changes a path whose name has more than {MAX_PATH:,} bytes",
                hint="The commit that brought the path must be taken back.",
            )


def _policy(objects: GitObjects, oid: str) -> bytes:
    try:
        return objects.read(oid, "blob", MAX_BYTES)
    except Untrusted as error:
        raise Untrusted(Reason.POLICY_INVALID, f"{POLICY_PATH}: {error.message}", subject=oid) from error


def _too_large(oid: str) -> Untrusted:
    return Untrusted(
        Reason.TOO_MUCH_EVIDENCE,
        f"commit {oid[:12]} is too large: {_LIMIT}",
        subject=oid,
        hint="Keep large files out of the fleet repo.",
    )


def _not_descendant(objects: GitObjects, trusted: str, head: str, *, rewound: bool) -> Untrusted:
    if rewound:
        what = f"the branch went back: its head {head[:12]} lies before the trusted commit {trusted[:12]}"
    elif objects.git("merge-base", "--is-ancestor", trusted, head, check=False).returncode == 0:
        what = f"a merge below {head[:12]} swapped its parents: the trusted {trusted[:12]} is no first parent any more"
    else:
        what = f"the branch was rewritten: its head {head[:12]} does not contain the trusted commit {trusted[:12]}"
    hint = f"Put {trusted[:12]} back as the head (it only ever moves forward), and merge other work into it."
    return Untrusted(Reason.NOT_DESCENDANT, what, subject=head, hint=hint)
