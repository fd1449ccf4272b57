"""What older commits explain, asked of git only for what the newest does not: old releases, documents, nodes."""

import re
from collections.abc import Iterable
from pathlib import Path

from kubenode.cli.clone import git
from kubenode.fleet.layout import KUBEADM_FOLDER
from kubenode.fleet.load import kubeadm_digest
from kubenode.model.documents import FleetDocuments
from kubenode.model.kubernetes import ClusterView
from kubenode.plan.drift import Known
from kubenode.plan.observations import Report

_MOST_HASHES = 10
_MOST_COMMITS = 50
"""Commits that changed kubeadm's documents; what is older than that is drift by any name."""
_HASH = re.compile(r"[0-9a-f]{64}")


def known_by_git(
    fleet: Path, commit: str, documents: FleetDocuments, reports: Iterable[Report], view: ClusterView | None
) -> Known:
    """Return what some commit up to this one explains of what was seen."""
    every = tuple(reports)
    releases = {it.root_hash for it in documents.releases.values()}
    odd = {it.observed.booted.root_hash for it in every} - releases
    here = [it.observed.kubernetes for it in every]
    digests = {it.configuration for it in here if it is not None} | {view.configuration if view is not None else None}
    foreign = {it for it in digests if it is not None} - {documents.kubeadm}
    strangers = {it.name for it in view.nodes} - set(documents.nodes) if view is not None else set()
    return Known(
        releases | {it for it in sorted(odd)[:_MOST_HASHES] if _was_released(fleet, commit, it)},
        _configurations(fleet, commit, foreign) if foreign else frozenset(),
        _once_declared(fleet, commit) & strangers if strangers else frozenset(),
    )


def not_in_clone(fleet: Path, commits: Iterable[str]) -> list[str]:
    """Return those of these commit ids that the clone does not have."""
    asked = [it for it in commits if re.fullmatch(r"[0-9a-f]{40}", it)]
    if not asked:
        return []
    said = git(fleet, "cat-file", "--batch-check=%(objectname)", stdin="".join(f"{it}\n" for it in asked).encode())
    return [line.split()[0] for line in said.text.splitlines() if line.endswith(" missing")]


def _was_released(fleet: Path, commit: str, root_hash: str) -> bool:
    if not _HASH.fullmatch(root_hash):
        return False
    return bool(git(fleet, "log", "-1", "--format=%H", f"-S{root_hash}", commit, "--", "releases").text.strip())


def _once_declared(fleet: Path, commit: str) -> frozenset[str]:
    words = ("log", "--format=", "--name-only", "-z", "--no-renames", "--diff-filter=D", commit, "--", "nodes")
    paths = git(fleet, *words).text.replace("\n", "\0").split("\0")
    return frozenset(path.removeprefix("nodes/").removesuffix(".yaml") for path in paths if path.endswith(".yaml"))


def _configurations(fleet: Path, commit: str, wanted: set[str]) -> frozenset[str]:
    """Return the digests of kubeadm's documents that commits brought, newest first until all of `wanted` are there."""
    found: set[str] = set()
    words = ("log", "--format=%H", f"--max-count={_MOST_COMMITS}", commit, "--", KUBEADM_FOLDER)
    contents: dict[str, bytes] = {}
    for oid in git(fleet, *words).text.split():
        files = {}
        for line in git(fleet, "ls-tree", "-r", "-z", oid, "--", KUBEADM_FOLDER).text.split("\0")[:-1]:
            (_, _, blob), path = line.partition("\t")[0].split(), line.partition("\t")[2]
            if blob not in contents:
                contents[blob] = git(fleet, "cat-file", "blob", blob).stdout
            files[path] = contents[blob]
        found.add(kubeadm_digest(files))
        if wanted <= found:
            break
    return frozenset(found)
