"""The lab's cluster: built once, everything expensive kept.

KUBENODE_KUBERNETES_DIR names a folder to keep between runs while working on a story; without it a temporary one is
used. The binaries are in the user's cache in any case (`kubenode lab kubernetes`).
"""

import os
import sys
from pathlib import Path

import pytest

from kubenode.host import requirements
from kubenode.image.mkosi_tool import cache_folder
from kubenode.lab.kubernetes.story import ClusterStory


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> ClusterStory:
    groups = requirements.LAPTOP + requirements.BUILDER + requirements.LAB + requirements.KUBERNETES
    needed = requirements.missing(groups)
    if needed:
        pytest.skip(f"missing: {' '.join(requirements.install_command(needed))}")
    kept = os.environ.get("KUBENODE_KUBERNETES_DIR")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("kubernetes")
    made = ClusterStory(folder, cache_folder() / "kubernetes", say)
    made.prepare()
    return made
