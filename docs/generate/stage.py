"""Runs a command before the made-up cluster, whose clock stands: `python -m docs.generate.stage SCENE plan -C homelab`.

It runs in a copy of the current folder, so that every picture begins with the same.
"""

import os
import shutil
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from docs.generate import cluster
from kubenode.cli import statuswatch
from kubenode.cli.clone import commit_of
from kubenode.cli.main import main as kubenode
from kubenode.host.clock import SystemClock
from kubenode.host.kube import live
from tests.planworld import serving

SCENES = {"before": cluster.before, "middle": cluster.middle, "following": cluster.following}


def main() -> None:
    """Set the scene, and run the command in it."""
    scene, words = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="kubenode-stage-") as name:
        folder = Path(name)
        shutil.copytree(".", folder, dirs_exist_ok=True, symlinks=True)
        fleet = folder / "homelab"
        with chdir(folder), serving(fleet, folder, cluster.MONDAY, answering=cluster.PLANES) as world:
            stage = cluster.Stage(world, commit_of(fleet, "origin/main"))
            SCENES[scene](stage)
            _command(stage, words)


def _command(stage: cluster.Stage, words: list[str]) -> None:
    steps, look = list(stage.steps), live.look

    def step_and_look(*where: object) -> live.Live:
        if steps:
            steps.pop(0)()
        return look(*where)  # type: ignore[arg-type]

    live.look = step_and_look  # type: ignore[assignment]
    SystemClock.now = lambda _self: stage.now  # type: ignore[method-assign, assignment]
    statuswatch.LOOK_SECONDS = 0.0
    os.environ["KUBECONFIG"] = str(stage.world.kubeconfig)
    sys.argv = ["kubenode", *words]
    kubenode()


if __name__ == "__main__":
    main()
