"""Makes a commit again with another message: same files, parents, author and other headers, a new signature."""

from collections.abc import Callable

from kubenode.trust.commit import Commit


def remade(commit: Commit, message: bytes, committer: str, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the raw bytes of the new commit.

    `committer` is a line as `git var GIT_COMMITTER_IDENT` prints it; `sign` returns an armored signature, which is put
    where git looks for it (gitformat-signature(5)): in the header `gpgsig`, folded, and not part of what is signed.
    """
    head, _, _ = commit.payload.partition(b"\n\n")
    lines = head.split(b"\n")
    start = next(index for index, line in enumerate(lines) if line.startswith(b"committer "))
    lines[start] = b"committer " + committer.encode("utf-8", "surrogateescape")
    head = b"\n".join(lines)
    signature = sign(head + b"\n\n" + message)
    folded = signature.rstrip(b"\n").replace(b"\n", b"\n ")
    return head + b"\ngpgsig " + folded + b"\n\n" + message
