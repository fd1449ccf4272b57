"""Compiles the commands of Kubernetes, stamped with a version."""

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from kubenode.host.process import run
from kubenode.lab.kubernetes.toolchain import Toolchain

Show = Callable[[str], None]
COMMANDS = (
    *("kube-apiserver", "kubectl", "kubeadm", "kubelet"),
    *("kube-controller-manager", "kube-scheduler", "kube-proxy", "crictl"),
)
STAMPED = ("component-base/version", "client-go/pkg/version")
BUILD_DATE = "2021-01-13T13:20:00Z"
"""When 1.20.2 was released: a stamp must not differ from build to build."""
_COMMIT = "0" * 40
GENERATION_TIMEOUT = 3600.0
COMPILE_TIMEOUT = 3600.0


def generate(toolchain: Toolchain) -> None:
    """Add our stand-in of crictl to the source and make its generated part (deep copies, OpenAPI), that only once.

    Raises HostError.
    """
    main = toolchain.source / "cmd/crictl/main.go"
    main.parent.mkdir(exist_ok=True)
    main.write_bytes(stand_in())
    mark = toolchain.workspace / "generated"
    if mark.exists():
        return
    log = toolchain.workspace / "generate.log"
    run(
        ["make", "generated_files"], cwd=toolchain.source, env=_environment(toolchain), timeout=GENERATION_TIMEOUT,
        log=log,
    )  # fmt: skip
    mark.touch()


def stand_in() -> bytes:
    """Return the source of our stand-in of crictl."""
    return (resources.files("kubenode.lab.kubernetes") / "crictl.go").read_bytes()


def compile_version(toolchain: Toolchain, version: str, folder: Path, show: Show) -> None:
    """Compile every command into `folder` (made when missing) as `version`, such as v1.20.2. Raises HostError.

    A command that is there already is not compiled again; each appears whole, by a rename.
    """
    folder.mkdir(parents=True, exist_ok=True)
    env = {**_environment(toolchain), "GOFLAGS": "-trimpath"}
    for command in COMMANDS:
        target = folder / command
        if target.exists():
            continue
        show(f"compiling {command} {version}")
        unfinished = folder / f".{command}.new"
        words = ["go", "build", "-ldflags", f"-s -w {' '.join(stamps(version))}", "-o", str(unfinished)]
        run([*words, f"k8s.io/kubernetes/cmd/{command}"], cwd=toolchain.source, env=env, timeout=COMPILE_TIMEOUT)
        unfinished.rename(target)


def stamps(version: str) -> list[str]:
    """Return the linker's arguments that make a binary say `version` (hack/lib/version.sh of Kubernetes)."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": _COMMIT,
        "buildDate": BUILD_DATE,
    }
    return [
        f"-X k8s.io/kubernetes/vendor/k8s.io/{package}.{name}={value}"
        for package in STAMPED
        for name, value in values.items()
    ]


def _environment(toolchain: Toolchain) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GO", "KUBE"))},
        "PATH": f"{toolchain.go}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(toolchain.workspace),
        "GOPATH": str(toolchain.workspace),
        "GOCACHE": str(toolchain.workspace / "cache"),
        "GO111MODULE": "off",
        "GOPROXY": "off",
        # Static: the binaries run in images that hold nothing else.
        "CGO_ENABLED": "0",
    }
