"""Bundles of running containers and sandboxes, as containerd keeps them for its CRI plugin (runtime v2)."""

import json

from kubenode.host.paths import Paths


def write_bundle(paths: Paths, name: str, pid: int, **said: str) -> None:
    """Write the bundle `name` of a process; `said` are annotations (underscores for dashes), else of kube-system."""
    bundle = paths.containers / name
    bundle.mkdir(parents=True, exist_ok=True)
    annotations = {"sandbox-namespace": "kube-system", **{key.replace("_", "-"): it for key, it in said.items()}}
    config = {"annotations": {f"io.kubernetes.cri.{key}": value for key, value in annotations.items()}}
    (bundle / "config.json").write_text(json.dumps(config))
    (bundle / "init.pid").write_text(str(pid))
